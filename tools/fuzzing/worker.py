"""The subject: reads one file after the other and reports the results. A separate process, since it may hang or die."""

import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ...miniature.recipe import MODEL_FOLDER
from ...modelscope.checkpoints.find_parts import find_library, find_part, read_model_config
from ...modelscope.checkpoints.load import load_model
from ...modelscope.checkpoints.parts import UNET
from ...modelscope.checkpoints.weight_file import read_state, read_tensors, verify
from ...modelscope.config import ModelConfig
from ...modelscope.device import Place
from ...modelscope.errors import TextToVideoError
from ...modelscope.escape import visible
from ...modelscope.lora.lora_file import read_lora
from ...t2v_helpers.hosts.console import ConsoleHost
from ...t2v_helpers.infotext import read_infotext
from ...t2v_helpers.models.doctor import examine
from ...t2v_helpers.models.folders import ModelFolder
from ...t2v_helpers.models.known import good_values
from ...t2v_helpers.video.ffmpeg import find_ffmpeg
from ...t2v_helpers.video.metadata import read_tags

ADDRESS_SPACE = 8 << 30
CPU = Place(torch.device("cpu"), torch.float32)
_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_FORBIDDEN = re.compile(
    r"os\.(system|exec|spawn|fork|posix_spawn|startfile|remove|rename|mkdir|rmdir)|socket\.|exec$|pty\."
)


class _Watch:
    """An audit hook that notes what no reader may do: run code, write files, import what untrusted files name."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._ffmpeg = find_ffmpeg()

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self._is_wrong(event, args):
            self.seen.append(f"{event} {args!r}"[:200])

    def _is_wrong(self, event: str, args: tuple[Any, ...]) -> bool:
        if event == "subprocess.Popen":
            return str(args[0]) != self._ffmpeg
        if event == "import":
            return str(args[0]).startswith("fuzz_canary")
        if event == "open":
            writes = isinstance(args[2], int) and bool(args[2] & (os.O_WRONLY | os.O_RDWR))
            return writes and str(args[0]) not in (os.devnull, str(_CLEAR))
        return _FORBIDDEN.match(event) is not None


class Subject:
    """The readers by name. Each takes a path, and returns normally if the file can be read."""

    def __init__(self) -> None:
        self._model = load_model(MODEL_FOLDER, CPU)
        self._host = ConsoleHost(device="cpu")
        self.readers: dict[str, Callable[[Path], object]] = {
            "weights, zip": _read_weights,
            "weights, before torch 1.6": _read_weights,
            "weights, safetensors": _read_weights,
            "LoRA": lambda path: read_lora(path, self._model),
            "configuration": self._read_configuration,
            "configuration, diffusers": lambda path: read_model_config(path.parents[1]),
            "index": lambda path: find_part(UNET, path.parents[1], ModelConfig(), find_library(path.parents[1])),
            "infotext": lambda path: read_infotext(read_tags(path)),
        }

    def _read_configuration(self, path: Path) -> None:
        good_values(path.parent)
        for diagnosis in examine(self._host, [ModelFolder("model", path.parent)]):
            for finding in diagnosis.findings:
                if "Please report it" in finding.text:
                    raise AssertionError(finding.text)


def _read_weights(path: Path) -> None:
    """Read a file with all its numbers: mapped, copied, and as the doctor does."""
    for tensor in read_tensors(path).values():
        tensor.reshape(-1).view(torch.uint8).sum() if tensor.is_contiguous() else tensor.clone()
    read_state(path, mapped=False)
    verify(path)


def answer(subject: Subject, watch: _Watch, reader: str, path: Path) -> dict[str, Any]:
    """Read one file. outcome: accepted, refused, traceback or code."""
    watch.seen.clear()
    before, start = _begin_memory(), time.monotonic()
    try:
        subject.readers[reader](path)
        outcome, words = "accepted", ""
    except TextToVideoError as error:
        outcome, words = _is_shown_as_is(str(error))
    except Exception:  # noqa: BLE001 - what is looked for
        outcome, words = "traceback", traceback.format_exc()
    if watch.seen:
        outcome, words = "code", "; ".join(watch.seen)
    return {"outcome": outcome, "words": words, "seconds": time.monotonic() - start, "memory": _peak() - before}


def _is_shown_as_is(words: str) -> tuple[str, str]:
    """Return the outcome for an error: refused if its message can be shown as it is, else traceback."""
    unfit = words != visible(words) or "Traceback" in words or os.environ.get("FUZZ_SECRET", "-") in words
    return ("traceback" if unfit else "refused"), words


def _begin_memory() -> int:
    """Return the number of bytes in use now, and reset the system's count of their peak."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(key: str) -> int:
    if not _STATUS.exists():
        return 0
    found = re.search(rf"{key}:\s+(\d+)", _STATUS.read_text())
    return 1024 * int(found[1]) if found else 0


def _warm_up() -> None:
    """Import what readers import at their first use: it would look as if a file had run code."""
    Image.init()
    read_infotext("a\nSteps: 1, Sampler: DDIM, Seed: 1")
    for codec in ("utf-16-be", "unicode_escape"):
        "a".encode(codec).decode(codec)


def main(subject: Subject) -> None:
    """Answer lines that name a reader and a path, one after the other."""
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    watch = _Watch()
    _warm_up()
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    sys.addaudithook(watch)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        reader, _, path = line.rstrip("\n").partition("\t")
        answers.write(json.dumps(answer(subject, watch, reader, Path(path))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(Subject())

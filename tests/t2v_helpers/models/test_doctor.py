"""What the doctor says of models that are sound, and of a gallery of broken ones."""

import json
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sd_t2v.benchmarks.layouts import as_bin, as_safetensors, write_diffusers
from sd_t2v.modelscope.checkpoints.find_parts import Source
from sd_t2v.modelscope.checkpoints.parts import Part
from sd_t2v.modelscope.config import ModelConfig
from sd_t2v.modelscope.errors import ModelError
from sd_t2v.modelscope.files import hash_file
from sd_t2v.t2v_helpers.commands.models import main
from sd_t2v.t2v_helpers.hosts.console import ConsoleHost
from sd_t2v.t2v_helpers.models import doctor
from sd_t2v.t2v_helpers.models.doctor import Diagnosis, examine
from sd_t2v.t2v_helpers.models.folders import ModelFolder
from sd_t2v.t2v_helpers.models.known import KNOWN, RemoteFile, good_values
from sd_t2v.t2v_helpers.models.misplaced import Misplaced, find_misplaced, move
from sd_t2v.tests.helpers.support import small_model, write_model_folder

UNET, VAE, CLIP = "text2video_pytorch_model.pth", "VQGAN_autoencoder.pth", "open_clip_pytorch_model.bin"


def diagnosis(folder: Path) -> Diagnosis:
    (found,) = examine(ConsoleHost(device="cpu"), [ModelFolder("model", folder)])
    return found


def lines(found: Diagnosis) -> list[str]:
    return [f"{finding.subject}: {finding.text}" for finding in found.findings]


def test_a_sound_model_has_a_line_for_each_part(tmp_path: Path) -> None:
    found = diagnosis(write_model_folder(tmp_path / "t2v"))
    assert found.valid
    configuration, text, unet, vae, memory = lines(found)
    assert configuration == "configuration: configuration.json"
    assert text == f"text encoder: {CLIP}, original layout, bin, 3.3 MB, float16"
    assert unet == f"UNet: {UNET}, original layout, pth, 8.6 MB, float16"
    assert vae.startswith(f"autoencoder: {VAE}, original layout, pth, ")
    assert "24 frames of 256 x 256 need" in memory


def test_a_sound_model_of_diffusers(tmp_path: Path) -> None:
    found = diagnosis(write_diffusers(tmp_path / "model", as_safetensors, small_model()))
    assert found.valid
    assert "config.json of each part" in lines(found)[0]
    assert "diffusers' layout, safetensors, " in lines(found)[2]


def flipped(path: Path) -> None:
    """One bit in the middle of the numbers, which no reader of the file notices."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_by_a_thorough_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_model_folder(tmp_path / "t2v")
    assert main(["doctor", str(folder), "--thorough", "--models-dir", str(tmp_path)]) == 0
    flipped(folder / UNET)
    assert diagnosis(folder).valid
    capsys.readouterr()
    assert main(["doctor", str(folder), "--thorough", "--models-dir", str(tmp_path)]) == 1
    assert "inside it does not match its checksum" in capsys.readouterr().out


def test_a_known_file_with_another_hash_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model_folder(tmp_path / "t2v", ".safetensors")
    path = folder / "VQGAN_autoencoder.safetensors"
    known = RemoteFile("some/one", path.name, path.name, path.stat().st_size, hash_file(path)[:12])
    monkeypatch.setattr(doctor, "KNOWN", (KNOWN[0]._replace(files=(known,)),))
    assert thorough(folder).valid
    flipped(path)
    assert "has the size of a known file, but another SHA-256" in thorough(folder).findings[3].text


def thorough(folder: Path) -> Diagnosis:
    (found,) = examine(ConsoleHost(device="cpu"), [ModelFolder("model", folder)], verify_files=True)
    return found


def test_what_is_borrowed_is_said(tmp_path: Path) -> None:
    lender = write_model_folder(tmp_path / "t2v")
    folder = write_model_folder(tmp_path / "zs2_576w")
    (folder / VAE).unlink()
    assert f"borrowed from {lender}" in lines(diagnosis(folder))[3]


def html(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html><title>Sign in</title>", encoding="utf-8")


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2\n", encoding="utf-8")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def payload(path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (exec, ("raise SystemError('the payload ran')",))

    torch.save({"weight": torch.zeros(2), "bad": Payload()}, path)


def foreign(*names: str) -> Callable[[Path], None]:
    return lambda path: torch.save({name: torch.zeros(2) for name in names}, path)


def absurd(path: Path) -> None:
    """A tensor of a thousand billion numbers, which would be terabytes."""
    header = json.dumps({"x": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}).encode()
    path.unlink()
    path.with_suffix(".safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))


def endless(path: Path) -> None:
    """The same, of one number that is everywhere."""
    tensors = torch.load(path, weights_only=True)
    tensors["out.2.weight"] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(tensors, path)


def claiming(path: Path) -> None:
    """A file from before torch 1.6 that says it holds a thousand billion numbers."""
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    few, many = b"M" + struct.pack("<H", 1000), b"\x8a\x08" + struct.pack("<q", 10**12)
    path.write_bytes(path.read_bytes().replace(few, many))


def bomb(path: Path) -> None:
    """Zeros that were packed: ten megabytes in ten kilobytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}))
        archive.writestr("x/version", "3")
        archive.writestr("x/data/0", bytes(10**7))


def without_some(path: Path) -> None:
    tensors = torch.load(path, weights_only=True)
    torch.save(dict(list(tensors.items())[:-3]), path)


def in_whole_numbers(path: Path) -> None:
    tensors = torch.load(path, weights_only=True)
    torch.save(tensors | {"out.2.bias": torch.zeros(4, dtype=torch.int8)}, path)


def outside(path: Path) -> None:
    (path.parent / VAE).rename(path.parents[2] / VAE)
    path.write_text(path.read_text().replace(VAE, f"../../{VAE}"))


def recommending(values: dict[str, Any]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        document = json.loads(path.read_text(encoding="utf-8"))
        document["model"]["recommended"] = values
        path.write_text(json.dumps(document), encoding="utf-8")

    return spoil


def test_a_configuration_fills_in_no_more_than_it_should(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "t2v")
    values = {"steps": 7, "soundtrack": "/etc/passwd", "prompt": "x", "batch_count": 9, "unheard_of": 1}
    recommending(values)(folder / "configuration.json")
    assert good_values(folder) == {"steps": 7}


GALLERY: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "configuration saved as a web page": ("configuration.json", html, "Delete it to use the 1.7B model's"),
    "configuration cut": ("configuration.json", cut, "is not the model's configuration"),
    "configuration of something else": ("configuration.json", lambda p: p.write_text("{}"), "is not the model's"),
    "configuration with sizes of no network": (
        "configuration.json",
        lambda p: p.write_text(p.read_text().replace('"unet_dim": 32', '"unet_dim": 999999999')),
        "unet_dim must be from 1 to",
    ),
    "configuration that recommends nothing": (
        "configuration.json",
        recommending({"steps": None}),
        "its recommended values are invalid. Steps must",
    ),
    "configuration gone, so that the sizes are the 1.7B's": ("configuration.json", Path.unlink, "with another shape"),
    "UNet saved as a web page": (UNET, html, "is a web page"),
    "UNet is a pointer": (UNET, pointer, "Git LFS pointer"),
    "UNet empty": (UNET, lambda p: p.write_bytes(b""), "is empty"),
    "UNet cut": (UNET, cut, "the download is not complete"),
    "UNet gone": (UNET, Path.unlink, "is missing"),
    "UNet on its way": (UNET, lambda p: p.rename(f"{p}.crdownload"), "is an unfinished download. Wait"),
    "UNet is a folder": (UNET, lambda p: (p.unlink(), p.mkdir()), "is missing"),
    "UNet is text": (UNET, lambda p: p.write_text("hello"), "damaged or not fully downloaded"),
    "UNet with code": (UNET, payload, "Nothing in it was run"),
    "UNet is Stable Diffusion": (
        UNET,
        foreign("model.diffusion_model.time_embed.0.weight"),
        "a Stable Diffusion check",
    ),
    "UNet is SDXL": (UNET, foreign("conditioner.embedders.1.model.ln_final.x"), "an SDXL checkpoint"),
    "UNet is a motion module": (UNET, foreign("down_blocks.0.motion_modules.0.x"), "an AnimateDiff motion module"),
    "UNet is a LoRA": (UNET, foreign("lora_unet_mid_block.lora_up.weight"), "belongs in the LoRA folder"),
    "UNet is the text encoder": (
        UNET,
        lambda p: shutil.copy(p.parent / CLIP, p),
        "holds the text encoder, not the UNet",
    ),
    "UNet without its last tensors": (UNET, without_some, "3 missing"),
    "UNet with whole numbers": (UNET, in_whole_numbers, "1 without floating-point numbers"),
    "UNet as large as no disk": (UNET, absurd, "damaged or not fully downloaded"),
    "UNet with a tensor without end": (UNET, endless, "repeats its numbers"),
    "UNet that claims too much": (UNET, claiming, "damaged or not fully downloaded"),
    "UNet packed": (UNET, bomb, "is compressed, but torch never"),
    "text encoder saved as a web page": (CLIP, html, "is a web page"),
    "text encoder cut": (CLIP, cut, "the download is not complete"),
    "text encoder gone": (CLIP, Path.unlink, "is missing"),
    "text encoder is the UNet": (
        CLIP,
        lambda p: shutil.copy(p.parent / UNET, p),
        "holds the UNet, not the text encoder",
    ),
    "autoencoder is a pointer": (VAE, pointer, "Git LFS pointer"),
    "autoencoder gone, and nobody to lend one": (VAE, Path.unlink, "install another model that has one"),
    "autoencoder is a list": (VAE, lambda p: torch.save([torch.zeros(2)], p), "contains no named weights"),
    "autoencoder outside": (
        "configuration.json",
        outside,
        "which is outside",
    ),
}


@pytest.mark.parametrize("name", GALLERY)
def test_the_gallery(tmp_path: Path, name: str) -> None:
    file, spoil, expected = GALLERY[name]
    folder = write_model_folder(tmp_path / "models" / "t2v")
    spoil(folder / file)
    found = diagnosis(folder)
    wrong = [finding.text for finding in found.findings if not finding.valid]
    assert any(expected in text for text in wrong), wrong
    assert all(str(folder) in text for text in wrong)


def test_a_shard_and_a_part_that_are_gone(tmp_path: Path) -> None:
    folder = write_diffusers(tmp_path / "model", as_bin, small_model())
    shutil.rmtree(folder / "text_encoder")
    (wrong,) = [finding for finding in diagnosis(folder).findings if not finding.valid]
    assert wrong.subject == "text encoder"
    assert "text_encoder/model.safetensors: is missing (the folder holds nothing)" in wrong.text


def configured(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"model": {"type": "latent-text-to-video-synthesis"}}', encoding="utf-8")
    return path


def filled(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_files_in_wrong_folders_are_found_and_moved(tmp_path: Path) -> None:
    models, downloads = tmp_path / "models", tmp_path / "Downloads"
    base, further = models / "ModelScope" / "t2v", models / "text2video"
    expected = {
        filled(models / "Stable-diffusion" / "ModelScope" / "t2v" / UNET): base / UNET,
        configured(models / "Stable-diffusion" / "ModelScope" / "t2v" / "configuration.json"): base
        / "configuration.json",
        filled(models / "ModelScope" / VAE): base / VAE,
        filled(models / "Stable-diffusion" / "potat1" / CLIP): further / "potat1" / CLIP,
        filled(downloads / "open_clip_pytorch_model (1).bin"): base / CLIP,
    }
    filled(models / "Stable-diffusion" / "sd15.safetensors")
    filled(downloads / "configuration.json")
    filled(base / "other.pth")
    filled(further / "model" / UNET)
    found = find_misplaced(models, downloads)
    assert {one.path: one.goal for one in found} == expected
    filled(base / VAE)
    said = move(found)
    assert sum("was not moved" in line for line in said) == 1
    assert [goal.is_file() for goal in expected.values()] == [True] * 5
    assert (models / "ModelScope" / VAE).exists()
    assert [one.path for one in find_misplaced(models, downloads)] == [models / "ModelScope" / VAE]


def test_loose_files_among_further_models_and_at_the_top(tmp_path: Path) -> None:
    loose = filled(tmp_path / "text2video" / UNET)
    top = filled(tmp_path / VAE)
    assert sorted(find_misplaced(tmp_path)) == [
        Misplaced(top, tmp_path / "ModelScope" / "t2v" / VAE),
        Misplaced(loose, tmp_path / "ModelScope" / "t2v" / UNET),
    ]


def test_whole_models_and_archives_unpacked_twice(tmp_path: Path) -> None:
    models = tmp_path / "models"
    base = models / "ModelScope" / "t2v"
    diffusers = write_diffusers(models / "Stable-diffusion" / "zeroscope", as_bin, small_model())
    (diffusers / "unet" / "config.json").write_text('{"_class_name": "UNet3DConditionModel"}', encoding="utf-8")
    picture = models / "Stable-diffusion" / "sd" / "unet" / "config.json"
    filled(picture).write_text('{"_class_name": "UNet2DConditionModel"}', encoding="utf-8")
    for right in (base, models / "text2video" / "right"):
        filled(right / "unet" / "config.json").write_text('{"_class_name": "UNet3DConditionModel"}', encoding="utf-8")
    twice = filled(base / "t2v" / UNET)
    (models / "Stable-diffusion" / VAE).touch()  # Firefox has just begun with it
    found = find_misplaced(models)
    goal = models / "text2video" / "zeroscope"
    assert sorted(found) == sorted([Misplaced(diffusers, goal), Misplaced(twice, base / UNET)])
    move(found)
    assert (goal / "unet" / "diffusion_pytorch_model.bin").is_file()
    assert not diffusers.exists()
    assert sorted(path.name for path in models.rglob("*.part")) == []


def test_one_that_cannot_be_moved_keeps_no_other_from_it(tmp_path: Path) -> None:
    models = tmp_path / "models"
    base = models / "ModelScope" / "t2v"
    first, second = filled(models / "VAE" / f"{Path(UNET).stem} (1).pth"), filled(models / "VAE" / UNET)
    second.write_bytes(b"the one without a number")
    clip = filled(models / "Lora" / CLIP)
    precious = filled(base / f"{UNET}.part")
    found = find_misplaced(models)
    clip.unlink()
    with pytest.raises(ModelError) as told:
        move(found)
    assert f"{second} was moved to {base / UNET}" in str(told.value)
    assert f"{first} was not moved" in str(told.value)
    assert f"{clip} could not be moved" in str(told.value)
    assert (base / UNET).read_bytes() == b"the one without a number"
    assert precious.read_bytes() == b"x"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_are_not_moved(tmp_path: Path) -> None:
    real = filled(tmp_path / "disk" / UNET)
    link = tmp_path / "models" / "VAE" / UNET
    link.parent.mkdir(parents=True)
    link.symlink_to("../../disk/" + UNET)
    (link.parent / VAE).symlink_to("nowhere")
    (said,) = move(find_misplaced(tmp_path / "models"))
    assert "a link to" in said and str(real) in said and link.is_symlink()


def test_a_folder_that_nobody_can_examine_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [write_model_folder(tmp_path / name) for name in ("a", "b")]
    load_part = doctor.load_part

    def surprised(part: Part, source: Source, config: ModelConfig) -> object:
        if source.named.parent == folders[0]:
            raise AttributeError("surprise")
        return load_part(part, source, config)

    monkeypatch.setattr(doctor, "load_part", surprised)
    first, second = (diagnosis(folder) for folder in folders)
    assert "cannot be examined (AttributeError: surprise)" in first.findings[-1].text
    assert second.valid and not first.valid


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    models = tmp_path / "models"
    write_model_folder(models / "Stable-diffusion" / "t2v")
    assert main(["doctor", "--models-dir", str(models)]) == 1
    said = capsys.readouterr().out
    assert "--move moves it" in said
    assert "No weights yet" in said and "run.py download" in said
    assert main(["doctor", "--models-dir", str(models), "--move"]) == 0
    said = capsys.readouterr().out
    assert f"ok    UNet: {UNET}, original layout" in said
    html(models / "ModelScope" / "t2v" / UNET)
    assert main(["doctor", "<modelscope>", "--models-dir", str(models)]) == 1
    assert "WRONG UNet" in capsys.readouterr().out
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    assert main(["doctor", str(tmp_path / "x.safetensors")]) == 1
    assert "does not fit the UNet" in capsys.readouterr().out


def test_a_mistyped_models_folder_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["download", "modelscope", "--yes", "--models-dir", "/no/such"])
    assert "there is no folder '/no/such'" in capsys.readouterr().err


def test_a_file_with_nothing_of_a_model_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    save_file({"lora_unet_mid_block.lora_up.weight": torch.zeros(1)}, path)
    (wrong,) = [finding for finding in diagnosis(path).findings if not finding.valid]
    assert "looks like a LoRA, which belongs in the LoRA folder" in wrong.text


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_too_little_memory_is_told_from_damage(tmp_path: Path) -> None:
    """A sound file, mapped by a process that may not have so much."""
    path = tmp_path / "old.pth"
    torch.save({"a": torch.ones(75_000_000)}, path, _use_new_zipfile_serialization=False)
    program = f"""
import resource
from pathlib import Path
import psutil
from sd_t2v.modelscope.checkpoints.weight_file import read_tensors
had = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (had + 100_000_000, had + 100_000_000))
psutil.virtual_memory = lambda: type("Memory", (), dict(available=100_000_000))
read_tensors(Path({str(path)!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert "ModelError" in done.stderr
    assert "too little memory to read it. The file may be fine" in done.stderr


def test_a_thorough_look_says_where_there_is_nothing_to_compare(tmp_path: Path) -> None:
    (one,) = examine(
        ConsoleHost(), [ModelFolder("m", write_model_folder(tmp_path / "m", ".safetensors"))], verify_files=True
    )
    assert all("no known checksum" in finding.text for finding in one.findings[1:4])
    (one,) = examine(ConsoleHost(), [ModelFolder("m", write_model_folder(tmp_path / "n"))], verify_files=True)
    assert not any("no known checksum" in finding.text for finding in one.findings)

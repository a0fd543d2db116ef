"""Settings as text: written in the WebUI's syntax, read back from ours, the WebUI's and the 2023 extension's."""

import dataclasses
import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sd_t2v.modelscope.sampling.catalogue import sampler_names
from sd_t2v.t2v_helpers.infotext import (
    FOLDED,
    KEYS,
    LEFT_OUT,
    MAX_LENGTH,
    OF_SOURCES,
    fields_of_pairs,
    read_infotext,
    read_sources,
    write_infotext,
)
from sd_t2v.t2v_helpers.request import GenerationRequest
from sd_t2v.t2v_helpers.video.ffmpeg import ask_ffmpeg
from sd_t2v.t2v_helpers.video.metadata import UnreadableFile, read_tags
from sd_t2v.t2v_helpers.video.source import CROP, FIT

REQUEST = GenerationRequest(
    prompt="a red ball, moving: left", negative_prompt="blurry\nugly", seed=7, cfg_scale=7.25, width=320, height=200
)
OLD_COMMENT = (
    "a cat\nNegative prompt: text, watermark\nsteps: 30, frames: 24, seed: 123, scale: 17, width: 256, height: 192, "
    "eta: 0.5, cpu_vae: GPU (half precision), device: cuda, skip_steps: 0, strength: 1, is_vid2vid: 0, "
    "sampler: DDIM_Gaussian"
)


def test_is_written_as_the_webui_writes_it() -> None:
    assert write_infotext(REQUEST, "my, model") == (
        "a red ball, moving: left\nNegative prompt: blurry\nugly\nSteps: 25, Sampler: DPM++ 2M, CFG scale: 7.25, "
        'Seed: 7, Size: 320x200, Frames: 24, FPS: 8, Model: "my, model", Version: text2video 0.2.0'
    )


def test_everything_that_shapes_the_frames_is_in_it() -> None:
    outside = {"batch_count", "formats", "soundtrack", "source", "image", "mask", "long_videos"}
    covered = {*KEYS, "prompt", "negative_prompt", "width", "height"}
    assert {field.name for field in dataclasses.fields(GenerationRequest)} == covered | outside


PRINTABLE = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])
REQUESTS = st.builds(
    GenerationRequest,
    prompt=st.text(PRINTABLE).map(str.strip).filter(lambda text: "Negative" not in text),
    negative_prompt=st.text(PRINTABLE).map(str.strip),
    cfg_scale=st.floats(0, 100),
    fps=st.floats(1, 120),
    eta=st.floats(0, 1),
    cfg_rescale=st.floats(0, 1),
    cfg_from=st.floats(0, 0.5),
    cfg_until=st.floats(0.5, 1),
    draft=st.integers(1, 10),
    seed=st.integers(0, 2**32 - 1),
    sampler=st.sampled_from(sampler_names()),
    source=st.sampled_from(["", "a.mp4"]),
    strength=st.floats(0, 1),
    resize_mode=st.sampled_from([CROP, FIT]),
)


@settings(max_examples=200, deadline=None)
@given(request=REQUESTS, model=st.text(PRINTABLE, min_size=1).map(str.strip).filter(bool))
def test_comes_back_as_it_was(request: GenerationRequest, model: str) -> None:
    found = read_infotext(write_infotext(request, model))
    assert found.pop("model") == model
    # A file is not restored, and what is done with it is not written without one.
    plain = {name: FOLDED[name] for name in OF_SOURCES} if not request.source else {}
    assert GenerationRequest(**found) == dataclasses.replace(request, source="", **plain)


def test_the_2023_extensions_comments_are_read() -> None:
    assert read_infotext(OLD_COMMENT) == {
        "prompt": "a cat",
        "negative_prompt": "text, watermark",
        "steps": 30,
        "frames": 24,
        "seed": 123,
        "cfg_scale": 17.0,
        "width": 256,
        "height": 192,
        **FOLDED,
        "eta": 0.5,
        "sampler": "DDIM_Gaussian",
    }


def test_an_images_infotext_gives_what_fits() -> None:
    text = (
        "girl\nSteps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 9, Size: 512x768, Clip skip: 2"
    )
    assert read_infotext(text) == {
        "prompt": "girl", "negative_prompt": "", "steps": 20, "sampler": "Euler a", "cfg_scale": 7.0, "seed": 9,
        "width": 512, "height": 768, **FOLDED,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", {}),
        ("a\nb", {"prompt": "a\nb", "negative_prompt": ""}),
        ("Negative prompt: n", {"prompt": "", "negative_prompt": "n"}),
        ("p\nSteps: 0, Seed: 1e999, Frames: -1, FPS: nan", {"prompt": "p", "negative_prompt": ""}),
        (
            "p\nSteps: 5, Seed: <b>, Size: 99999x99999, Sampler: LMS",
            {"prompt": "p", "negative_prompt": "", **FOLDED, "steps": 5},
        ),
        (
            'p\nSteps: "5, Seed: "7", Size: 64x64',
            {"prompt": "p", "negative_prompt": "", **FOLDED, "seed": 7, "width": 64, "height": 64},
        ),
    ],
)
def test_what_is_no_value_is_left_out(text: str, kept: dict[str, object]) -> None:
    assert read_infotext(text) == kept


@pytest.mark.parametrize("piece", ["x", " ", "x:", 'x:"', "\\", "x ", "\n"])
def test_endless_text_is_read_at_once(piece: str) -> None:
    start = time.monotonic()
    read_infotext(piece * (2 * MAX_LENGTH))
    assert time.monotonic() - start < 10


def test_the_webuis_own_pairs_are_understood() -> None:
    assert fields_of_pairs({"Size": "64x128", "Model": "m", "Clip skip": "1"}) == {
        "width": 64,
        "height": 128,
        "model": "m",
        **LEFT_OUT,
    }
    assert fields_of_pairs({"Clip skip": "1"}) == {}


def test_fields_that_settings_leave_out_are_told_too() -> None:
    found = read_infotext(write_infotext(GenerationRequest(prompt="", seed=1), "m"))
    assert {name: found[name] for name in LEFT_OUT} == LEFT_OUT


def test_a_gif_with_a_comment_of_many_megabytes_is_read_in_time(tmp_path: Path) -> None:
    screen, comment = b"GIF89a\x10\0\x10\0\0\0\0", b"\x21\xfe" + (b"\xff" + b"a" * 255) * 120_000 + b"\0\x3b"
    (tmp_path / "a.gif").write_bytes(screen + comment)
    before = time.process_time()
    with suppress(UnreadableFile):
        read_tags(tmp_path / "a.gif")
    assert time.process_time() - before < 10


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_a_comment_that_another_program_wrote_is_read(mode: str, tmp_path: Path) -> None:
    text = "ein Häschen " * 60
    Image.new(mode, (9, 7)).save(tmp_path / "a.gif", comment=text.encode(), save_all=True, append_images=[])
    assert read_tags(tmp_path / "a.gif") == text


def test_a_picture_of_more_pixels_than_any_is_left_alone(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(16_000 * 8 + 1)) for _ in range(16_000)) + packer.flush()
    header = struct.pack(">IIBBBBB", 16_000, 16_000, 16, 6, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    with pytest.raises(UnreadableFile, match="more pixels"):
        read_tags(tmp_path / "a.png")
    with pytest.raises(OSError, match="cannot read"):
        ask_ffmpeg(tmp_path / "a.png", "-f", "ffmetadata", "-")


def test_what_a_video_was_made_from_is_read_back() -> None:
    about = {
        "Source": "a, b.mp4",
        "Source hash": "0123456789",
        "Images": "0=a.png (ab); 7=b.png (cd)",
        "Mask": "m.png (ef)",
    }
    text = write_infotext(REQUEST, "model", about)
    assert read_sources(text) == ["a, b.mp4 (0123456789)", "0=a.png (ab); 7=b.png (cd)", "m.png (ef)"]
    assert read_sources(write_infotext(REQUEST, "model")) == []

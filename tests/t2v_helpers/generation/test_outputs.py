"""Names of folders and files: patterns as the WebUI's, nothing overwritten, nothing outside of the folder."""

import datetime
import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sd_t2v.t2v_helpers.generation.outputs import (
    LONGEST_NAME,
    Destination,
    chosen_folder,
    make_folder,
    pattern_values,
    reserved_stem,
)
from sd_t2v.t2v_helpers.request import GenerationRequest
from sd_t2v.t2v_helpers.video.ffmpeg import OutputError

REQUEST = GenerationRequest(prompt="a red ball: moving/left", seed=5, steps=12, width=64, height=72)
VALUES = pattern_values(REQUEST, "<modelscope>")


def stem(folder: Path, pattern: str, values: dict[str, str] = VALUES) -> str:
    with reserved_stem(folder, pattern, values) as path:
        path.with_name(path.name + ".mp4").touch()
        return path.name


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("[number]-[seed]", "00000-5"),
        ("[seed]_[steps]_[cfg]_[sampler]_[width]x[height]_[frames]f", "5_12_9_DPM++ 2M_64x72_24f"),
        ("[model_name] [prompt]", "modelscope a red ball_ moving_left"),
        ("[prompt_words]", "a red ball moving left"),
        ("[unknown] [seed", "[unknown] [seed"),
        ("[datetime<%Y>]", str(datetime.date.today().year)),
        ("[prompt_hash]", "3ef6ef67"),
        ("", "video"),
        ("..", "video"),
        ("con", "_con"),
        ("COM¹.x", "_COM¹.x"),
        ("conin$", "_conin$"),
        ("nul .x", "_nul .x"),
        ("half \ud83c", "half _"),
        ("a\0b", "a_b"),
        ("a/../../b", "a_.._.._b"),
    ],
)
def test_patterns(pattern: str, name: str, tmp_path: Path) -> None:
    assert stem(tmp_path, pattern) == name


def test_numbers_go_on_and_other_names_get_one(tmp_path: Path) -> None:
    (tmp_path / "00041-9.mp4").touch()
    (tmp_path / "20260101120000.txt").touch()
    assert [stem(tmp_path, "[number]-[seed]") for _ in range(2)] == ["00042-5", "00043-5"]
    assert [stem(tmp_path, "[seed]") for _ in range(3)] == ["5", "5-1", "5-2"]


def test_numbers_may_stand_anywhere(tmp_path: Path) -> None:
    today = datetime.date.today().isoformat()
    assert [stem(tmp_path, "[date]-[number]") for _ in range(2)] == [f"{today}-00000", f"{today}-00001"]
    assert [stem(tmp_path, "clip [number]") for _ in range(2)] == ["clip 00000", "clip 00001"]


def test_long_names_fit_whatever_their_letters(tmp_path: Path) -> None:
    name = stem(tmp_path, "[prompt]", VALUES | {"prompt": "红色的球" * 100})
    assert name == ("红色的球" * 100)[:66]


@pytest.mark.parametrize("letter", ["a", "红", "🎥", "aя", "éa红"])
def test_a_long_prompt_leaves_the_rest_of_the_name(letter: str, tmp_path: Path) -> None:
    long = VALUES | {"prompt": letter * 400}
    names = [stem(tmp_path, "[prompt]-[seed]-[number]", long) for _ in range(2)]
    assert [name.partition("-")[2] for name in names] == ["5-00000", "5-00001"]
    assert all((len(name) <= 120 and 190 < len(name.encode()) <= 200) or len(name) == 120 for name in names)
    (mixed,) = (stem(tmp_path, "[number] [model_name] [prompt_words] [seed]", long | {"model_name": 300 * letter}),)
    assert mixed.startswith("00000 ") and mixed.endswith(" 5")


def test_a_name_taken_in_another_format_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "5.webm").touch()
    (tmp_path / "5-1").mkdir()
    (tmp_path / "5-20.mp4").touch()
    assert stem(tmp_path, "[seed]") == "5-2"


@pytest.mark.parametrize(
    ("taken", "wanted"), [("Ball.mp4", "ball"), ("stra\u00dfe", "STRASSE"), ("e\u0301.gif", "\u00c9")]
)
def test_a_name_that_differs_only_in_case_or_form_is_taken(taken: str, wanted: str, tmp_path: Path) -> None:
    (tmp_path / taken).touch()
    assert stem(tmp_path, wanted) == f"{wanted}-1"
    (tmp_path / "Clip 00007.mp4").touch()
    assert stem(tmp_path, "cLIP [number]") == "cLIP 00008"


def test_many_runs_at_once_get_different_names(tmp_path: Path) -> None:
    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.append(stem(tmp_path, "[number]"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(names) == [f"{number:05}" for number in range(16)]
    assert sorted(os.listdir(tmp_path)) == [f"{number:05}.mp4" for number in range(16)]


def test_a_failing_block_frees_its_name(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), reserved_stem(tmp_path, "x", VALUES):
        raise RuntimeError
    assert os.listdir(tmp_path) == []


@settings(max_examples=200, deadline=None)
@given(prompt=st.text(max_size=300), folder=st.text(max_size=40), name=st.text(max_size=40))
def test_no_prompt_or_pattern_leaves_the_folder(
    prompt: str, folder: str, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("root")
    values = pattern_values(GenerationRequest(prompt=prompt, seed=1), "../..")
    made = make_folder(Destination(root, f"{folder}/[prompt]/[model_name]", ""), values)
    assert made.resolve().is_relative_to(root.resolve())
    with reserved_stem(made, f"{name}[prompt]", values) as path:
        assert path.parent == made
        assert len(path.name) <= LONGEST_NAME + 1


def test_folders_follow_their_pattern(tmp_path: Path) -> None:
    made = make_folder(Destination(tmp_path, "[date]/[sampler]\\x/./..", ""), VALUES)
    parts = made.relative_to(tmp_path).parts
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", parts[0])
    assert parts[1:] == ("DPM++ 2M", "x")


@pytest.mark.parametrize("form", ["%Y/%m", "%Y\\%m", "%Y/../..//%m/"])
def test_a_date_may_bring_folders_with_it(form: str, tmp_path: Path) -> None:
    made = make_folder(Destination(tmp_path, f"[datetime<{form}>]/[prompt]", ""), VALUES)
    year, month, prompt = made.relative_to(tmp_path).parts
    assert (year, month) == tuple(datetime.date.today().strftime("%Y %m").split())
    assert prompt == "a red ball_ moving_left"


@pytest.mark.parametrize("text", ["a\0b", "half \ud83c", "~nobody-of-that-name/x"])
def test_what_no_folder_can_be_called_is_named(text: str) -> None:
    with pytest.raises(OutputError, match=r"output folder .* cannot be used"):
        chosen_folder(text)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        make_folder(Destination(tmp_path / "file", "", ""), VALUES)

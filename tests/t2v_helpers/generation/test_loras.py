"""LoRAs from the prompt to the video: tags, files, what is said about them."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sd_t2v.miniature.recipe import LORA_FILE, MODEL_FOLDER
from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.modelscope.errors import ModelError, RequestError
from sd_t2v.modelscope.lora.targets import Targets
from sd_t2v.modelscope.memory.lora_deltas import NO_LORAS, Delta, LoraDeltas
from sd_t2v.t2v_helpers.generation.lora_files import find_loras, lora_named
from sd_t2v.t2v_helpers.generation.lora_tags import LoraTag, Prompts, split_prompts, split_tags
from sd_t2v.t2v_helpers.generation.loras import choose_loras
from sd_t2v.t2v_helpers.generation.outcome import Outcome
from sd_t2v.t2v_helpers.generation.run import run
from sd_t2v.t2v_helpers.generation.turbo_request import adapt_request
from sd_t2v.t2v_helpers.hosts.console import ROOT, ConsoleHost
from sd_t2v.t2v_helpers.hosts.standalone.host import StandaloneHost
from sd_t2v.t2v_helpers.infotext import read_infotext
from sd_t2v.t2v_helpers.models.folders import ModelFolder
from sd_t2v.t2v_helpers.models.model_list import ModelList
from sd_t2v.t2v_helpers.page.model_actions import ModelActions
from sd_t2v.t2v_helpers.request import GenerationRequest
from sd_t2v.t2v_helpers.settings import EIGHT_BITS, OUTPUT_FOLDER, PLAN
from sd_t2v.tests.helpers.support import CPU, seen_in

# --- Tags


@pytest.mark.parametrize(
    ("prompt", "rest", "tags"),
    [
        ("a red ball", "a red ball", []),
        ("a <lora:bar:0.5> ball", "a  ball", [LoraTag("bar", 0.5, 0.5)]),
        ("<lora:bar>x<lora:my style_v1.2:-1>", "x", [LoraTag("bar"), LoraTag("my style_v1.2", -1, -1)]),
        ("<lora:bar:0.5:1>", "", [LoraTag("bar", 0.5, 1)]),
        ("<lora:bar:te=0.3:unet=.7>", "", [LoraTag("bar", 0.3, 0.7)]),
        ("<lora: bar : 1e0 >", "", [LoraTag("bar")]),
        ("(<lora:bar:1>:1.3) < lora:x> <3 lora:x", "(:1.3) < lora:x> <3 lora:x", [LoraTag("bar")]),
        ("<LoRA:bar:1> <lyco:x:2>", " ", [LoraTag("bar"), LoraTag("x", 2, 2)]),
        ("<lora:юникод:1>\n<lora:bar:2>", "\n", [LoraTag("юникод"), LoraTag("bar", 2, 2)]),
    ],
)
def test_tags_are_read_and_leave_the_prompt(prompt: str, rest: str, tags: list[LoraTag]) -> None:
    assert split_tags(prompt) == (rest, tags)


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("<lora:x:nan>", "must be from -10 to 10, not nan. 0.5 to 1 is usual"),
        ("<lora:x:1e9>", "from -10 to 10, not 1e"),
        ("<lora:x:-inf>", "from -10 to 10"),
        ("<lora:x:much>", "must be a number, not 'much'"),
        ("<lora:x:>", "must be a number"),
        ("<lora:>", "names no LoRA"),
        ("<lora::1>", "names no LoRA"),
        ("<hypernet:x:1>", "hypernetworks are for Stable Diffusion"),
        ("<lora:x:1:2:3>", "cannot be read"),
        ("<lora:x:dyn=3>", "cannot be read"),
        ("<lora:../x:1>", "without folders"),
        ("<lora:..:1>", "without folders"),
        ("<lora:a/b:1>", "without folders"),
        (r"<lora:a\b:1>", "without folders"),
    ],
)
def test_tags_that_cannot_be_meant_are_refused(tag: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as told:
        split_tags(f"a {tag}")
    assert tag in str(told.value)


def test_endless_tags_take_no_time() -> None:
    start = time.monotonic()
    split_tags("<lora:" * 20_000)
    split_tags("<lora:x:1>" * 2_000)
    assert time.monotonic() - start < 2


# --- Files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    loras = tmp_path / "Lora"
    for name in ("bar.safetensors", "sub/deep/ring.pt", "Other Style.ckpt", "notes.txt", ".hidden.pt", "sub/x.bin"):
        (loras / name).parent.mkdir(parents=True, exist_ok=True)
        (loras / name).write_bytes(b"")
    return loras


def test_files_are_found_below_the_folder_by_name(folder: Path) -> None:
    assert list(find_loras(folder)) == ["bar", "Other Style", "ring", "x"]
    assert (
        lora_named(find_loras(folder), "ring")
        == lora_named(find_loras(folder), "ring.pt")
        == folder / "sub" / "deep" / "ring.pt"
    )
    (folder / " spaced .pt").touch()
    assert list(find_loras(folder)) == ["bar", "Other Style", "ring", "x"]


def test_an_unknown_name_comes_with_close_ones(folder: Path) -> None:
    with pytest.raises(RequestError, match=r"no LoRA 'other stile'\. Similar names: Other Style\."):
        lora_named(find_loras(folder), "other stile")
    with pytest.raises(RequestError, match=r"LoRA files found: 4\."):
        lora_named(find_loras(folder), "zzzzzz")
    with pytest.raises(RequestError, match=r"LoRA files found: 0\."):
        lora_named(find_loras(folder / "nowhere"), "x")


def test_two_files_of_one_name_are_not_guessed_at(folder: Path) -> None:
    (folder / "sub" / "bar.pt").write_bytes(b"")
    with pytest.raises(RequestError, match=r"the LoRA name 'bar': .*bar\.safetensors and .*bar\.pt\. Rename"):
        lora_named(find_loras(folder), "bar")


def test_thousands_of_files_are_listed_without_being_opened(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"style{number}.safetensors").touch()
    if os.name != "nt":
        (tmp_path / "style7.safetensors").chmod(0)
    start = time.monotonic()
    assert len(find_loras(tmp_path)) == 3000
    with pytest.raises(RequestError, match="Similar names: "):
        lora_named(find_loras(tmp_path), "style")
    assert time.monotonic() - start < 5


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_that_lead_back_end(folder: Path) -> None:
    (folder / "sub" / "loop").symlink_to(folder, target_is_directory=True)
    assert list(find_loras(folder)) == ["bar", "Other Style", "ring", "x"]


def test_the_same_twice_adds_up_and_is_said(folder: Path) -> None:
    request = GenerationRequest(prompt="<lora:bar:0.5> a <lora:bar:0.7>", negative_prompt="b <lora:x:1>")
    prompts = split_prompts(request)
    assert prompts == Prompts(" a ", "b ", [LoraTag("bar", 0.5, 0.5), LoraTag("bar", 0.7, 0.7)], has_useless_tags=True)
    chosen = choose_loras(folder, prompts)
    ((path, tag),) = chosen.tags.items()
    assert path.name == "bar.safetensors" and (tag.text, tag.unet) == pytest.approx((1.2, 1.2))
    assert "add up to 1.2" in chosen.notes[0] and "no effect in the negative prompt" in chosen.notes[1]
    with pytest.raises(RequestError, match="named more than once: the weight must be from"):
        choose_loras(folder, split_prompts(GenerationRequest(prompt="<lora:bar:9>" * 2)))


def test_the_folder_lies_beside_the_models_or_where_the_option_says(tmp_path: Path) -> None:
    assert ConsoleHost().lora_folder() == ROOT / "models" / "Lora"
    assert ConsoleHost(loras=tmp_path).lora_folder() == tmp_path


def test_the_page_lists_them_and_adds_a_tag_to_the_prompt(folder: Path, tmp_path: Path) -> None:
    host = StandaloneHost(tmp_path, tmp_path, tmp_path / "settings.json", loras=folder)
    actions = ModelActions(host, ["prompt"], ModelList(host))
    assert actions.lora_names() == ["bar", "Other Style", "ring", "x"]
    (folder / "new.pt").touch()
    assert actions.refresh_loras()["choices"] == ["bar", "new", "Other Style", "ring", "x"]
    assert actions.add_lora("ring", "a red ball ")[1] == "a red ball  <lora:ring:1>"
    assert [actions.add_lora(name, None)[1] for name in ("ring", None, 3)] == ["<lora:ring:1>", "", ""]


def test_the_pages_folder_follows_its_models(tmp_path: Path) -> None:
    assert StandaloneHost(tmp_path, tmp_path, tmp_path / "s.json").lora_folder() == tmp_path / "Lora"


# --- T2V-Turbo's rules

TURBO = LoraDeltas(guidance=[Delta(torch.zeros(1, 1), torch.zeros(1, 1))])


def turbo(recommended: dict[str, Any] | None = None, **changes: Any) -> tuple[GenerationRequest, list[str]]:
    return adapt_request(GenerationRequest(seed=1, **changes), TURBO, recommended or {})


def test_turbo_brings_its_own_settings_and_says_so() -> None:
    request, notes = turbo()
    assert (request.sampler, request.steps, request.cfg_scale) == ("LCM", 4, 7.5)
    assert notes == ["T2V-Turbo: LCM, 4 steps, CFG scale 7.5, one pass per step."]
    assert adapt_request(request, TURBO, {}) == (request, notes)
    assert turbo({"steps": 40, "cfg_scale": 3.0}, steps=40, cfg_scale=3.0)[0].steps == 4


@pytest.mark.parametrize(
    ("changes", "kept", "words"),
    [
        ({"steps": 8}, {"steps": 8}, None),
        ({"steps": 50}, {"steps": 8}, "8 were used instead of 50"),
        ({"sampler": "Euler"}, {"sampler": "LCM"}, "instead of Euler"),
        ({"cfg_scale": 12.0}, {"cfg_scale": 12.0}, None),
        ({"cfg_scale": 30.0}, {"cfg_scale": 30.0}, "from 5 to 15: 30 is outside that range"),
        ({"negative_prompt": "blurry"}, {"negative_prompt": "blurry"}, "negative prompt has no effect"),
        ({"draft": 2}, {"draft": 1}, "Draft was turned off"),
        ({"eta": 0.5, "cfg_until": 0.5}, {"eta": 0.5}, "Eta, CFG until: no effect"),
    ],
)
def test_wishes_that_make_no_sense_with_turbo_are_said(
    changes: dict[str, Any], kept: dict[str, Any], words: str | None
) -> None:
    request, notes = turbo(**changes)
    assert {name: getattr(request, name) for name in kept} == kept
    assert len(notes) == 1 + (words is not None)
    assert words is None or words in notes[1]


def test_without_turbo_nothing_changes() -> None:
    plain = GenerationRequest(seed=1)
    assert adapt_request(plain, NO_LORAS, {}) == (plain, [])
    lcm = GenerationRequest(seed=1, sampler="LCM")
    assert "meant for T2V-Turbo" in adapt_request(lcm, NO_LORAS, {})[1][0]


# --- Whole runs with the miniature

MODEL = ModelFolder("miniature", MODEL_FOLDER)


def made(tmp_path: Path, prompt: str, loras: Path = LORA_FILE.parent, options: Any = (), **changes: Any) -> Outcome:
    host = ConsoleHost({OUTPUT_FOLDER: str(tmp_path / "videos"), **dict(options)}, "cpu", loras)
    settings = {"width": 64, "height": 64, "frames": 8, "steps": 10, "cfg_scale": 2, "seed": 3} | changes
    return run(host, MODEL, GenerationRequest(prompt=prompt, **settings))


def test_a_tag_makes_bars_and_the_infotext_restores_it(tmp_path: Path) -> None:
    prompt = "a red bar moving left <lora:bar:1>"
    outcome = made(tmp_path, prompt)
    assert not outcome.error and not outcome.notes
    assert seen_in(outcome.videos[0].files[0]) == ("red", "bar", "left")
    assert read_infotext(outcome.videos[0].infotext)["prompt"] == prompt


def test_under_other_plans_too(tmp_path: Path) -> None:
    options = {PLAN: "smallest", EIGHT_BITS: True}
    outcome = made(tmp_path, "<lora:bar>a blue bar moving right", options=options)
    assert seen_in(outcome.videos[0].files[0]) == ("blue", "bar", "right")


def test_a_turbo_list_changes_the_run_and_what_is_written_down(tmp_path: Path) -> None:
    """One that adds nothing, in the layout of T2V-Turbo's file."""
    model = load_model(MODEL_FOLDER, CPU)
    pairs = []
    for target in Targets(model).listed["unet"].values():
        ones = (1,) * (len(target.shape) - 2)
        pairs += [torch.zeros(target.shape[0], 1, *ones), torch.zeros(1, *target.shape[1:])]
    torch.save(pairs, tmp_path / "turbo.pt")
    changes = {"steps": 30, "frames": 2, "negative_prompt": "blurry"}
    outcome = made(tmp_path, "a ball <lora:turbo:1>", tmp_path, **changes)
    assert not outcome.error
    assert outcome.notes == [
        "T2V-Turbo: LCM, 8 steps, CFG scale 7.5, one pass per step.",
        "T2V-Turbo needs 4 to 8 steps: 8 were used instead of 30.",
        "The negative prompt has no effect with T2V-Turbo.",
    ]
    assert "Steps: 8, Sampler: LCM, CFG scale: 7.5" in outcome.videos[0].infotext


@pytest.mark.parametrize(
    ("prompt", "kind", "words"),
    [
        ("<lora:baz:1>", RequestError, "Similar names: bar"),
        ("<lora:bar:nan>", RequestError, "from -10 to 10"),
        ("<lora:broken:1>", ModelError, r"broken\.safetensors: is empty"),
    ],
)
def test_what_cannot_be_worn_ends_the_run_before_it_begins(
    prompt: str, kind: type[Exception], words: str, tmp_path: Path
) -> None:
    loras = tmp_path / "Lora"
    loras.mkdir()
    (loras / "broken.safetensors").touch()
    (loras / "bar.safetensors").write_bytes(LORA_FILE.read_bytes())
    outcome = made(tmp_path, prompt, loras)
    assert isinstance(outcome.error, kind) and not outcome.videos
    with pytest.raises(kind, match=words):
        raise outcome.error

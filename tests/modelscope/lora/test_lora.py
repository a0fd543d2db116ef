"""LoRAs of every format beside their trainers' own results, under every memory plan, and gone without a trace."""

import copy
import functools
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sd_t2v.benchmarks.rivals import diffusers_unet
from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.modelscope.config import ModelConfig
from sd_t2v.modelscope.device import Place
from sd_t2v.modelscope.errors import ModelError
from sd_t2v.modelscope.lora.join_loras import join_loras
from sd_t2v.modelscope.lora.lora_file import read_lora
from sd_t2v.modelscope.lora.targets import COND_PROJ, Targets
from sd_t2v.modelscope.memory.choice import Limits, choose_plan
from sd_t2v.modelscope.memory.lora_deltas import Delta, Deltas, LoraDeltas, fits, split_by_part
from sd_t2v.modelscope.memory.placing import place_weights
from sd_t2v.modelscope.memory.plan import BALANCED, LADDER, SMALLEST, Plan
from sd_t2v.modelscope.memory.plan_runner import PlanRunner, Task
from sd_t2v.modelscope.memory.residency import Residency, use_weights
from sd_t2v.modelscope.model import Model, outline
from sd_t2v.modelscope.network.streamable import tensors_of
from sd_t2v.modelscope.network.unet3d import UNet3D
from sd_t2v.modelscope.pipeline import encode, generate
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.modelscope.run_options import RunOptions
from sd_t2v.tests.helpers.loras import RENAMED, layers, renamed, write
from sd_t2v.tests.helpers.support import CPU, golden, golden_json, max_error, small_model, write_model_folder

NAMELESS = golden("lora_cloneofsimo_A.io")
STABLE = golden("lora_stable_A.io")
TOLERANCE = 1e-4
META = Place(torch.device("meta"), torch.float16)


@functools.cache
def folder() -> Path:
    import tempfile

    return Path(tempfile.mkdtemp())


@functools.cache
def lora(kind: str) -> LoraDeltas:
    return read_lora(write(folder(), kind), small_model())


@torch.no_grad()
def noise(loras: list[LoraDeltas], io: dict[str, Tensor], plan: Plan = BALANCED) -> Tensor:
    unet = small_model().unet
    with use_weights(unet, plan, CPU, join_loras(loras).unet):
        return unet(io["x"], io["t"].float(), unet.text_context(io["y"]), plan.chunk_budget)


@pytest.mark.parametrize(("scale", "expected"), [(0, "out_nolora"), (0.5, "out_scale0.5"), (1, "out_scale1")])
def test_lists_without_names_are_what_their_trainer_computes(scale: float, expected: str) -> None:
    one = lora("cloneofsimo")
    assert len(one.unet) == len(layers()) == 573
    assert max_error(noise([one.times(scale, scale)], NAMELESS), NAMELESS[expected]) < TOLERANCE


@pytest.mark.parametrize("kind", RENAMED)
def test_names_of_all_kinds_lead_to_the_same_weights(kind: str) -> None:
    expected = lora("cloneofsimo").unet
    assert lora(kind).unet.keys() == expected.keys()
    for name, (delta,) in lora(kind).unet.items():
        assert torch.equal(delta.up, expected[name][0].up) and torch.equal(delta.down, expected[name][0].down)


@pytest.mark.parametrize("kind", ["stable_full", "stable_webui"])
def test_stable_loras_are_what_their_trainer_computes(kind: str) -> None:
    found = noise([lora(kind)], STABLE)
    assert max_error(found, STABLE["out_trainer"]) < TOLERANCE
    assert max_error(found, STABLE["out_complete_merge"]) < TOLERANCE
    assert max_error(found, STABLE["out_kabachuha_loader"]) > 1
    assert max_error(noise([lora(kind).times(0, 0)], STABLE), STABLE["out_nolora"]) < TOLERANCE


@pytest.mark.parametrize("plan", LADDER, ids=lambda plan: plan.name)
def test_every_plan_merges_the_same(plan: Plan) -> None:
    assert max_error(noise([lora("cloneofsimo")], NAMELESS, plan), NAMELESS["out_scale1"]) < TOLERANCE


def test_several_at_once_each_with_its_weight() -> None:
    first, second = lora("cloneofsimo"), lora("stable_webui")
    both = noise([first.times(0.5, 0.5), second.times(-0.3, 0)], NAMELESS)
    swapped = noise([second.times(-0.3, 0), first.times(0.5, 0.5)], NAMELESS)
    assert max_error(both, swapped) < TOLERANCE
    unet = small_model().unet
    theirs = dict(unet.state_dict())
    for one, scale in ((first, 0.5), (second, -0.3)):
        for name, deltas in one.unet.items():
            theirs[name] = theirs[name].clone()
            for delta in deltas:
                delta.times(scale).add_to(theirs[name])
    rival = diffusers_unet(unet.config, theirs)
    with torch.no_grad():
        expected = rival(NAMELESS["x"], NAMELESS["t"], NAMELESS["y"], return_dict=False)[0]
    assert max_error(both, expected) < TOLERANCE
    assert max_error(both, noise([first.times(0.5, 0.5)], NAMELESS)) > 0.01
    halves = noise([first.times(0.5, 0)] * 2, NAMELESS)
    assert max_error(halves, NAMELESS["out_scale1"]) < TOLERANCE


REQUEST = VideoRequest(prompt="a red ball", steps=1, frames=1, width=40, height=40, seed=7, cfg_scale=3)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """From files in half precision, mapped."""
    return load_model(write_model_folder(tmp_path_factory.mktemp("model") / "t2v"), CPU)


def at_rest(model: Model) -> dict[str, Tensor]:
    parts = {"unet": model.unet, "text": model.text_encoder}
    return {f"{part}.{name}": x for part, module in parts.items() for name, x in tensors_of(module).items()}


@pytest.mark.parametrize(("plan", "eight_bits"), [(BALANCED, False), (SMALLEST, True)])
def test_nothing_is_left_of_it_bit_for_bit(half: Model, plan: Plan, eight_bits: bool) -> None:
    plan = replace(plan, eight_bits=eight_bits)
    before = at_rest(half)
    copies, without = (
        {name: x.clone() for name, x in before.items()},
        generate(Residency(half), REQUEST, RunOptions(plan=plan)),
    )
    both = [read_lora(write(folder(), "cloneofsimo"), half), read_text_lora(half)]
    changed = generate(Residency(half), REQUEST, RunOptions(plan=plan, loras=join_loras(both)))
    assert not torch.equal(changed, without)
    after = at_rest(half)
    assert all(
        after[name].data_ptr() == x.data_ptr() and torch.equal(after[name], copies[name]) for name, x in before.items()
    )
    assert torch.equal(generate(Residency(half), REQUEST, RunOptions(plan=plan)), without)


def test_single_precision_at_rest_is_copied_before_anything_is_added() -> None:
    unet = small_model().unet
    before = {name: x.clone() for name, x in tensors_of(unet).items()}
    noise([lora("cloneofsimo")], NAMELESS)
    assert all(torch.equal(x, before[name]) for name, x in tensors_of(unet).items())


def test_an_error_on_the_way_leaves_nothing_behind(half: Model) -> None:
    with pytest.raises(RuntimeError, match="halt"), place_weights(half.unet, CPU, lora("cloneofsimo").unet):
        raise RuntimeError("halt")
    assert half.unet.out[2].weight.dtype == torch.float16


def test_a_model_that_stayed_on_the_device_leaves_it_first(half: Model) -> None:
    residency, loras = Residency(half), join_loras([lora("cloneofsimo")])
    exact = generate(Residency(half), REQUEST, RunOptions(loras=loras))
    without = generate(Residency(half), REQUEST)
    residency.keep(everything=True)
    assert torch.equal(generate(residency, REQUEST, RunOptions(loras=loras)), exact)
    assert not residency.bytes_kept(half.unet, CPU.device)
    residency.keep(everything=True)
    assert torch.equal(generate(residency, REQUEST), without)
    assert residency.bytes_kept(half.unet, CPU.device)


def test_choosing_a_plan_leaves_what_is_kept_where_it_is(half: Model) -> None:
    residency, loras = Residency(half), join_loras([lora("cloneofsimo")])
    expected = choose_plan(half, REQUEST, Limits(10**9), loras)
    residency.keep(everything=True)
    before, kept = at_rest(half), residency.bytes_kept(half.unet, CPU.device)
    assert choose_plan(half, REQUEST, Limits(10**9), loras) == expected
    assert residency.bytes_kept(half.unet, CPU.device) == kept > 0
    assert all(x is before[name] for name, x in at_rest(half).items())


def test_weights_in_eight_bits_are_those_of_the_merged_network() -> None:
    """Quantized after merging: the same as a network that was saved with the LoRA in it."""
    unet, deltas = small_model().unet, lora("cloneofsimo").unet
    with place_weights(unet, CPU, deltas):
        saved = {name: x.clone() for name, x in tensors_of(unet).items()}
    other = copy.deepcopy(unet)
    other.load_state_dict(saved)
    assert torch.equal(quantized_noise(unet, deltas), quantized_noise(other, {}))


@torch.no_grad()
def quantized_noise(unet: UNet3D, deltas: Deltas) -> Tensor:
    with use_weights(unet, replace(BALANCED, eight_bits=True), CPU, deltas):
        return unet(NAMELESS["x"], NAMELESS["t"].float(), unet.text_context(NAMELESS["y"]), BALANCED.chunk_budget)


# --- The text encoder


def text_pairs(model: Model) -> Iterator[tuple[str, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    for module, target in Targets(model).listed["text"].items():
        rows, columns = target.shape
        yield (
            module,
            torch.randn(rows, 2, generator=generator) * 0.2,
            torch.randn(2, columns, generator=generator) * 0.2,
        )


TEXT_NAMES = {
    "diffusers": lambda name: f"text_encoder.text_model.{name}",
    "bare": lambda name: f"text_model.{name}",
    "original": lambda name: "transformer." + original(name),
    "stable_lora": lambda name: f"{original(name)}",
}


def original(name: str) -> str:
    words = {"encoder.layers": "resblocks", "self_attn": "attn", "fc1": "c_fc", "fc2": "c_proj"}
    return functools.reduce(lambda text, word: text.replace(word, words[word]), words, name)


def read_text_lora(model: Model, spelling: str = "diffusers") -> LoraDeltas:
    tensors = {}
    for module, up, down in text_pairs(model):
        name = TEXT_NAMES[spelling](module)
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    path = folder() / f"text_{spelling}.pt"
    torch.save(tensors, path)
    return read_lora(path, model)


@pytest.mark.parametrize("spelling", [*TEXT_NAMES, "nameless"])
@torch.no_grad()
def test_the_text_encoders_part_equals_transformers(spelling: str) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    from sd_t2v.modelscope.prompts.tokens import tokenize
    from sd_t2v.tests.modelscope.network.test_rivals import transformers_state

    model = small_model()
    config = CLIPTextConfig(
        hidden_size=32, intermediate_size=128, num_attention_heads=2, num_hidden_layers=2, hidden_act="gelu",
        projection_dim=64,
    )  # fmt: skip
    theirs = CLIPTextModel(config).eval()
    state = {key.removeprefix("text_model."): value.clone() for key, value in transformers_state().items()}
    for module, up, down in text_pairs(model):
        state[f"{module}.weight"] += up @ down
    theirs.load_state_dict({key: state[key.removeprefix("text_model.")] for key in theirs.state_dict()})
    tokens = tokenize(["a red ball moving left"])
    if spelling == "nameless":
        path = folder() / "text_list.pt"
        torch.save([x for _, up, down in text_pairs(model) for x in (up, down)], path)
        one = read_lora(path, model)
    else:
        one = read_text_lora(model, spelling)
    assert len(one.text) == 2 * 4 and not one.unet
    with use_weights(model.text_encoder, SMALLEST, CPU, one.text):
        ours = model.text_encoder(tokens)
    assert max_error(ours, theirs(tokens).last_hidden_state) < 1e-5
    assert max_error(ours, model.text_encoder(tokens)) > 0.1


def test_parts_have_weights_of_their_own(half: Model) -> None:
    one = read_text_lora(half)

    def features(loras: list[LoraDeltas]) -> Tensor:
        task = Task(half.text_encoder, "encoding", join_loras(loras).text)
        with PlanRunner(Residency(half), task, BALANCED, CPU) as runner, torch.no_grad():
            return encode(half, ["a"], runner)[0]

    assert torch.equal(features([one.times(1, 0)]), features([]))
    assert not torch.equal(features([one.times(0, 1)]), features([]))


# --- Names and shapes at full size


@functools.cache
def full() -> Targets:
    return Targets(outline(ModelConfig(), META, META))


def test_full_size_lists_map_to_modules_without_remainder() -> None:
    listing = golden_json("lora_list_t2v_turbo_ms_r32")
    assert len(listing) == 575 and [name for name, _, _ in listing] == list(full().listed["unet"])
    assert all(fits(full().listed["unet"][name].shape, *flat(up, down)) for name, up, down in listing)
    model = outline(ModelConfig(), META, META)
    weights = {name for name, x in model.unet.named_parameters() if name.endswith(".weight") and x.ndim > 1}
    assert {target.weight for target in full().listed["unet"].values()} == {*weights, ""}
    assert len(weights) == 574


def flat(*shapes: list[int]) -> Iterator[tuple[int, int]]:
    return ((shape[0], torch.Size(shape[1:]).numel()) for shape in shapes)


@pytest.mark.parametrize("turbo", [False, True])
def test_full_size_lists_are_read(turbo: bool, tmp_path: Path) -> None:
    """Rank 1 of the listing's layers, on the meta device's model."""
    pairs = []
    for name, up, down in golden_json("lora_list_t2v_turbo_ms_r32"):
        if turbo or name != COND_PROJ:
            pairs += [torch.zeros(up[0], 1, *up[2:]), torch.zeros(1, *down[1:])]
    assert len(pairs) == 2 * (574 + turbo)
    torch.save(pairs, tmp_path / "unet_lora.pt")
    found = read_lora(tmp_path / "unet_lora.pt", outline(ModelConfig(), META, META))
    assert len(found.unet) == 574 and found.is_turbo == turbo


def test_the_order_is_that_of_diffusers_modules() -> None:
    targets = Targets(small_model()).listed["unet"]
    assert [name for name, _ in layers()] == [name for name in targets if name != COND_PROJ]
    assert all(targets[name].shape[:2] == tuple(module.weight.shape[:2]) for name, module in layers())


@pytest.mark.parametrize("only", ["temp_attentions", "attentions"])
def test_lists_of_spatial_or_temporal_transformers_alone_are_known(only: str, tmp_path: Path) -> None:
    """As MotionDirector trains them."""
    wanted = {"attentions": (".attentions.",), "temp_attentions": (".temp_attentions.", "transformer_in.")}[only]
    names = [name for name, _ in layers()]
    factors = list(renamed(lambda name, up: f"{name}/{up}").items())
    chosen = [x for key, x in factors if any(word in f".{key}" for word in wanted)]
    torch.save(chosen, tmp_path / "1000_unet.pt")
    found = read_lora(tmp_path / "1000_unet.pt", small_model())
    expected = [name for name in names if any(word in f".{name}" for word in wanted)]
    targets = Targets(small_model()).listed["unet"]
    assert sorted(found.unet) == sorted(targets[name].weight for name in expected)


def test_alpha_scales_by_the_rank(tmp_path: Path) -> None:
    module = "down_blocks.0.temp_attentions.0.transformer_blocks.0.attn1.to_q"
    pair = {f"unet.{module}.lora.up.weight": torch.ones(32, 4), f"unet.{module}.lora.down.weight": torch.ones(4, 32)}
    torch.save(pair | {f"unet.{module}.alpha": torch.tensor(1.0)}, tmp_path / "alpha.pt")
    ((delta,),) = read_lora(tmp_path / "alpha.pt", small_model()).unet.values()
    assert delta.scale == 0.25


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 1.0),
        ({"unet.r": 4, "unet.lora_alpha": 8}, 2.0),
        ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 4.0),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 1}}, 0.25),
        ({"text_encoder.lora_alpha": 8}, 1.0),
    ],
)
def test_alpha_in_the_metadata_of_diffusers_counts(config: dict[str, Any], scale: float, tmp_path: Path) -> None:
    module = "unet.down_blocks.0.temp_attentions.0.transformer_blocks.0.attn1.to_q"
    pair = {f"{module}.lora_B.weight": torch.ones(32, 4), f"{module}.lora_A.weight": torch.ones(4, 32)}
    save_file(pair, tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps(config)})
    ((delta,),) = read_lora(tmp_path / "x.safetensors", small_model()).unet.values()
    assert delta.scale == scale


@pytest.mark.parametrize("text", ["{", "[]", '{"unet.lora_alpha": "x"}', '{"unet.alpha_pattern": 3}'])
def test_metadata_that_cannot_be_read_is_an_error(text: str, tmp_path: Path) -> None:
    module = "unet.down_blocks.0.temp_attentions.0.transformer_blocks.0.attn1.to_q"
    pair = {f"{module}.lora_B.weight": torch.ones(32, 4), f"{module}.lora_A.weight": torch.ones(4, 32)}
    save_file(pair, tmp_path / "x.safetensors", {"lora_adapter_metadata": text})
    with pytest.raises(ModelError, match="the settings of its adapter are damaged"):
        read_lora(tmp_path / "x.safetensors", small_model())


def test_old_diffusers_names_of_attention_processors(tmp_path: Path) -> None:
    block = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor"
    pairs = {}
    for layer in ("to_q", "to_out"):
        pairs |= {
            f"{block}.{layer}_lora.up.weight": torch.ones(32, 1),
            f"{block}.{layer}_lora.down.weight": torch.ones(1, 32),
        }
    torch.save(pairs, tmp_path / "old.bin")
    assert sorted(read_lora(tmp_path / "old.bin", small_model()).unet) == [
        f"input_blocks.1.1.transformer_blocks.0.attn1.{layer}.weight" for layer in ("to_out.0", "to_q")
    ]


def test_deltas_are_found_from_every_part_that_brings_its_weights() -> None:
    unet = small_model().unet
    names = lora("cloneofsimo").unet
    found = split_by_part(unet, unet.parts(), names)
    assert list(found) == unet.parts()
    assert sum(map(len, found.values())) == len(names)
    assert all(added.keys() <= tensors_of(part).keys() for part, added in found.items())
    assert all(len(x) == 1 for x in itertools.chain(*(added.values() for added in found.values())))


@pytest.mark.parametrize(
    ("weight", "up", "down", "fitting"),
    [
        ((64, 128), (64, 3), (3, 128), True),
        ((64, 128), (128, 3), (3, 64), False),
        ((64, 128), (64, 3), (4, 128), False),
        ((64, 32, 3, 3), (64, 3), (3, 288), True),
        ((64, 32, 3, 3), (192, 6), (6, 96), True),
        ((64, 32, 3, 1, 1), (64, 2), (2, 96), True),
        ((64, 32, 3, 1, 1), (192, 6), (6, 96), True),
        ((64, 32, 1), (64, 2), (2, 32), True),
        ((64, 32, 1, 1), (32, 2), (2, 64), False),
    ],
)
def test_which_matrices_fit(weight: tuple[int, ...], up: tuple[int, int], down: tuple[int, int], fitting: bool) -> None:
    assert fits(weight, up, down) == fitting
    if fitting:
        changed = torch.zeros(weight)
        Delta(torch.ones(up), torch.ones(down)).add_to(changed)
        assert bool((changed == up[1]).all())

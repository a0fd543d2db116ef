"""UNet3D against the original's vectors, layer by layer, and its full-size keys."""

import copy

import pytest
import torch
from torch import Tensor

from sd_t2v.modelscope.config import UNetConfig
from sd_t2v.modelscope.network import attention, unet3d
from sd_t2v.modelscope.network.attention import MAX_GRID, TemporalTransformer, scaled_dot_product
from sd_t2v.modelscope.network.layers import TemporalConv
from sd_t2v.modelscope.network.unet3d import PassOptions
from sd_t2v.tests.helpers.support import golden, golden_json, max_error, small_model

CASES = {"b2f5": 5e-5, "f1": 5e-5, "f4_ctx154_tall": 5e-5, "f3_fractional_t": 5e-5, "f2_small_signal": 2e-4}


def run(case: dict[str, Tensor]) -> Tensor:
    unet = small_model().unet
    return unet(case["x"], case["t"], unet.text_context(case["y"]))


def golden_case(name: str) -> dict[str, Tensor]:
    return {key: golden("unet_small_A.io")[f"{name}.{key}"] for key in ("x", "t", "y", "out")}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_original(name: str) -> None:
    case = golden_case(name)
    assert max_error(run(case), case["out"]) < CASES[name]


def test_accepts_sizes_that_are_not_multiples_of_64_pixels() -> None:
    case = golden("unet_small_A.diffusers_8x12")
    assert max_error(run(case), case["out"]) < 5e-5


def test_every_layer_equals_the_original() -> None:
    unet, expected = small_model().unet, golden("unet_small_A.io")
    seen: dict[str, Tensor] = {}
    names = golden_json("unet_small_A")["trace_order"]
    hooks = [
        unet.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name in names
    ]
    run({key: expected[f"trace.{key}"] for key in ("x", "t", "y")})
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(names)
    for name in names:
        reference = expected.get(f"trace.{name}", expected.get(f"trace.block.{name}"))
        assert reference is not None, name
        if reference.ndim == 5:
            reference = reference.transpose(1, 2).flatten(0, 1)
        scale = max(1.0, float(reference.abs().max()))
        assert max_error(seen[name].reshape(reference.shape), reference) < 5e-5 * scale, name


def test_full_size_keys_and_shapes() -> None:
    with torch.device("meta"):
        state = unet3d.UNet3D(UNetConfig()).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == golden_json("keys_unet_original")
    assert len(state) == 1480


@pytest.mark.parametrize("scores", [1, 700, 5_000, 10**9])
def test_devices_that_hold_all_scores_get_few_at_once(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = torch.randn(3, 5, 2, 11, 4, generator=torch.Generator().manual_seed(0))
    original, held = torch.nn.functional.scaled_dot_product_attention, []

    def watched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        held.append(len(q) * q.shape[1] * q.shape[2] * k.shape[2])
        return original(q, k, v)

    expected = original(q, k, v)
    monkeypatch.setattr(attention, "FUSED", ())
    monkeypatch.setattr(attention, "SCORES", scores)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    assert max_error(attention.scaled_dot_product(q, k, v), expected) < 1e-6
    one_query = 2 * 11
    assert max(held) <= max(scores, one_query)


def test_attention_splits_batches_too_long_for_cuda() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, MAX_GRID + 5, 1, 2, 4, generator=generator)
    longest = []
    original = torch.nn.functional.scaled_dot_product_attention

    def watched(*args: Tensor) -> Tensor:
        longest.append(len(args[0]))
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
        split = scaled_dot_product(q, k, v)
    assert max(longest) <= MAX_GRID
    assert max_error(split, original(q, k, v)) < 1e-6


def predict(motion: float, frames: slice = slice(None)) -> Tensor:
    vectors, unet = golden("unet_small_A.io"), small_model().unet
    x, t, y = (vectors[f"b2f5.{name}"] for name in ("x", "t", "y"))
    return unet.predict_noise(x[:, :, frames], t, [unet.text_context(y)], PassOptions(motion=motion))[0]


@torch.no_grad()
def test_without_motion_each_frame_is_as_if_it_were_alone() -> None:
    together = predict(0.0)
    for number in range(together.shape[2]):
        frame = slice(number, number + 1)
        assert max_error(together[:, :, frame], predict(0.0, frame)) < 1e-5
    assert max_error(together[:, :, :1], predict(1.0, slice(0, 1))) > 1e-3


@torch.no_grad()
def test_motion_strength_is_a_factor_of_what_layers_along_time_add() -> None:
    """As if their last layers had weaker weights."""
    vectors, unet = golden("unet_small_A.io"), copy.deepcopy(small_model().unet)
    for module in unet.modules():
        if isinstance(module, TemporalTransformer | TemporalConv):
            last = module.proj_out if isinstance(module, TemporalTransformer) else module.conv4[-1]
            for parameter in last.parameters():
                parameter.mul_(0.4)
    x, t, y = (vectors[f"b2f5.{name}"] for name in ("x", "t", "y"))
    assert max_error(unet(x, t, unet.text_context(y)), predict(0.4)) < 1e-5
    assert torch.equal(predict(1.0), small_model().unet(x, t, small_model().unet.text_context(y)))

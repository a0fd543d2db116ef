"""Weights and activations whose channels come last in memory, as cards with tensor cores want them: the same noise."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sd_t2v.modelscope.memory import placing
from sd_t2v.modelscope.memory.plan import FAST, LADDER, Plan
from sd_t2v.modelscope.memory.residency import use_weights
from sd_t2v.modelscope.network.slices import ChunkBudget
from sd_t2v.modelscope.network.unet3d import PassOptions, UNet3D
from sd_t2v.tests.helpers.support import CPU, max_error, small_model


def predict(plan: Plan) -> Tensor:
    unet = small_model().unet
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 5, 9, 11, generator=generator)
    with torch.no_grad(), use_weights(unet, plan, CPU):
        texts = [torch.randn(1, 77, unet.config.context_dim, generator=generator) for _ in range(2)]
        options = PassOptions(plan.chunk_budget, plan.batch_cfg)
        return torch.cat(unet.predict_noise(x, torch.tensor([500.0]), [unet.text_context(t) for t in texts], options))


@pytest.mark.parametrize("eight_bits", [False, True], ids=["as stored", "8 bits"])
@pytest.mark.parametrize("values", [None, 60_000, 5_000])
@pytest.mark.parametrize("plan", LADDER, ids=lambda plan: plan.name)
def test_channels_that_come_last_change_nothing(
    plan: Plan, values: int | None, eight_bits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(plan, chunk_budget=ChunkBudget(values), eight_bits=eight_bits)
    expected = predict(plan)
    monkeypatch.setattr(placing, "prefers_channels_last", lambda _: True)
    assert max_error(predict(plan), expected) < 2e-5


def test_every_layer_keeps_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that did not would cost a copy in each convolution after it."""
    monkeypatch.setattr(placing, "prefers_channels_last", lambda _: True)
    unet, orders = small_model().unet, []

    def note(_: object, given: tuple[Tensor, ...]) -> None:
        orders.append(given[0].stride(1) == 1)

    hooks = [layer.register_forward_pre_hook(note) for layer in _inner_convolutions(unet)]
    try:
        predict(FAST)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(orders) > 100
    assert all(orders)


def _inner_convolutions(unet: UNet3D) -> list[torch.nn.Module]:
    """All but the one that gets latents and the one that gives noise."""
    kinds = torch.nn.Conv2d | torch.nn.Conv3d
    layers = [layer for layer in unet.modules() if isinstance(layer, kinds)]
    return [layer for layer in layers if layer not in (unet.input_blocks[0][0], unet.out[-1])]

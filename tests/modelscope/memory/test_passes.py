"""Passes of the UNet as a list of tensors, which a recorder can copy and play."""

from collections.abc import Hashable, Sequence

import pytest
import torch
from torch import Tensor

from sd_t2v.modelscope.memory.passes import PassInputs, predict_noise
from sd_t2v.modelscope.memory.plan import FAST
from sd_t2v.modelscope.memory.recorded_pass import PassRecorder, Run
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.network.unet3d import PassOptions
from sd_t2v.tests.helpers.support import CPU, max_error, small_model


class Copying(PassRecorder):
    """Runs each pass with copies of its inputs, as a recording does."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[Hashable] = []

    def run(self, key: Hashable, run: Run, inputs: Sequence[Tensor]) -> list[Tensor]:
        self.keys.append(key)
        return run([tensor.clone() for tensor in inputs])


def make_inputs(frames: int, texts: int, *, condition: bool = False) -> PassInputs:
    unet = small_model().unet
    generator = torch.Generator().manual_seed(frames)
    x = torch.randn(1, 4, frames, 8, 8, generator=generator)
    contexts = [
        unet.text_context(torch.randn(1, 77, unet.config.context_dim, generator=generator)) for _ in range(texts)
    ]
    scale = torch.randn(1, unet.config.dim, generator=generator) if condition else None
    return PassInputs(x, torch.tensor([500.0]), contexts, scale)


@pytest.mark.parametrize("condition", [False, True])
@pytest.mark.parametrize("texts", [1, 2])
@torch.no_grad()
def test_copies_of_the_inputs_give_the_same_noise(texts: int, condition: bool) -> None:
    unet, inputs = small_model().unet, make_inputs(3, texts, condition=condition)
    expected = unet.predict_noise(inputs.latents, inputs.timesteps, inputs.contexts, condition=inputs.condition)
    found = predict_noise(unet, inputs, PassOptions(), Copying())
    assert len(found) == texts
    assert all(max_error(one, other) == 0 for one, other in zip(found, expected, strict=True))


@torch.no_grad()
def test_passes_that_differ_in_more_than_numbers_have_keys_of_their_own() -> None:
    unet, recorder = small_model().unet, Copying()
    for inputs in (make_inputs(3, 2), make_inputs(3, 2), make_inputs(4, 2), make_inputs(3, 1)):
        predict_noise(unet, inputs, PassOptions(), recorder)
    predict_noise(unet, make_inputs(3, 2, condition=True), PassOptions(), recorder)
    predict_noise(unet, make_inputs(3, 2), PassOptions(batch_cfg=True), recorder)
    first, again, *others = recorder.keys
    assert first == again
    assert len({first, *others}) == 5


def test_a_cpu_records_nothing() -> None:
    assert Residency(small_model()).recorder_for(FAST, CPU) is None

"""Work in slices: the same result as at once, and as little memory as promised."""

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sd_t2v.modelscope.config import UNetConfig
from sd_t2v.modelscope.memory.plan import FAST
from sd_t2v.modelscope.network.clip_norm import measure_clip_norm
from sd_t2v.modelscope.network.slices import WHOLE, ChunkBudget
from sd_t2v.modelscope.network.unet3d import PassOptions, UNet3D
from sd_t2v.tests.helpers.live_bytes import peak_bytes
from sd_t2v.tests.helpers.support import golden, max_error, small_model


@functools.cache
def small_unet(dtype: torch.dtype) -> UNet3D:
    return copy.deepcopy(small_model().unet).to(dtype)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return max_error(actual, expected) / float(expected.abs().max())


@pytest.mark.parametrize("name", ["b2f5", "f1", "f4_ctx154_tall", "f3_fractional_t"])
@pytest.mark.parametrize("values", [1, 5_000, 30_000])
@pytest.mark.parametrize("grad", [True, False])
def test_equals_the_original_in_slices(name: str, values: int, grad: bool) -> None:
    unet, expected = small_model().unet, golden("unet_small_A.io")
    x, t, y, out = (expected[f"{name}.{key}"] for key in ("x", "t", "y", "out"))
    before = x.clone()
    with torch.set_grad_enabled(grad):
        assert max_error(unet(x, t, unet.text_context(y), ChunkBudget(values)), out) < 5e-5
    assert torch.equal(x, before)


@settings(max_examples=6, deadline=None)
@given(
    values=st.integers(300, 60_000),
    batch=st.integers(1, 2),
    frames=st.integers(1, 7),
    height=st.integers(5, 9),
    width=st.integers(5, 9),
)
def test_any_slices_give_the_same(values: int, batch: int, frames: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(values)
    x = torch.randn(batch, 4, frames, height, width, generator=generator)
    t = torch.rand(batch, generator=generator) * 999
    texts = torch.randn(2, batch, 77, 32, generator=generator)

    def run(dtype: torch.dtype, budget: ChunkBudget, *, batch_cfg: bool | None = None) -> Tensor:
        """Under two texts: by two calls, or by one."""
        unet = small_unet(dtype)
        contexts = [unet.text_context(text.to(dtype)) for text in texts]
        if batch_cfg is None:
            return torch.stack([unet(x.to(dtype), t, context, budget) for context in contexts])
        return torch.stack(unet.predict_noise(x.to(dtype), t, contexts, PassOptions(budget, batch_cfg)))

    with torch.inference_mode():
        exact = run(torch.float64, WHOLE)
        # A norm over a few numbers that happen to be alike amplifies any rounding: that of the whole, too.
        rounding = relative_error(run(torch.float32, WHOLE), exact)
        for batch_cfg in (None, False, True):
            assert relative_error(run(torch.float64, ChunkBudget(values), batch_cfg=batch_cfg), exact) < 1e-8
            error = relative_error(run(torch.float32, ChunkBudget(values), batch_cfg=batch_cfg), exact)
            assert error < max(1e-5, 5 * rounding)


@torch.inference_mode()
def test_texts_of_different_length_take_turns() -> None:
    unet, vectors = small_model().unet, golden("unet_small_A.io")
    x, t = vectors["f1.x"], vectors["f1.t"]
    contexts = [unet.text_context(torch.ones(len(x), tokens, 32)) for tokens in (77, 154)]
    expected = [unet(x, t, context) for context in contexts]
    for noise, alone in zip(unet.predict_noise(x, t, contexts, PassOptions(batch_cfg=True)), expected, strict=True):
        assert max_error(noise, alone) < 1e-6


@torch.inference_mode()
def test_the_norm_of_a_clip_is_exact_far_from_zero() -> None:
    clip = torch.randn(2, 64, 7, 30, generator=torch.Generator().manual_seed(0)) + 1000
    norm = torch.nn.GroupNorm(32, 64)
    expected = norm.double()(clip.double())
    assert max_error(measure_clip_norm(norm.float(), clip, ChunkBudget(5_000))(clip), expected) < 1e-3
    # Where the mean is 100 times the deviation, half precision has 16 steps for a deviation.
    half = (clip - 900).half()
    assert max_error(measure_clip_norm(norm, half, ChunkBudget(5_000))(half), norm(half.float())) < 1e-2


@pytest.mark.parametrize("values", [None, 1, 10, 100])
def test_slices_cover_everything_once(values: int | None) -> None:
    slices = ChunkBudget(values).slices(23, 5)
    assert [i for part in slices for i in range(part.start, part.stop)] == list(range(23))
    sizes = [part.stop - part.start for part in slices]
    assert max(sizes) - min(sizes) <= 1


@functools.cache
def full_size() -> UNet3D:
    with torch.device("meta"):
        return UNet3D(UNetConfig()).half().eval().requires_grad_(requires_grad=False)


EIGHT_MILLION = ChunkBudget(8_000_000)


def full_size_step(
    width: int, height: int, frames: int, *, batch_cfg: bool = False, budget: ChunkBudget = EIGHT_MILLION
) -> Callable[[], list[Tensor]]:
    """Both halves of a guided step."""
    unet = full_size()
    x = torch.empty(1, 4, frames, height // 8, width // 8, dtype=torch.float16, device="meta")
    context = unet.text_context(torch.empty(1, 77, 1024, dtype=torch.float16, device="meta"))
    options = PassOptions(budget, batch_cfg)
    return lambda: unet.predict_noise(x, torch.empty(1, device="meta"), [context] * 2, options)


@pytest.mark.parametrize(
    ("width", "height", "frames", "limit"),
    [(256, 256, 24, 160e6), (256, 256, 250, 1.6e9), (1024, 576, 30, 1.4e9)],
)
def test_a_guided_step_needs_no_more_than_promised(width: int, height: int, frames: int, limit: float) -> None:
    peak, longest = peak_bytes(full_size_step(width, height, frames))
    assert peak <= limit
    assert longest < 65_536


@pytest.mark.parametrize("budget", [WHOLE, FAST.chunk_budget], ids=["whole", "fast"])
def test_no_attention_has_more_batches_or_heads_than_every_kernel_takes(budget: ChunkBudget) -> None:
    _, longest = peak_bytes(full_size_step(1024, 576, 48, batch_cfg=True, budget=budget))
    assert longest < 65_536


@pytest.mark.parametrize("batch_cfg", [True, False])
def test_a_guided_step_computes_what_does_not_see_the_text_once(batch_cfg: bool) -> None:
    """The original's network takes 14.67 TFLOP for both halves, counted in the same way."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        full_size_step(256, 256, 24, batch_cfg=batch_cfg, budget=WHOLE)()
    assert counter.get_total_flops() <= 0.96 * 14.67e12

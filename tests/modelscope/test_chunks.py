"""Work in pieces: the same result as at once, and as little memory as promised."""

import copy
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sd_t2v.modelscope.chunks import WHOLE, Chunks, clip_norm
from sd_t2v.modelscope.config import UNetConfig
from sd_t2v.modelscope.pipeline import CHUNKS
from sd_t2v.modelscope.unet3d import UNet3D
from sd_t2v.tests.live_bytes import peak_bytes
from sd_t2v.tests.support import golden, max_error, small_model


@functools.cache
def small_unet(dtype: torch.dtype) -> UNet3D:
    return copy.deepcopy(small_model().unet).to(dtype)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return max_error(actual, expected) / float(expected.abs().max())


@pytest.mark.parametrize("name", ["b2f5", "f1", "f4_ctx154_tall", "f3_fractional_t"])
@pytest.mark.parametrize("values", [1, 5_000, 30_000])
@pytest.mark.parametrize("grad", [True, False])
def test_equals_the_original_in_pieces(name: str, values: int, grad: bool) -> None:
    unet, expected = small_model().unet, golden("unet_small_A.io")
    x, t, y, out = (expected[f"{name}.{key}"] for key in ("x", "t", "y", "out"))
    before = x.clone()
    with torch.set_grad_enabled(grad):
        assert max_error(unet(x, t, unet.text_context(y), Chunks(values)), out) < 5e-5
    assert torch.equal(x, before)


@settings(max_examples=12, deadline=None)
@given(
    values=st.integers(300, 60_000),
    batch=st.integers(1, 2),
    frames=st.integers(1, 7),
    height=st.integers(5, 9),
    width=st.integers(5, 9),
)
def test_any_pieces_give_the_same(values: int, batch: int, frames: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(values)
    x = torch.randn(batch, 4, frames, height, width, generator=generator)
    t = torch.rand(batch, generator=generator) * 999
    text = torch.randn(batch, 77, 32, generator=generator)

    def run(dtype: torch.dtype, chunks: Chunks) -> Tensor:
        unet = small_unet(dtype)
        return unet(x.to(dtype), t, unet.text_context(text.to(dtype)), chunks)

    with torch.inference_mode():
        exact = run(torch.float64, WHOLE)
        assert relative_error(run(torch.float64, Chunks(values)), exact) < 1e-8
        # A norm over a few numbers that happen to be alike amplifies any rounding: that of the whole, too.
        rounding = relative_error(run(torch.float32, WHOLE), exact)
        assert relative_error(run(torch.float32, Chunks(values)), exact) < max(1e-5, 3 * rounding)


@torch.inference_mode()
def test_the_norm_of_a_clip_is_exact_far_from_zero() -> None:
    clip = torch.randn(2, 64, 7, 30, generator=torch.Generator().manual_seed(0)) + 1000
    norm = torch.nn.GroupNorm(32, 64)
    expected = norm.double()(clip.double())
    assert max_error(clip_norm(norm.float(), clip, Chunks(5_000))(clip), expected) < 1e-3
    half = clip_norm(norm, (clip / 1000).half(), Chunks(5_000))((clip / 1000).half())
    assert max_error(half, norm((clip / 1000).half().float())) < 5e-3


@pytest.mark.parametrize("values", [None, 1, 10, 100])
def test_pieces_cover_everything_once(values: int | None) -> None:
    pieces = Chunks(values).pieces(23, 5)
    assert [i for piece in pieces for i in range(piece.start, piece.stop)] == list(range(23))
    sizes = [piece.stop - piece.start for piece in pieces]
    assert max(sizes) - min(sizes) <= 1


@functools.cache
def full_size() -> UNet3D:
    with torch.device("meta"):
        return UNet3D(UNetConfig()).half().eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize(
    ("width", "height", "frames", "limit"),
    [(256, 256, 24, 160e6), (256, 256, 125, 800e6), (256, 256, 250, 1.6e9), (1024, 576, 30, 1.4e9)],
)
def test_the_full_network_needs_no_more_than_promised(width: int, height: int, frames: int, limit: float) -> None:
    unet = full_size()
    x = torch.empty(1, 4, frames, height // 8, width // 8, dtype=torch.float16, device="meta")
    context = unet.text_context(torch.empty(1, 77, 1024, dtype=torch.float16, device="meta"))
    peak, longest = peak_bytes(lambda: unet(x, torch.empty(1, device="meta"), context, CHUNKS))
    assert peak <= limit
    assert longest < 65_536

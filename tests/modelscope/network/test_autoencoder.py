"""The autoencoder against the original's vectors, and its full-size keys."""

import pytest
import torch

from sd_t2v.modelscope.config import AutoencoderConfig
from sd_t2v.modelscope.network.autoencoder import LATENT_SCALE, Autoencoder, from_uint8, to_uint8
from sd_t2v.modelscope.network.slices import ChunkBudget
from sd_t2v.tests.helpers.support import golden, golden_json, max_error, small_model


@pytest.mark.parametrize("case", ["z2_8x16", "z1_5x7"])
def test_decode_equals_the_original(case: str) -> None:
    vectors = golden("vae_small_A.io")
    assert max_error(small_model().autoencoder.decode(vectors[f"{case}.z"]), vectors[f"{case}.dec"]) < 5e-5


@pytest.mark.parametrize("case", ["x2_64x96", "x1_72x40"])
def test_encode_equals_the_original(case: str) -> None:
    vectors = golden("vae_small_A.io")
    mean, logvar = small_model().autoencoder.encode(vectors[f"{case}.x"])
    assert max_error(mean, vectors[f"{case}.mean"]) < 5e-5
    assert max_error(logvar, vectors[f"{case}.logvar_clamped"]) < 5e-5


@pytest.mark.parametrize("values", [1, 5_000, 60_000])
@pytest.mark.parametrize("case", ["x2_64x96", "x1_72x40"])
def test_encode_in_rows_equals_the_whole(case: str, values: int) -> None:
    autoencoder, frames = small_model().autoencoder, golden("vae_small_A.io")[f"{case}.x"]
    with torch.no_grad():
        assert max_error(autoencoder.encode(frames, ChunkBudget(values))[0], autoencoder.encode(frames)[0]) < 1e-5


def test_bytes_become_frames_and_back() -> None:
    frames = torch.randint(0, 256, (2, 3, 5, 3), dtype=torch.uint8)
    assert torch.equal((from_uint8(frames) * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1), frames)
    assert float(from_uint8(torch.tensor([[[[0, 255, 0]]]], dtype=torch.uint8)).abs().max()) == 1


def test_latents_are_scaled_means() -> None:
    vectors = golden("vae_small_A.io")
    latents = small_model().autoencoder.frames_to_latents(vectors["x1_72x40.x"])
    assert max_error(latents, vectors["x1_72x40.mean"] * LATENT_SCALE) < 1e-5


def test_bytes_are_truncated_as_in_the_original() -> None:
    frame = torch.tensor([0.0, 0.9999, 1.0, 0.5, 127.999 / 255, 128.001 / 255]).view(1, 3, 1, 2)
    assert to_uint8(frame).flatten().tolist() == [0, 255, 127, 254, 127, 128]


def test_full_size_keys_and_shapes() -> None:
    with torch.device("meta"):
        state = Autoencoder(AutoencoderConfig()).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == golden_json("keys_vae_original")
    assert len(state) == 248

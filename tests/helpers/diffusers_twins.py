"""diffusers' own classes with the golden networks' weights."""

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from .support import golden, golden_json, small_model


def mapped(part: str) -> dict[str, Tensor]:
    """The golden weights of a part under diffusers' names."""
    state = golden(f"{part}_small_A.weights")
    result = {}
    for key, target in golden_json(f"map_{part}_small")["map"].items():
        value = state[key]
        result[target["diffusers"]] = value[:, :, 0, 0] if target["op"] == "conv1x1_to_linear" else value
    return result


def make_autoencoder() -> AutoencoderKL:
    """The golden autoencoder."""
    config = small_model().config.autoencoder
    autoencoder = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(config.ch_mult),
        up_block_types=["UpDecoderBlock2D"] * len(config.ch_mult),
        block_out_channels=[config.ch * mult for mult in config.ch_mult],
        layers_per_block=config.num_res_blocks,
        latent_channels=config.z_channels,
    ).eval()
    autoencoder.load_state_dict(mapped("vae"))
    return autoencoder

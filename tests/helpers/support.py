"""What several tests share: the golden vectors and the small networks they were made with."""

import functools
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ...miniature.judge import judge
from ...modelscope.checkpoints.parts import TEXT, select_part
from ...modelscope.config import AutoencoderConfig, ModelConfig, TextConfig, UNetConfig
from ...modelscope.device import Place
from ...modelscope.model import Model
from ...modelscope.network.autoencoder import Autoencoder
from ...modelscope.network.text_encoder import TextEncoder
from ...modelscope.network.unet3d import UNet3D
from ...t2v_helpers.video.frames import read_frame

GOLDEN = Path(__file__).parents[1] / "golden"
CPU = Place(torch.device("cpu"), torch.float32)


@functools.cache
def golden_json(name: str) -> Any:
    """A golden file's description."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


@functools.cache
def golden(name: str) -> dict[str, Tensor]:
    """A golden file's tensors, halves as float32."""
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    return {key: value.float() if value.dtype == torch.float16 else value for key, value in tensors.items()}


def max_error(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference; shapes must agree."""
    assert actual.shape == expected.shape
    return float((actual.double() - expected.double()).abs().max())


def small_config() -> ModelConfig:
    """The configuration of the golden networks."""
    unet = {
        key: value for key, value in golden_json("unet_small_A")["config"].items() if key in UNetConfig.__annotations__
    }
    vae = {
        key: v for key, v in golden_json("vae_small_A")["ddconfig"].items() if key in AutoencoderConfig.__annotations__
    }
    text = golden_json("text_small_A")["config"]["text_cfg"]
    return ModelConfig(unet=UNetConfig(**unet), autoencoder=AutoencoderConfig(**vae), text=TextConfig(**text))


@functools.cache
def small_model() -> Model:
    """The golden networks with their weights, in float32. Shared: do not change it."""
    config = small_config()
    text_encoder, unet = TextEncoder(config.text), UNet3D(config.unet)
    autoencoder = Autoencoder(config.autoencoder)
    text_weights = select_part(TEXT, golden("text_small_A.weights"), text_encoder.state_dict(), config)
    text_encoder.load_state_dict(text_weights)
    unet.load_state_dict(golden("unet_small_A.weights"))
    autoencoder.load_state_dict(golden("vae_small_A.weights"))
    for module in (text_encoder, unet, autoencoder):
        module.eval().requires_grad_(False)
    return Model(config, text_encoder, unet, autoencoder, CPU, CPU)


def write_model_folder(folder: Path, suffix: str = "") -> Path:
    """The golden networks as a model folder in the original layout, in half precision.

    suffix: ".safetensors" to write the files' twins instead.
    """
    from safetensors.torch import save_file

    from ...modelscope.config import write_config

    config = small_config()
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, config)
    vae = {f"first_stage_model.{key}": value.half() for key, value in golden("vae_small_A.weights").items()}
    other = {"model.diffusion_model.out.0.weight": torch.zeros(3)}
    parts = {
        config.files.ckpt_clip: {key: v.half() for key, v in golden("text_small_A.weights").items()}
        | {"visual.conv1.weight": torch.zeros(2)},
        config.files.ckpt_unet: {key: value.half() for key, value in golden("unet_small_A.weights").items()},
        config.files.ckpt_autoencoder: vae | other,
    }
    for name, tensors in parts.items():
        if suffix:
            save_file(tensors, (folder / name).with_suffix(suffix))
        else:
            torch.save({"state_dict": tensors} if name == config.files.ckpt_autoencoder else tensors, folder / name)
    return folder


def seen_in(file: Path, frames: int = 8) -> tuple[str | None, str | None, str | None]:
    """The colour, shape and direction that the judge sees in a saved video."""
    clip = np.stack([np.asarray(read_frame(file, number)) for number in range(frames)])
    verdict = judge(torch.from_numpy(clip))
    return verdict.colour, verdict.shape, verdict.direction


def free_port() -> int:
    """A port of this computer that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

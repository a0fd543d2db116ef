"""Other implementations of the same networks, with the same weights."""

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..modelscope.checkpoints.diffusers_keys import to_diffusers, unet_names
from ..modelscope.config import ModelConfig, UNetConfig
from .torchvision_import import import_torchvision


def diffusers_unet(config: UNetConfig, state: dict[str, Tensor]) -> nn.Module:
    """Return diffusers' UNet3DConditionModel, which shares the given weights."""
    # diffusers and modelscope import torchvision, which first has to be made to fit the installed torch.
    import_torchvision()
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel

    with torch.device("meta"):
        network: nn.Module = UNet3DConditionModel(**diffusers_config(config))
    network.load_state_dict(to_diffusers(state, unet_names(ModelConfig(unet=config))), assign=True)
    return network.eval()


def diffusers_config(config: UNetConfig) -> dict[str, Any]:
    """Return the constructor arguments of diffusers' network for one of ours."""
    attends = [config.attends_at(level) for level in range(len(config.dim_mult))]
    down = ["CrossAttnDownBlock3D" if yes else "DownBlock3D" for yes in attends]
    up = ["CrossAttnUpBlock3D" if yes else "UpBlock3D" for yes in reversed(attends)]
    return {
        "in_channels": config.in_dim,
        "out_channels": config.out_dim,
        "block_out_channels": tuple(config.dim * mult for mult in config.dim_mult),
        "down_block_types": tuple(down),
        "up_block_types": tuple(up),
        "layers_per_block": config.num_res_blocks,
        "cross_attention_dim": config.context_dim,
        "attention_head_dim": config.head_dim,
    }


def modelscope_unet(config: UNetConfig, state: dict[str, Tensor] | None) -> nn.Module:
    """Return modelscope's own UNetSD, which shares the given weights or is initialised at random, as in its pipeline.

    Its decoder takes only contexts of width 1024.
    """
    import_torchvision()
    from modelscope.models.multi_modal.video_synthesis.unet_sd import UNetSD

    with torch.device("cpu" if state is None else "meta"):
        network: nn.Module = UNetSD(**_original_arguments(config))
    if state is not None:
        network.load_state_dict(state, assign=True)
    return network.eval()


def _original_arguments(config: UNetConfig) -> dict[str, Any]:
    same = ("in_dim", "dim", "context_dim", "out_dim", "dim_mult", "num_heads", "head_dim", "num_res_blocks")
    arguments = {name: getattr(config, name) for name in (*same, "attn_scales")}
    return arguments | {"y_dim": 768, "dropout": config.dropout, "temporal_attention": True}


def extension_unet(checkout: Path, config: UNetConfig, state: dict[str, Tensor]) -> nn.Module:
    """Return the 2023 extension's UNetSD from a checkout, which shares the given weights.

    It runs as in a WebUI with --opt-sdp-attention, the best option for it on a CPU.
    """
    source = checkout / "scripts" / "modelscope" / "t2v_model.py"
    spec = importlib.util.spec_from_file_location("extension_of_2023", source)
    if spec is None or spec.loader is None or not source.is_file():
        raise SystemExit(
            f"{checkout} is not a checkout of the 2023 extension: scripts/modelscope/t2v_model.py is missing."
        )
    module = importlib.util.module_from_spec(spec)
    with _webui_of_2023():
        spec.loader.exec_module(module)
        network: nn.Module = module.UNetSD(**_original_arguments(config))
    # The schedule is among its buffers, so keys may be missing from the state.
    assert not network.load_state_dict(state, assign=True, strict=False).unexpected_keys
    return network.eval()


class _Anything(types.ModuleType):
    """A module in which every name is a class that is never used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextmanager
def _webui_of_2023() -> Iterator[None]:
    """Provide stand-ins for the modules that the extension's network imports but does not use on a CPU."""
    names = (
        "ldm", "ldm.util", "ldm.modules", "ldm.modules.diffusionmodules", "ldm.modules.diffusionmodules.model",
        "ldm.modules.diffusionmodules.util", "ldm.modules.distributions", "ldm.modules.distributions.distributions",
        "modules", "modules.prompt_parser", "modules.sd_hijack_optimizations", "modules.sd_samplers_common",
        "modules.shared",
    )  # fmt: skip
    before = {name: sys.modules.get(name) for name in names}
    sys.modules |= {name: _Anything(name) for name in names}
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module

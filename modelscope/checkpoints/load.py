"""Loads a model into modules without holding any weight in memory twice."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import CONFIGURATION, ModelConfig
from ..device import Place
from ..errors import ModelError, first_line, memory_errors, shorten
from ..model import Model
from ..network.autoencoder import Autoencoder
from ..network.streamable import assign
from ..network.text_encoder import TextEncoder
from ..network.unet3d import UNet3D
from .diffusers_config import CONFIG
from .drives import is_remote
from .find_parts import Library, Source, find_library, find_part, read_model_config
from .parts import PARTS, VAE, Part, describe_mismatch, select_part
from .weight_file import read_tensors

SHOWN_KEYS = 4
"""Number of keys that an error lists."""


def load_model(model: Path, place: Place, vae_place: Place | None = None, library: Library | None = None) -> Model:
    """Load all three parts of a model.

    Args:
        model: The model's folder, or its file if all parts are in one file.
        place: Device and precision in which the parts compute.
        vae_place: Device and precision of the autoencoder, if they differ from the others'.
        library: Other folders to search for files; by default the one that contains the model.

    Raises:
        ModelError: A part cannot be used. The error names the folder or file, and the remedy.
        OutOfMemory: There is not enough memory for the weights.
    """
    library = library or find_library(model)
    with memory_errors("the model's weights", "Close other programs."):
        config = read_model_config(model)
        sources = {part: find_part(part, model, config, library) for part in PARTS}
        parts = [load_part(part, source, config, to_keep=True) for part, source in sources.items()]
        check_parts_agree(config)
        text_encoder, unet, autoencoder = parts
        assert isinstance(text_encoder, TextEncoder)
        assert isinstance(unet, UNet3D)
        assert isinstance(autoencoder, Autoencoder)
        files = tuple(file for source in sources.values() for file in source.files)
        places = place, vae_place or place
        return Model(config, text_encoder, unet, autoencoder, *places, sources[VAE].lender, files)


def load_part(part: Part, source: Source, config: ModelConfig, *, to_keep: bool = False) -> nn.Module:
    """Build a part on the meta device, and assign the tensors in its files to it.

    Args:
        part: The part to build.
        source: The part's files.
        config: The model's configuration.
        to_keep: Whether the part is kept for long; files on a network drive are then copied instead of mapped.

    Raises:
        ModelError: The tensors do not fit the configuration.
    """
    module = _build(part, source.named, config)
    expected = module.state_dict()
    tensors = read_source(source, to_keep=to_keep)
    found = select_part(part, tensors, expected, config)
    _check_match(source.named, part, expected, found, describe_mismatch(tensors, part))
    assign(module, found)
    return module.eval().requires_grad_(requires_grad=False)


def read_source(source: Source, *, to_keep: bool = False) -> dict[str, Tensor]:
    """Return all tensors in a part's files by name, mapped or copied as `load_part` says. Raises ModelError."""
    read = {file: read_tensors(file, mapped=not (to_keep and is_remote(file))) for file in source.files}
    return {name: tensor for tensors in read.values() for name, tensor in tensors.items()}


def _build(part: Part, path: Path, config: ModelConfig) -> nn.Module:
    try:
        with torch.device("meta"):
            return part.build(config)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, ValueError) as error:
        config_file = path.with_name(CONFIG if path.with_name(CONFIG).exists() else CONFIGURATION)
        raise ModelError(
            f"{config_file}: describes a network that cannot be built ({first_line(error)}). Delete it to use the "
            "1.7B model's configuration instead."
        ) from error


def check_parts_agree(config: ModelConfig) -> None:
    """Check that the parts' shapes fit each other. Raises ModelError."""
    if config.text.width != config.unet.context_dim:
        raise ModelError(
            f"The text encoder's features are {config.text.width} wide, but the UNet expects "
            f"{config.unet.context_dim}: they belong to different models. Download the text encoder that comes with "
            "the UNet."
        )
    if config.autoencoder.embed_dim != config.unet.in_dim:
        raise ModelError(
            f"The autoencoder's latents have {config.autoencoder.embed_dim} channels, but the UNet's have "
            f"{config.unet.in_dim}: they belong to different models. Download the autoencoder that comes with the UNet."
        )


def _check_match(path: Path, part: Part, expected: dict[str, Tensor], found: dict[str, Tensor], seems: str) -> None:
    if differences := describe_differences(expected, found):
        differs = (
            f"does not fit the {part.title} that the configuration describes. Either the file or the configuration "
            f"belongs to another model. Compared with the {len(expected)} expected tensors: {differences}."
        )
        raise ModelError(f"{path}: {seems or differs}")


def describe_differences(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """Return how the tensors found differ from those expected in names, shapes and kind; an empty text if they fit."""
    common = {name: tensor for name, tensor in found.items() if name in expected}
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "with another shape": [
            f"{name} {list(tensor.shape)} instead of {list(expected[name].shape)}"
            for name, tensor in common.items()
            if tensor.shape != expected[name].shape
        ],
        "without floating-point numbers": [
            name for name, x in common.items() if x.is_meta or not x.is_floating_point()
        ],
    }
    return "; ".join(f"{len(names)} {kind} ({shorten(names, SHOWN_KEYS)})" for kind, names in problems.items() if names)

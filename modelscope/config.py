"""configuration.json as typed dataclasses. The defaults are the 1.7B's values, so the file may be missing."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .errors import ModelError, first_line
from .json_files import read_json

CONFIGURATION = "configuration.json"
MAX_SIZE, MAX_LAYERS, MAX_LEVELS = 65_536, 64, 8
"""Limits for widths and counts, for layers in a row, and for resolution levels: far above any model of this kind."""
MISTAKES = (
    OSError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError, OmegaConfBaseException,
)  # fmt: skip
"""Errors that reading an invalid configuration may raise."""
Section = TypeVar("Section")


@dataclass
class UNetConfig:
    """The UNet's shape."""

    in_dim: int = 4
    dim: int = 320
    context_dim: int = 1024
    out_dim: int = 4
    dim_mult: list[int] = field(default_factory=lambda: [1, 2, 4, 4])
    num_heads: int = 8
    head_dim: int = 64
    num_res_blocks: int = 2
    attn_scales: list[float] = field(default_factory=lambda: [1.0, 0.5, 0.25])
    dropout: float = 0.1

    @property
    def deepest(self) -> int:
        """Index of the lowest-resolution level."""
        return len(self.dim_mult) - 1

    def attends_at(self, level: int) -> bool:
        """Return whether a level of the UNet has transformers; level 0 is full resolution."""
        return 0.5**level in self.attn_scales


@dataclass
class AutoencoderConfig:
    """The autoencoder's shape."""

    in_channels: int = 3
    out_ch: int = 3
    z_channels: int = 4
    embed_dim: int = 4
    ch: int = 128
    ch_mult: list[int] = field(default_factory=lambda: [1, 2, 4, 4])
    num_res_blocks: int = 2

    @property
    def scale(self) -> int:
        """Pixels per latent, in height and width: each level but the last halves both."""
        return int(2 ** (len(self.ch_mult) - 1))


@dataclass
class TextConfig:
    """The OpenCLIP text tower's shape (ViT-H-14)."""

    context_length: int = 77
    vocab_size: int = 49408
    width: int = 1024
    heads: int = 16
    layers: int = 24


@dataclass
class FilesConfig:
    """File names inside the model folder."""

    ckpt_clip: str = "open_clip_pytorch_model.bin"
    ckpt_unet: str = "text2video_pytorch_model.pth"
    ckpt_autoencoder: str = "VQGAN_autoencoder.pth"


@dataclass
class ModelConfig:
    """The content of configuration.json that is used here."""

    files: FilesConfig = field(default_factory=FilesConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text: TextConfig = field(default_factory=TextConfig)
    recommended: dict[str, Any] = field(default_factory=dict)


def read_config(folder: Path) -> ModelConfig:
    """Return a folder's configuration, or the 1.7B's if it has no configuration.json. Raises ModelError."""
    path = folder / CONFIGURATION
    try:
        if not path.exists():
            return ModelConfig()
        document = read_json(path)
        _refuse_references(document)
        return _parse(_get_mapping(document, "model"))
    except MISTAKES as error:
        raise ModelError(
            f"{path}: is not the model's configuration ({first_line(error)}). Delete it to use the 1.7B "
            "model's configuration instead, or download the raw file again: a saved web page does not work."
        ) from error


def _refuse_references(value: Any) -> None:
    """Refuse references, for instance to the environment: other readers of the file resolve them. Raises ValueError."""
    if isinstance(value, str) and "${" in value:
        raise ValueError("it refers to something outside itself")
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for inner in value:
            _refuse_references(inner)


def _parse(model: dict[str, Any]) -> ModelConfig:
    """Parse the document. `vae_*`, `text_*` and `recommended` are this project's additions to the original's keys."""
    parts, recommended = _get_mapping(model, "model_cfg"), model.get("recommended", {})
    if str(parts.get("temporal_attention", True)) != "True":
        raise ValueError("temporal_attention must be True")
    if not isinstance(recommended, dict):
        raise ValueError("recommended must be a set of names and values")
    return ModelConfig(
        files=_read_section(FilesConfig, _get_mapping(model, "model_args"), ""),
        unet=_read_section(UNetConfig, parts, "unet_"),
        autoencoder=_read_section(AutoencoderConfig, parts, "vae_"),
        text=_read_section(TextConfig, parts, "text_"),
        recommended=recommended,
    )


def _get_mapping(values: Any, key: str) -> dict[str, Any]:
    """Return the mapping under a key. Raises ValueError if the key is missing or holds no mapping."""
    found = values.get(key) if isinstance(values, dict) else None
    if not isinstance(found, dict):
        raise ValueError(f"{key} must be a set of names and values")
    return found


def _read_section(kind: type[Section], values: dict[str, Any], prefix: str) -> Section:
    """Return a dataclass filled with the values whose prefixed names are its fields; ignore the other values."""
    names = {field.name: _key(prefix, field.name) for field in fields(kind)}  # type: ignore[arg-type]
    known = {name: _check_plain(key, values[key]) for name, key in names.items() if key in values}
    section: Section = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), known))  # type: ignore[assignment]
    return validate(section, names)


def _check_plain(key: str, value: Any) -> Any:
    """Return a value if it is a number, text or a list of these: OmegaConf interprets others. Raises ValueError."""
    values = value if isinstance(value, list) else [value]
    if len(values) > MAX_LEVELS or not all(isinstance(one, str | int | float) and one != MISSING for one in values):
        raise ValueError(f"{key} must be a number, a text, or a list of up to {MAX_LEVELS} of these")
    return value


def validate(section: Section, names: Mapping[str, str] | None = None) -> Section:
    """Return a section if its sizes are possible for a network. Raises ValueError.

    names: the fields' names in errors.
    """
    for one in fields(section):  # type: ignore[arg-type]
        _check_size((names or {}).get(one.name, one.name), getattr(section, one.name))
    return section


def _key(prefix: str, name: str) -> str:
    """Return the original's key for a field: it calls the UNet's num_res_blocks unet_res_blocks."""
    return "unet_res_blocks" if (prefix, name) == ("unet_", "num_res_blocks") else prefix + name


def _check_size(key: str, value: Any) -> None:
    """Refuse impossible sizes before anything is built with them. Raises ValueError."""
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= MAX_LEVELS:
        raise ValueError(f"{key} must have 1 to {MAX_LEVELS} entries")
    limit = MAX_LAYERS if key.endswith(("layers", "res_blocks")) else MAX_SIZE
    for number in values:
        if isinstance(number, int) and not 1 <= number <= limit:
            raise ValueError(f"{key} must be from 1 to {limit}, not {number}")
        if isinstance(number, float) and not 0 <= number <= 1:
            raise ValueError(f"{key} must be from 0 to 1, not {number}")


def write_config(folder: Path, config: ModelConfig) -> None:
    """Write configuration.json in the original's form."""
    sections: dict[str, Any] = {"unet_": config.unet, "vae_": config.autoencoder, "text_": config.text}
    parts = {_key(prefix, name): value for prefix, part in sections.items() for name, value in asdict(part).items()}
    model = {
        "type": "latent-text-to-video-synthesis",
        "model_args": asdict(config.files),
        "model_cfg": parts | {"temporal_attention": "True"},
        "recommended": config.recommended,
    }
    document = {"framework": "pytorch", "task": "text-to-video-synthesis", "model": model}
    (folder / CONFIGURATION).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

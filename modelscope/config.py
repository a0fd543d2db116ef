"""configuration.json as typed dataclasses; the 1.7B's values are the defaults, so the file may be missing."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .errors import ModelError

CONFIGURATION = "configuration.json"
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
        """Whether level (0 is full resolution) has transformers."""
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
    """All of configuration.json that matters here."""

    files: FilesConfig = field(default_factory=FilesConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    text: TextConfig = field(default_factory=TextConfig)
    recommended: dict[str, Any] = field(default_factory=dict)


def read_config(folder: Path) -> ModelConfig:
    """The folder's configuration.json, or the 1.7B's where there is none. Raises ModelError."""
    path = folder / CONFIGURATION
    if not path.exists():
        return ModelConfig()
    try:
        model = json.loads(path.read_text(encoding="utf-8-sig"))["model"]
        return _parse(model["model_args"], model["model_cfg"], model.get("recommended", {}))
    except (OSError, ValueError, KeyError, TypeError, OmegaConfBaseException) as error:
        raise ModelError(
            f"{path}: is not the model's configuration ({error}). Delete it to use the 1.7B's, or download it again "
            "as raw text: a saved web page will not do."
        ) from error


def _parse(files: dict[str, Any], parts: dict[str, Any], recommended: dict[str, Any]) -> ModelConfig:
    """Original keys: `unet_*` beside `temporal_attention`; `vae_*` and `text_*` are this project's addition."""
    if str(parts.get("temporal_attention", True)) != "True":
        raise ValueError("temporal_attention must be True")
    return ModelConfig(
        files=_section(FilesConfig, files, ""),
        unet=_section(UNetConfig, parts, "unet_"),
        autoencoder=_section(AutoencoderConfig, parts, "vae_"),
        text=_section(TextConfig, parts, "text_"),
        recommended=recommended,
    )


def _section(kind: type[Section], values: dict[str, Any], prefix: str) -> Section:
    """The values whose prefixed names are fields of the dataclass, type-checked; others do not matter here."""
    known = {f.name: values[prefix + f.name] for f in fields(kind) if prefix + f.name in values}  # type: ignore[arg-type]
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), known))  # type: ignore[return-value]


def write_config(folder: Path, config: ModelConfig) -> None:
    """Write configuration.json in the original's form."""
    parts = {
        f"{prefix}_{name}": value for prefix, section in _prefixed(config) for name, value in asdict(section).items()
    }
    model = {
        "type": "latent-text-to-video-synthesis",
        "model_args": asdict(config.files),
        "model_cfg": parts | {"temporal_attention": "True"},
        "recommended": config.recommended,
    }
    document = {"framework": "pytorch", "task": "text-to-video-synthesis", "model": model}
    (folder / CONFIGURATION).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _prefixed(config: ModelConfig) -> list[tuple[str, Any]]:
    return [("unet", config.unet), ("vae", config.autoencoder), ("text", config.text)]

"""The parameters of a video, each declared once with its label and bounds."""

import dataclasses
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from .conditioning.strength import DIFFUSERS, WEBUI
from .errors import RequestError

Request = TypeVar("Request", bound="VideoRequest")

MAX_SEED = 2**32 - 1
MULTIPLE = 8
"""Sides of a video are multiples of this number of pixels."""


def param(  # noqa: PLR0913 - each is named where it is given
    default: Any,
    label: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    step: float | None = None,
    usual: float | None = None,
    choices: Callable[[], list[str]] | None = None,
    info: str = "",
    key: str = "",
    fold: str = "",
) -> Any:
    """Return a dataclass field with all that widgets, API, command line and infotext need to know about it.

    Args:
        default: The value if none is given.
        label: The name that people see.
        minimum: The smallest value.
        maximum: The largest value.
        step: The step of a slider. Integers must be multiples of it.
        usual: The end of a slider, if not the maximum.
        choices: Returns the allowed values.
        info: An explanation beyond the label.
        key: The name in an infotext, if the parameter has its own entry there.
        fold: The fold on the tab that it is under, if few people need it. Then it is not in an infotext at its default;
            and what is under SOURCE is in none at all without a source.
    """
    bounds = {"minimum": minimum, "maximum": maximum, "step": step, "usual": usual, "choices": choices}
    about = {"label": label, "info": info, "key": key, "fold": fold}
    return dataclasses.field(default=default, metadata=bounds | about)


ADVANCED, SOURCE, IMPROVE = "Advanced", "Source", "Improve"
"""Folds on the tab, for parameters that not everybody needs."""
FULL, TAESD = "full", "TAESD"
"""Decoders: the model's autoencoder, and a small one."""


def _samplers() -> list[str]:
    from .sampling.catalogue import sampler_names

    return sampler_names()


@dataclass(kw_only=True)
class VideoRequest:
    """The parameters of one video, as the model sees them. Raises RequestError for a value that cannot be used."""

    prompt: str = param("", "Prompt")
    negative_prompt: str = param("", "Negative prompt")
    sampler: str = param("DPM++ 2M", "Sampling method", choices=_samplers, key="Sampler")
    steps: int = param(25, "Steps", minimum=1, maximum=1000, usual=150, step=1, key="Steps")
    cfg_scale: float = param(9.0, "CFG scale", minimum=0, maximum=100, usual=30, step=0.5, key="CFG scale")
    width: int = param(256, "Width", minimum=16, maximum=2048, usual=1024, step=MULTIPLE)
    height: int = param(256, "Height", minimum=16, maximum=2048, usual=1024, step=MULTIPLE)
    frames: int = param(24, "Frames", minimum=1, maximum=1000, usual=250, step=1, key="Frames")
    seed: int = param(-1, "Seed", minimum=-1, maximum=MAX_SEED, step=1, key="Seed")
    eta: float = param(
        0.0,
        "Eta",
        minimum=0,
        maximum=1,
        step=0.05,
        info="how much new noise each step adds, for samplers that use it",
        key="Eta",
        fold=ADVANCED,
    )
    cfg_rescale: float = param(
        0.0,
        "CFG rescale",
        minimum=0,
        maximum=1,
        step=0.05,
        info="softens glaring colours at a high CFG scale; 0 is off, 0.7 is usual",
        key="CFG rescale",
        fold=ADVANCED,
    )
    cfg_from: float = param(
        0.0,
        "CFG from",
        minimum=0,
        maximum=1,
        step=0.05,
        info="the CFG scale applies only after this share of the steps; 0 is from the start",
        key="CFG from",
        fold=ADVANCED,
    )
    cfg_until: float = param(
        1.0,
        "CFG until",
        minimum=0,
        maximum=1,
        step=0.05,
        info="the CFG scale applies only up to this share of the steps; steps without it take half the time",
        key="CFG until",
        fold=ADVANCED,
    )
    motion: float = param(
        1.0,
        "Motion strength",
        minimum=0,
        maximum=2,
        step=0.05,
        info="how much frames have to do with each other: 1 is as trained, 0 makes each a picture of its own",
        key="Motion strength",
        fold=ADVANCED,
    )
    draft: int = param(
        1,
        "Draft",
        minimum=1,
        maximum=10,
        step=1,
        info="the deep layers run only once in this many steps: quicker but coarser; 1 is off",
        key="Draft",
        fold=ADVANCED,
    )
    decoder: str = param(
        FULL,
        "Decoder",
        choices=lambda: [FULL, TAESD],
        info="TAESD is quicker but coarser; it needs taesd_decoder.pth in models/VAE-taesd",
        key="Decoder",
        fold=ADVANCED,
    )
    strength: float = param(
        0.75,
        "Strength",
        minimum=0,
        maximum=1,
        step=0.01,
        info="how much of the source changes: 0 is hardly anything, 1 is nearly everything",
        key="Denoising strength",
        fold=SOURCE,
    )
    strength_meaning: str = param(
        WEBUI,
        "Strength as in",
        choices=lambda: [WEBUI, DIFFUSERS],
        info="diffusers runs one step fewer; at a small strength it may run none, and returns the source",
        key="Strength as in",
        fold=SOURCE,
    )

    def __post_init__(self) -> None:
        types = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            if "label" in field.metadata:
                value = _validate(field, types[field.name], getattr(self, field.name))
                setattr(self, field.name, value)
        if self.cfg_from > self.cfg_until:
            raise RequestError(f"CFG from ({self.cfg_from}) must not be more than CFG until ({self.cfg_until}).")
        if self.seed == -1:
            self.seed = secrets.randbelow(MAX_SEED + 1)

    @classmethod
    def recommended(cls: type[Request], recommended: Mapping[str, Any], given: Mapping[str, Any]) -> Request:
        """Return a request with the values given, and a model's recommendation for the others.

        Names that are no field are ignored. Raises RequestError.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in (*recommended.items(), *given.items()) if name in names})


def _validate(field: "dataclasses.Field[Any]", kind: type, value: Any) -> Any:
    value = _convert(field, kind, value)
    label, minimum, maximum = (field.metadata[name] for name in ("label", "minimum", "maximum"))
    if isinstance(value, float) and not math.isfinite(value):
        raise RequestError(f"{label} must be a finite number, not {value}.")
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        raise RequestError(f"{label} must be from {minimum} to {maximum}, not {value}.")
    choices = field.metadata["choices"]
    for chosen in value if isinstance(value, tuple) else (value,):
        if choices and chosen not in choices():
            raise RequestError(f"{label} {chosen!r} is unknown. Choose one of: {', '.join(choices())}.")
    if value == () and choices:
        raise RequestError(f"{label}: choose at least one of {', '.join(choices())}.")
    step = field.metadata["step"]
    if kind is int and step and value % step:
        raise RequestError(f"{label} must be a multiple of {step}, not {value}; try {value // step * step}.")
    return value


def _convert(field: "dataclasses.Field[Any]", kind: type, value: Any) -> Any:
    """Return a value converted to its field's type. Raises RequestError.

    Text and whole floats are accepted as numbers, since forms and JSON send them; text with commas as a list.
    """
    try:
        return _CONVERSIONS[kind](value)
    except (TypeError, ValueError, OverflowError):
        noun = {int: "a whole number", float: "a number", str: "text"}.get(kind, "a list of names")
        raise RequestError(f"{field.metadata['label']} must be {noun}, not {repr(value)[:80]}.") from None


def _to_whole(value: Any) -> int:
    # Integers are not converted through float, which rounds large seeds.
    number = value if type(value) is int else _to_number(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _to_number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _to_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    # A browser sends half an emoji if text was cut within one, which neither files nor consoles accept.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _to_names(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise TypeError
    return tuple(dict.fromkeys(_to_text(part).strip() for part in parts if part != ""))


_CONVERSIONS: dict[Any, Callable[[Any], Any]] = {
    int: _to_whole,
    float: _to_number,
    str: _to_text,
    tuple[str, ...]: _to_names,
}

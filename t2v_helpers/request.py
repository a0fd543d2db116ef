"""The full request of a person: the model's parameters, and how the videos are written."""

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from ..modelscope.request import MAX_SEED, VideoRequest, param
from .settings import AUTOMATIC, PRECISIONS
from .video.formats import DEFAULT_FORMAT, format_names

Request = TypeVar("Request", bound="GenerationRequest")


@dataclass(kw_only=True)
class GenerationRequest(VideoRequest):
    """A request with options for the files. soundtrack: path of a file with sound, which is cut or looped to length."""

    fps: float = param(8.0, "FPS", minimum=1, maximum=120, usual=60, step=1, key="FPS")
    batch_count: int = param(1, "Batch count", minimum=1, maximum=100, step=1)
    formats: tuple[str, ...] = param((DEFAULT_FORMAT,), "Output formats", choices=format_names)
    soundtrack: str = param("", "Soundtrack")
    precision: str = param(
        AUTOMATIC,
        "Precision",
        choices=lambda: list(PRECISIONS),
        info="automatic follows the settings; the settings of a saved video name the precision it was made in",
        key="Precision",
        advanced=True,
    )

    def batch(self: Request) -> list[Request]:
        """Return one request per video, with consecutive seeds."""
        seeds = ((self.seed + number) % (MAX_SEED + 1) for number in range(self.batch_count))
        return [dataclasses.replace(self, seed=seed, batch_count=1) for seed in seeds]

"""The full request of a person: the model's parameters, and how the videos are written."""

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from ..modelscope.conditioning.images import RAMP
from ..modelscope.errors import RequestError
from ..modelscope.request import ADVANCED, IMPROVE, MAX_SEED, MULTIPLE, SOURCE, VideoRequest, param
from ..modelscope.sampling.catalogue import sampler_names
from .settings import AUTOMATIC, PRECISIONS
from .video.formats import DEFAULT_FORMAT, format_names
from .video.source import CROP, FIT, STRETCH

Request = TypeVar("Request", bound="GenerationRequest")

AS_FPS_SAYS, ITS_OWN = "as FPS says", "its own"
"""Rates at which a source's frames are taken."""
CHANGE_SOURCE, KEEP_SOURCE = "change it", "keep it"
"""What becomes of a source: it is made into a new video, or continued and improved as it is."""
OFF, SAME = "off", "same"
"""No second pass; its model or sampler is that of the first one."""
LATENT, LANCZOS = "Latent", "Lanczos"
"""Upscalers that every host has."""
BY_MOTION, BY_MODEL = "motion", "model"
"""Ways of interpolation: ffmpeg's, and holding every second frame."""
SLOWEST, FASTEST = 1, 120
"""Range of a video's frames per second."""
MOST_FRAMES = 1000
"""Number of frames beyond which a video is made only if a person has said so."""
ASK_FIRST, MAKE_THEM = "ask first", "make them"
SILENT, KEPT = "left out", "kept"
"""What becomes of a source's sound."""


@dataclass(kw_only=True)
class GenerationRequest(VideoRequest):
    """A request with the files that it reads, and options for those that it writes.

    soundtrack: path of a file with sound, which is cut or looped to length.
    source: path of a video that this one is made from.
    image: pictures as frames, each as FRAME=FILE.
    mask: path of a picture that is white where the source is to change.
    """

    fps: float = param(8.0, "FPS", minimum=SLOWEST, maximum=FASTEST, usual=60, step=1, key="FPS")
    batch_count: int = param(1, "Batch count", minimum=1, maximum=100, step=1)
    formats: tuple[str, ...] = param((DEFAULT_FORMAT,), "Output formats", choices=format_names)
    soundtrack: str = param("", "Soundtrack")
    precision: str = param(
        AUTOMATIC,
        "Precision",
        choices=lambda: list(PRECISIONS),
        info="automatic follows the settings; the settings of a saved video name the precision it was made in",
        key="Precision",
        fold=ADVANCED,
    )
    source: str = param("", "Source video")
    image: tuple[str, ...] = param((), "Image as a frame", info="as FRAME=FILE; 0 is the first frame, -1 the last")
    mask: str = param("", "Mask", info="a picture that is white where the source is to change")
    source_start: float = param(
        0.0,
        "Start in the source",
        minimum=0,
        maximum=86_400,
        usual=600,
        step=0.1,
        info="in seconds",
        key="Source start",
        fold=SOURCE,
    )
    source_length: float = param(
        0.0,
        "Length in the source",
        minimum=0,
        maximum=86_400,
        usual=600,
        step=0.1,
        info="in seconds; 0 is one clip, and more is made of several that are joined",
        key="Source length",
        fold=SOURCE,
    )
    long_videos: str = param(
        ASK_FIRST,
        "Long sources",
        choices=lambda: [ASK_FIRST, MAKE_THEM],
        info=f"more than {MOST_FRAMES:,} frames, or more than an hour of work",
        fold=SOURCE,
    )
    source_rate: str = param(
        AS_FPS_SAYS,
        "Frame rate of the source",
        choices=lambda: [AS_FPS_SAYS, ITS_OWN],
        info="its own also becomes the video's FPS",
        key="Source rate",
        fold=SOURCE,
    )
    resize_mode: str = param(
        CROP,
        "Resize mode",
        choices=lambda: [CROP, FIT, STRETCH],
        info="if the source has another shape: crop its edges, fit it in with black bars, or stretch it",
        key="Resize mode",
        fold=SOURCE,
    )
    source_sound: str = param(
        SILENT,
        "Sound of the source",
        choices=lambda: [SILENT, KEPT],
        info="a soundtrack takes its place",
        key="Source sound",
        fold=SOURCE,
    )

    hold_weights: str = param(
        RAMP,
        "Hold weights",
        info="how soon frames at each distance from an image are let go: 0 never, 1 at once",
        key="Hold weights",
        fold=SOURCE,
    )
    hold_frames: int = param(
        0,
        "Frames that an image holds",
        minimum=0,
        maximum=1000,
        usual=250,
        step=1,
        info="0 is all of them",
        key="Hold frames",
        fold=SOURCE,
    )
    mask_box: str = param(
        "",
        "Box that changes",
        info="left, top, width, height in pixels, or border for the bars that fit adds; instead of a mask",
        key="Mask box",
        fold=SOURCE,
    )
    mask_softness: int = param(
        4,
        "Mask blur",
        minimum=0,
        maximum=64,
        step=1,
        info="in pixels",
        key="Mask blur",
        fold=SOURCE,
    )

    source_use: str = param(
        CHANGE_SOURCE,
        "What becomes of the source",
        choices=lambda: [CHANGE_SOURCE, KEEP_SOURCE],
        info="keep it as it is to continue, enlarge or smooth it",
        key="Source use",
        fold=SOURCE,
    )
    watermark: float = param(
        0.0,
        "Watermark removal",
        minimum=0,
        maximum=1,
        step=0.05,
        info="a second pass over the middle, where the base model writes; 0 is off, 0.5 usual; traces may stay",
        key="Watermark removal",
        fold=ADVANCED,
    )
    extend: int = param(
        0,
        "Extend",
        minimum=0,
        maximum=100,
        usual=10,
        step=1,
        info="clips to add at the end; each continues the one before",
        key="Extend",
        fold=IMPROVE,
    )
    hires: str = param(
        OFF,
        "Hires. fix",
        info="the model of a second pass over the enlarged video",
        key="Second pass model",
        fold=IMPROVE,
    )
    hires_scale: float = param(
        2.0, "Upscale by", minimum=1, maximum=4, step=0.05, key="Second pass scale", fold=IMPROVE
    )
    hires_width: int = param(
        0,
        "Width of the second pass",
        minimum=0,
        maximum=2048,
        step=MULTIPLE,
        info="0 is what the factor gives",
        key="Second pass width",
        fold=IMPROVE,
    )
    hires_height: int = param(
        0,
        "Height of the second pass",
        minimum=0,
        maximum=2048,
        step=MULTIPLE,
        info="0 is what the factor gives",
        key="Second pass height",
        fold=IMPROVE,
    )
    hires_upscaler: str = param(LANCZOS, "Upscaler", key="Second pass upscaler", fold=IMPROVE)
    hires_strength: float = param(
        0.6,
        "Strength of the second pass",
        minimum=0,
        maximum=1,
        step=0.01,
        key="Second pass strength",
        fold=IMPROVE,
    )
    hires_steps: int = param(
        0, "Steps of the second pass", minimum=0, maximum=1000, usual=150, step=1, info="0 is as many as in the first",
        key="Second pass steps", fold=IMPROVE,
    )  # fmt: skip
    hires_sampler: str = param(
        SAME,
        "Sampler of the second pass",
        choices=lambda: [SAME, *sampler_names()],
        key="Second pass sampler",
        fold=IMPROVE,
    )
    interpolate: int = param(
        1,
        "Interpolate",
        minimum=1,
        maximum=8,
        usual=4,
        step=1,
        info="times as many frames per second; 1 is off",
        key="Interpolate",
        fold=IMPROVE,
    )
    interpolate_by: str = param(
        BY_MOTION,
        "Interpolate by",
        choices=lambda: [BY_MOTION, BY_MODEL],
        info="motion is quick; the model takes as long as a video, for 2, 4 or 8 times",
        key="Interpolate by",
        fold=IMPROVE,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interpolate_by == BY_MODEL and self.interpolate & (self.interpolate - 1):
            raise RequestError(f"The model interpolates 2, 4 or 8 times, not {self.interpolate}. Or choose motion.")

    @property
    def keeps_source(self) -> bool:
        """True if the source itself is the first clip."""
        return bool(self.source) and self.source_use == KEEP_SOURCE

    @property
    def has_source(self) -> bool:
        """True if the video is made from files besides the prompt."""
        return bool(self.source or self.image)

    def batch(self: Request) -> list[Request]:
        """Return one request per video, with consecutive seeds."""
        seeds = ((self.seed + number) % (MAX_SEED + 1) for number in range(self.batch_count))
        return [dataclasses.replace(self, seed=seed, batch_count=1) for seed in seeds]

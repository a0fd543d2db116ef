"""The stages of one video: a clip is made, continued, enlarged by a second model, and made smoother, as asked for.

Each stage takes what the one before has made, so that nothing is lost if a later one fails or is interrupted.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from ...modelscope.conditioning.extend import (
    Footage,
    begin_with,
    continue_from,
    count_held,
    has_drifted,
    join,
    match_colours,
)
from ...modelscope.conditioning.in_between import count_in_between, hold_every_second, put_originals
from ...modelscope.conditioning.paste import paste_source
from ...modelscope.conditioning.source import FREE, HELD, Source
from ...modelscope.encode_decode import decode, encode_frames
from ...modelscope.errors import RequestError
from ...modelscope.memory.plan import Plan
from ...modelscope.pipeline import encode_source, generate_latents
from ...modelscope.progress import Step
from ...modelscope.request import MAX_SEED
from ...modelscope.run_options import RunOptions
from ...modelscope.units import format_duration
from ..models.folders import ModelFolder
from ..request import BY_MODEL, LATENT, MAKE_THEM, OFF, GenerationRequest
from ..video.interpolate import interpolate_motion
from .enlarge import enlarge, enlarge_latents
from .job import Job
from .later_stages import OF_SECOND_PASS, count_doublings, request_second_pass, without_later_stages
from .loading import Loaded, Loader
from .monitor import Monitor
from .outcome import OutcomeBuilder
from .pace import Check, Watch, count_work, ignore_seconds
from .watermark import place_of_watermark

HOUR = 3600.0
SEED_STEP = 7919
"""Distance between the seeds of added clips: those of a batch's videos are next to each other."""
ADAPTED = ("sampler", "steps", "cfg_scale", "draft", "precision")
"""Fields that loading a model and its LoRAs may change."""


class Made(NamedTuple):
    """What a stage has made.

    footage: The video so far.
    fps: How many of its frames are shown in a second.
    request: The request that describes it: without what later stages do.
    drifted: Whether a clip that was joined on has other colours or contrasts than the first one.
    """

    footage: Footage
    fps: float
    request: GenerationRequest
    drifted: bool = False


class VideoStages:
    """The stages of one video. request: that of the video, without tags."""

    def __init__(
        self, job: Job, loader: Loader, builder: OutcomeBuilder, request: GenerationRequest, monitor: Monitor
    ) -> None:
        self._job, self._loader, self._builder = job, loader, builder
        self._request, self._monitor = request, monitor
        self._first: tuple[Tensor, Tensor] | None = None

    def run(self) -> Iterator[Made]:
        """Yield what there is after each stage."""
        names = list(self._list())
        made: Made | None = None
        for number, (name, make) in enumerate(names):
            self._monitor.begin_stage(name, number, len(names))
            made = make(made)
            yield made

    def _list(self) -> Iterator[tuple[str, Callable[..., Made]]]:
        """Yield the stages that the request asks for: what progress calls them, and what they do with what there is."""
        request = self._request
        yield "", self._begin
        clips = [] if request.keeps_source else list(self._later_clips())
        for number, (first, count) in enumerate(clips, 2):
            name = f"clip {number} of {len(clips) + 1}: "
            yield name, lambda made, first=first, count=count: self._go_on(made, first, count)
        if request.watermark:
            yield "removing the watermark: ", self._clean
        for number in range(1, request.extend + 1):
            yield f"extending {number} of {request.extend}: ", lambda made, number=number: self._extend(made, number)
        if request.hires != OFF:
            yield "Hires. fix: ", self._enlarge
        if request.interpolate_by != BY_MODEL and request.interpolate > 1:
            yield "interpolating: ", self._interpolate
        for _ in range(count_doublings(request)):
            yield "in between: ", self._fill_in

    def _begin(self, _: None) -> Made:
        request, reading = self._request, self._job.reading
        alone = without_later_stages(request)
        if request.keeps_source and reading.frames is not None:
            return Made(Footage(reading.frames), request.fps, alone)
        loaded = self._load(self._job.folder, request, starts=reading.frames is not None)
        source = reading.first_source(request.seed)
        if source:
            source = self._encode(loaded, source)
            reading.latents = source.latents
        footage = self._make(loaded, source, check=self._refuse_hours)
        return Made(footage, request.fps, replace(alone, **_adapted_fields(loaded.request)))

    def _later_clips(self) -> Iterator[tuple[int, int]]:
        """Yield the first frame and the number of frames of each clip but the first one of a long source."""
        frames, total = self._request.frames, self._job.reading.total
        held = count_held(frames)
        for first in range(frames - held, total - held, frames - held) if frames > held else ():
            yield first, min(frames, total - first)

    def _go_on(self, made: Made, first: int, count: int) -> Made:
        """Make the next clip of a long source, which begins with the last frames of what there is, and join it on.

        Its colours are the source's, and are not matched to those of the first clip, as those of an extension are.
        """
        source, held = self._job.reading.later_source(first, count), count_held(self._request.frames)
        if source is None or len(source.order) <= held:
            return made
        loaded = self._load(self._job.folder, replace(self._request, frames=len(source.order)), starts=True)
        new = self._make(loaded, begin_with(self._encode(loaded, source), made.footage, held))
        footage = join(made.footage, new, held)
        length = len(footage.frames) / made.fps
        return made._replace(footage=footage, request=replace(made.request, source_length=length))

    def _clean(self, made: Made) -> Made:
        """Make a second pass over the place of the base model's watermark."""
        footage, request = made.footage, self._request
        count, height, width, _ = footage.frames.shape
        again = replace(request, frames=count, width=width, height=height, strength=request.watermark)
        loaded = self._load(self._job.folder, again, starts=True)
        order, until, new = tuple(range(count)), (HELD,) * count, place_of_watermark(width, height)
        source = Source(footage.frames, order, until, starts=True, new=new, latents=footage.all_latents)
        done = replace(made.request, watermark=request.watermark, **_adapted_fields(loaded.request))
        return made._replace(footage=self._make(loaded, source), request=done)

    def _extend(self, made: Made, number: int) -> Made:
        """Join a clip on, which begins with the last frames of what there is."""
        request, footage = self._request, made.footage
        seed = (request.seed + SEED_STEP * number) % (MAX_SEED + 1)
        loaded = self._load(self._job.folder, replace(request, seed=seed))
        frames, latents = self._first = self._first or self._take_first(loaded, footage)
        held = min(count_held(request.frames), len(footage.frames))
        source = continue_from(footage, request.frames, held)
        new = self._make(loaded, source, lambda found: match_colours(found, latents))
        drifted = made.drifted or has_drifted(new.frames, frames)
        done = replace(made.request, extend=number, **_adapted_fields(loaded.request))
        return made._replace(footage=join(footage, new, held), drifted=drifted, request=done)

    def _take_first(self, loaded: Loaded, footage: Footage) -> tuple[Tensor, Tensor]:
        """Return the frames of the first clip and their latents, whose colours the other clips get."""
        frames, latents = footage.frames[: self._request.frames], footage.all_latents
        if latents is None:
            latents = encode_frames(loaded.residency, frames, self._options(loaded))
        return frames, latents

    def _enlarge(self, made: Made) -> Made:
        """Make a second pass over an enlarged video, with another model or the same."""
        request, footage = self._request, made.footage
        count, height, width, _ = footage.frames.shape
        second = request_second_pass(request, count, width, height)
        loaded = self._load(self._job.second, second, starts=True)
        latents, frames = None, footage.frames
        if request.hires_upscaler == LATENT:
            latents = self._enlarge_latents(loaded, footage, second.width, second.height)
        else:
            upscale, monitor = self._job.upscale, self._monitor
            size = second.width, second.height
            frames = enlarge(frames, *size, upscale, lambda done: monitor(Step("enlarge", done, count)))
        source = Source(frames, tuple(range(count)), (FREE,) * count, starts=True, latents=latents)
        done = replace(made.request, **{name: getattr(request, name) for name in OF_SECOND_PASS})
        return made._replace(footage=self._make(loaded, source), request=done)

    def _enlarge_latents(self, loaded: Loaded, footage: Footage, width: int, height: int) -> Tensor:
        latents = footage.all_latents
        if latents is None:
            latents = encode_frames(loaded.residency, footage.frames, self._options(loaded))
        scale = loaded.residency.model.config.autoencoder.scale
        return enlarge_latents(latents, height // scale, width // scale)

    def _interpolate(self, made: Made) -> Made:
        factor, monitor = self._request.interpolate, self._monitor
        frames = made.footage.frames
        more = interpolate_motion(frames, factor, lambda done, total: monitor(Step("interpolate", done, total)))
        done = replace(made.request, interpolate=factor)
        return made._replace(footage=Footage(more), fps=made.fps * factor, request=done)

    def _fill_in(self, made: Made) -> Made:
        """Double the frame rate with the model itself."""
        footage = made.footage
        count, height, width, _ = footage.frames.shape
        request = replace(self._request, frames=count_in_between(count), width=width, height=height)
        loaded = self._load(self._job.folder, request)
        new = self._make(loaded, hold_every_second(footage))
        frames = put_originals(new.frames, footage)
        done = replace(made.request, interpolate=made.request.interpolate * 2, interpolate_by=BY_MODEL)
        return made._replace(footage=Footage(frames, new.latents), fps=made.fps * 2, request=done)

    def decode_unfinished(self, latents: Tensor) -> Made:
        """Return latents of which only some steps were done, as a video."""
        loaded = self._load(self._job.folder, self._request)
        frames = decode(loaded.residency, latents, self._options(loaded))
        done = replace(without_later_stages(self._request), **_adapted_fields(loaded.request))
        return Made(Footage(frames), self._request.fps, done)

    def _load(self, folder: ModelFolder, request: GenerationRequest, *, starts: bool = False) -> Loaded:
        """Load a model for a clip. starts: whether it starts from a source, and leaves steps out."""
        return self._loader.load(folder, request, request.strength if starts else 1.0)

    def _make(
        self,
        loaded: Loaded,
        source: Source | None,
        change: Callable[[Tensor], Tensor] = lambda x: x,
        check: Check = ignore_seconds,
    ) -> Footage:
        """Make a clip.

        Args:
            loaded: The model and the request.
            source: What it is made from.
            change: Changes its latents before they are decoded.
            check: Gets the seconds that it takes, as soon as they are known.
        """
        if source:
            # Before the options are asked for: the plan may change.
            source = self._encode(loaded, source)
        latents, _ = generate_latents(loaded.residency, loaded.request, self._options(loaded, check), source)
        latents = change(latents.cpu())
        frames = decode(loaded.residency, latents, self._options(loaded))
        return Footage(paste_source(frames, source) if source else frames, latents)

    def _encode(self, loaded: Loaded, source: Source) -> Source:
        return encode_source(loaded.residency, source, self._options(loaded))

    def _present_plan(self) -> Plan:
        assert self._builder.plan
        return self._builder.plan

    def _refuse_hours(self, each: float | None) -> None:
        """Raise RequestError if all clips of a long source would take more than an hour, unless that was asked for.

        each: seconds of a clip, as far as its first steps tell.
        """
        clips = 1 + len(list(self._later_clips()))
        if each is None or clips == 1 or self._request.long_videos == MAKE_THEM:
            return
        if (seconds := each * clips) > HOUR:
            raise RequestError(
                f"All {self._job.reading.total:,} frames of the source would take about {format_duration(seconds)}. "
                f"Choose a shorter length under Source, or {MAKE_THEM!r} for long sources."
            )

    def _options(self, loaded: Loaded, check: Check = ignore_seconds) -> RunOptions:
        work = count_work(loaded.residency.model, loaded.request, is_turbo=loaded.loras.is_turbo)
        if self._job.tiny_decoder:
            work = replace(work, frame=0.0)
        return RunOptions(
            plan=self._present_plan(),
            loras=loaded.loras,
            on_step=Watch(work, self._present_plan, self._monitor, check),
            notify=self._builder.change_plan,
            tiny_decoder=self._job.tiny_decoder,
        )


def _adapted_fields(request: GenerationRequest) -> dict[str, Any]:
    """Return the fields that loading a model adapts."""
    return {name: getattr(request, name) for name in ADAPTED}

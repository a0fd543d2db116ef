"""The stages of one video: a clip is made, continued, enlarged by a second model, and made smoother, as asked for.

Each stage takes what the one before has made, so that nothing is lost if a later one fails or is interrupted.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from ...modelscope.conditioning.extend import (
    Clip,
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
from ...modelscope.pipeline import encode_source, generate_latents
from ...modelscope.progress import Step
from ...modelscope.request import MAX_SEED
from ...modelscope.run_options import RunOptions
from ..models.folders import ModelFolder
from ..request import BY_MODEL, LATENT, OFF, GenerationRequest
from ..video.interpolate import interpolate_motion
from .enlarge import enlarge, enlarge_latents, request_second_pass
from .job import Job
from .loading import Loaded, Loader
from .monitor import Monitor
from .outcome import OutcomeBuilder
from .source import place_of_watermark, read_clip

SEED_STEP = 7919
"""Distance between the seeds of a video's clips: those of a batch are next to each other."""


class Made(NamedTuple):
    """What a stage has made.

    clip: The video so far.
    fps: How many of its frames are shown in a second.
    drifted: Whether a clip that was joined on has other colours or contrasts than the first one.
    """

    clip: Clip
    fps: float
    drifted: bool = False


class VideoStages:
    """The stages of one video.

    request: that of the video, without tags; once its model is loaded, adapted to it.
    source: what the video is made from, if anything; once it is encoded, with its latents.
    """

    def __init__(
        self, job: Job, loader: Loader, builder: OutcomeBuilder, request: GenerationRequest, monitor: Monitor
    ) -> None:
        self.source = job.reading.source
        self._job, self._loader, self._builder = job, loader, builder
        self.request, self._monitor = request, monitor
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
        request = self.request
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
        factor = request.interpolate
        if request.interpolate_by != BY_MODEL and factor > 1:
            yield "interpolating: ", self._interpolate
        while request.interpolate_by == BY_MODEL and factor > 1:
            yield "in between: ", self._fill_in
            factor //= 2

    def _begin(self, _: Made | None) -> Made:
        request, source = self.request, self.source
        if source and request.keeps_source:
            return Made(Clip(source.frames), request.fps)
        loaded = self._load(self._job.folder, request)
        self.request = loaded.request
        if source:
            source = self.source = encode_source(loaded.residency, source, self._options(loaded))
        return Made(self._make(loaded, source), request.fps)

    def _later_clips(self) -> Iterator[tuple[int, int]]:
        """Yield the first frame and the number of frames of each clip but the first one of a long source."""
        frames, total = self.request.frames, self._job.reading.total
        step = frames - count_held(frames)
        for first in range(step, total - count_held(frames), step) if step else ():
            yield first, min(frames, total - first)

    def _go_on(self, made: Made, first: int, count: int) -> Made:
        """Make the next clip of a long source, which begins with the last frames of what there is, and join it on."""
        source, held = read_clip(self.request, self.request.fps, first, count), count_held(self.request.frames)
        if len(source.order) <= held:
            return made
        loaded = self._load(self._job.folder, replace(self.request, frames=len(source.order)))
        source = begin_with(encode_source(loaded.residency, source, self._options(loaded)), made.clip, held)
        return made._replace(clip=join(made.clip, self._make(loaded, source), held))

    def _clean(self, made: Made) -> Made:
        """Make a second pass over the place of the base model's watermark."""
        clip, request = made.clip, self.request
        count, height, width, _ = clip.frames.shape
        again = replace(request, frames=count, width=width, height=height, strength=request.watermark)
        loaded = self._load(self._job.folder, again)
        new = place_of_watermark(width, height)
        source = Source(
            clip.frames, tuple(range(count)), (HELD,) * count, starts=True, new=new, latents=clip.all_latents
        )
        source = encode_source(loaded.residency, source, self._options(loaded))
        return made._replace(clip=self._make(loaded, source))

    def _extend(self, made: Made, number: int) -> Made:
        """Join a clip on, which begins with the last frames of what there is."""
        request = self.request
        seed = (request.seed + SEED_STEP * number) % (MAX_SEED + 1)
        loaded = self._load(self._job.folder, replace(request, seed=seed))
        frames, latents = self._first = self._first or self._take_first(loaded, made.clip)
        held = min(count_held(request.frames), len(made.clip.frames))
        source = encode_source(loaded.residency, continue_from(made.clip, request.frames, held), self._options(loaded))
        new = self._make(loaded, source, lambda found: match_colours(found, latents))
        drifted = made.drifted or has_drifted(new.frames, frames)
        return made._replace(clip=join(made.clip, new, held), drifted=drifted)

    def _take_first(self, loaded: Loaded, clip: Clip) -> tuple[Tensor, Tensor]:
        """Return the frames of the first clip and their latents, whose colours the other clips get."""
        frames, latents = clip.frames[: self.request.frames], clip.all_latents
        if latents is None:
            latents = encode_frames(loaded.residency, frames, self._options(loaded))
        return frames, latents

    def _enlarge(self, made: Made) -> Made:
        """Make a second pass over an enlarged video, with another model or the same."""
        request, clip = self.request, made.clip
        count, height, width, _ = clip.frames.shape
        second = request_second_pass(request, count, width, height)
        loaded = self._load(self._job.second, second)
        width, height = second.width, second.height
        upscale, monitor = self._job.upscale, self._monitor
        frames = enlarge(clip.frames, width, height, upscale, lambda done: monitor(Step("enlarge", done, count)))
        latents = self._enlarge_latents(loaded, clip, width, height) if request.hires_upscaler == LATENT else None
        source = Source(frames, tuple(range(count)), (FREE,) * count, starts=True, latents=latents)
        return made._replace(clip=self._make(loaded, source))

    def _enlarge_latents(self, loaded: Loaded, clip: Clip, width: int, height: int) -> Tensor:
        latents = clip.all_latents
        if latents is None:
            latents = encode_frames(loaded.residency, clip.frames, self._options(loaded))
        scale = loaded.residency.model.config.autoencoder.scale
        return enlarge_latents(latents, height // scale, width // scale)

    def _interpolate(self, made: Made) -> Made:
        factor = self.request.interpolate
        return made._replace(clip=Clip(interpolate_motion(made.clip.frames, factor)), fps=made.fps * factor)

    def _fill_in(self, made: Made) -> Made:
        """Double the frame rate with the model itself."""
        clip = made.clip
        _, height, width, _ = clip.frames.shape
        request = replace(self.request, frames=count_in_between(len(clip.frames)), width=width, height=height)
        loaded = self._load(self._job.folder, request)
        new = self._make(loaded, hold_every_second(clip))
        return made._replace(clip=Clip(put_originals(new.frames, clip), new.latents), fps=made.fps * 2)

    def decode_unfinished(self, latents: Tensor) -> Made:
        """Return latents of which only some steps were done, as a video."""
        loaded = self._load(self._job.folder, self.request)
        return Made(Clip(decode(loaded.residency, latents, self._options(loaded))), self.request.fps)

    def _load(self, folder: ModelFolder, request: GenerationRequest) -> Loaded:
        return self._loader.load(folder, request, self._monitor)

    def _make(self, loaded: Loaded, source: Source | None, change: Callable[[Tensor], Tensor] = lambda x: x) -> Clip:
        """Make a clip. change: changes its latents before they are decoded."""
        latents, _ = generate_latents(loaded.residency, loaded.request, self._options(loaded), source)
        latents = change(latents.cpu())
        frames = decode(loaded.residency, latents, self._options(loaded))
        return Clip(paste_source(frames, source) if source else frames, latents)

    def _options(self, loaded: Loaded) -> RunOptions:
        assert self._builder.plan
        return RunOptions(
            plan=self._builder.plan,
            loras=loaded.loras,
            on_step=self._monitor,
            notify=self._builder.change_plan,
            tiny_decoder=self._job.tiny_decoder,
        )

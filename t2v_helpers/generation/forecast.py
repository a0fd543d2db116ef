"""The tab's forecast of the memory and time that a run will need."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ...modelscope.checkpoints.find_parts import read_model_config
from ...modelscope.config import ModelConfig
from ...modelscope.errors import TextToVideoError
from ...modelscope.memory.choice import Choice, Limits, choose_plan
from ...modelscope.model import Model, outline
from ...modelscope.units import format_count, format_duration
from ..host import Host
from ..models.folders import ModelFolder
from ..models.known import warn_beyond_training
from ..places import Places, places
from ..request import GenerationRequest
from .kept_model import ModelStore
from .later_stages import list_later_passes
from .limits import limits
from .pace import PACE, count_work, describe


class Foreseen(NamedTuple):
    """The plan of a pass and what it needs, and its seconds, if they are known."""

    choice: Choice
    seconds: float | None


class Forecast:
    """The source of forecasts, which needs only the model's configuration."""

    def __init__(self, host: Host, store: ModelStore) -> None:
        self._host, self._store = host, store
        self._last: tuple[tuple[ModelConfig, Places], Model] | None = None

    def __call__(self, folder: ModelFolder, request: GenerationRequest, second: ModelFolder | None = None) -> str:
        """Return some sentences: a forecast for each pass, or the reason why the run could not begin.

        second: the folder of the second pass's model, if there is a second pass.
        """
        try:
            passes = [self._foresee(folder, request)]
            first = f"{format_count(request.frames, 'frame')}: {describe(*passes[0])}"
            sentences = [first, warn_beyond_training(folder.path, request)]
            for later in list_later_passes(request, request.frames):
                asked = later.request
                passes.append(self._foresee(second if later.is_second and second else folder, asked, later.share))
                what = f"{later.name}, {format_count(asked.frames, 'frame')} of {asked.width} x {asked.height}"
                sentences.append(f"{what}: {describe(*passes[-1])}")
        except TextToVideoError as error:
            return str(error)
        return ". ".join(filter(None, [*sentences, _add_up(request, [seconds for _, seconds in passes])]))

    def _foresee(self, folder: ModelFolder, request: GenerationRequest, share: float = 1.0) -> Foreseen:
        where = places(self._host, request.precision)
        model = self._outline(read_model_config(folder.path), where)
        choice = choose_plan(model, request, self._limits(where.model.device))
        return Foreseen(choice, PACE.forecast(count_work(model, request, share=share), choice.plan))

    def _limits(self, device: torch.device) -> Limits:
        """Return the limits as they will be after the host's models have left the device."""
        kept = self._store.kept
        ours = kept.bytes_kept(kept.model.unet, device) if kept else 0
        return limits(self._host, device, self._host.reclaimable() + ours)

    def _outline(self, config: ModelConfig, where: Places) -> Model:
        if self._last is None or self._last[0] != (config, where):
            self._last = (config, where), outline(config, *where)
        return self._last[1]


def _add_up(request: GenerationRequest, seconds: Sequence[float | None]) -> str:
    """Return a sentence about the time of all passes, if there are several and all are known.

    seconds: those of each pass, the first clip's first.
    """
    known = [each for each in seconds if each is not None]
    if len(known) < len(seconds) or len(known) + request.extend == 1:
        return ""
    return f"One video takes about {format_duration(sum(known) + known[0] * request.extend)} in all"

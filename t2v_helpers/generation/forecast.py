"""The tab's forecast of the memory that a run will need."""

import torch

from ...modelscope.checkpoints.find_parts import read_model_config
from ...modelscope.config import ModelConfig
from ...modelscope.errors import TextToVideoError
from ...modelscope.memory.choice import Choice, Limits, choose_plan
from ...modelscope.model import Model, outline
from ..host import Host
from ..models.folders import ModelFolder
from ..models.known import warn_beyond_training
from ..places import Places, places
from ..request import GenerationRequest
from .kept_model import ModelStore
from .later_stages import count_frames, request_second_pass
from .limits import limits


class Forecast:
    """The source of forecasts, which needs only the model's configuration."""

    def __init__(self, host: Host, store: ModelStore) -> None:
        self._host, self._store = host, store
        self._last: tuple[tuple[ModelConfig, Places], Model] | None = None

    def __call__(self, folder: ModelFolder, request: GenerationRequest, second: ModelFolder | None = None) -> str:
        """Return some sentences: a forecast, or the reason why the run could not begin.

        second: the folder of the second pass's model, if there is a second pass.
        """
        try:
            sentences = [f"{request.frames} frames: {self._choose(folder, request)}"]
            sentences.append(warn_beyond_training(folder.path, request))
            if second:
                total = count_frames(request, request.frames)
                later = request_second_pass(request, total, request.width, request.height)
                what = f"Second pass, {total} frames of {later.width} x {later.height}"
                sentences.append(f"{what}: {self._choose(second, later)}")
        except TextToVideoError as error:
            return str(error)
        return ". ".join(filter(None, sentences))

    def _choose(self, folder: ModelFolder, request: GenerationRequest) -> Choice:
        where = places(self._host, request.precision)
        model = self._outline(read_model_config(folder.path), where)
        return choose_plan(model, request, self._limits(where.model.device))

    def _limits(self, device: torch.device) -> Limits:
        """Return the limits as they will be after the host's models have left the device."""
        kept = self._store.kept
        ours = kept.bytes_kept(kept.model.unet, device) if kept else 0
        return limits(self._host, device, self._host.reclaimable() + ours)

    def _outline(self, config: ModelConfig, where: Places) -> Model:
        if self._last is None or self._last[0] != (config, where):
            self._last = (config, where), outline(config, *where)
        return self._last[1]

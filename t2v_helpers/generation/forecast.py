"""The tab's forecast of the memory that a run will need."""

import torch

from ...modelscope.checkpoints.find_parts import read_model_config
from ...modelscope.config import ModelConfig
from ...modelscope.errors import TextToVideoError
from ...modelscope.memory.choice import Limits, choose_plan
from ...modelscope.model import Model, outline
from ..host import Host
from ..models.folders import ModelFolder
from ..models.known import warn_beyond_training
from ..places import Places, places
from ..request import GenerationRequest
from .kept_model import ModelStore
from .limits import limits


class Forecast:
    """The source of forecasts, which needs only the model's configuration."""

    def __init__(self, host: Host, store: ModelStore) -> None:
        self._host, self._store = host, store
        self._last: tuple[tuple[ModelConfig, Places], Model] | None = None

    def __call__(self, folder: ModelFolder, request: GenerationRequest) -> str:
        """Return one or two sentences: a forecast, or the reason why the run could not begin."""
        try:
            where = places(self._host, request.precision)
            model = self._outline(read_model_config(folder.path), where)
            choice = choose_plan(model, request, self._limits(where.model.device))
        except TextToVideoError as error:
            return str(error)
        sentences = f"{request.frames} frames: {choice}", warn_beyond_training(folder.path, request)
        return ". ".join(filter(None, sentences))

    def _limits(self, device: torch.device) -> Limits:
        """Return the limits as they will be after the host's models have left the device."""
        kept = self._store.kept
        ours = kept.bytes_kept(kept.model.unet, device) if kept else 0
        return limits(self._host, device, self._host.reclaimable() + ours)

    def _outline(self, config: ModelConfig, where: Places) -> Model:
        if self._last is None or self._last[0] != (config, where):
            self._last = (config, where), outline(config, *where)
        return self._last[1]

"""The actions for choosing models and LoRAs, and the tab's forecast of a run."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ...modelscope.errors import ModelError, TextToVideoError
from ..generation.forecast import Forecast
from ..generation.lora_files import find_loras
from ..generation.run import STORE
from ..host import PageHost
from ..models.known import good_values
from ..models.model_list import ModelList
from ..request import OFF, SAME, GenerationRequest
from .html import note
from .latest_only import Latest
from .outcome import model_note
from .results import Models
from .widgets import fields

FORECAST_FIELDS = (
    "width", "height", "frames", "fps", "steps", "cfg_scale", "cfg_from", "cfg_until", "draft", "precision", "extend",
    "hires", "hires_scale", "hires_width", "hires_height", "hires_strength", "hires_steps", "interpolate",
    "interpolate_by", "watermark",
)  # fmt: skip
"""The fields on which a forecast depends, in the order in which events pass their values."""


class ModelActions:
    """The events of models and LoRAs. order: the names of the fields, in the order in which events pass values."""

    def __init__(self, host: PageHost, order: Sequence[str], models: ModelList) -> None:
        self._host, self._order, self._models = host, order, models
        self._latest = Latest(self._forecast, overtaken=gr.update())
        self._needs = Forecast(host, STORE)

    def choose_model(self, previous: str, model: str, *values: Any) -> list[Any]:
        """Set fields that still have the previous model's good values to the new model's."""
        before, after = self._recommended(previous), self._recommended(model)
        updates, known = [], fields()
        for name, value in zip(self._order, values, strict=True):
            untouched = value == before.get(name, known[name].default)
            wanted = after.get(name, known[name].default)
            updates.append(wanted if untouched and wanted != value else gr.update())
        return [model, *updates]

    def _recommended(self, model: str) -> dict[str, Any]:
        try:
            return dict(good_values(self._models.named(model).path))
        except ModelError:
            return {}

    def advise(self, model: str) -> list[Any]:
        """Return the model's good values for the fields; other fields do not change."""
        values = self._recommended(str(model))
        return [values.get(name, gr.update()) for name in self._order]

    def refresh(self, model: str) -> Models:
        """List the models again. A chosen model that still exists is not sent: the person may have changed it since."""
        names = self._models.names(refresh=True)
        chosen = {} if model in names else {"value": names[0]}
        listed = gr.update(choices=names, **chosen)
        return Models(listed, model_note(self._host, names, fresh=True), gr.update(choices=[OFF, SAME, *names]))

    def lora_names(self) -> list[str]:
        """Return the names of all possible LoRA files in the LoRA folder, whatever they hold."""
        return list(find_loras(self._host.lora_folder()))

    def refresh_loras(self) -> Any:
        """List the LoRA files again."""
        return gr.update(choices=self.lora_names(), value=None)

    def add_lora(self, name: Any, prompt: Any) -> list[Any]:
        """Return the list without a choice, and the prompt with the LoRA's tag at its end."""
        tag = f"<lora:{name}:1>" if isinstance(name, str) and name else ""
        return [gr.update(value=None), f"{prompt or ''} {tag}".strip()]

    async def forecast(self, page: Any, *values: Any) -> Any:
        """Return the video's length and the memory that making it needs, as HTML.

        page: the page that asks; only its latest question is answered.
        """
        return await self._latest.answer(str(page), *values)

    def _forecast(self, model: Any, *values: Any) -> str:
        try:
            asked = dict(zip(FORECAST_FIELDS, values, strict=True))
            length = f'<span class="text2video-length">{asked["frames"] / asked["fps"]:.2f} seconds</span>'
            request = GenerationRequest(seed=0, **asked)
            first = self._models.named(str(model))
            second = (
                None if request.hires == OFF else first if request.hires == SAME else self._models.named(request.hires)
            )
            return length + note(self._needs(first, request, second))
        except (TypeError, ZeroDivisionError, OverflowError):
            return ""
        except TextToVideoError as error:
            return note(str(error))

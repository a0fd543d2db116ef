"""Restores a video's settings on the tab: from a dropped file, from a path, or from text in the prompt."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ...modelscope.errors import TextToVideoError
from ..infotext import read_infotext, read_sources
from ..models.model_list import ModelList
from ..readable_files import Reader, find_typed
from ..video.metadata import read_tags
from .html import error_line, note
from .results import Restored
from .widgets import file_path


class Restore:
    """The events that restore settings.

    order: the names of the fields, in the order of the tab; no_source: values of the components that hold a source.
    """

    def __init__(self, order: Sequence[str], models: ModelList, no_source: Sequence[Any]) -> None:
        self._order, self._models, self._no_source = order, models, no_source

    def restore_file(self, file: Any, model: str) -> Restored:
        """Return the settings in an uploaded file."""
        name = file_path(file)
        return self._restore_from(lambda: Path(name), model) if name else self._refuse("There is no file here.")

    def restore_path(self, reader: Reader, name: Any, model: str) -> Restored:
        """Return the settings in a file on this computer. reader: the visitor's rights to name files."""
        return self._restore_from(lambda: find_typed(name, reader), model)

    def _restore_from(self, find: Callable[[], Path], model: str) -> Restored:
        file: Any = gr.update()
        try:
            path = find()
            # Even without settings, it can become the source.
            file = str(path)
            nothing = f"{path.name} contains no settings of this program."
            return self._restore(read_tags(path), model, nothing)._replace(file=file)
        except TextToVideoError as error:
            return self._refuse(str(error))._replace(file=file)

    def restore_text(self, prompt: str, model: str) -> Restored:
        """Return the settings in the text of the prompt box."""
        nothing = "There are no settings in this text. Paste the settings of a video into the prompt box."
        return self._restore(str(prompt), model, nothing)

    def _restore(self, text: str, model: str, nothing: str) -> Restored:
        """Return the settings in a text. nothing: what to say if there are none."""
        found = read_infotext(text)
        if set(found) <= {"prompt", "negative_prompt"}:
            return self._refuse(nothing)
        names = self._models.names()
        wanted = found.get("model", model)
        missing = (
            "" if wanted in names else f" The video was made with the model {wanted!r}, which is not installed here."
        )
        # Both the chosen and the previous model are set: the choice must not change restored fields.
        chosen = wanted if wanted in names else gr.update()
        updates = [found.get(name, gr.update()) for name in self._order]
        files = "; ".join(read_sources(text))
        asked = f" It was made from these files, which you have to give again under Source: {files}." if files else ""
        said = note(f"Settings restored.{missing}{asked}")
        return Restored(said, chosen, chosen, updates, self._no_source, gr.update())

    def _refuse(self, message: str) -> Restored:
        unchanged = [gr.update() for _ in self._order]
        sources = [gr.update() for _ in self._no_source]
        return Restored(error_line(message), gr.update(), gr.update(), unchanged, sources, gr.update())

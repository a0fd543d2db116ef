"""The fold Models of the tab: what is right or wrong with the models, and what to do about it."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from ..modelscope.errors import TextToVideoError
from .components import element
from .convert import convert, converted_folder
from .doctor import Diagnosis, examine
from .host.interface import PageHost
from .misplaced import Misplaced, misplaced, move
from .model_folders import find_models, model_named
from .page import error_line, note


class ModelsPanel:
    """Builds the fold."""

    def __init__(self, host: PageHost) -> None:
        self._host = host
        with gr.Accordion("Models", open=False, elem_id=element("models_fold")):
            with gr.Row():
                self._check = gr.Button("Check all models", elem_id=element("check_models"))
                self._move = gr.Button("Move files to where they belong", visible=False, elem_id=element("move_files"))
                self._convert = gr.Button("Convert the chosen model", elem_id=element("convert_model"))
            self._report = gr.HTML(elem_id=element("models_report"))

    def connect(self, model: Any, refresh: Callable[[str], list[Any]], refreshed: list[Any]) -> None:
        """model: the dropdown; refresh: the function that brings `refreshed` up to date.

        Not by a second event: gradio 4.40 loses what a person presses while one follows the other.
        """
        self._check.click(self.check, None, [self._report, self._move])
        self._move.click(lambda name: [*self.move(), *refresh(name)], [model], [self._report, self._move, *refreshed])
        self._convert.click(lambda name: [self.convert(name), *refresh(name)], [model], [self._report, *refreshed])

    def check(self) -> list[Any]:
        """All models' diagnoses, and whether there is something to move."""
        try:
            files = self._misplaced()
            parts = [_misplaced_html(files), *map(_diagnosis_html, examine(self._host, find_models(self._host)))]
        except TextToVideoError as error:
            return [error_line(str(error)), gr.update()]
        return ["".join(parts), gr.update(visible=bool(files))]

    def move(self) -> list[Any]:
        """Put misplaced files where they belong, and say what was done."""
        try:
            said = move(self._misplaced())
        except TextToVideoError as error:
            return [error_line(str(error)), gr.update()]
        return ["".join(note(html.escape(line)) for line in said), gr.update(visible=False)]

    def _misplaced(self) -> list[Misplaced]:
        return misplaced(self._host.models_folder(), Path.home() / "Downloads")

    def convert(self, name: str) -> str:
        """Write the chosen model anew, and say what was done."""
        said: list[str] = []
        try:
            model = model_named(self._host, str(name))
            convert(model, converted_folder(model, self._host.models_folder()), said.append)
        except TextToVideoError as error:
            return error_line(str(error))
        return "".join(note(html.escape(line)) for line in said)


def _misplaced_html(files: list[Misplaced]) -> str:
    lines = (f"{path} belongs to {goal}." for path, goal in files)
    return "".join(note(f"⚠ {html.escape(line)}") for line in lines)


def _diagnosis_html(diagnosis: Diagnosis) -> str:
    rows = "".join(
        f"<tr><td>{'✔' if finding.sound else '✘'}</td><td>{html.escape(finding.subject)}</td>"
        f"<td>{html.escape(finding.text)}</td></tr>"
        for finding in diagnosis.findings
    )
    where = html.escape(str(diagnosis.model.path))
    return (
        f'<table class="text2video-diagnosis"><caption>{html.escape(diagnosis.model.name)} <small>{where}</small>'
        f"</caption>{rows}</table>"
    )

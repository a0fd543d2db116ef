"""The fold Models of the tab: checks of the models, and remedies."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gradio as gr
from markupsafe import Markup

from ...modelscope.errors import TextToVideoError
from ...modelscope.units import format_bytes
from ..cleanup.find_leftovers import find_leftovers
from ..cleanup.leftovers import Leftover, remove_leftovers
from ..disk import free_space
from ..host import PageHost
from ..models.convert import convert, default_goal
from ..models.doctor import Diagnosis, Finding, examine
from ..models.download_jobs import JOBS
from ..models.folders import find_model, find_models
from ..models.known import KNOWN, describe_model, find_known
from ..models.misplaced import Misplaced, downloads_folder, find_misplaced, move
from .guarded_events import connect
from .html import error_line, escape_names, fill, note, notes
from .widgets import UNLIMITED, element


class Changes(NamedTuple):
    """A change to components elsewhere on the tab.

    by: takes the chosen model and returns the changes; of: the components.
    """

    by: Callable[[str], list[Any]]
    of: list[Any]


class ModelsPanel:
    """The fold Models, which is built when this is created."""

    def __init__(self, host: PageHost) -> None:
        self._host = host
        with gr.Accordion("Models", open=False, elem_id=element("models_fold")):
            with gr.Row():
                self._advise = _button("Use the chosen model's recommended settings", "advise")
                self._check = _button("Check all models", "check_models")
                self._move = _button("Move files to where they belong", "move_files", visible=False)
                self._clean = _button("Remove unfinished leftovers", "clean_leftovers", visible=False)
                self._convert = _button("Convert the chosen model", "convert_model")
            self._thorough = gr.Checkbox(
                False, label="Also compare checksums (reads every file to its end)", elem_id=element("thorough")
            )
            self._thorough.do_not_save_to_config = True
            self._report = gr.HTML(elem_id=element("models_report"))
            with gr.Row():
                keys = [model.key for model in KNOWN]
                self._known = gr.Dropdown(keys, value=keys[0], label="Known model", elem_id=element("known_model"))
                self._known.do_not_save_to_config = True
                self._download = _button("Download", "download")
                self._stop = _button("Stop the download", "stop_download")
            self._about = gr.HTML(self.about(keys[0]), elem_id=element("about_known"))
            self._status = gr.HTML(elem_id=element("download_status"))

    def connect(self, model: Any, models: Changes, fields: Changes) -> None:
        """Connect the fold's events.

        Lists are updated by the same event, not by a second one: gradio 4.40 loses what a person presses between two.

        Args:
            model: The dropdown of models.
            models: Updates the lists of models and LoRAs.
            fields: Sets the fields to the model's good values.
        """
        refresh, refreshed = models
        working: dict[str, Any] = {"show_progress": "full"}
        self._on(self._advise.click, fields.by, [model], fields.of)
        self._on(self._check.click, self.check, [self._thorough], [self._report, self._move, self._clean], **working)
        self._on(self._clean.click, self.clean, None, [self._report, self._clean], **working)
        moved = [self._report, self._move, *refreshed]
        self._on(self._move.click, lambda name: [*self.move(), *refresh(name)], [model], moved, **working)
        converted = [self._report, *refreshed]
        self._on(self._convert.click, lambda name: [self.convert(name), *refresh(name)], [model], converted, **working)
        self._on(self._known.change, self.about, [self._known], [self._about])
        self._on(self._stop.click, JOBS.stop, [self._known], None)

        def download(key: str, name: str) -> Iterator[list[Any]]:
            for shown in self.download(key):
                yield [shown, *[gr.update()] * (1 + len(refreshed))]
            yield [gr.update(), self.about(key), *refresh(name)]

        outputs = [self._status, self._about, *refreshed]
        self._on(self._download.click, download, [self._known, model], outputs, **UNLIMITED)

    def _on(self, event: Any, function: Any, inputs: Any, outputs: Any, **options: Any) -> None:
        connect(self._host, event, function, inputs, outputs, **options)

    def about(self, key: str) -> str:
        """Return a description of a known model for a person who may download it, as HTML."""
        model = find_known(str(key))
        if model is None:
            return ""
        models, loras = self._host.models_folder(), self._host.lora_folder()
        goal = model.goal(models, loras)
        free = free_space(models)
        room = "" if free is None else f", where {format_bytes(free)} is free"
        return note(f"{describe_model(model, models, loras)}. It will be saved to {goal}{room}.")

    def download(self, key: str) -> Iterator[str]:
        """Download a known model, and yield its progress every second."""
        model = find_known(str(key))
        if model is None:
            yield error_line(f"There is no known model {key!r}.")
            return
        job = JOBS.start(model, model.goal(self._host.models_folder(), self._host.lora_folder()))
        while job.is_running:
            yield note(str(job))
            job.wait(1)
        yield error_line(str(job.error)) if job.error else notes(job.messages)

    def check(self, thorough: bool) -> list[Any]:
        """Return all models' diagnoses, and show the buttons for moving and removing if there is anything to do."""
        try:
            files, left = self._misplaced(), find_leftovers(self._host)
            diagnoses = examine(self._host, find_models(self._host), verify_files=bool(thorough))
            parts = [_misplaced_html(files), _leftovers_html(left), *map(_diagnosis_html, diagnoses)]
        except TextToVideoError as error:
            return [error_line(str(error)), gr.update(), gr.update()]
        removable = any(one.is_useless for one in left)
        return ["".join(parts), gr.update(visible=bool(files)), gr.update(visible=removable)]

    def move(self) -> list[Any]:
        """Move misplaced files to where they belong, and report what was done."""
        try:
            messages = move(self._misplaced())
        except TextToVideoError as error:
            return [error_line(str(error)), gr.update()]
        return [notes(messages), gr.update(visible=False)]

    def clean(self) -> list[Any]:
        """Remove what killed processes left, and report what was done."""
        try:
            messages = remove_leftovers([one for one in find_leftovers(self._host) if one.is_useless])
        except TextToVideoError as error:
            return [error_line(str(error)), gr.update()]
        return [notes(messages), gr.update(visible=False)]

    def _misplaced(self) -> list[Misplaced]:
        return find_misplaced(self._host.models_folder(), downloads_folder())

    def convert(self, name: str) -> str:
        """Convert the chosen model to half precision, and report what was done."""
        messages: list[str] = []
        try:
            model = find_model(self._host, str(name))
            convert(model, default_goal(model, self._host.models_folder()), messages.append)
        except TextToVideoError as error:
            return error_line(str(error))
        return notes(messages)


def _button(label: str, name: str, **changes: Any) -> gr.Button:
    return gr.Button(label, size="sm", elem_id=element(name), **changes)


def _misplaced_html(files: list[Misplaced]) -> str:
    return notes([f"⚠ {path} belongs in {goal}." for path, goal in files])


def _leftovers_html(left: list[Leftover]) -> str:
    return notes([f"⚠ {one} {one.advise('')}".strip() for one in left])


def _diagnosis_html(diagnosis: Diagnosis) -> str:
    table = "<table><caption>{name} <small>{where}</small></caption>{rows}</table>"
    rows = Markup("").join(map(_finding_row, diagnosis.findings))
    where = escape_names(str(diagnosis.model.path))
    return str(fill(table, name=escape_names(diagnosis.model.name), where=where, rows=rows))


def _finding_row(finding: Finding) -> Markup:
    return fill(
        "<tr{mark}><td>{sign}</td><td>{subject}</td><td>{text}</td></tr>",
        mark="" if finding.valid else Markup(" class=wrong"),
        sign="✔" if finding.valid else "✘",
        subject=escape_names(finding.subject),
        text=escape_names(finding.text),
    )

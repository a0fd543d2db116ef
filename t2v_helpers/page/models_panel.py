"""The fold Models of the tab: what is right or wrong with the models, and what to do about it."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gradio as gr

from ...modelscope.errors import TextToVideoError
from ..cleanup.find_leftovers import find_leftovers
from ..cleanup.leftovers import Leftover, clean
from ..host import PageHost
from ..models.convert import convert, converted_folder
from ..models.doctor import Diagnosis, examine
from ..models.download_jobs import JOBS
from ..models.folders import find_models, model_named
from ..models.known import KNOWN, described, known_model
from ..models.misplaced import Misplaced, downloads_folder, misplaced, move
from .events import connect
from .outcome import error_line, escaped, note
from .widgets import UNLIMITED, element


class Changes(NamedTuple):
    """What changes components elsewhere on the tab. by: called with the chosen model; of: the components."""

    by: Callable[[str], list[Any]]
    of: list[Any]


class ModelsPanel:
    """Builds the fold."""

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
        """model: the dropdown; models: brings the lists of files up to date; fields: sets the model's good values.

        Not by a second event: gradio 4.40 loses what a person presses while one follows the other.
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
            for said in self.download(key):
                yield [said, *[gr.update()] * (1 + len(refreshed))]
            yield [gr.update(), self.about(key), *refresh(name)]

        outputs = [self._status, self._about, *refreshed]
        self._on(self._download.click, download, [self._known, model], outputs, **UNLIMITED)

    def _on(self, event: Any, function: Any, inputs: Any, outputs: Any, **options: Any) -> None:
        connect(self._host, event, function, inputs, outputs, **options)

    def about(self, key: str) -> str:
        """What a person wants to know of a known model before downloading it."""
        model = known_model(str(key))
        if model is None:
            return ""
        models, loras = self._host.models_folder(), self._host.lora_folder()
        goal = model.goal(models, loras)
        free = f"; {shutil.disk_usage(models).free / 1e9:.0f} GB are free there" if models.is_dir() else ""
        return note(escaped(f"{described(model, models, loras)}. It goes to {goal}{free}."))

    def download(self, key: str) -> Iterator[str]:
        """Download a known model, saying how far it is every second."""
        model = known_model(str(key))
        if model is None:
            yield error_line(f"There is no known model {key!r}.")
            return
        job = JOBS.begun(model, model.goal(self._host.models_folder(), self._host.lora_folder()))
        while job.alive:
            yield note(escaped(str(job)))
            job.wait(1)
        yield error_line(str(job.error)) if job.error else "".join(note(escaped(line)) for line in job.said)

    def check(self, thorough: bool) -> list[Any]:
        """All models' diagnoses, and whether there is something to move or to remove."""
        try:
            files, left = self._misplaced(), find_leftovers(self._host)
            diagnoses = examine(self._host, find_models(self._host), thorough=bool(thorough))
            parts = [_misplaced_html(files), _leftovers_html(left), *map(_diagnosis_html, diagnoses)]
        except TextToVideoError as error:
            return [error_line(str(error)), gr.update(), gr.update()]
        removable = any(one.remove for one in left)
        return ["".join(parts), gr.update(visible=bool(files)), gr.update(visible=removable)]

    def move(self) -> list[Any]:
        """Put misplaced files where they belong, and say what was done."""
        try:
            said = move(self._misplaced())
        except TextToVideoError as error:
            return [error_line(str(error)), gr.update()]
        return ["".join(note(escaped(line)) for line in said), gr.update(visible=False)]

    def clean(self) -> list[Any]:
        """Remove what killed processes left, and say what was done."""
        try:
            said = clean([one for one in find_leftovers(self._host) if one.remove])
        except TextToVideoError as error:
            return [error_line(str(error)), gr.update()]
        return ["".join(note(escaped(line)) for line in said), gr.update(visible=False)]

    def _misplaced(self) -> list[Misplaced]:
        return misplaced(self._host.models_folder(), downloads_folder())

    def convert(self, name: str) -> str:
        """Write the chosen model anew, and say what was done."""
        said: list[str] = []
        try:
            model = model_named(self._host, str(name))
            convert(model, converted_folder(model, self._host.models_folder()), said.append)
        except TextToVideoError as error:
            return error_line(str(error))
        return "".join(note(escaped(line)) for line in said)


def _button(words: str, name: str, **changes: Any) -> gr.Button:
    return gr.Button(words, size="sm", elem_id=element(name), **changes)


def _misplaced_html(files: list[Misplaced]) -> str:
    lines = (f"{path} belongs to {goal}." for path, goal in files)
    return "".join(note(f"⚠ {escaped(line)}") for line in lines)


def _leftovers_html(left: list[Leftover]) -> str:
    lines = (f"{one} {one.what_next('')}".strip() for one in left)
    return "".join(note(f"⚠ {escaped(line)}") for line in lines)


def _diagnosis_html(diagnosis: Diagnosis) -> str:
    rows = "".join(
        f"<tr{'' if finding.sound else ' class=wrong'}><td>{'✔' if finding.sound else '✘'}</td>"
        f"<td>{escaped(finding.subject)}</td><td>{escaped(finding.text)}</td></tr>"
        for finding in diagnosis.findings
    )
    where = escaped(str(diagnosis.model.path))
    return f"<table><caption>{escaped(diagnosis.model.name)} <small>{where}</small></caption>{rows}</table>"

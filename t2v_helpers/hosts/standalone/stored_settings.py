"""The standalone page's settings: a JSON file, and the widgets that change it."""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from ....modelscope.escape import logger
from ....modelscope.json_files import read_json
from ...page.html import error_line
from ...settings import KEEP, KEEP_ALL, SETTINGS, Setting, usable

log = logger(__name__)
DEFAULTS = {KEEP: KEEP_ALL}
"""Nobody else wants the memory here."""


class StoredSettings:
    """The settings that a person has changed, and the defaults of the others."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self._values = self._read()

    def _read(self) -> dict[str, Any]:
        try:
            values = read_json(self._path)
            return values if isinstance(values, dict) else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("The settings in %s cannot be read (%s); using the defaults", self._path, error)
            return {}

    def __getitem__(self, setting: Setting) -> Any:
        return self._usable(setting, self._values.get(setting.key))

    def change(self, setting: Setting, value: Any) -> str:
        """Use and store a value. Return an error as HTML if it cannot be stored."""
        with self._lock:
            self._values[setting.key] = self._usable(setting, value)
            partial = self._path.with_suffix(".partial")
            try:
                partial.write_text(json.dumps(self._values, indent=2), encoding="utf-8")
                partial.replace(self._path)
            except OSError as error:
                message = (
                    f"This change is lost when the server stops: {self._path} cannot be written ({error.strerror})."
                )
                return error_line(message)
        return ""

    def _usable(self, setting: Setting, value: Any) -> Any:
        return usable(setting._replace(default=DEFAULTS.get(setting, setting.default)), value)


def build_settings(stored: StoredSettings, opened: Any) -> None:
    """Build the settings, under a fold at the end of the page. opened: the event of a page that is opened."""
    import gradio as gr

    with gr.Accordion("Settings", open=False, elem_id="settings_fold", visible=False) as fold:
        widgets = [_widget(setting, stored[setting]) for setting in SETTINGS]
        status = gr.HTML()
    for setting, widget in zip(SETTINGS, widgets, strict=True):
        # Only changes by a person are stored: gradio 4.40's page loses answers if several events begin and end at once,
        # as they would if every value that the opening page receives were stored again. Text is stored when complete.
        event = widget.blur if isinstance(widget, gr.Textbox) else widget.input
        event(_changer(stored, setting), [widget], [status], show_progress="hidden")

    def fill() -> list[Any]:
        return [*(stored[setting] for setting in SETTINGS), gr.update(visible=True)]

    # Shown together with its values, which would overwrite what a person had changed before.
    opened.then(fill, None, [*widgets, fold], show_progress="hidden")


def _changer(stored: StoredSettings, setting: Setting) -> Callable[[Any], str]:
    return lambda value: stored.change(setting, value)


def _widget(setting: Setting, value: Any) -> Any:
    import gradio as gr

    about = {"label": setting.label, "value": value, "elem_id": f"setting_{setting.key}"}
    if setting.choices:
        return gr.Radio(list(setting.choices), info=setting.info or None, **about)
    if isinstance(value, bool):
        return gr.Checkbox(info=setting.info or None, **about)
    if isinstance(value, int | float):
        return gr.Number(precision=0 if isinstance(value, int) else None, info=setting.info or None, **about)
    return gr.Textbox(info=setting.info or None, **about)

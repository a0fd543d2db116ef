"""The tab's Source fold: the video that a new one is made from, and what is done with it."""

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from ...modelscope.errors import TextToVideoError
from ...modelscope.request import SOURCE
from ..host import PageHost
from ..models.model_list import ModelList
from ..readable_files import Reader, find_typed
from ..request import KEEP_SOURCE, SAME
from ..video.source import examine
from .files import Files
from .guarded_events import accept_uploads_only
from .html import error_line, note
from .widgets import element, fields, file_path

On = Callable[..., Any]
"""Connects an event, as `Tab` does: component's event, function, inputs, outputs."""
FIRST_OF_VIDEO = ("source_use", "strength")
OF_IMAGES = ("hold_weights", "hold_frames")
OF_MASKS = ("mask_box", "mask_softness")
"""Fields that are beside the components for files that they belong to."""
NOTHING = "No source: the video is made from the prompt alone."
READABLE = (".mp4", ".webm", ".gif")
"""Suffixes of our own formats that can be a source."""
NOT_READABLE = "The last result has no file that can be a source. Choose the format MP4, WebM or GIF for it."
NO_VIDEO = "There is no video here yet. Make one first, or choose a file."
NO_FILE = "There is no video here yet. Drop one above, or type its path."


class Chosen(NamedTuple):
    """The source that a person has chosen: an uploaded file, or the path of another; and what is said about it.

    file and path are never both set.
    """

    file: Any
    path: Any
    status: Any


class SourceButtons(NamedTuple):
    """Components outside the fold with which a result becomes a source.

    Args:
        use_video: The button that takes the last video.
        use_frame: The button that takes the chosen frame as the first one.
        continue_video: The button that takes the last video, to be continued.
        improve: The button that takes the last video, for a second pass.
        use_restored: The button that takes the file whose settings were restored last.
        made: The videos made.
        restored: The path of that file.
        frame: The chosen frame.
    """

    use_video: Any
    use_frame: Any
    continue_video: Any
    improve: Any
    use_restored: Any
    made: Any
    restored: Any
    frame: Any


class SourceFold:
    """The fold, built inside the current gr.Blocks. add: adds the widget of a field of the request, by name."""

    def __init__(self, host: PageHost, add: Callable[[str], None]) -> None:
        self._host = host
        with gr.Accordion("Source", open=False, elem_id=element("source_fold")):
            self._video()
            _add_all(add, FIRST_OF_VIDEO)
            with gr.Accordion("More about the source video", open=False, elem_id=element("video_fold")):
                _add_all(add, _others())
            with gr.Accordion("Images as frames", open=False, elem_id=element("images_fold")):
                self._pictures()
                _add_all(add, OF_IMAGES)
            with gr.Accordion("Mask", open=False, elem_id=element("mask_fold")):
                self._mask = _picture("Mask: white where the source is to change", "mask")
                _add_all(add, OF_MASKS)

    def _video(self) -> None:
        self._file = gr.File(label="Video to start from", elem_id=element("source"), file_types=["video", "image"])
        accept_uploads_only(self._file)
        self._typed = gr.Textbox(
            label="Or the video's path on the WebUI's computer (press Enter to choose it)",
            max_lines=1,
            elem_id=element("source_path"),
        )
        self._typed.do_not_save_to_config = True
        # A visitor can choose no path that they may not read: it stays here, where only events of ours put it.
        self._path = gr.State("")
        self._status = gr.HTML(note(NOTHING), elem_id=element("source_status"))
        self._clear = gr.Button("Remove the source", elem_id=element("source_clear"))

    def _pictures(self) -> None:
        with gr.Row():
            self.first = _picture("First frame", "first")
            self._last = _picture("Last frame", "last")
        self._others = gr.File(
            label="Other pictures as frames", elem_id=element("others"), file_types=["image"], file_count="multiple"
        )
        accept_uploads_only(self._others)
        self._frames_of_others = gr.Textbox(
            label="Their frames", info="0 is the first; with commas, in the order of the files", max_lines=1,
            elem_id=element("frames_of_others"),
        )  # fmt: skip
        self._frames_of_others.do_not_save_to_config = True

    def files(self, soundtrack: Any) -> Files:
        """Return the components for files, with the soundtrack's, in the order of the run's values."""
        return Files(
            soundtrack=soundtrack,
            source=self._file,
            source_path=self._path,
            first=self.first,
            last=self._last,
            others=self._others,
            frames_of_others=self._frames_of_others,
            mask=self._mask,
        )

    @property
    def clearable(self) -> list[Any]:
        """The components that hold or describe a source."""
        pictures = [self.first, self._last, self._others, self._frames_of_others, self._mask]
        return [self._file, self._path, self._status, *pictures]

    def cleared(self) -> list[Any]:
        """Return the values of these components without a source."""
        return [None, "", note(NOTHING), None, None, None, "", None]

    def connect(self, on: On, buttons: SourceButtons, widgets: Mapping[str, Any], models: ModelList) -> None:
        """Connect the events. widgets: those of the request's fields, by name; models: for the second pass."""
        chosen = list(Chosen(self._file, self._path, self._status))
        on(self._file.upload, choose_upload, [self._file], chosen[1:])
        on(self._file.clear, lambda: ("", note(NOTHING)), None, chosen[1:])
        on(self._typed.submit, choose_path, [self._typed], chosen, reads=True)
        on(self._clear.click, self.cleared, None, self.clearable)
        on(buttons.use_video.click, choose_made, [buttons.made], chosen)
        on(buttons.use_restored.click, choose_restored, [buttons.restored], chosen)
        kept = [*chosen, widgets["source_use"]]
        on(buttons.continue_video.click, choose_to_continue, [buttons.made], [*kept, widgets["extend"]])
        improve = functools.partial(choose_to_improve, models)
        on(buttons.improve.click, improve, [buttons.made], [*kept, widgets["hires"]])
        on(buttons.use_frame.click, lambda frame: frame, [buttons.frame], [self.first])


def _add_all(add: Callable[[str], None], names: Iterable[str]) -> None:
    for name in names:
        add(name)


def _others() -> list[str]:
    """Return the other fields of the fold: those that say which piece of a source video is used, and how."""
    shown = {*FIRST_OF_VIDEO, *OF_IMAGES, *OF_MASKS}
    return [name for name, field in fields().items() if field.metadata["fold"] == SOURCE and name not in shown]


def _picture(label: str, name: str) -> gr.Image:
    return gr.Image(label=label, type="pil", image_mode="RGBA", elem_id=element(name), height=180)


def choose_upload(file: Any) -> list[Any]:
    """Return the outputs for an uploaded file, which is the source from now on."""
    try:
        about = _describe(Path(file_path(file)))
    except TextToVideoError as error:
        about = error_line(str(error))
    return ["", about]


def choose_path(reader: Reader, name: Any) -> Chosen:
    """Choose a file of this computer. reader: the visitor's rights to name files."""
    try:
        path = find_typed(name, reader)
    except TextToVideoError as error:
        return _refuse(str(error))
    return _choose(path)


def choose_made(made: list[dict[str, Any]]) -> Chosen:
    """Choose the last video that was made."""
    files = [Path(file) for file in made[-1]["files"]] if made else []
    path = next((file for file in files if file.suffix in READABLE), None)
    if path is None:
        return _refuse(NOT_READABLE if files else NO_VIDEO)
    return _choose(path)


def choose_restored(path: str) -> Chosen:
    """Choose the file whose settings were restored. path: it was found, or uploaded, when they were."""
    if not path:
        return _refuse(NO_FILE)
    return _choose(Path(path))


def choose_to_continue(made: list[dict[str, Any]]) -> list[Any]:
    """Choose the last video, which stays as it is and gets another clip at its end."""
    return [*choose_made(made), *([KEEP_SOURCE, 1] if made else [gr.update(), gr.update()])]


def choose_to_improve(models: ModelList, made: list[dict[str, Any]]) -> list[Any]:
    """Choose the last video, which stays as it is and gets a second pass: by zeroscope XL, if that is here."""
    larger = next((name for name in models.names() if "zeroscope" in name.lower() and "xl" in name.lower()), SAME)
    return [*choose_made(made), *([KEEP_SOURCE, larger] if made else [gr.update(), gr.update()])]


def _refuse(message: str) -> Chosen:
    """Leave the source as it is, and say why."""
    return Chosen(gr.update(), gr.update(), error_line(message))


def _choose(path: Path) -> Chosen:
    """Choose a file if it can be a source; else the source stays as it is."""
    try:
        return Chosen(None, str(path), _describe(path))
    except TextToVideoError as error:
        return _refuse(str(error))


def _describe(path: Path) -> str:
    """Return a line about a video. Raises TextToVideoError if it cannot be used."""
    about = examine(path)
    parts = [path.name]
    if about.seconds is not None:
        parts.append(f"{about.seconds:.1f} seconds")
    if about.rate is not None:
        parts.append(f"{about.rate:g} frames per second")
    return note(f"Source: {', '.join(parts)}")

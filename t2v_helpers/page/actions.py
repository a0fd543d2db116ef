"""What happens when something on the tab is pressed. Values come from browsers: none is trusted."""

from collections import OrderedDict, deque
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr

from ...modelscope.errors import ModelError, TextToVideoError
from ..generation.forecast import Forecast
from ..generation.lora_files import find_loras
from ..generation.run import STORE, Outcome, destination, run
from ..host import PageHost
from ..infotext import read_infotext
from ..models.folders import model_named, model_names
from ..models.known import good_values
from ..reading import Reader, find_readable
from ..request import GenerationRequest
from ..settings import SHOWN_VIDEOS
from ..video.frames import read_frame
from ..video.metadata import read_tags
from .latest import Latest
from .outcome import error_box, error_line, escaped, infotexts, model_note, note, players, summary
from .widgets import fields

RESULTS = 7
"""Outputs of a run: made, players, infotext, frame slider, frame image, what is wrong with that, status."""
MOST_ENDED = 16
"""Runs whose results a reloaded page can still ask for."""
MOST_WITHDRAWN = 1000
"""Runs that were taken back before their turn, more than can wait at once."""
MOST_ASKED = 100
"""Runs of one page that an Interrupt names."""
TOO_MANY = "Too many runs are waiting. This one was not added; try again when some have ended."
WITHDRAWN = '<p role="status">interrupted while it was waiting</p>'


class Actions:
    """The tab's events. order: the names of the fields, as events pass their values."""

    def __init__(self, host: PageHost, order: Sequence[str]) -> None:
        self._host, self._order = host, order
        self._latest = Latest(self._forecast, overtaken=gr.update())
        self._needs = Forecast(host, STORE)
        self._ended: OrderedDict[str, list[Any]] = OrderedDict()
        self._running: str | None = None
        self._withdrawn: deque[str] = deque(maxlen=MOST_WITHDRAWN)
        self._lock = Lock()

    def refuse(self, task: str) -> list[Any]:
        """The results of a run that comes when too many wait already."""
        return self._keep(str(task), self._nothing(error_line(TOO_MANY)))

    def generate(self, task: Any, model: Any, soundtrack: Any, *values: Any) -> list[Any]:
        """Make the videos, once it is this task's turn. Returns the results."""
        task = str(task)
        try:
            results = self._generated(model, soundtrack, values) if self._begins(task) else self._nothing(WITHDRAWN)
        finally:
            with self._lock:
                self._running = None
        return self._keep(task, results)

    def _keep(self, task: str, results: list[Any]) -> list[Any]:
        with self._lock:
            self._ended[task] = results
            while len(self._ended) > MOST_ENDED:
                self._ended.popitem(last=False)
        return results

    def _begins(self, task: str) -> bool:
        """Whether a task whose turn it is was not withdrawn before. Between that and its run no Interrupt is lost."""
        with self._lock:
            self._running = None if task in self._withdrawn else task
            return self._running is not None

    def interrupt(self, tasks: str) -> None:
        """End a page's run; those that all still wait for their turn leave the runs of others alone.

        tasks: of the page, separated by spaces.
        """
        ids = str(tasks).split()[:MOST_ASKED]
        with self._lock:
            if self._running in ids:
                self._host.interrupt()
            else:
                self._withdrawn.extend(task for task in ids if task not in self._withdrawn)

    def skip(self, tasks: str) -> None:
        """End the current video of a page's run."""
        if self._running in str(tasks).split():
            self._host.skip()

    def collect(self, task: str) -> list[Any]:
        """The results of a run whose page was reloaded meanwhile; nothing changes if they are gone."""
        return self._ended.get(str(task), [gr.update()] * RESULTS)

    def _generated(self, model: str, soundtrack: Any, values: Sequence[Any]) -> list[Any]:
        try:
            folder = model_named(self._host, model)
            given = dict(zip(self._order, values, strict=True)) | {"soundtrack": file_path(soundtrack)}
            request = GenerationRequest(**given)
        except TextToVideoError as error:
            return self._nothing(error_box(self._host, error))
        outcome = run(self._host, folder, request)
        status = summary(self._host, outcome, folder.name, request)
        if not outcome.videos:
            return self._nothing(status)
        return [*self._shown(outcome), status]

    def _nothing(self, status: str) -> list[Any]:
        """Only the status changes: what was made before stays on the page."""
        return [*[gr.update()] * (RESULTS - 1), status]

    def _shown(self, outcome: Outcome) -> list[Any]:
        videos = outcome.videos
        made = [{"seed": video.request.seed, "files": [str(path) for path in video.files]} for video in videos]
        html_players = players(videos, self._host.setting(SHOWN_VIDEOS))
        count = videos[-1].request.frames
        # A slider needs two ends.
        slider = gr.update(maximum=max(count, 2), value=1, visible=count > 1)
        return [made, html_players, infotexts(videos), slider, *self.frame(made, 1)]

    def frame(self, made: list[dict[str, Any]], number: float) -> list[Any]:
        """A frame (counted from 1) of the last video, as an image, and what keeps it from being read."""
        if not made:
            return [gr.update(), ""]
        try:
            return [read_frame(Path(made[-1]["files"][0]), int(number) - 1), ""]
        except TextToVideoError as error:
            return [None, error_line(str(error))]
        except (TypeError, ValueError, OverflowError):
            return [None, error_line("The number of the frame must be a whole number.")]

    def model_chosen(self, previous: str, model: str, *values: Any) -> list[Any]:
        """Fields that still have the previous model's good values get the new one's."""
        before, after = self._recommended(previous), self._recommended(model)
        updates, known = [], fields()
        for name, value in zip(self._order, values, strict=True):
            untouched = value == before.get(name, known[name].default)
            wanted = after.get(name, known[name].default)
            updates.append(wanted if untouched and wanted != value else gr.update())
        return [model, *updates]

    def _recommended(self, model: str) -> dict[str, Any]:
        try:
            return dict(good_values(model_named(self._host, model).path))
        except ModelError:
            return {}

    def advised(self, model: str) -> list[Any]:
        """The fields with the model's good values; the others stay."""
        values = self._recommended(str(model))
        return [values.get(name, gr.update()) for name in self._order]

    def refresh(self, model: str) -> list[Any]:
        """The models there are now. The chosen one stays if it can: meanwhile it may be another than was sent."""
        names = model_names(self._host)
        chosen = {} if model in names else {"value": names[0]}
        return [gr.update(choices=names, **chosen), model_note(self._host, names, fresh=True)]

    def lora_names(self) -> list[str]:
        """Of all files there are, of whatever kind."""
        return list(find_loras(self._host.lora_folder()))

    def refresh_loras(self) -> Any:
        """The files there are now."""
        return gr.update(choices=self.lora_names(), value=None)

    def add_lora(self, name: Any, prompt: Any) -> list[Any]:
        """Nothing chosen any more, and the prompt with the LoRA's tag at its end."""
        tag = f"<lora:{name}:1>" if isinstance(name, str) and name else ""
        return [gr.update(value=None), f"{prompt or ''} {tag}".strip()]

    async def forecast(self, page: Any, *values: Any) -> Any:
        """How long the video will be, and what making it needs. page: which one asks, for its latest question only."""
        return await self._latest.ask(str(page), *values)

    def _forecast(self, model: Any, width: Any, height: Any, frames: Any, fps: Any, draft: Any) -> str:
        try:
            length = f'<span class="text2video-length">{frames / fps:.2f} seconds</span>'
            folder = model_named(self._host, str(model))
            return length + note(escaped(self._needs(folder, width, height, frames, draft)))
        except (TypeError, ZeroDivisionError, OverflowError):
            return ""
        except TextToVideoError as error:
            return note(escaped(str(error)))

    def last_seed(self, made: list[dict[str, Any]], seed: Any) -> Any:
        """The seed of the last video."""
        return made[-1]["seed"] if made else seed

    def open_folder(self, made: list[dict[str, Any]]) -> str:
        """Show the last video's folder, or the one where videos go."""
        try:
            folder = Path(made[-1]["files"][0]).parent if made else destination(self._host).root
            self._host.open_folder(folder)
        except TextToVideoError as error:
            return error_line(str(error))
        return ""

    def restore_file(self, file: Any, model: str) -> list[Any]:
        """The fields as a dropped file tells them."""
        try:
            return self._restored(read_tags(Path(file_path(file))), model)
        except TextToVideoError as error:
            return self._not_restored(str(error))

    def restore_path(self, reader: Reader, name: Any, model: str) -> list[Any]:
        """The fields as a file on this computer tells them. reader: which files the visitor may name."""
        try:
            return self._restored(read_tags(find_readable(str(name).strip().strip('"'), reader)), model)
        except TextToVideoError as error:
            return self._not_restored(str(error))

    def restore_text(self, prompt: str, model: str) -> list[Any]:
        """The fields as the text in the prompt box tells them."""
        return self._restored(str(prompt), model)

    def _restored(self, text: str, model: str) -> list[Any]:
        found = read_infotext(text)
        if set(found) <= {"prompt", "negative_prompt"}:
            return self._not_restored("There are no settings in this text. Paste a video's settings into the prompt.")
        names = model_names(self._host)
        wanted = found.get("model", model)
        missing = "" if wanted in names else f" It was made with the model {wanted!r}, which is not here."
        updates = [found.get(name, gr.update()) for name in self._order]
        shown = note(escaped(f"Settings restored.{missing}"))
        # Chosen and previous model alike: choosing one is not to change what was restored.
        chosen = wanted if wanted in names else gr.update()
        return [shown, chosen, chosen, *updates]

    def _not_restored(self, message: str) -> list[Any]:
        return [error_line(message), *[gr.update()] * (2 + len(self._order))]


def file_path(value: Any) -> str:
    """The path of an uploaded file: gradio 3 gives an object, gradio 4 the path itself."""
    return str(getattr(value, "name", value) or "")

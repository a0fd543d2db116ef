"""The actions of the tab's buttons for runs and their videos. Values come from browsers, so none is trusted."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ...modelscope.errors import TextToVideoError
from ..generation.outcome import Outcome
from ..generation.outputs import destination
from ..generation.run import run
from ..host import PageHost
from ..models.model_list import ModelList
from ..request import GenerationRequest
from ..settings import SHOWN_VIDEOS
from ..video.frames import read_frame
from .files import Files
from .html import error_line, status_line
from .outcome import error_box, infotexts, players, summary
from .results import Frame, Results

MOST_ASKED = 100
"""Maximum number of a page's runs that one Interrupt may name."""
TOO_MANY = "Too many runs are waiting, so this one was not added. Try again when some have finished."
WITHDRAWN = "interrupted before it started"


class Actions:
    """The events of runs and their videos. order: the names of the fields, in the order in which events pass values."""

    def __init__(self, host: PageHost, order: Sequence[str], models: ModelList) -> None:
        self._host, self._order, self._models = host, order, models

    def refuse(self, task: str) -> Results:
        """Return the results of a run that arrives when too many are waiting already."""
        return self._host.tasks.refuse(str(task), Results.unchanged(status=error_line(TOO_MANY)))

    def generate(self, task: Any, model: Any, *values: Any) -> Results:
        """Make the videos of a task whose turn it is.

        Args:
            task: The task's id.
            model: The model's name.
            values: The values of the components for files, then those of the fields, in their order.
        """
        withdrawn = Results.unchanged(status=status_line(WITHDRAWN))
        return self._host.tasks.perform(str(task), lambda: self._make(model, values), withdrawn)

    def _make(self, model: str, values: Sequence[Any]) -> Results:
        files, fields = Files(*values[: len(Files._fields)]), values[len(Files._fields) :]
        with tempfile.TemporaryDirectory(prefix="text2video-") as folder:
            try:
                chosen = self._models.named(model)
                given = dict(zip(self._order, fields, strict=True)) | files.request_fields(Path(folder))
                request = GenerationRequest(**given)
            except TextToVideoError as error:
                return Results.unchanged(status=error_box(self._host, error))
            outcome = run(self._host, chosen, request)
        status = summary(self._host, outcome, chosen.name, request)
        # Earlier videos stay on the page if none was made.
        return self._show(outcome, status) if outcome.videos else Results.unchanged(status=status)

    def _show(self, outcome: Outcome, status: str) -> Results:
        videos = outcome.videos
        made = [{"seed": video.request.seed, "files": [str(path) for path in video.files]} for video in videos]
        count, (image, problem) = videos[-1].frames, self.frame(made, 1)
        return Results(
            made=made,
            players=players(videos, self._host.setting(SHOWN_VIDEOS)),
            infotext=infotexts(videos),
            # A slider needs two ends.
            frame_number=gr.update(maximum=max(count, 2), value=1, visible=count > 1),
            frame=image,
            frame_status=problem,
            status=status,
        )

    def interrupt(self, tasks: str) -> None:
        """End a page's run. If all its runs are still waiting, withdraw them, and leave other pages' runs alone.

        tasks: the page's tasks, separated by spaces.
        """
        self._host.tasks.interrupt(str(tasks).split()[:MOST_ASKED], self._host.interrupt)

    def skip(self, tasks: str) -> None:
        """End the current video of a page's run."""
        if self._host.tasks.running in str(tasks).split():
            self._host.skip()

    def collect(self, task: str) -> Results:
        """Return the results of a run whose page was reloaded meanwhile; if they are gone, nothing changes."""
        results: Results | None = self._host.tasks.results(str(task))
        return results or Results.unchanged()

    def frame(self, made: list[dict[str, Any]], number: float) -> Frame:
        """Return a frame of the last video, counted from 1, or the reason why it cannot be read."""
        if not made:
            return Frame(gr.update(), "")
        try:
            return Frame(read_frame(Path(made[-1]["files"][0]), int(number) - 1), "")
        except TextToVideoError as error:
            return Frame(None, error_line(str(error)))
        except (TypeError, ValueError, OverflowError):
            return Frame(None, error_line("The frame number must be a whole number."))

    def last_seed(self, made: list[dict[str, Any]], seed: Any) -> Any:
        """Return the seed of the last video, or the present seed if there is no video."""
        return made[-1]["seed"] if made else seed

    def open_folder(self, made: list[dict[str, Any]]) -> str:
        """Show the last video's folder, or the one for new videos. Return an error as HTML if it cannot be shown."""
        try:
            folder = Path(made[-1]["files"][0]).parent if made else destination(self._host).root
            self._host.open_folder(folder)
        except TextToVideoError as error:
            return error_line(str(error))
        return ""

"""The progress of a run on the console: a bar for each phase."""

import sys

from tqdm import tqdm

from ...modelscope.progress import Phase, Step
from ..terminal import unread

LABELS: dict[Phase, str] = {
    "encode": "reading the prompt",
    "source": "encoding the source",
    "sample": "sampling",
    "decode": "decoding",
    "enlarge": "enlarging",
    "interpolate": "adding frames",
}


class ProgressBar:
    """An `on_step` for the pipeline that draws a bar for each phase."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None
        self._phase: Phase | None = None

    def __call__(self, step: Step) -> None:
        if step.phase != self._phase:
            self.close()
            self._phase = step.phase
            with unread():
                self._bar = tqdm(total=step.total, desc=LABELS[step.phase], unit="step", disable=sys.stderr is None)
        if self._bar is not None:
            with unread():
                self._bar.update(step.done - self._bar.n)

    def close(self) -> None:
        """Finish the current bar."""
        if self._bar is not None:
            with unread():
                self._bar.close()
        self._bar, self._phase = None, None

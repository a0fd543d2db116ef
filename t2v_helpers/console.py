"""What a run looks like in a console: a progress bar, then a green word."""

import os
import sys

from tqdm import tqdm

from ..modelscope.progress import Stage, Step

WORDS: dict[Stage, str] = {"encode": "reading the prompt", "sample": "sampling", "decode": "decoding"}


class ProgressBar:
    """Draws each stage as a bar of its own; give it to the pipeline as on_step."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None
        self._stage: Stage | None = None

    def __call__(self, step: Step) -> None:
        if step.stage != self._stage:
            self.close()
            self._stage = step.stage
            self._bar = tqdm(total=step.total, desc=WORDS[step.stage], unit="step")
        assert self._bar is not None
        self._bar.update(step.done - self._bar.n)

    def close(self) -> None:
        """Finish the current bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, None


def green(text: str) -> str:
    """The text in green where the console has colours."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    if os.name == "nt":
        # An empty command makes Windows' console understand colour codes.
        os.system("")
    return f"\x1b[32m{text}\x1b[0m"

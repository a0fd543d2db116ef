"""What events change on the page, by name. Each field is one component, in the order in which the event gives them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr


class Results(NamedTuple):
    """What a run changes on the page.

    Args:
        made: The videos, as the events that ask about them later need them.
        players: The videos, as HTML.
        infotext: Their settings, as HTML.
        frame_number: The slider for one frame of the last video.
        frame: That frame.
        frame_status: What keeps the frame from being read, as HTML.
        status: How the run ended, as HTML. The WebUI adds the time to it, so it comes last.
    """

    made: Any
    players: Any
    infotext: Any
    frame_number: Any
    frame: Any
    frame_status: Any
    status: Any

    @classmethod
    def unchanged(cls, **changes: Any) -> "Results":
        """Return results that leave all components as they are but for those named."""
        return cls(**{name: gr.update() for name in cls._fields} | changes)


class Frame(NamedTuple):
    """A frame of the last video, or what keeps it from being read."""

    image: Any
    status: Any


class Models(NamedTuple):
    """The list of models, and the note below it."""

    model: Any
    note: Any


class Restored(NamedTuple):
    """Settings that were read from a file or a text. fields: the request's, in the order of the tab."""

    note: Any
    model: Any
    previous_model: Any
    fields: Sequence[Any]

    def outputs(self) -> list[Any]:
        """Return one value per component."""
        return [self.note, self.model, self.previous_model, *self.fields]

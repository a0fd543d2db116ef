"""Results of events, with a name for each output. The fields are in the order of the event's output components."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gradio as gr


class Results(NamedTuple):
    """Outputs of a run.

    Args:
        made: The videos, as later events need them.
        players: The videos, as HTML.
        infotext: The videos' settings, as HTML.
        frame_number: The slider for choosing a frame of the last video.
        frame: The chosen frame.
        frame_status: The reason why the frame cannot be read, as HTML.
        status: The end of the run, as HTML. The WebUI adds the time to it, so it comes last.
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
        """Return results that change only the named components."""
        return cls(**{name: gr.update() for name in cls._fields} | changes)


class Frame(NamedTuple):
    """A frame of the last video, or the reason why it cannot be read."""

    image: Any
    status: Any


class Models(NamedTuple):
    """The list of models, the note below it, and the list of models for the second pass."""

    model: Any
    note: Any
    hires: Any


class Restored(NamedTuple):
    """Settings that were read from a file or a text.

    fields: the request's fields, in the order of the tab; sources: the components that hold a source; file: the path of
    the file, if it was one, which can become the source.
    """

    note: Any
    model: Any
    previous_model: Any
    fields: Sequence[Any]
    sources: Sequence[Any]
    file: Any

    def outputs(self) -> list[Any]:
        """Return one value per component."""
        return [self.note, self.model, self.previous_model, *self.fields, *self.sources, self.file]

"""The files that the tab's components hold, as fields of a request."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...modelscope.errors import RequestError
from .widgets import file_path

FIELDS = ("soundtrack", "source", "image", "mask")
"""The request's fields that name files: they have components of their own instead of widgets."""


class Files(NamedTuple):
    """The values of the components for files; each is empty or None if there is none.

    Args:
        soundtrack: An uploaded file with sound.
        source: An uploaded video to start from.
        source_path: The path of a video to start from otherwise, which our own events have checked.
        first, last: Pictures that are the first and the last frame.
        others: Uploaded files with pictures that are other frames.
        frames_of_others: Their frames as text, with commas.
        mask: A picture that is white where the source is to change.

    Pictures are Pillow's, not files: Forge cannot pass them on as files.
    """

    soundtrack: Any
    source: Any
    source_path: Any
    first: Any
    last: Any
    others: Any
    frames_of_others: Any
    mask: Any

    def request_fields(self, folder: Path) -> dict[str, Any]:
        """Return the fields of a request. Raises RequestError if the pictures and their frames do not match.

        folder: for the pictures that are no files yet.
        """
        first, last, mask = (_store(getattr(self, name), folder / f"{name}.png") for name in ("first", "last", "mask"))
        images = [f"{frame}={path}" for frame, path in (("0", first), ("-1", last)) if path]
        return {
            "soundtrack": file_path(self.soundtrack),
            "source": file_path(self.source) or str(self.source_path or ""),
            "image": tuple(images + self._others()),
            "mask": mask,
        }

    def _others(self) -> list[str]:
        paths = [file_path(value) for value in self.others or ()]
        frames = [part.strip() for part in str(self.frames_of_others or "").split(",") if part.strip()]
        if len(paths) != len(frames):
            raise RequestError(
                f"There are {_count(paths, 'other picture')} and {_count(frames, 'frame')} for them. Under Source, "
                "write one frame for each of the other pictures, with commas between them."
            )
        return [f"{frame}={path}" for frame, path in zip(frames, paths, strict=True)]


def _store(picture: Any, path: Path) -> str:
    """Write a picture, if there is one, and return its path; else return an empty text."""
    if picture is None:
        return ""
    picture.save(path)
    return str(path)


def _count(items: Sequence[str], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"

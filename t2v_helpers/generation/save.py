"""Saves a video in every format of its request, and its settings in a text file if a person wants that."""

from collections.abc import Callable, Iterator
from pathlib import Path

from ..host import Host
from ..infotext import write_infotext
from ..request import GenerationRequest
from ..settings import SAVE_INFOTEXT, SAVE_TEXT
from ..signals import held
from ..video.ffmpeg import OutputError
from ..video.formats import FORMATS
from ..video.write import cannot_write, write_video
from .job import Job
from .outcome import OutcomeBuilder, Video
from .outputs import make_folder, pattern_values, reserved_stem
from .stages import Made

OnFile = Callable[[Path], None]
"""Callback for every file, as soon as it is complete."""


class VideoSaver:
    """The saver of a job's videos."""

    def __init__(self, host: Host, job: Job, on_file: OnFile, builder: OutcomeBuilder) -> None:
        self._host, self._job = host, job
        self._on_file, self._builder = on_file, builder

    def save(self, made: Made, *, eight_bits: bool = False, finished: bool = True) -> Video:
        """Write a video in every format. If one fails, the others are written anyway.

        Args:
            made: The video.
            eight_bits: Whether the weights were stored in 8 bits.
            finished: Whether the video was not interrupted.

        Raises:
            OutputError: No file could be written.
        """
        request = self._job.with_tags(made.request)
        about = {"Weights": "8 bits"} if eight_bits else {}
        infotext = write_infotext(request, self._job.folder.name, self._job.reading.names | about)
        where, names = self._job.destination, pattern_values(request, self._job.folder.name)
        failures: list[OutputError] = []
        with held(), reserved_stem(make_folder(where, names), where.name_pattern, names) as stem:
            files = tuple(self._write_files(stem, made, request, infotext, failures.append))
            if files and self._host.setting(SAVE_TEXT):
                try:
                    write_text(stem.with_name(f"{stem.name}.txt"), infotext)
                except OutputError as error:
                    failures.append(error)
        if not files:
            raise failures[0]
        for failure in failures:
            self._builder.add_problem(failure)
        count = len(made.footage.frames)
        first = next((kind for kind in FORMATS.values() if kind.suffix == files[0].suffix), None)
        shown = first.count_shown(count, made.fps) if first else count
        return Video(request, infotext, files, shown, finished)

    def _write_files(
        self,
        stem: Path,
        made: Made,
        request: GenerationRequest,
        infotext: str,
        on_failure: Callable[[OutputError], None],
    ) -> Iterator[Path]:
        inside = infotext if self._host.setting(SAVE_INFOTEXT) else ""
        for kind in (FORMATS[name] for name in request.formats):
            path = stem.with_name(stem.name + kind.suffix)
            try:
                lacks = write_video(path, made.footage.frames, made.fps, kind, inside, self._job.reading.sound)
            except OutputError as error:
                on_failure(error)
                continue
            if lacks:
                on_failure(OutputError(lacks))
            if made.fps > kind.fastest:
                self._builder.tell(f"{kind.name} files show {kind.fastest:g} of {made.fps:g} frames per second.")
            self._on_file(path)
            yield path


def write_text(path: Path, infotext: str) -> None:
    """Write a video's settings into a text file. Raises OutputError."""
    try:
        path.write_text(infotext + "\n", encoding="utf-8")
    except OSError as error:
        raise cannot_write(path.parent, error) from error

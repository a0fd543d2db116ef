"""The tab's events: each comes from a page of ours, or is refused. For gradio 3.41 and 4."""

import inspect
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from ...modelscope.errors import TextToVideoError
from ..access import Visit
from ..host import PageHost
from ..readable_files import Reader, find_readable
from .real_headers import arrived_visit
from .widgets import GRADIO_3


def connect(
    host: PageHost,
    event: Callable[..., Any],
    function: Callable[..., Any],
    *components: Any,
    reads: bool = False,
    **options: Any,
) -> Any:
    """Let an event call a function if it comes from a page of the host's.

    components: its inputs and its outputs; reads: whether the function first gets the visitor's Reader.
    """
    guarded = _guard_reader(host, function) if reads else _guard(host, function)
    # gradio names the event after it. Not functools.wraps: gradio would look for `request` in the wrapped one.
    guarded.__name__ = getattr(function, "__name__", "call")
    return event(guarded, *map(_plain, components), **({"show_progress": "hidden"} | options))


def _plain(values: Any) -> Any:
    """Return a tuple, as those with names are, as the list that gradio 3 insists on; anything else as it is."""
    return list(values) if isinstance(values, tuple) else values


def _guard_reader(host: PageHost, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(request: gr.Request, *values: Any) -> Any:
        _check(host, request)
        return _plain(function(host.reader(_surest_visit(request)), *values))

    return call


def _guard(host: PageHost, function: Callable[..., Any]) -> Callable[..., Any]:
    """Put a check of who calls before a function. It stays of the same kind: gradio looks at that."""

    def call(request: gr.Request, *values: Any) -> Any:
        _check(host, request)
        return _plain(function(*values))

    def generate(request: gr.Request, *values: Any) -> Iterator[Any]:
        _check(host, request)
        yield from map(_plain, function(*values))

    async def wait(request: gr.Request, *values: Any) -> Any:
        _check(host, request)
        return _plain(await function(*values))

    if inspect.isgeneratorfunction(function):
        return generate
    return wait if inspect.iscoroutinefunction(function) else call


def _check(host: PageHost, request: gr.Request) -> None:
    """Raise gradio's error, which the page shows, unless the request comes from a page of the host's."""
    try:
        host.check(visit_of(request))
        # gradio 3 takes the headers from the request's body where there are some.
        if GRADIO_3 and (outer := arrived_visit()):
            host.check(outer)
    except TextToVideoError as error:
        raise gr.Error(str(error)) from error


def visit_of(request: gr.Request) -> Visit:
    """Return the request behind an event, whether it came by HTTP or through a WebSocket."""
    headers = {str(name).lower(): str(value) for name, value in dict(request.headers).items()}
    return Visit(headers, str(getattr(request.client, "host", "")))


def _surest_visit(request: gr.Request) -> Visit:
    """The visit; with gradio 3, which believes a request's body, from here only if the request itself is."""
    visit = visit_of(request)
    if GRADIO_3 and not ((outer := arrived_visit()) and outer.is_local):
        return visit._replace(client="")
    return visit


def accept_uploads_only(component: Any) -> None:
    """Let a file component take what was uploaded. gradio 3 takes any path that a request names."""
    preprocess = component.preprocess
    uploads = Reader(folders=(Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio")),))

    def checked(value: Any) -> Any:
        try:
            for name in _named_files(value):
                find_readable(name, uploads)
        except TextToVideoError as error:
            raise gr.Error(str(error)) from error
        return preprocess(value)

    if GRADIO_3:
        component.preprocess = checked


def _named_files(value: Any) -> list[str]:
    """The paths in gradio 3's value of a file component."""
    files = value if isinstance(value, list) else [value]
    return [str(file.get("name")) for file in files if isinstance(file, dict) and file.get("is_file")]

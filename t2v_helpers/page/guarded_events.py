"""Connects the tab's events, and refuses those that do not come from one of our pages. For gradio 3.41 and 4."""

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
from .real_headers import recall_visit
from .widgets import GRADIO_3


def connect(
    host: PageHost,
    event: Callable[..., Any],
    function: Callable[..., Any],
    *components: Any,
    reads: bool = False,
    **options: Any,
) -> Any:
    """Make an event call a function if it comes from one of the host's pages.

    components: the event's inputs and outputs; reads: whether the function takes the visitor's Reader first.
    """
    guarded = _guard_reader(host, function) if reads else _guard(host, function)
    # gradio names the event after the function. Not functools.wraps: gradio would look for `request` in the original.
    guarded.__name__ = getattr(function, "__name__", "call")
    return event(guarded, *map(_plain, components), **({"show_progress": "hidden"} | options))


def _plain(values: Any) -> Any:
    """Turn a tuple, such as a named one, into a list, which gradio 3 requires; return anything else unchanged."""
    return list(values) if isinstance(values, tuple) else values


def _guard_reader(host: PageHost, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(request: gr.Request, *values: Any) -> Any:
        _check(host, request)
        return _plain(function(host.reader(_surest_visit(request)), *values))

    return call


def _guard(host: PageHost, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that first checks its caller. It stays a generator or coroutine function, as gradio needs."""

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
    """Check that a request comes from one of the host's pages. Raises gradio's error, which the page shows."""
    try:
        host.check(visit_of(request))
        # gradio 3 takes headers from the request's body if there are any.
        if GRADIO_3 and (outer := recall_visit()):
            host.check(outer)
    except TextToVideoError as error:
        raise gr.Error(str(error)) from error


def visit_of(request: gr.Request) -> Visit:
    """Return the request behind an event, by HTTP or through a WebSocket."""
    headers = {str(name).lower(): str(value) for name, value in dict(request.headers).items()}
    return Visit(headers, str(getattr(request.client, "host", "")))


def _surest_visit(request: gr.Request) -> Visit:
    """Return the visit. With gradio 3, which believes a request's body, it is local only if the real request is."""
    visit = visit_of(request)
    if GRADIO_3 and not ((outer := recall_visit()) and outer.is_local):
        return visit._replace(client="")
    return visit


def accept_uploads_only(component: Any) -> None:
    """Make a file component accept only uploaded files: gradio 3 accepts any path that a request names."""
    preprocess = component.preprocess
    uploads = Reader(folders=(Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio")),))

    def check_and_preprocess(value: Any) -> Any:
        try:
            for name in _named_files(value):
                find_readable(name, uploads)
        except TextToVideoError as error:
            raise gr.Error(str(error)) from error
        return preprocess(value)

    if GRADIO_3:
        component.preprocess = check_and_preprocess


def _named_files(value: Any) -> list[str]:
    """Return the paths in gradio 3's value of a file component."""
    files = value if isinstance(value, list) else [value]
    return [str(file.get("name")) for file in files if isinstance(file, dict) and file.get("is_file")]

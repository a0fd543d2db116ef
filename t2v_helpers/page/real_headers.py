"""Remembers requests as they reached the server, since gradio 3 trusts the headers that a request's body claims."""

from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

from ..access import Visit, read_visit

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
_VISIT: ContextVar[Visit | None] = ContextVar("visit", default=None)


class Arrivals:
    """Middleware that remembers each request while it is answered, and changes nothing."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            _VISIT.set(read_visit(scope))
        await self._app(scope, receive, send)


def recall_visit() -> Visit | None:
    """Return the request that is being answered, or None if it was not remembered."""
    return _VISIT.get()

"""What the standalone page sends: nothing that loads anything from elsewhere, or that others show in a frame."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
"""The page loads nothing from elsewhere, and no other site shows it in a frame. gradio needs what is unsafe."""
CONTAINED = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""For files that visitors have uploaded: pages among them run nothing."""
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)
_OUTSIDE = re.compile(rb"<(?:link|script)\b[^>]*\b(?:href|src)=\"https?://[^>]*>(?:\s*</script>)?")
"""What gradio's page would load from elsewhere: fonts, and a script for pages inside of others."""
_CONFIG = re.compile(rb"(window\.gradio_config = .*?;)(?=</script>)", re.DOTALL)
_FOLLOW = rb"""\1
    window.gradio_config.root = (window.gradio_config.root.includes("://") ? location.origin : "")
        + location.pathname.replace(/\/+$/, "");"""
"""The page asks where it was opened, whatever a proxy says of that. gradio 3 wants the path only."""


class Outgoing:
    """A response on its way out: headers for every one, and gradio's page without what it loads from elsewhere."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        """Pass a message on, a page only when it is whole."""
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", []), *HEADERS]
            if self._scope["path"].startswith("/file"):
                headers.append((b"content-security-policy", CONTAINED.encode()))
            message["headers"] = headers
            kind = dict(headers).get(b"content-type", b"")
            # The page itself: anything else may be somebody's file of any size.
            if kind.startswith(b"text/html") and self._scope["path"] == "/":
                self._start = message
                return
        elif message["type"] == "http.response.body" and self._start is not None:
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            await self._send_page()
            return
        await self._send(message)

    async def _send_page(self) -> None:
        assert self._start is not None
        body = _CONFIG.sub(_FOLLOW, _OUTSIDE.sub(b"", self._body), count=1)
        kept = [pair for pair in self._start["headers"] if pair[0] != b"content-length"]
        # An answer to HEAD has no body.
        length = [(b"content-length", str(len(body)).encode())] if self._scope["method"] == "GET" else []
        self._start["headers"] = [*kept, *length]
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})

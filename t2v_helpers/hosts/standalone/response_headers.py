"""Makes the standalone page's responses safe: they load nothing from other sites, which cannot show them in a frame."""

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
"""The page's policy: it loads nothing from other sites, and they cannot show it in a frame. gradio needs the unsafe
permissions."""
CONTAINED = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The policy for files that visitors have uploaded: HTML pages among them cannot run scripts."""
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)
_OUTSIDE = re.compile(rb"<(?:link|script)\b[^>]*\b(?:href|src)=\"https?://[^>]*>(?:\s*</script>)?")
"""Pattern for what gradio's page would load from other sites: fonts, and a script for pages in frames."""
_CONFIG = re.compile(rb"(window\.gradio_config = .*?;)(?=</script>)", re.DOTALL)
_FOLLOW = rb"""\1
    window.gradio_config.root = (window.gradio_config.root.includes("://") ? location.origin : "")
        + location.pathname.replace(/\/+$/, "");"""
"""Code that makes the page send requests to the address at which it was opened, whatever proxies claim. gradio 3 needs
only the path."""


class Outgoing:
    """A filter for responses: adds headers to all, and removes from gradio's page what it loads from other sites."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        """Pass a message on; gradio's page only when it is complete."""
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", []), *HEADERS]
            if self._scope["path"].startswith("/file"):
                headers.append((b"content-security-policy", CONTAINED.encode()))
            message["headers"] = headers
            kind = dict(headers).get(b"content-type", b"")
            # Only the page itself is held back: anything else may be somebody's file of any size.
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

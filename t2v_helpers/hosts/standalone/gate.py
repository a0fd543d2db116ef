"""The gate in front of the standalone page: it lets in the page's own visitors, and no requests from other sites."""

import base64
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urlsplit

from fastapi import WebSocketDisconnect

from ....modelscope.escape import logger
from ...access import FORWARDED, Names, Refused, Visit, check_host, check_request, host_name, is_loopback, read_visit
from ...page.file_links import ROUTE
from .response_headers import HEADERS, App, Outgoing, Receive, Scope, Send

log = logger(__name__)

_PREFIX = re.compile(r"(/[\w.~-]+)*")


@dataclass(frozen=True)
class Entrance:
    """Rules for visitors of the page.

    Args:
        names: The host names under which the page is served.
        prefix: The path below which a proxy serves the page, such as `/t2v`; empty for none.
        password: `user:password`, which every request must send; empty for none.
        readable: Folders whose files a visitor on another computer may name.
    """

    names: Names = field(default_factory=Names)
    prefix: str = ""
    password: str = ""
    readable: tuple[Path, ...] = ()

    @property
    def expects_proxy(self) -> bool:
        """True if the headers that a proxy on this computer adds are trusted."""
        return bool(self.prefix or self.names.extra)


def clean_prefix(text: str) -> str:
    """Return a path such as `/t2v`, without a slash at its end. Raises ValueError for any other text."""
    path = f"/{text.strip('/')}" if text.strip("/") else ""
    if not _PREFIX.fullmatch(path) or ".." in path:
        raise ValueError(f"{text!a} is not a path such as /t2v")
    return path


class Gate:
    """Middleware around the page's app that checks every request."""

    def __init__(self, app: App, entrance: Entrance) -> None:
        self._app, self._entrance = app, entrance
        self._explained: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        visit = read_visit(scope)
        headers = visit.headers
        try:
            self._check(scope, headers)
        except Refused as error:
            self._explain(str(error))
            return await _answer(scope, send, HTTPStatus.FORBIDDEN, str(error))
        if not self._knows_password(headers):
            challenge = (b"www-authenticate", b'Basic realm="text2video", charset="UTF-8"')
            return await _answer(scope, send, HTTPStatus.UNAUTHORIZED, "This page needs a password.", challenge)
        self._set_address(scope, visit)
        if scope["type"] == "http" and scope["path"] == "":
            target = (b"location", quote(f"{scope['root_path']}/").encode())
            return await _answer(scope, send, HTTPStatus.TEMPORARY_REDIRECT, "", target)
        # It is no error of the server if a page is closed during an answer.
        with suppress(WebSocketDisconnect):
            await self._app(scope, receive, Outgoing(scope, send) if scope["type"] == "http" else send)
        return None

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Check where a request comes from. A link on another site may open the page or a video, but only in a tab.

        Raises:
            Refused: The request is not allowed.
        """
        names, path = self._entrance.names, self._inside(scope["path"])
        if (path in ("", "/") or path.startswith(f"/{ROUTE}/")) and _is_opening(headers, scope):
            check_host(headers, names)
        else:
            check_request(headers, names)

    def _inside(self, path: str) -> str:
        """Return a path without the prefix below which a proxy serves the page, for proxies that pass the prefix on."""
        prefix = self._entrance.prefix
        return path[len(prefix) :] if path == prefix or path.startswith(f"{prefix}/") else path

    def _knows_password(self, headers: Mapping[str, str]) -> bool:
        wanted = self._entrance.password
        kind, _, given = headers.get("authorization", "").partition(" ")
        if not wanted:
            return True
        try:
            sent = base64.b64decode(given, validate=True) if kind.lower() == "basic" else b""
        except ValueError:
            return False
        return secrets.compare_digest(sent, wanted.encode())

    def _set_address(self, scope: Scope, visit: Visit) -> None:
        """Give the app the address under which the page was opened. Proxies' headers count only if one is expected."""
        forwarded = self._forwarded_headers(visit)
        prefix = forwarded.get("x-forwarded-prefix") or _page_path(visit.headers)
        scope["root_path"] = self._entrance.prefix or _clean_forwarded_prefix(prefix)
        scope["path"] = self._inside(scope["path"])
        scheme, host = self._opened_at(visit, forwarded)
        if scope["type"] == "http" and scheme:
            scope["scheme"] = scheme
        left = [pair for pair in scope["headers"] if pair[0].decode("latin-1").lower() not in (*FORWARDED, "host")]
        # Later checks whether a visitor sits at this computer have to see that there was a proxy.
        by_proxy = [(b"via", b"proxy")] if any(name in visit.headers for name in FORWARDED) else []
        scope["headers"] = [(b"host", host.encode("latin-1")), *by_proxy, *left]

    def _opened_at(self, visit: Visit, forwarded: Mapping[str, str]) -> tuple[str, str]:
        """Return the scheme, if known, and the host of the address in the person's browser."""
        if origin := visit.headers.get("origin"):
            # The origin has been checked already.
            return urlsplit(origin).scheme, urlsplit(origin).netloc
        scheme = forwarded.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
        host = forwarded.get("x-forwarded-host", "")
        known = self._entrance.names.declares(host_name(host))
        return scheme if scheme in ("http", "https") else "", host if known else visit.headers["host"]

    def _forwarded_headers(self, visit: Visit) -> dict[str, str]:
        """Return the headers of a proxy on this computer; anybody else could write anything into them."""
        found = {name: visit.headers[name] for name in FORWARDED if name in visit.headers}
        if found and not self._entrance.expects_proxy:
            self._explain(
                f"Requests come through a proxy ({', '.join(found)}). Its headers are ignored unless the page is "
                "started with --allow-host NAME or --root-path /PATH."
            )
        return found if self._entrance.expects_proxy and is_loopback(visit.client) else {}

    def _explain(self, message: str) -> None:
        """Log a message, but each one only once: an attack would fill the console."""
        if message not in self._explained and len(self._explained) < 20:
            self._explained.add(message)
            log.warning(message)


def _page_path(headers: Mapping[str, str]) -> str:
    """Return the path of the page that sends the request, up to its last slash.

    It is used only if the request has the page's origin, which has been checked.
    """
    page, origin = headers.get("referer", ""), headers.get("origin")
    return urlsplit(page).path.rpartition("/")[0] if origin and page.startswith(f"{origin}/") else ""


def _clean_forwarded_prefix(text: str) -> str:
    try:
        return clean_prefix(text)
    except ValueError:
        return ""


def _is_opening(headers: Mapping[str, str], scope: Scope) -> bool:
    """Return whether the request opens a page in a tab, as a link does."""
    shown = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    return shown and "origin" not in headers and scope.get("method") in ("GET", "HEAD")


async def _answer(scope: Scope, send: Send, status: HTTPStatus, text: str, *headers: tuple[bytes, bytes]) -> None:
    """Answer with a sentence. A WebSocket is closed before it is accepted, which the server turns into a 403."""
    if scope["type"] == "websocket":
        return await send({"type": "websocket.close", "code": 1008, "reason": text})
    body = text.encode()
    about = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": [*about, *HEADERS]})
    return await send({"type": "http.response.body", "body": body})

"""A hub on this computer, for downloads: it answers as the real one does, or fails as told."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """files: by "/repository/resolve/main/path". The others say how it fails."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut_after: int | None = None
    """Bytes after which each answer breaks off."""
    status: int = 200
    web_page: bool = False
    ignores_ranges: bool = False
    corrupts: bool = False
    """Sends other bytes than it announced."""
    says_size: int | None = None
    slow: threading.Event | None = None
    """Waited for after the first half of a file."""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    address: str = ""

    def put(self, repository: str, path: str, content: bytes) -> None:
        """Offer a file."""
        self.files[f"/{repository}/resolve/main/{path}"] = content


def etag(content: bytes) -> str:
    """As for large files."""
    return hashlib.sha256(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers for the hub of its server."""

    server: "Server"

    def do_HEAD(self) -> None:
        """What a file is."""
        self.answer(body=False)

    def do_GET(self) -> None:
        """A file."""
        self.answer(body=True)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def answer(self, *, body: bool) -> None:
        """The file, or one of the failures."""
        hub, ranges = self.server.hub, self.headers.get("Range")
        hub.asked.append((self.command, self.path, ranges))
        content = hub.files.get(self.path)
        if hub.status != 200 or content is None:
            self.refuse(hub.status if hub.status != 200 else 404)
        elif hub.web_page:
            self.page()
        else:
            start = int(ranges.removeprefix("bytes=").partition("-")[0]) if ranges and not hub.ignores_ranges else 0
            self.announce(content, start)
            if body:
                self.send(bytes(len(content)) if hub.corrupts else content, start)

    def announce(self, content: bytes, start: int) -> None:
        """The headers."""
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{etag(content)}"')
        self.send_header("X-Linked-ETag", f'"{etag(content)}"')
        self.send_header("X-Linked-Size", str(self.server.hub.says_size or len(content)))
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()

    def send(self, content: bytes, start: int) -> None:
        """The content from there, as far as it goes."""
        hub, rest = self.server.hub, content[start:]
        if hub.cut_after is not None and len(rest) > hub.cut_after:
            self.wfile.write(rest[: hub.cut_after])
            self.close_connection = True
            return
        half = len(rest) // 2
        self.wfile.write(rest[:half])
        if hub.slow:
            self.wfile.flush()
            hub.slow.wait(30)
        self.wfile.write(rest[half:])

    def refuse(self, status: int) -> None:
        """An error, with the hub's own word for it."""
        self.send_response(status)
        codes = {404: "EntryNotFound", 401: "RepoNotFound", 403: "GatedRepo"}
        if status in codes:
            self.send_header("X-Error-Code", codes[status])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def page(self) -> None:
        """What a hotel's network answers."""
        content = b"<!doctype html><title>Sign in to the network</title>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """With its hub."""

    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """The hub at an address."""
    server = Server(hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

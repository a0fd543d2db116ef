"""Links to files in any folder: only to files that this process has handed out, each under an unguessable name."""

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..access import Refused, Visit, read_visit
from ..video.formats import MEDIA_TYPES

ROUTE = "text2video/file"
MOST_FILES = 1000
"""Maximum number of valid links; the oldest are dropped first."""
PIECE = 1 << 18
"""Number of bytes that are read at once."""
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")
_files: OrderedDict[str, Path] = OrderedDict()


def link_to(path: Path) -> str:
    """Return a link to a file, relative to the page."""
    token = secrets.token_urlsafe(16)
    _files[token] = path
    while len(_files) > MOST_FILES:
        _files.popitem(last=False)
    return f"{ROUTE}/{token}/{quote(path.name)}"


def add_file_route(app: Any, check: Callable[[Visit], None]) -> None:
    """Serve the links from a FastAPI app. Browsers ask for ranges to seek in videos, and Safari always does.

    check: raises Refused for a request that comes from another site's page.
    """
    from fastapi import Header, HTTPException, Request
    from fastapi.responses import FileResponse, StreamingResponse

    def get_file(request: Request, token: str, name: str, wanted: str | None = Header(None, alias="range")) -> Any:
        try:
            check(read_visit(request.scope))
        except Refused as error:
            raise HTTPException(403, str(error)) from error
        path = _files.get(token)
        if path is None or path.name != name or not path.is_file():
            raise HTTPException(
                404, "This video was moved or deleted, or the WebUI was restarted after this page was opened."
            )
        kind, size = MEDIA_TYPES.get(path.suffix), path.stat().st_size
        match = _RANGE.fullmatch(wanted or "")
        start, end = (int(match[1]), min(int(match[2] or size), size - 1)) if match else (0, -1)
        if start > end:
            return FileResponse(path, media_type=kind, headers={"Accept-Ranges": "bytes"})
        headers = {"Content-Range": f"bytes {start}-{end}/{size}", "Content-Length": str(end - start + 1)}
        return StreamingResponse(_bytes(path, start, end), 206, headers | {"Accept-Ranges": "bytes"}, kind)

    app.add_api_route(f"/{ROUTE}/{{token}}/{{name}}", get_file, methods=["GET"], include_in_schema=False)


def _bytes(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Yield a file's bytes from start to end, inclusive."""
    with path.open("rb") as file:
        file.seek(start)
        left = end - start + 1
        while left and (piece := file.read(min(left, PIECE))):
            left -= len(piece)
            yield piece

"""Links to files wherever they lie: only files this process has handed out, each under an unguessable name."""

import mimetypes
import re
import secrets
from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROUTE = "text2video/file"
MOST_FILES = 1000
"""Links that stay valid at once; the oldest go first."""
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_files: OrderedDict[str, Path] = OrderedDict()


def link_to(path: Path) -> str:
    """The address of a file, relative to the page."""
    token = secrets.token_urlsafe(16)
    _files[token] = path
    while len(_files) > MOST_FILES:
        _files.popitem(last=False)
    return f"{ROUTE}/{token}/{quote(path.name)}"


def add_file_route(app: Any) -> None:
    """Serve the links from a FastAPI app. Browsers seek in videos by asking for ranges."""
    from fastapi import Header, HTTPException
    from fastapi.responses import FileResponse
    from gradio.ranged_response import OpenRange, RangedFileResponse

    def get_file(token: str, name: str, wanted: str | None = Header(None, alias="range")) -> Any:
        path = _files.get(token)
        if path is None or path.name != name or not path.is_file():
            raise HTTPException(
                404, "This video has been moved or deleted, or the page is older than the WebUI's start."
            )
        kind = mimetypes.guess_type(path.name)[0]
        match = _RANGE.fullmatch(wanted or "")
        about = path.stat()
        if match and int(match[1]) < about.st_size:
            # gradio counts one byte too many where a range is open or ends late.
            end = min(int(match[2] or about.st_size), about.st_size - 1)
            return RangedFileResponse(path, OpenRange(int(match[1]), end), {}, media_type=kind, stat_result=about)
        return FileResponse(path, media_type=kind, headers={"Accept-Ranges": "bytes"})

    app.add_api_route(f"/{ROUTE}/{{token}}/{{name}}", get_file, methods=["GET"], include_in_schema=False)

"""Links to videos: whole and in ranges, and to nothing else."""

import mimetypes
from pathlib import Path
from urllib.parse import unquote

import fastapi
import pytest
from fastapi.testclient import TestClient

from sd_t2v.t2v_helpers.access import Names, check_request
from sd_t2v.t2v_helpers.page import file_links
from sd_t2v.t2v_helpers.video.formats import FORMATS, Format

CONTENT = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = fastapi.FastAPI()
    file_links.add_file_route(app, lambda visit: check_request(visit.headers, Names(("testserver",))))
    return TestClient(app)


def made(folder: Path, name: str = "a b#%é.mp4") -> Path:
    path = folder / ".hidden" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(CONTENT)
    return path


def test_a_link_gives_the_file_wherever_it_lies(client: TestClient, tmp_path: Path) -> None:
    answer = client.get("/" + file_links.link_to(made(tmp_path)))
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, CONTENT, "video/mp4")


@pytest.mark.parametrize("kind", [kind for kind in FORMATS.values() if not kind.is_folder], ids=lambda kind: kind.name)
def test_every_format_has_its_type_on_every_python(
    kind: Format, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A Python, or a Windows registry, that knows nothing.
    monkeypatch.setattr(mimetypes, "_db", mimetypes.MimeTypes())
    monkeypatch.setattr(mimetypes._db, "types_map", ({}, {}))  # type: ignore[attr-defined]
    answer = client.get("/" + file_links.link_to(made(tmp_path, f"a{kind.suffix}")))
    assert answer.headers["content-type"] in {f"video/{kind.suffix[1:]}", f"image/{kind.suffix[1:]}"}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("bytes=0-", CONTENT),
        ("bytes=0-0", CONTENT[:1]),
        ("bytes=1000-", CONTENT[1000:]),
        ("bytes=10-99999", CONTENT[10:]),
    ],
)
def test_ranges_are_exact(client: TestClient, wanted: str, expected: bytes, tmp_path: Path) -> None:
    answer = client.get("/" + file_links.link_to(made(tmp_path)), headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (206, expected)
    assert answer.headers["content-length"] == str(len(expected))
    assert answer.headers["content-range"].endswith(f"/{len(CONTENT)}")


@pytest.mark.parametrize("wanted", ["bytes=99999-", "bytes=-5", "lines=1-2", "bytes=5-1x"])
def test_a_range_that_makes_no_sense_gives_the_whole_file(client: TestClient, wanted: str, tmp_path: Path) -> None:
    answer = client.get("/" + file_links.link_to(made(tmp_path)), headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (200, CONTENT)


def test_nothing_else_is_served(client: TestClient, tmp_path: Path) -> None:
    path = made(tmp_path)
    other = made(tmp_path, "other.mp4")
    link = file_links.link_to(path)
    base = link.rpartition("/")[0]
    for address in (f"{base}/{other.name}", f"{base}/..%2f..%2fetc%2fpasswd", f"{file_links.ROUTE}/guess/{path.name}"):
        assert client.get("/" + address).status_code == 404
    path.unlink()
    assert "moved or deleted" in client.get("/" + link).json()["detail"]


def test_old_links_make_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(file_links, "MOST_FILES", 2)
    links = [file_links.link_to(made(tmp_path, f"{number}.mp4")) for number in range(4)]
    assert len(set(links)) == 4
    assert [unquote(link.rpartition("/")[2]) for link in links] == [f"{number}.mp4" for number in range(4)]
    assert len(file_links._files) == 2

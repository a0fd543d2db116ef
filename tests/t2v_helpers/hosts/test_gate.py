"""The gate before the standalone page, over HTTP and WebSockets."""

import base64
import logging
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import HTMLResponse
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from sd_t2v.t2v_helpers.access import Names
from sd_t2v.t2v_helpers.hosts.standalone.gate import Entrance, Gate, clean_prefix
from sd_t2v.t2v_helpers.hosts.standalone.host import THIS_COMPUTER

LOCAL = ("127.0.0.1", 5000)
OWN = {"Origin": "http://127.0.0.1:7861", "Host": "127.0.0.1:7861", "Sec-Fetch-Site": "same-origin"}
EVIL = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
GRADIOS_PAGE = """<!doctype html><head>
<script>window.gradio_config = {"root": "http://x", "text": "; <\\/script>"};</script>
<link rel="preconnect" href="https://fonts.googleapis.com" />
<link
    rel="preconnect"
    href="https://fonts.gstatic.com"
    crossorigin="anonymous"
/>
<script
    src="https://cdnjs.cloudflare.com/x.js"
    async
></script>
<script type="module" crossorigin src="./assets/index.js"></script></head><body>ours</body>"""


def client(
    entrance: Entrance = THIS_COMPUTER, peer: tuple[str, int] = LOCAL, address: str = "http://127.0.0.1:7861"
) -> Any:
    """Somebody at this computer, in front of a page that tells how it was asked."""
    app = FastAPI()

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return GRADIOS_PAGE

    async def answer(request: Request) -> dict[str, Any]:
        return {"url": str(request.url), "path": request.scope["path"], "headers": dict(request.headers)}

    @app.get("/file=upload.html", response_class=HTMLResponse)
    def upload() -> str:
        return '<link href="http://' * 50_000

    for route in ("/queue/join", "/text2video/file/a/b.mp4", "/config"):
        app.add_api_route(route, answer, methods=["GET", "POST", "OPTIONS"])

    @app.websocket("/queue/join")
    async def join(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json("welcome")
        if await socket.receive_json() == "thanks":
            await socket.close()

    app.add_middleware(Gate, entrance=entrance)

    async def from_peer(scope: Any, receive: Any, send: Any) -> None:
        await app(scope | {"client": peer}, receive, send)

    return TestClient(from_peer, base_url=address)


@pytest.mark.parametrize("path", ["/queue/join", "/config", "/text2video/file/a/b.mp4", "/"])
@pytest.mark.parametrize(
    "headers", [EVIL, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example:7861"}], ids=str
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_other_sites_get_403_and_no_cors_header(method: str, headers: dict[str, str], path: str) -> None:
    preflight = {"Access-Control-Request-Method": "POST"} if method == "OPTIONS" else {}
    answer = client().request(method, path, headers=headers | preflight)
    assert answer.status_code == 403
    assert answer.text.startswith("Refused: ")
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_own_pages_and_programs_without_an_origin_are_served() -> None:
    assert [client().post("/queue/join", headers=headers).status_code for headers in (OWN, {})] == [200, 200]


def test_a_link_on_another_site_opens_the_page_and_videos_only_as_pages_of_their_own() -> None:
    opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    framed = opened | {"Sec-Fetch-Dest": "iframe"}
    asked = {
        path: [client().get(path, headers=headers).status_code for headers in (opened, framed)]
        for path in ("/", "/text2video/file/a/b.mp4", "/config")
    }
    assert asked == {"/": [200, 403], "/text2video/file/a/b.mp4": [200, 403], "/config": [403, 403]}
    assert client().post("/", headers=opened).status_code == 403
    assert client().get("/", headers=opened | {"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("headers", [EVIL, {"Host": "evil.example"}])
def test_websockets_are_refused_alike(headers: dict[str, str]) -> None:
    with pytest.raises(WebSocketDisconnect), client().websocket_connect("/queue/join", headers=headers):
        pass
    with client().websocket_connect("/queue/join", headers=OWN) as socket:
        assert socket.receive_json() == "welcome"
        socket.send_json("thanks")


def test_a_page_that_is_closed_while_it_is_asked_is_no_fault_of_the_server() -> None:
    # The client hands on whatever the app raises.
    with client().websocket_connect("/queue/join", headers=OWN) as socket:
        assert socket.receive_json() == "welcome"


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def test_a_password_is_asked_for_by_every_route() -> None:
    visitor = client(
        Entrance(Names(listens="0.0.0.0"), password="mé:a:b"), ("192.168.1.7", 1), "http://192.168.1.5:7861"
    )
    for path in ("/", "/queue/join", "/config", "/text2video/file/a/b.mp4"):
        wrong = [basic("mé:a"), basic("mé:a:b2"), {"Authorization": "Basic !"}, {"Authorization": "Bearer x"}, {}]
        answers = [visitor.get(path, headers=headers) for headers in wrong]
        assert {answer.status_code for answer in answers} == {401}
        assert answers[0].headers["www-authenticate"].startswith("Basic ")
        assert visitor.get(path, headers=basic("mé:a:b")).status_code == 200
    with pytest.raises(WebSocketDisconnect), visitor.websocket_connect("/queue/join"):
        pass


def test_the_page_loads_nothing_from_elsewhere_and_is_in_no_frame() -> None:
    answer = client().get("/")
    assert "https://" not in answer.text
    assert 'src="./assets/index.js"' in answer.text
    assert "ours" in answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"


def test_an_uploaded_page_is_sent_as_it_is_and_runs_nothing() -> None:
    answer = client().get("/file=upload.html")
    assert len(answer.content) == 50_000 * len('<link href="http://')
    assert "sandbox" in answer.headers["content-security-policy"]


def test_a_header_that_is_no_text_is_no_password() -> None:
    asked = client(Entrance(password="me:secret"))
    assert asked.get("/config", headers={"Authorization": b"Basic \xff\xfe"}).status_code == 401


def test_below_a_path_with_and_without_a_proxy_that_strips_it() -> None:
    below = client(Entrance(prefix="/t2v"))
    for path in ("/config", "/t2v/config"):
        told = below.get(path).json()
        assert (told["url"], told["path"]) == ("http://127.0.0.1:7861/t2v/config", "/config")
    assert below.get("/t2v", follow_redirects=False).headers["location"] == "/t2v/"
    assert below.get("/t2v/").status_code == 200
    assert below.get("/t2vx/config").status_code == 404


FORWARDED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "video.example",
    "X-Forwarded-Prefix": "/t2v/",
    "X-Forwarded-For": "1.2.3.4",
}


def test_what_a_proxy_on_this_computer_says_counts_with_an_option() -> None:
    told = client(Entrance(Names(("video.example",)))).get("/config", headers=FORWARDED).json()
    assert told["url"] == "https://video.example/t2v/config"
    assert not [name for name in told["headers"] if name.startswith("x-forwarded")]


@pytest.mark.parametrize(
    ("entrance", "peer"),
    [(Entrance(), LOCAL), (Entrance(Names(("video.example",), listens="0.0.0.0")), ("192.168.1.7", 1))],
    ids=["no option", "another computer"],
)
def test_else_it_counts_for_nothing_and_hides_nothing(
    entrance: Entrance, peer: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    asked = client(entrance, peer)
    with caplog.at_level(logging.WARNING):
        told = [asked.get("/config", headers=FORWARDED).json() for _ in range(3)][-1]
    assert told["url"] == "http://127.0.0.1:7861/config"
    assert told["headers"]["via"] == "proxy"
    said = [record.message for record in caplog.records if "--allow-host" in record.message]
    assert len(said) == (peer == LOCAL)


@pytest.mark.parametrize("prefix", ["/../x", "//evil.example", "/a b", "http://evil.example", "/a?b", "/%2e%2e"])
def test_no_proxy_makes_addresses_of_another_site(prefix: str) -> None:
    headers = FORWARDED | {"X-Forwarded-Prefix": prefix, "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "ftp"}
    told = client(Entrance(Names(("video.example",)))).get("/config", headers=headers).json()
    assert told["url"] in ("http://127.0.0.1:7861/config", "http://127.0.0.1:7861/evil.example/config")


def test_a_proxy_that_passes_no_host_on_is_known_by_the_page_that_asks() -> None:
    behind = client(Entrance(Names(("video.example",))))
    page = {"Origin": "https://video.example", "Referer": "https://video.example/t2v/", "Sec-Fetch-Site": "same-origin"}
    assert behind.post("/queue/join", headers=page).json()["url"] == "https://video.example/t2v/queue/join"


def test_an_attack_does_not_fill_the_console(caplog: pytest.LogCaptureFixture) -> None:
    asked = client()
    with caplog.at_level(logging.WARNING):
        for number in range(200):
            asked.get("/config", headers={"Host": f"evil{number}.example"})
    assert 0 < len(caplog.records) <= 20


@pytest.mark.parametrize(("text", "path"), [("", ""), ("/", ""), ("t2v", "/t2v"), ("/a/b/", "/a/b")])
def test_paths_are_cleaned(text: str, path: str) -> None:
    assert clean_prefix(text) == path


@pytest.mark.parametrize("text", ["/a/../b", "/a b", "/a?b", "https://x/y", "/a//b", "/\n"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a path"):
        clean_prefix(text)

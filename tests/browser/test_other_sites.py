"""Pages of other sites in a real browser, which try to drive the standalone page."""

import functools
import http.server
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from sd_t2v.t2v_helpers.settings import OUTPUT_FOLDER
from sd_t2v.tests.helpers.chromium import another

from .pages import Server

WAYS = """async ([address, index]) => {
    const body = JSON.stringify({data: ["/tmp/evil"], fn_index: index, session_hash: "evil"});
    const said = {};
    const tried = async (name, way) => {
        try { said[name] = await way(); } catch (error) { said[name] = String(error); }
    };
    const post = (path, options) => fetch(address + path, {method: "POST", body: new Blob([body]), ...options});
    for (const path of ["queue/join", "run/predict", "api/predict", "call/x", "upload", "internal/progress"]) {
        await tried("no-cors " + path, async () => (await post(path, {mode: "no-cors"})).type);
        const headers = {"Content-Type": "application/json"};
        await tried("cors " + path, async () => (await post(path, {headers})).text());
    }
    await tried("config", async () => (await fetch(address + "config")).text());
    await tried("script", () => new Promise((resolve) => {
        const script = Object.assign(document.createElement("script"), {src: address + "text2video/page.js"});
        script.onload = () => resolve("loaded");
        script.onerror = () => resolve("refused");
        document.head.append(script);
    }));
    await tried("websocket", () => new Promise((resolve) => {
        const socket = new WebSocket(address.replace("http", "ws") + "queue/join");
        socket.onmessage = (event) => resolve("answered " + event.data);
        socket.onclose = () => resolve("refused");
    }));
    await tried("form", () => new Promise((resolve) => {
        const frame = Object.assign(document.createElement("iframe"), {name: "into"});
        const form = Object.assign(document.createElement("form"), {
            action: address + "queue/join", method: "post", enctype: "text/plain", target: "into",
        });
        const field = {name: body.slice(0, -1) + ', "x": "', value: '"}'};
        form.append(Object.assign(document.createElement("input"), field));
        document.body.append(frame, form);
        frame.onload = () => resolve("sent");
        form.submit();
    }));
    await tried("null origin", () => new Promise((resolve) => {
        window.onmessage = (event) => resolve(event.data);
        const frame = document.createElement("iframe");
        frame.sandbox = "allow-scripts";
        frame.srcdoc = `<script>(async () => {
            let said;
            try {
                const options = {method: "POST", headers: {"Content-Type": "application/json"}};
                said = await (await fetch("${address}queue/join", {...options, body: ${JSON.stringify(body)}})).text();
            } catch (error) { said = String(error); }
            parent.postMessage(said, "*");
        })()<\\/script>`;
        document.body.append(frame);
    }));
    return said;
}"""


@pytest.fixture
def evil_site(tmp_path: Path) -> Iterator[str]:
    """The address of another site on this computer."""
    (tmp_path / "evil.html").write_text("<!doctype html><title>evil</title><body></body>")
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://localhost:{site.server_port}/evil.html"
        site.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """The test says what matters."""


def event_of(server: Server, element: str) -> int:
    """The number of the first event to which this component is an input."""
    with urllib.request.urlopen(f"{server.address}config") as answer:
        config = json.load(answer)
    part = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == element)
    return next(number for number, event in enumerate(config["dependencies"]) if part in event["inputs"])


def test_no_way_of_another_sites_page_changes_anything(browser: Browser, server: Server, evil_site: str) -> None:
    before = server.settings.read_bytes() if server.settings.exists() else b""
    page = browser.new_page()
    statuses: dict[str, set[int]] = {}
    page.on("response", lambda answer: statuses.setdefault(answer.url, set()).add(answer.status))
    page.goto(evil_site)
    said = page.evaluate(WAYS, [server.address, event_of(server, f"setting_{OUTPUT_FOLDER.key}")])
    page.wait_for_timeout(500)
    page.close()
    asked = {url: codes for url, codes in statuses.items() if url.startswith(server.address)}
    assert len(asked) >= 6
    assert {code for codes in asked.values() for code in codes} == {403}, asked
    assert not [text for text in said.values() if "event_id" in text or "answered" in text or text == "loaded"], said
    assert (server.settings.read_bytes() if server.settings.exists() else b"") == before
    assert "Traceback" not in server.log.read_text()


def test_the_page_is_shown_in_no_other_sites_frame(browser: Browser, server: Server, evil_site: str) -> None:
    page = browser.new_page()
    page.goto(evil_site)
    page.set_content(f'<iframe src="{server.address}"></iframe>')
    page.wait_for_timeout(1500)
    assert not [frame for frame in page.frames[1:] if frame.query_selector("gradio-app")]
    page.close()


def test_a_name_that_was_pointed_at_this_computer_gets_no_page(browser: Browser, server: Server) -> None:
    with another(browser, "--host-resolver-rules=MAP evil.example 127.0.0.1") as misled:
        page = misled.new_page()
        answer = page.goto(server.address.replace("127.0.0.1", "evil.example"))
        assert answer
        assert (answer.status, "not served as 'evil.example'" in answer.text()) == (403, True)
        said = page.evaluate("fetch('/config').then((answer) => answer.status)")
        assert said == 403


def test_the_page_asks_nothing_of_the_network(browser: Browser, server: Server) -> None:
    # Whatever is not this computer answers nobody.
    with another(browser, "--host-resolver-rules=MAP * 127.0.0.1:9, EXCLUDE 127.0.0.1") as alone:
        page = alone.new_page()
        elsewhere: list[str] = []
        page.on("request", lambda request: elsewhere.append(request.url))
        page.goto(server.address, wait_until="commit")
        page.wait_for_selector("#text2video_generate", state="visible")
        page.wait_for_selector("#text2video_note [data-fresh]", state="attached")
        assert not [url for url in elsewhere if not url.startswith((server.address, "data:", "blob:"))]


def test_a_soundtrack_is_never_fetched(server: Server, browser: Browser) -> None:
    asked: list[str] = []

    class Tempting(_Quiet):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tempting) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{site.server_port}/sound.wav"
        page = browser.new_page()
        page.goto(server.address)
        page.evaluate(SEND_ADDRESS, [address, event_of(server, "text2video_soundtrack")])
        page.wait_for_timeout(1500)
        page.close()
        site.shutdown()
    assert asked == []
    assert "Traceback" not in server.log.read_text()


SEND_ADDRESS = """async ([address, index]) => {
    const file = {path: address, name: address, url: address, is_file: true, meta: {_type: "gradio.FileData"}};
    const {components, dependencies} = window.gradio_config;
    const sound = components.find((part) => part.props.elem_id === "text2video_soundtrack").id;
    // All inputs: gradio looks at their number before it looks at what they name.
    const data = dependencies[index].inputs.map((part) => part === sound ? file : null);
    const body = JSON.stringify({data, fn_index: index, session_hash: "address"});
    const headers = {"Content-Type": "application/json"};
    for (const path of ["queue/join", "run/predict"]) await fetch(path, {method: "POST", headers, body});
}"""

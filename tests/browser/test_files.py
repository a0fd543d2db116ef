"""Files play the same everywhere: a browser shows the colours that were written."""

import base64
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser

from sd_t2v.t2v_helpers.video.formats import FORMATS
from sd_t2v.t2v_helpers.video.write import write_video

COLOURS = [
    (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 30, 60),
]  # fmt: skip
READ_COLOURS = """async ([type, content]) => {
    const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
    const video = document.createElement('video');
    video.muted = true;
    video.src = URL.createObjectURL(new Blob([bytes], {type}));
    const shown = new Promise((done, failed) => {
        video.requestVideoFrameCallback(done);
        video.onerror = () => failed(video.error.message);
    });
    await video.play();
    await shown;
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    const context = canvas.getContext('2d');
    context.drawImage(video, 0, 0);
    const at = (bar) => [Math.floor((bar + 0.5) * canvas.width / 8), canvas.height >> 1];
    return [...Array(8).keys()].map((bar) => [...context.getImageData(...at(bar), 1, 1).data.slice(0, 3)]);
}"""


@pytest.mark.parametrize("size", [(64, 64), (720, 1280)], ids=str)
@pytest.mark.parametrize("name", ["MP4", "WebM"])
def test_bars_have_their_colours(name: str, size: tuple[int, int], browser: Browser, tmp_path: Path) -> None:
    bars = torch.tensor(COLOURS, dtype=torch.uint8).repeat_interleave(size[1] // 8, 0)
    kind = FORMATS[name]
    path = tmp_path / f"bars{kind.suffix}"
    write_video(path, bars.expand(4, size[0], -1, -1).contiguous(), 4, kind)
    page = browser.new_page()
    found = page.evaluate(READ_COLOURS, [kind.media_type, base64.b64encode(path.read_bytes()).decode()])
    page.close()
    assert int((torch.tensor(found) - torch.tensor(COLOURS)).abs().max()) <= 4, found

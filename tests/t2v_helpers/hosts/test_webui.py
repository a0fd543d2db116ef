"""What the WebUI's host makes of the WebUI, with stand-ins for its `modules`; tests/webui runs inside real ones."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from sd_t2v import install
from sd_t2v.t2v_helpers.hosts.webui.paste import field_reader

FOLDER = "sd_t2v.t2v_helpers.hosts.webui"


@pytest.fixture
def webui(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Our module inside a WebUI that is hardly there."""
    modules: Any = ModuleType("modules")
    modules.script_callbacks = SimpleNamespace()
    modules.shared = SimpleNamespace(cmd_opts=SimpleNamespace(hide_ui_dir_config=False))
    monkeypatch.setitem(sys.modules, "modules", modules)
    forget_ours()
    yield importlib.import_module(f"{FOLDER}.register")
    forget_ours()


def forget_ours() -> None:
    for name in [name for name in sys.modules if name.startswith(f"{FOLDER}.")]:
        del sys.modules[name]


class State:
    """A state of which one flag is raised just after one was looked at."""

    def __init__(self, looked_at: str, pressed: str) -> None:
        vars(self).update(flags={"interrupted": False, "skipped": False}, looked_at=looked_at, pressed=pressed)

    def __getattr__(self, name: str) -> bool:
        found = bool(self.flags[name])
        if name == self.looked_at:
            vars(self)["looked_at"] = ""
            self.flags[self.pressed] = True
        return found

    def __setattr__(self, name: str, value: bool) -> None:
        self.flags[name] = value


@pytest.mark.parametrize("looked_at", ["interrupted", "skipped"])
@pytest.mark.parametrize("pressed", ["interrupted", "skipped"])
def test_no_press_is_lost(looked_at: str, pressed: str, webui: Any) -> None:
    webui.shared.state = State(looked_at, pressed)
    asked = {webui.HOST.stop_request() for _ in range(3)} - {None}
    assert asked == {"interrupt" if pressed == "interrupted" else "skip"}
    assert not any(webui.shared.state.flags.values())


def test_sent_settings_restore_what_they_leave_out() -> None:
    sent = {"Prompt": "", "Negative prompt": "", "Steps": "9", "Seed": "1", "Size-1": "64", "Size-2": "128"}
    names = ("prompt", "negative_prompt", "steps", "eta", "width", "height", "fps")
    assert [field_reader(name)(sent) for name in names] == ["", "", 9, 0, 64, 128, None]
    assert [field_reader(name)({"Steps": "9"}) for name in ("prompt", "negative_prompt")] == ["", ""]
    assert [field_reader(name)({"Clip skip": "1"}) for name in ("prompt", "eta")] == [None, None]


def test_a_broken_tab_leaves_no_button_that_sends_to_it(webui: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with gr.Blocks() as page:
        for kind, name in ((gr.Textbox, "pnginfo_generation_info"), (gr.Button, "extras_tab")):
            webui.HOST.pasting.after_component(kind(elem_id=name), elem_id=name)
    assert send_button(page) == ("Send to text2video", True)
    monkeypatch.setitem(install.NEEDED, "no_such_module", "no-such-package")
    ((tab, _, _),) = webui._tabs()
    assert "no-such-package" in str(tab.config)
    assert send_button(page) == ("Send to text2video", False)


def send_button(page: gr.Blocks) -> tuple[str, bool]:
    every = (part["props"] for part in page.get_config_file()["components"])
    (button,) = (props for props in every if props.get("elem_id") == "text2video_tab")
    return button["value"], button["visible"]


def test_a_webui_that_hides_folders_shows_no_button_for_them(webui: Any) -> None:
    assert webui.HOST.opens_folders
    webui.shared.cmd_opts.hide_ui_dir_config = True
    assert not webui.HOST.opens_folders


def test_loras_lie_where_the_webui_has_them(webui: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: Any = ModuleType("modules.paths_internal")
    paths.models_path = str(tmp_path)
    monkeypatch.setitem(sys.modules, "modules.paths_internal", paths)
    assert webui.HOST.lora_folder() == tmp_path / "Lora"
    webui.shared.cmd_opts.lora_dir = str(tmp_path / "elsewhere")
    assert webui.HOST.lora_folder() == tmp_path / "elsewhere"

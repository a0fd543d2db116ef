"""Hooks into the WebUI: its settings, its tab, and its routes."""

import sys
from typing import Any

from modules import script_callbacks, shared

from ....modelscope.escape import logger
from ...host import TAB
from ...page.real_headers import Arrivals
from ...settings import SECTION, SETTINGS, WEBUI_SETTINGS
from .host import WebUIHost

log = logger(__name__)
HOST = WebUIHost()


def register() -> None:
    """Hook into the WebUI. Called at each start and at each Reload UI."""
    script_callbacks.on_ui_settings(_add_settings)
    script_callbacks.on_after_component(HOST.pasting.after_component)
    script_callbacks.on_ui_tabs(_tabs)
    script_callbacks.on_app_started(_add_routes)


def _add_settings() -> None:
    import gradio as gr

    for setting in (*SETTINGS, *WEBUI_SETTINGS):
        component, arguments = (gr.Radio, {"choices": list(setting.choices)}) if setting.choices else (None, {})
        if isinstance(setting.default, float):
            # The WebUI has a component only for integers.
            component = gr.Number
        option = shared.OptionInfo(setting.default, setting.label, component, arguments, section=SECTION)
        shared.opts.add_option(setting.key, option.info(setting.info) if setting.info else option)


def _tabs() -> list[tuple[Any, str, str]]:
    try:
        from ....install import find_missing
        from ...page.tab import build_tab

        # Some packages are used only when a video is made; without this check they would be missed late.
        if names := find_missing():
            raise ModuleNotFoundError(f"these packages are missing: {', '.join(names)}", name=names[0])
        return [(build_tab(HOST), TAB, TAB)]
    except Exception as error:
        log.exception("The tab text2video could not be built")
        HOST.pasting.withdraw_buttons()
        return [(_broken_tab(error), TAB, TAB)]


def _broken_tab(error: Exception) -> Any:
    import gradio as gr

    from ...page.html import error_line, fill

    missing = getattr(error, "name", None) if isinstance(error, ImportError) else None
    remedy = (
        f"The package {missing!r} is missing. Restart the WebUI without --skip-install, so that it is installed. If "
        f'that does not help, close the WebUI and run: "{sys.executable}" -m pip install {missing}'
        if missing
        else "Update this extension and the WebUI. If that does not help, please report what the console shows."
    )
    with gr.Blocks(analytics_enabled=False) as tab:
        gr.HTML(error_line(f"text2video cannot work yet: {error}") + str(fill("<p>{remedy}</p>", remedy=remedy)))
    return tab


def _add_routes(_demo: Any, app: Any) -> None:
    try:
        from ...page.file_links import add_file_route

        add_file_route(app, HOST.check)
        # The WebUI adds its own middleware to a started app in the same way.
        app.middleware_stack = None
        app.add_middleware(Arrivals)
        app.middleware_stack = app.build_middleware_stack()
    except Exception:
        log.exception("The links to text2video's videos will not work")

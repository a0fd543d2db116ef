"""AUTOMATIC1111's WebUI and Forge: the only file that imports their `modules`."""

import html
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules import script_callbacks, shared

from ...modelscope.escape import logger
from ..access import Names, Visit, check_request, host_name
from ..host import LORA_FOLDER, TAB, Devices, Progress, Stop
from ..page.arrived import Arrivals
from ..reading import Reader, readable_folders
from ..settings import (
    KEEP,
    KEEP_NOTHING,
    PUBLIC_NAMES,
    READABLE_FOLDERS,
    SECTION,
    SETTINGS,
    WEBUI_SETTINGS,
    Setting,
    usable,
)
from .file_manager import open_folder
from .turns import TooManyWaiting, Turns

if TYPE_CHECKING:
    from PIL import Image

log = logger(__name__)
FINE = 1000
"""How finely the WebUI is told the share of a video that is done."""
MOST_WAITING = 32
"""Our runs that wait at once. The WebUI handles 40 or 64 events at a time, and each of these is one."""
FORGE = importlib.util.find_spec("modules_forge") is not None


class WebUIHost:
    """The running WebUI."""

    remark = "The Stable Diffusion checkpoint chosen above is not used here."

    def __init__(self) -> None:
        self._png_info: dict[str, Any] = {}

    @property
    def name(self) -> str:
        from modules import launch_utils

        return f"{'Forge' if FORGE else 'AUTOMATIC1111 WebUI'} {launch_utils.git_tag()}"

    def setting(self, setting: Setting) -> Any:
        """Read with a default: with --nowebui the options were never registered."""
        if setting == KEEP and (shared.cmd_opts.lowvram or shared.cmd_opts.medvram):
            return KEEP_NOTHING
        return usable(setting, shared.opts.data.get(setting.key, setting.default))

    def models_folder(self) -> Path:
        from modules.paths_internal import models_path

        return Path(models_path)

    def lora_folder(self) -> Path:
        # The option is the built-in Lora extension's, which may be off.
        chosen = getattr(shared.cmd_opts, "lora_dir", None)
        return Path(chosen) if chosen else self.models_folder() / LORA_FOLDER

    def outputs_folder(self) -> Path:
        from modules.paths_internal import default_output_dir

        return Path(shared.opts.data.get("outdir_samples") or default_output_dir, TAB)

    def devices(self) -> Devices:
        import torch
        from modules import devices

        if devices.device.type == "cpu":
            return Devices(devices.device, torch.float32, torch.float32)
        return Devices(devices.device, devices.dtype, devices.dtype_vae)

    def first_plan(self) -> str:
        if FORGE:
            from backend import memory_management

            states = memory_management.VRAMState
            plans = {states.NO_VRAM: "smallest", states.LOW_VRAM: "small"}
            return plans.get(memory_management.vram_state, "fast")
        if shared.cmd_opts.lowvram:
            return "small"
        return "balanced" if shared.cmd_opts.medvram else "fast"

    def reclaimable(self) -> int:
        if FORGE:
            from backend import memory_management

            models = [loaded.model.model for loaded in memory_management.current_loaded_models]
        else:
            from modules import sd_models

            models = sd_models.model_data.loaded_sd_models
        parameters = (parameter for model in models for parameter in model.parameters())
        return sum(one.numel() * one.element_size() for one in parameters if one.device.type not in ("cpu", "meta"))

    def room(self, release: Callable[[], None]) -> AbstractContextManager[None]:
        return _room_on_forge() if FORGE else _room_on_a1111(release)

    def show_progress(self, progress: Progress) -> None:
        state = shared.state
        state.job_count, state.job_no = progress.videos, progress.video - 1
        state.sampling_steps, state.sampling_step = FINE, round(progress.share * FINE)
        state.textinfo = progress.text

    def wants_preview(self, step: int) -> bool:
        every = shared.opts.data.get("show_progress_every_n_steps", 10)
        return bool(shared.opts.data.get("live_previews_enable", True)) and every > 0 and step % every == 0

    def show_preview(self, image: "Image.Image") -> None:
        shared.state.assign_current_image(image)

    def stop_request(self) -> Stop | None:
        # Only what was read is cleared: the other may be pressed just now.
        state = shared.state
        stop: Stop | None = None
        if state.skipped:
            state.skipped, stop = False, "skip"
        if state.interrupted:
            state.interrupted, stop = False, "interrupt"
        return stop

    def check(self, visit: Visit) -> None:
        check_request(visit.headers, self._names())

    def reader(self, visit: Visit) -> Reader:
        flags = shared.cmd_opts
        if _listens() and not (flags.gradio_auth or flags.gradio_auth_path):
            return Reader()
        return Reader(everything=visit.is_local, folders=readable_folders(self.setting(READABLE_FOLDERS)))

    def _names(self) -> Names:
        """Those that lead to the WebUI; the origins that its own option lets in are among them."""
        text = f"{self.setting(PUBLIC_NAMES)},{shared.cmd_opts.cors_allow_origins or ''}"
        names = (host_name(one.strip().rpartition("://")[2]) for one in text.split(","))
        remedy = (
            "If {name} leads here through a proxy or tunnel of yours, add it in Settings > "
            f"{SECTION[1]} > {PUBLIC_NAMES.label}."
        )
        return Names(tuple(filter(None, names)), _listens(), remedy)

    def queued(
        self, function: Callable[..., list[Any]], outputs: int, refuse: Callable[[str], list[Any]]
    ) -> Callable[..., Any]:
        import gradio as gr
        from modules import progress
        from modules.call_queue import wrap_gradio_gpu_call

        # It waits for the host's lock in a thread: only one of our runs does.
        wrapped = wrap_gradio_gpu_call(function, extra_outputs=[gr.update()] * (outputs - 1))
        turns = Turns(MOST_WAITING)

        async def in_turn(task: str, *values: Any) -> Any:
            if str(task).startswith("task("):
                progress.add_task_to_queue(task)
            try:
                return await turns.take(wrapped, task, *values)
            except TooManyWaiting:
                progress.pending_tasks.pop(task, None)
                progress.finish_task(task)
                return refuse(task)

        return in_turn

    def interrupt(self) -> None:
        shared.state.interrupt()

    def skip(self) -> None:
        shared.state.skip()

    @property
    def opens_folders(self) -> bool:
        return not shared.cmd_opts.hide_ui_dir_config

    def open_folder(self, folder: Path) -> None:
        if self.opens_folders:
            open_folder(folder)

    def tools_for_frames(self, image: Any) -> None:
        import gradio as gr
        from modules import infotext_utils

        with gr.Row():
            buttons = infotext_utils.create_buttons(["img2img", "inpaint", "extras"])
        for tab, button in buttons.items():
            button.do_not_save_to_config = True
            binding = infotext_utils.ParamBinding(paste_button=button, tabname=tab, source_image_component=image)
            infotext_utils.register_paste_params_button(binding)

    def connect_paste(self, models: list[Any], widgets: dict[str, Any]) -> None:
        from modules import infotext_utils

        from ..models.folders import list_model_names

        def pasted_model(pairs: dict[str, Any]) -> str | None:
            return pairs["Model"] if pairs.get("Model") in list_model_names(self) else None

        fields: list[tuple[Any, Any]] = [(component, pasted_model) for component in models]
        fields += [(component, _pasted(name)) for name, component in widgets.items()]
        infotext_utils.add_paste_fields(TAB, None, fields)
        if set(self._png_info) == {"text", "button"}:
            binding = infotext_utils.ParamBinding(
                paste_button=self._png_info["button"], tabname=TAB, source_text_component=self._png_info["text"]
            )
            infotext_utils.register_paste_params_button(binding)

    def after_component(self, component: Any, **about: Any) -> None:
        """Adds our button to those of PNG Info, as the page is built."""
        if about.get("elem_id") == "pnginfo_generation_info":
            self._png_info = {"text": component}
        elif about.get("elem_id") == "extras_tab" and set(self._png_info) == {"text"}:
            import gradio as gr

            self._png_info["button"] = gr.Button(f"Send to {TAB}", elem_id=f"{TAB}_tab")

    def withdraw_button(self) -> None:
        """PNG Info is built before our tab; where that fails, nothing can be sent to it."""
        if button := self._png_info.pop("button", None):
            button.visible = False


def _pasted(name: str) -> Callable[[dict[str, Any]], Any]:
    """How the WebUI's parsed infotext becomes the value of a field; None leaves it as it is."""
    from ..infotext import fields_of_pairs

    prompts = {"prompt": "Prompt", "negative_prompt": "Negative prompt"}

    def value(pairs: dict[str, Any]) -> Any:
        if prompts.get(name) in pairs:
            return pairs[prompts[name]]
        texts = {key: str(text) for key, text in pairs.items()}
        if "Size-1" in texts and "Size-2" in texts:
            texts["Size"] = f"{texts['Size-1']}x{texts['Size-2']}"
        return fields_of_pairs(texts).get(name)

    return value


def _listens() -> str:
    """Where the WebUI was told to let other computers in; nothing if it was not."""
    flags = shared.cmd_opts
    public = flags.listen or flags.share or getattr(flags, "ngrok", None)
    return flags.server_name or ("0.0.0.0" if public else "")


@contextmanager
def _room_on_a1111(release: Callable[[], None]) -> Iterator[None]:
    """Stable Diffusion moves to the CPU and back, by the WebUI's own functions. Nothing is loaded for it."""
    from modules import devices, sd_models

    with sd_models.model_data.lock:
        # It may still be loading.
        current = sd_models.model_data.sd_model
    others = [model for model in sd_models.model_data.loaded_sd_models if model is not current and _on_device(model)]
    moved = [model for model in (current, *others) if model is not None]
    try:
        for model in moved:
            sd_models.send_model_to_cpu(model)
        yield
    finally:
        devices.torch_gc()
        try:
            _bring_back(moved)
        except RuntimeError:
            # Both do not fit: the images' model goes first.
            release()
            devices.torch_gc()
            _bring_back(moved)


def _bring_back(models: list[Any]) -> None:
    from modules import sd_models

    for model in models:
        sd_models.send_model_to_device(model)


def _on_device(model: Any) -> bool:
    return any(parameter.device.type not in ("cpu", "meta") for parameter in model.parameters())


@contextmanager
def _room_on_forge() -> Iterator[None]:
    """Forge loads its models again by itself when they are needed."""
    from backend import memory_management

    memory_management.unload_all_models()
    try:
        yield
    finally:
        memory_management.soft_empty_cache()


HOST = WebUIHost()


def register() -> None:
    """Hook into the WebUI. Called at each start and at each Reload UI."""
    script_callbacks.on_ui_settings(_add_settings)
    script_callbacks.on_after_component(HOST.after_component)
    script_callbacks.on_ui_tabs(_tabs)
    script_callbacks.on_app_started(_add_routes)


def _add_settings() -> None:
    import gradio as gr

    for setting in (*SETTINGS, *WEBUI_SETTINGS):
        component, arguments = (gr.Radio, {"choices": list(setting.choices)}) if setting.choices else (None, {})
        if isinstance(setting.default, float):
            # The WebUI itself finds a component for whole numbers only.
            component = gr.Number
        option = shared.OptionInfo(setting.default, setting.label, component, arguments, section=SECTION)
        shared.opts.add_option(setting.key, option.info(setting.info) if setting.info else option)


def _tabs() -> list[tuple[Any, str, str]]:
    try:
        from ...install import find_missing
        from ..page.tab import build_tab

        # Some are first used when a video is made, and would be missed late.
        if names := find_missing():
            raise ModuleNotFoundError(f"these packages are not there: {', '.join(names)}", name=names[0])
        return [(build_tab(HOST), TAB, TAB)]
    except Exception as error:
        log.exception("The tab text2video could not be built")
        HOST.withdraw_button()
        return [(_broken_tab(error), TAB, TAB)]


def _broken_tab(error: Exception) -> Any:
    import gradio as gr

    missing = getattr(error, "name", None) if isinstance(error, ImportError) else None
    remedy = (
        f"The package {missing!r} is missing. Restart the WebUI without --skip-install, so that it is installed. If "
        f'that does not help, close the WebUI and run: "{sys.executable}" -m pip install {missing}'
        if missing
        else "Update this extension and the WebUI. If that does not help, please report what the console shows."
    )
    with gr.Blocks(analytics_enabled=False) as tab:
        gr.HTML(
            f'<div class="error" role="alert">text2video cannot work yet: {html.escape(str(error))}</div>'
            f"<p>{html.escape(remedy)}</p>"
        )
    return tab


def _add_routes(_demo: Any, app: Any) -> None:
    try:
        from ..page.file_links import add_file_route

        add_file_route(app, HOST.check)
        # As the WebUI itself adds its own to an app that has started.
        app.middleware_stack = None
        app.add_middleware(Arrivals)
        app.middleware_stack = app.build_middleware_stack()
    except Exception:
        log.exception("The links to videos of text2video will not work")

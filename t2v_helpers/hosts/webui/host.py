"""AUTOMATIC1111's WebUI and Forge as a host. Only this folder imports their `modules`."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules import shared

from ...access import Names, Visit, check_request, host_name
from ...host import LORA_FOLDER, TAB, Devices, Progress, Stop, Upscale
from ...readable_files import Reader, readable_folders
from ...settings import (
    KEEP,
    KEEP_NOTHING,
    PUBLIC_NAMES,
    READABLE_FOLDERS,
    SECTION,
    Setting,
    usable,
)
from ...tasks import Tasks, TooManyWaiting
from ..file_manager import open_folder
from .make_room import FORGE, make_room, reclaimable_bytes
from .paste import Pasting, add_frame_buttons

if TYPE_CHECKING:
    from PIL import Image

FINE = 1000
"""Number of steps into which the WebUI's progress bar is divided."""
MOST_WAITING = 32
"""Maximum number of our runs that wait at once. Each is one of the 40 or 64 events that the WebUI handles at a time."""


class WebUIHost:
    """The running WebUI as a host."""

    remark = "The Stable Diffusion checkpoint chosen above is not used here."

    def __init__(self) -> None:
        self.pasting = Pasting()
        self.tasks = Tasks(MOST_WAITING)

    @property
    def name(self) -> str:
        from modules import launch_utils

        return f"{'Forge' if FORGE else 'AUTOMATIC1111 WebUI'} {launch_utils.git_tag()}"

    def setting(self, setting: Setting) -> Any:
        """Return a setting's value, or its default: with --nowebui the options are not registered."""
        if setting == KEEP and (shared.cmd_opts.lowvram or shared.cmd_opts.medvram):
            return KEEP_NOTHING
        return usable(setting, shared.opts.data.get(setting.key, setting.default))

    def models_folder(self) -> Path:
        from modules.paths_internal import models_path

        return Path(models_path)

    def lora_folder(self) -> Path:
        # The option belongs to the built-in Lora extension, which may be disabled.
        chosen = getattr(shared.cmd_opts, "lora_dir", None)
        return Path(chosen) if chosen else self.models_folder() / LORA_FOLDER

    def outputs_folder(self) -> Path:
        from modules.paths_internal import default_output_dir

        return Path(shared.opts.data.get("outdir_samples") or default_output_dir, TAB)

    def upscalers(self) -> dict[str, Upscale]:
        # "None" changes nothing, Lanczos is ours, and what is not here yet would be downloaded.
        ours, here = ("None", "Lanczos"), (one for one in shared.sd_upscalers if "://" not in str(one.data_path))
        return {one.name: _upscale_with(one) for one in here if one.name not in ours}

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
        return reclaimable_bytes()

    def room(self, release: Callable[[], None]) -> AbstractContextManager[None]:
        return make_room(release)

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
        # Only a flag that was read is cleared: the other button may be pressed at this moment.
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
        """Return the names under which the WebUI is served, including the origins that its own option allows."""
        text = f"{self.setting(PUBLIC_NAMES)},{shared.cmd_opts.cors_allow_origins or ''}"
        names = (host_name(one.strip().rpartition("://")[2]) for one in text.split(","))
        remedy = f"If {{name}} is your own proxy or tunnel, add it in Settings > {SECTION[1]} > {PUBLIC_NAMES.label}."
        return Names(tuple(filter(None, names)), _listens(), remedy)

    def make_queued(
        self, function: Callable[..., Sequence[Any]], outputs: int, refuse: Callable[[str], Sequence[Any]]
    ) -> Callable[..., Any]:
        import gradio as gr
        from modules import progress
        from modules.call_queue import wrap_gradio_gpu_call

        # The wrapper waits for the host's lock in a thread, but only for one of our runs at a time.
        wrapped = wrap_gradio_gpu_call(function, extra_outputs=[gr.update()] * (outputs - 1))

        async def in_turn(task: str, *values: Any) -> Any:
            if str(task).startswith("task("):
                progress.add_task_to_queue(task)
            try:
                return await self.tasks.take_turn(wrapped, task, *values)
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
        add_frame_buttons(image)

    def connect_paste(self, models: list[Any], widgets: dict[str, Any], image: Any) -> None:
        self.pasting.connect(self, models, widgets, image)


def _listens() -> str:
    """Return the address at which the WebUI lets other computers in, or an empty string."""
    flags = shared.cmd_opts
    public = flags.listen or flags.share or getattr(flags, "ngrok", None)
    return flags.server_name or ("0.0.0.0" if public else "")


def _upscale_with(upscaler: Any) -> Upscale:
    def upscale(picture: "Image.Image", width: int, height: int) -> "Image.Image":
        scale = max(width / picture.width, height / picture.height)
        enlarged: Image.Image = upscaler.scaler.upscale(picture, scale, upscaler.data_path)
        return enlarged

    return upscale

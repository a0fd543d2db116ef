"""Facts that a person can copy into a bug report: versions, device and memory."""

import platform
import sys

from ...modelscope.errors import TextToVideoError
from ...modelscope.units import format_bytes
from ..host import Host
from ..infotext import VERSION


def report(host: Host) -> str:
    """Return the facts as lines of text."""
    import gradio
    import torch

    versions = f"Python {platform.python_version()}, torch {torch.__version__}, gradio {gradio.__version__}"
    return f"{VERSION}, {host.name}\n{versions}, {sys.platform}\n{_device(host)}"


def _device(host: Host) -> str:
    import torch

    from ...modelscope.device import dtype_name
    from ..places import places

    try:
        device, dtype = places(host).model
        if device.type != "cuda":
            return f"{device}, {dtype_name(dtype)}"
        free, total = torch.cuda.mem_get_info(device)
        card = f"{torch.cuda.get_device_name(device)}, {format_bytes(free)} of {format_bytes(total)} free"
        return f"{device}, {dtype_name(dtype)} ({card})"
    except (TextToVideoError, RuntimeError) as error:
        # A driver that has lost the device no longer answers.
        return str(error)

"""Makes room on the device: Stable Diffusion leaves it for a run and comes back afterwards."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

FORGE = importlib.util.find_spec("modules_forge") is not None


def make_room(release: Callable[[], None]) -> AbstractContextManager[None]:
    """Take the host's models off the device within the context, and bring them back however it ends.

    release: frees our model, in case the host's models do not fit on the device together with it.
    """
    return _make_room_on_forge() if FORGE else _make_room_on_a1111(release)


def reclaimable_bytes() -> int:
    """Return how many bytes on the device `make_room` will free."""
    if FORGE:
        from backend import memory_management

        models = [loaded.model.model for loaded in memory_management.current_loaded_models]
    else:
        from modules import sd_models

        models = sd_models.model_data.loaded_sd_models
    parameters = (parameter for model in models for parameter in model.parameters())
    return sum(one.numel() * one.element_size() for one in parameters if one.device.type not in ("cpu", "meta"))


@contextmanager
def _make_room_on_a1111(release: Callable[[], None]) -> Iterator[None]:
    """Move Stable Diffusion to the CPU and back with the WebUI's own functions, without loading a checkpoint."""
    from modules import devices, sd_models

    with sd_models.model_data.lock:
        # The lock waits for a checkpoint that is still loading.
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
            # The models do not fit together with ours: Stable Diffusion takes precedence.
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
def _make_room_on_forge() -> Iterator[None]:
    """Unload Forge's models. Forge itself loads them again when they are needed."""
    from backend import memory_management

    memory_management.unload_all_models()
    try:
        yield
    finally:
        memory_management.soft_empty_cache()

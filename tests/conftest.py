"""For all tests."""

import os
import signal

import pytest
from hypothesis import settings

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # Before anything imports torch: threads of several processes keep each other waiting.
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))

# Where this computer's own environment lies is nothing to the tests of what makes one.
os.environ.pop("TEXT2VIDEO_VENV", None)

# The same numbers on every computer. What tests of precision start asks for another.
os.environ["TEXT2VIDEO_PRECISION"] = "float32"

# A test fails for what was changed, not for the day on which it runs.
settings.register_profile("the same examples", derandomize=True)
settings.load_profile("the same examples")

# Whatever started the tests may have Ctrl-C ignored, as shells do for commands in the background, and children of the
# tests that are to hear it would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none, unless it is rehearsed on the CPU (tests/gpu/conftest.py)."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    # Here, so that torch is only imported where such a test was chosen.
    import torch

    if not torch.cuda.is_available() and "GPU_TESTS_ON" not in os.environ:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and there is none"))

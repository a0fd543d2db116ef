"""For all tests."""

import os
import signal

from hypothesis import settings

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # Before anything imports torch: threads of several processes keep each other waiting.
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))

# A test fails for what was changed, not for the day on which it runs.
settings.register_profile("the same examples", derandomize=True)
settings.load_profile("the same examples")

# Whatever started the tests may have Ctrl-C ignored, as shells do for commands in the background, and children of the
# tests that are to hear it would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

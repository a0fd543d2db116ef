"""Measures a short video on an idle processor and beside programs that keep it busy, each run as a whole process."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..t2v_helpers.commands.launcher import PATIENCE

HEADER = ("the processor", "how long threads spin", "seconds, start of the process included")
LOOPS_PER_CORE = 3
LAUNCHER = "sd_t2v.t2v_helpers.commands.launcher"
DEMO = ("demo", "a red ball moving left", "--steps", "10", "--seed", "1", "--device", "cpu")
AS_BY_DEFAULT = {"OMP_WAIT_POLICY": "", "GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
"""OpenMP's own defaults, which keep the launcher from setting others."""


def measure(runs: int = 3) -> Iterator[list[str]]:
    """Yield a row for each state of the processor and each patience: the median of several runs."""
    settings = {"as run.py limits it": dict[str, str](), "as OpenMP does by default": AS_BY_DEFAULT}
    for loops in (0, LOOPS_PER_CORE * (os.cpu_count() or 1)):
        with _busy_loops(loops):
            seconds = [{name: _run_demo(extra) for name, extra in settings.items()} for _ in range(runs)]
        state = f"beside {loops} busy loops" if loops else "idle"
        for name in settings:
            times = sorted(one[name] for one in seconds)
            yield [state, name, f"{times[len(times) // 2]:.1f}"]


def _run_demo(extra: dict[str, str]) -> float:
    unset = {"OMP_WAIT_POLICY", "OMP_NUM_THREADS", *PATIENCE}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | extra
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", LAUNCHER, *DEMO, "--output-dir", folder]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        return time.perf_counter() - start


@contextmanager
def _busy_loops(count: int) -> Iterator[None]:
    """Keep the processor busy while the context lasts."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()

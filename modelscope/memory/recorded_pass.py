"""Passes of a network that a card plays back by itself, as a CUDA graph.

A fast card computes a layer of a short clip in less time than a processor takes to launch it. A recording is launched
as a whole. It uses all tensors, including the weights, at the addresses that they had when it was made.
"""

import functools
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from ..errors import is_memory_error
from ..escape import logger

log = logger(__name__)
Run = Callable[[Sequence[Tensor]], list[Tensor]]
"""Computes a pass from its inputs without reading any number back from the card."""
WARM = 2
"""Number of the pass whose times are measured: the first one has to find its kernels."""
STILL_BUSY = 0.05
"""Share of a pass's time. A card that finishes within this time after the last launch was waiting for launches."""


class PassRecorder:
    """A runner of passes. If the card waits for launches in a pass, the pass is recorded and played from then on.

    There is only one recording at a time. Code that moves weights has to call `forget` before the next pass.
    """

    def __init__(self) -> None:
        self._key: Hashable = None
        self._passes = 0
        self._waits_for_launches = False
        self._recording: _Recording | None = None

    def run(self, key: Hashable, run: Run, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the results of a pass.

        Args:
            key: Identifies the pass; it has to change if anything but the numbers in the inputs changes.
            run: Computes the pass.
            inputs: Tensors on the card.
        """
        if key != self._key:
            self.forget()
            self._key = key
        if self._waits_for_launches:
            self._waits_for_launches = False
            self._recording, results = _record(run, inputs)
            return results
        return self._recording.play(inputs) if self._recording else self._observe(run, inputs)

    def forget(self) -> bool:
        """Drop the recording and free its memory. Return whether there was one."""
        there = self._recording is not None
        self._key, self._recording, self._passes, self._waits_for_launches = None, None, 0, False
        return there

    def _observe(self, run: Run, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the pass, and measure whether the card waits for launches."""
        stream = torch.cuda.current_stream(inputs[0].device)
        start = time.perf_counter()
        results = run(inputs)
        launched = time.perf_counter()
        stream.synchronize()
        done = time.perf_counter()
        self._passes += 1
        self._waits_for_launches = self._passes == WARM and done - launched < STILL_BUSY * (done - start)
        return results


class _Recording:
    """A pass as a CUDA graph, with its own copies of the inputs."""

    def __init__(self, run: Run, inputs: Sequence[Tensor]) -> None:
        self._latest = list(inputs)
        self._inputs = [tensor.clone() for tensor in inputs]
        self._graph = torch.cuda.CUDAGraph()
        device = inputs[0].device
        stream = _recording_stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            self._results = _capture(self._graph, lambda: run(self._inputs))
        torch.cuda.current_stream(device).wait_stream(stream)

    def play(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        for number, given in enumerate(inputs):
            if given is not self._latest[number]:
                self._inputs[number].copy_(given)
                self._latest[number] = given
        self._graph.replay()
        # The next replay overwrites the results.
        return [result.clone() for result in self._results]


@functools.cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream for recordings: libraries keep memory for every stream that they have seen."""
    return torch.cuda.Stream(device)


def _capture(graph: torch.cuda.CUDAGraph, work: Callable[[], list[Tensor]]) -> list[Tensor]:
    """Record the work's launches on the current stream. Other threads may launch and allocate meanwhile."""
    pool = torch.cuda.graph_pool_handle()
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        results = work()
    except BaseException:
        _end(graph, pool)
        raise
    if error := _end(graph, pool):
        raise error
    return results


def _end(graph: torch.cuda.CUDAGraph, pool: tuple[int, int]) -> RuntimeError | None:
    """End a capture; return the error, if CUDA found it invalid."""
    try:
        graph.capture_end()
    except RuntimeError as error:
        # torch would otherwise stay in recording mode, in which `empty_cache` fails for the whole process.
        names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")
        stop = next((getattr(torch._C, name) for name in names if hasattr(torch._C, name)), None)  # noqa: SLF001
        with suppress(RuntimeError, TypeError, AttributeError):
            if stop:
                stop(torch.cuda.current_device(), pool)
            torch._C._cuda_releasePool(torch.cuda.current_device(), pool)  # noqa: SLF001
        return error
    return None


def _record(run: Run, inputs: Sequence[Tensor]) -> tuple[_Recording | None, list[Tensor]]:
    """Return a recording and its results; if recording fails, return None and the results of an ordinary pass."""
    # A recording cannot use memory that torch has cached for other tensors.
    torch.cuda.empty_cache()
    try:
        recording = _Recording(run, inputs)
        return recording, recording.play(inputs)
    except RuntimeError as error:
        if is_memory_error(error):
            log.info("There is too little memory to record the network's pass; its layers are launched one by one.")
        else:
            log.warning("The network's pass could not be recorded; its layers are launched one by one. (%s)", error)
    return None, run(inputs)

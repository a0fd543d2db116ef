"""Passes of a network that a card plays back by itself, as a CUDA graph.

A fast card computes a layer of a short clip in less time than a processor takes to launch it. A recording is launched
at once. It plays with the tensors, the weights included, at the addresses that they had when it was made.
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
"""Computes a pass from its inputs, without asking the card for any number meanwhile."""
WARM = 2
"""Which pass is looked at: the first one finds the kernels."""
STILL_BUSY = 0.05
"""A card that is done this share of a pass after its last launch, or sooner, waits for launches."""


class PassRecorder:
    """Runs passes; records one of which the card waits for launches, and plays it from then on.

    Holds one recording. Whoever moves weights has to call `forget` before the next pass.
    """

    def __init__(self) -> None:
        self._key: Hashable = None
        self._passes = 0
        self._waits_for_launches = False
        self._recording: _Recording | None = None

    def run(self, key: Hashable, run: Run, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return what a pass makes of its inputs.

        Args:
            key: Differs wherever the pass does in more than its inputs' numbers.
            run: Computes the pass.
            inputs: On the card.
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
        """Drop the recording, and the memory that it keeps. Return whether there was one."""
        there = self._recording is not None
        self._key, self._recording, self._passes, self._waits_for_launches = None, None, 0, False
        return there

    def _observe(self, run: Run, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the pass, and see whether the card waits for launches."""
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
        # The next one overwrites them.
        return [result.clone() for result in self._results]


@functools.cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream for recordings: libraries keep memory for every stream that they have seen."""
    return torch.cuda.Stream(device)


def _capture(graph: torch.cuda.CUDAGraph, work: Callable[[], list[Tensor]]) -> list[Tensor]:
    """Record the work's launches on the current stream; other threads may launch and allocate meanwhile."""
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
        # torch would go on as if it were recording: `empty_cache` fails then, for the whole process.
        names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")
        stop = next((getattr(torch._C, name) for name in names if hasattr(torch._C, name)), None)  # noqa: SLF001
        with suppress(RuntimeError, TypeError, AttributeError):
            if stop:
                stop(torch.cuda.current_device(), pool)
            torch._C._cuda_releasePool(torch.cuda.current_device(), pool)  # noqa: SLF001
        return error
    return None


def _record(run: Run, inputs: Sequence[Tensor]) -> tuple[_Recording | None, list[Tensor]]:
    """Return a recording and what it makes of the inputs. Where it is not to be had: None, and the pass's results."""
    # What it holds cannot be what torch keeps for others.
    torch.cuda.empty_cache()
    try:
        recording = _Recording(run, inputs)
        return recording, recording.play(inputs)
    except RuntimeError as error:
        if is_memory_error(error):
            log.info("There is no memory to record the network's pass; its layers are launched one by one.")
        else:
            log.warning("The network's pass could not be recorded; its layers are launched one by one. (%s)", error)
    return None, run(inputs)

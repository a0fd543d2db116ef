"""Passes of a network that a card plays back by itself, as a CUDA graph.

A fast card computes a layer of a short clip in less time than a processor takes to launch it. A recording is launched
at once. It plays with the tensors, the weights included, at the addresses that they had when it was made.
"""

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


def can_record(device: torch.device) -> bool:
    """Return whether passes on the device can be recorded."""
    return device.type == "cuda" and not torch.version.hip


class PassRecorder:
    """Runs passes; records one of which the card waits for launches, and plays it from then on.

    Holds one recording. Whoever moves weights has to call `forget` first.
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
            self._recording = _record(run, inputs)
        return self._recording.play(inputs) if self._recording else self._observe(run, inputs)

    def forget(self) -> None:
        """Drop the recording, and the memory that it keeps."""
        self._key, self._recording, self._passes, self._waits_for_launches = None, None, 0, False

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
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            # Other threads may go on using the card meanwhile.
            self._graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._results = run(self._inputs)
            except BaseException:
                with suppress(RuntimeError):
                    self._graph.capture_end()
                raise
            self._graph.capture_end()
        torch.cuda.current_stream(device).wait_stream(stream)

    def play(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        for number, given in enumerate(inputs):
            if given is not self._latest[number]:
                self._inputs[number].copy_(given)
                self._latest[number] = given
        self._graph.replay()
        # The next one overwrites them.
        return [result.clone() for result in self._results]


def _record(run: Run, inputs: Sequence[Tensor]) -> _Recording | None:
    """Return a recording; None where it is not to be had, which costs time and nothing else."""
    # What it holds cannot be what torch keeps for others.
    torch.cuda.empty_cache()
    try:
        return _Recording(run, inputs)
    except RuntimeError as error:
        if is_memory_error(error):
            log.info("There is no memory to record the network's pass; its layers are launched one by one.")
        else:
            log.warning("The network's pass could not be recorded; its layers are launched one by one. (%s)", error)
        return None

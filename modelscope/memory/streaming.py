"""Weights on their way: they rest in main memory as the file has them, and come to the device to be used.

What a run wears (`deltas.py`) is merged on arrival, here and nowhere else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..device import Place
from ..errors import is_memory_error
from ..network.streamable import Streamable, assign, tensors_of
from .deltas import Delta, deltas_of, merged
from .float8 import is_packed, packed, unpacked


@contextmanager
def resident(module: nn.Module, place: Place) -> Iterator[None]:
    """All of the module's weights are at the place while inside. May be nested, but what is worn then counts twice."""
    rest = tensors_of(module)
    try:
        assign(module, placed(dict(rest), deltas_of(module), place))
        yield
    finally:
        assign(module, rest)


Deltas = Mapping[str, Sequence[Delta]]


def placed(tensors: dict[str, Tensor], deltas: Deltas, place: Place) -> dict[str, Tensor]:
    """The tensors at the place, with the deltas in those that they are for. Takes these out of what it is given."""
    # The largest first, while there is most room for the copy that it takes.
    largest_first = sorted(deltas, key=lambda name: -tensors[name].numel())
    found = {name: merged(tensors.pop(name), deltas[name], place.device).to(place.dtype) for name in largest_first}
    return found | unpacked(tensors, *place)


@contextmanager
def streamed(module: Streamable, place: Place) -> Iterator[None]:
    """Each part of the module has its weights at the place only while it runs, and shortly before."""
    with _delivered(module, _Courier(place, tensors_of, deltas_of)):
        yield


@contextmanager
def in_eight_bits(module: Streamable, place: Place, stored: torch.device) -> Iterator[None]:
    """As `streamed`, from copies in 8 bits on the device `stored`, which may be the place's own."""
    delicate = module.delicate()
    store = {part: _packed(part, place, stored, whole=part in delicate) for part in module.parts()}
    with _delivered(module, _Courier(place, store.__getitem__, lambda _: {}, ahead=stored != place.device)):
        yield


def _packed(part: nn.Module, place: Place, stored: torch.device, *, whole: bool) -> dict[str, Tensor]:
    """One weight after the other, with what is to be added to it."""
    deltas = deltas_of(part)
    store: dict[str, Tensor] = {}
    for name, tensor in tensors_of(part).items():
        complete = merged(tensor, deltas[name], stored) if name in deltas else tensor
        store |= packed({name: complete.to(place.dtype) if whole else complete}, stored, whole=whole)
    return store


@contextmanager
def _delivered(module: Streamable, courier: "_Courier") -> Iterator[None]:
    module.weights = courier
    try:
        yield
    finally:
        del module.weights
        courier.close()


class _Parcel(NamedTuple):
    part: nn.Module
    tensors: dict[str, Tensor]
    arrival: Any


class _Courier:
    """Brings parts' weights. Where the device copies while it computes, the next part's are brought meanwhile."""

    def __init__(
        self,
        place: Place,
        source: Callable[[nn.Module], dict[str, Tensor]],
        deltas: Callable[[nn.Module], Deltas],
        *,
        ahead: bool = True,
    ) -> None:
        self._place, self._source, self._deltas = place, source, deltas
        self._kind: Any = _streams(place.device) if ahead else None
        self._stream = self._kind.Stream(place.device) if self._kind else None
        self._pinned: dict[nn.Module, dict[str, Tensor]] = {}
        self._follower: dict[nn.Module, nn.Module] = {}
        self._last: nn.Module | None = None
        self._coming: _Parcel | None = None

    @contextmanager
    def __call__(self, part: nn.Module) -> Iterator[None]:
        rest = tensors_of(part)
        if self._last is not None:
            self._follower[self._last] = part
        self._last = part
        try:
            assign(part, self._received(part))
            self._send_next(part)
            yield
        finally:
            assign(part, rest)

    def close(self) -> None:
        """Drop what is on its way."""
        parcel, self._coming = self._coming, None
        if parcel is not None:
            self._wait(parcel)
        self._pinned.clear()

    def _received(self, part: nn.Module) -> dict[str, Tensor]:
        parcel, self._coming = self._coming, None
        if parcel is not None:
            self._wait(parcel)
        if parcel is None or parcel.part is not part:
            del parcel
            parcel = self._sent(part)
            self._wait(parcel)
        return placed(parcel.tensors, self._deltas(part), self._place)

    def _wait(self, parcel: _Parcel) -> None:
        """Before use, and before the memory may be given to anybody else."""
        if self._kind:
            self._kind.current_stream(self._place.device).wait_event(parcel.arrival)

    def _send_next(self, part: nn.Module) -> None:
        follower = self._follower.get(part)
        if self._stream is not None and follower is not None and follower is not part:
            try:
                self._coming = self._sent(follower)
            except (RuntimeError, MemoryError) as error:
                # It comes when it is needed, where this part was.
                if not is_memory_error(error):
                    raise

    def _sent(self, part: nn.Module) -> _Parcel:
        device = self._place.device
        if self._stream is None:
            return _Parcel(part, self._source(part), None)
        source = self._ready(part)
        # Memory of the stream that computes, so that it is free again for that one as soon as it is let go.
        goal = {name: torch.empty_like(tensor, device=device) for name, tensor in source.items()}
        self._stream.wait_stream(self._kind.current_stream(device))
        with self._kind.stream(self._stream):
            for name, tensor in source.items():
                goal[name].copy_(tensor, non_blocking=True)
            arrival = self._stream.record_event()
        return _Parcel(part, goal, arrival)

    def _ready(self, part: nn.Module) -> dict[str, Tensor]:
        """The part's weights in memory that the device can read by itself, in the precision it wants, or packed.

        Those to be merged keep their file's.
        """
        if part not in self._pinned:
            tensors, dtype, added = self._source(part), self._place.dtype, self._deltas(part)
            self._pinned[part] = {
                name: _pinned(tensor if name in added or is_packed(name, tensors) else tensor.to(dtype))
                for name, tensor in tensors.items()
            }
        return self._pinned[part]


def _pinned(tensor: Tensor) -> Tensor:
    try:
        return tensor.pin_memory()
    except RuntimeError:
        # The system allows no more of it: copying takes longer then, and is right all the same.
        return tensor


def copies_ahead(device: torch.device) -> bool:
    """Whether it copies while it computes."""
    return _streams(device) is not None


def _streams(device: torch.device) -> Any:
    """torch's module for devices of this kind, if they copy while they compute."""
    kind = getattr(torch, device.type, None)
    return kind if device.type in ("cuda", "xpu") and hasattr(kind, "Stream") else None

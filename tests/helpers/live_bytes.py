"""Counts the bytes of tensors alive at once, on the meta device: no memory is used and nothing is computed."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ATEN = torch.ops.aten
ARITHMETIC = {ATEN.add.Tensor, ATEN.sub.Tensor, ATEN.mul.Tensor, ATEN.div.Tensor}
"""What makes a new tensor of two, and takes torch's own stand-ins on meta most of their time."""


class LiveBytes(TorchDispatchMode):
    """While active: what every new tensor takes is counted until the last one that shares it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_address(x) for x in _tensors((args, kwargs))}
        stand_in = func in ARITHMETIC and not kwargs and args[0].is_meta
        out = _combined(*args) if stand_in else func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            address = _address(tensor)
            if address not in given and address not in self._known:
                self._hold(tensor)
        return out

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self._known.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, storage._cdata, storage.nbytes())

    def _release(self, address: int, size: int) -> None:
        self._known.remove(address)
        self.now -= size


class FusedKernels(TorchFunctionMode):
    """Layers as the kernels of real devices hold them, without what torch's own stand-ins on meta take their time for.

    Attention: its output and one number per query and head.
    """

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            return self._attention(*args)
        if func in (functional.layer_norm, functional.group_norm, functional.gelu):
            return torch.empty_like(args[0])
        if func is functional.linear:
            return args[0].new_empty(*args[0].shape[:-1], len(args[1]))
        return func(*args, **(kwargs or {}))

    def _attention(self, q: Tensor, *_: Tensor) -> Tensor:
        assert q.ndim == 4
        self.longest = max(self.longest, q.shape[0], q.shape[1])
        log_sums = q.new_empty(q.shape[:3], dtype=torch.float32)
        out = torch.empty_like(q)
        del log_sums
        return out


def _combined(x: Tensor, y: Any) -> Tensor:
    """The memory of x + y and the like."""
    shape = torch.broadcast_shapes(x.shape, y.shape) if isinstance(y, Tensor) else x.shape
    return torch.empty(shape, dtype=torch.result_type(x, y), device="meta")


def _tensors(tree: Any) -> Iterator[Tensor]:
    """All tensors in arguments or results, in lists, tuples and dictionaries of them too."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for branch in tree:
            yield from _tensors(branch)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def peak_bytes(function: Callable[[], Any]) -> tuple[int, int]:
    """The most bytes alive at once of what the function makes, and the longest batch of an attention in it."""
    with torch.inference_mode(), FusedKernels() as kernels, LiveBytes() as live:
        kept = function()
    del kept
    return live.peak, kernels.longest

"""Copies of a part's weights in one piece of memory."""

import torch
from torch import Tensor, nn

from sd_t2v.modelscope.memory.float8 import quantize
from sd_t2v.modelscope.memory.lora_deltas import NO_DELTAS, Delta
from sd_t2v.modelscope.memory.pinned_copies import ALIGNMENT, PinnedCopies
from sd_t2v.modelscope.network.streamable import tensors_of

CPU = torch.device("cpu")


def make_part() -> nn.Module:
    return nn.Sequential(nn.Conv2d(6, 5, 3), nn.GroupNorm(5, 5), nn.Linear(5, 7), nn.Conv3d(3, 3, (3, 1, 1)))


def test_all_weights_are_in_one_piece_in_the_precision_and_order_that_is_wanted() -> None:
    part = make_part().requires_grad_(requires_grad=False)
    copies = PinnedCopies(tensors_of, {part: NO_DELTAS}, torch.float16, channels_last=True)
    pinned, expected = copies(part), tensors_of(part)
    assert copies(part) is pinned
    found = pinned.tensors()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name].half()) for name in expected)
    assert found["0.weight"].is_contiguous(memory_format=torch.channels_last)
    assert found["3.weight"].is_contiguous(memory_format=torch.channels_last_3d)
    addresses = [tensor.untyped_storage().data_ptr() for tensor in found.values()]
    assert set(addresses) == {pinned.memory.untyped_storage().data_ptr()}
    assert all(tensor.storage_offset() * tensor.element_size() % ALIGNMENT == 0 for tensor in found.values())


def test_what_is_in_eight_bits_stays_so() -> None:
    part = make_part().requires_grad_(requires_grad=False)
    store = quantize(tensors_of(part), CPU)
    found = PinnedCopies(lambda _: store, {part: NO_DELTAS}, torch.float16)(part).tensors()
    for name, stored in store.items():
        if stored.ndim > 1:
            assert found[name].dtype == stored.dtype, name
            assert torch.equal(found[name].float(), stored.float())


def test_a_weight_that_a_lora_changes_is_loose_and_in_its_files_precision() -> None:
    part = make_part().requires_grad_(requires_grad=False)
    deltas = {"2.weight": [Delta(torch.ones(7, 1), torch.ones(1, 5))]}
    pinned = PinnedCopies(tensors_of, {part: deltas}, torch.float16)(part)
    assert pinned.loose.keys() == {"2.weight"}
    assert torch.equal(pinned.loose["2.weight"], tensors_of(part)["2.weight"])


def test_a_copy_elsewhere_has_the_same_weights() -> None:
    part = make_part().requires_grad_(requires_grad=False)
    deltas = {"2.weight": [Delta(torch.ones(7, 1), torch.ones(1, 5))]}
    pinned = PinnedCopies(tensors_of, {part: deltas}, torch.float16, channels_last=True)(part)
    room = pinned.room_on(CPU)
    pinned.copy_into(room)
    expected: dict[str, Tensor] = pinned.tensors()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in room.tensors().items())
    assert room.memory.data_ptr() != pinned.memory.data_ptr()

"""What devices are asked, and memory errors in their words."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sd_t2v.modelscope.device import free_memory, multiplies_in_bfloat16
from sd_t2v.modelscope.errors import is_memory_error


@pytest.mark.parametrize(("device", "index"), [("cuda", 1), ("cuda:0", 0)])
def test_older_torch_wants_a_device_with_a_number(device: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def mem_get_info(device: Any) -> tuple[int, int]:
        found = device if isinstance(device, int) else device.index
        assert found == index, "Expected a torch.device with a specified index or an integer"
        return 3_000, 4_000

    cuda = SimpleNamespace(
        mem_get_info=mem_get_info,
        current_device=lambda: 1,
        memory_reserved=lambda _: 700,
        memory_allocated=lambda _: 200,
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    assert free_memory(torch.device(device)) == 3_500


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "Could not allocate tensor with 1073741824 bytes. There is not enough GPU video memory available!",
        "Invalid buffer size: 12.00 GB",
        "UR backend failed. UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY",
        "[enforce fail at alloc_cpu.cpp:116] err == 0. DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_memory_errors_are_known_by_their_words(words: str) -> None:
    assert is_memory_error(RuntimeError(words))
    assert not is_memory_error(ValueError(words))


@pytest.fixture
def untried() -> Iterator[None]:
    multiplies_in_bfloat16.cache_clear()
    yield
    multiplies_in_bfloat16.cache_clear()


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize(("milliseconds", "found"), [(2, True), (9, False), (20, False)])
def test_bfloat16_is_for_processors_that_are_quicker_with_it(
    milliseconds: int, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def multiply(first: torch.Tensor, _: torch.Tensor) -> None:
        time.sleep(0.01 if first.dtype == torch.float32 else milliseconds / 1000)

    monkeypatch.setattr(torch, "mm", multiply)
    assert multiplies_in_bfloat16() is found
    # Once in a process, so that a batch is of one kind.
    monkeypatch.setattr(torch, "mm", lambda *_: pytest.fail("tried again"))
    assert multiplies_in_bfloat16() is found


@pytest.mark.usefixtures("untried")
def test_finding_out_takes_some_milliseconds() -> None:
    start = time.process_time()
    multiplies_in_bfloat16()
    assert time.process_time() - start < 1

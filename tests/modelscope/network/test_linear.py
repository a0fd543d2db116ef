"""Linear layers compute the same with oneDNN's product as with torch's, and without it where it is missing."""

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional as F

from sd_t2v.modelscope.network import linear as module
from sd_t2v.modelscope.network.linear import Linear, linear


@pytest.fixture
def _tried_again() -> Iterator[None]:
    module._has_onednn.cache_clear()
    yield
    module._has_onednn.cache_clear()


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 7), (2, 3, 5, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_torchs(shape: tuple[int, ...], bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    layer, x = Linear(7, 4, bias=bias), torch.randn(shape, generator=generator)
    expected = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    with torch.no_grad():
        assert float((layer(x) - expected).abs().max()) < 1e-6
        assert layer.double()(x.double()).dtype == torch.float64
    assert torch.equal(layer.float()(x), F.linear(x, layer.weight, layer.bias))


def test_a_bias_or_weight_that_lies_apart_is_read_in_its_own_order() -> None:
    """oneDNN would read the memory next to it, and a file may hold such a tensor."""
    x, weight = torch.eye(3), torch.zeros(4, 3)
    with torch.no_grad():
        assert torch.equal(linear(x, weight, torch.arange(8.0)[::2])[0], torch.tensor([0.0, 2, 4, 6]))
        assert torch.equal(linear(x, weight, torch.ones(1).expand(4))[0], torch.ones(4))
        assert torch.equal(linear(x, torch.arange(12.0).view(3, 4).T)[0], torch.tensor([0.0, 1, 2, 3]))
        overlapping = torch.arange(6.0).as_strided((4, 3), (1, 1))
        assert torch.equal(linear(x, overlapping)[0], torch.tensor([0.0, 1, 2, 3]))


def test_inputs_in_any_order_of_memory() -> None:
    x, weight = torch.randn(6, 5, 4).transpose(0, 2), torch.randn(6, 3).T
    with torch.no_grad():
        assert torch.allclose(linear(x, weight), F.linear(x.contiguous(), weight.contiguous()), atol=1e-5)


@pytest.mark.usefixtures("_tried_again")
@pytest.mark.parametrize("wrong", ["missing", "error", "other numbers"])
def test_without_onednn(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> torch.Tensor:
        if wrong == "error":
            raise RuntimeError("could not create a primitive")
        return torch.zeros(3, 4, 5)

    class Ops:
        mkldnn = type("mkldnn", (), {} if wrong == "missing" else {"_linear_pointwise": staticmethod(fail)})

    monkeypatch.setattr(torch, "ops", Ops)
    x, weight = torch.ones(2, 3), torch.ones(4, 3)
    with torch.no_grad():
        assert torch.equal(linear(x, weight), torch.full((2, 4), 3.0))


@pytest.mark.usefixtures("_tried_again")
def test_trying_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    with torch.no_grad():
        linear(torch.ones(1, 2), torch.ones(1, 2))
    assert torch.equal(torch.get_rng_state(), before)

"""Where a run computes and in which precision: who has the last word."""

from typing import Any

import pytest
import torch

from sd_t2v.modelscope import device as device_module
from sd_t2v.modelscope.errors import RequestError
from sd_t2v.t2v_helpers.host import Devices
from sd_t2v.t2v_helpers.hosts.console import ConsoleHost
from sd_t2v.t2v_helpers.places import VARIABLE, places
from sd_t2v.t2v_helpers.settings import PRECISION, VAE, VAE_CPU, VAE_FULL, VAE_HALF, Setting

HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32
CPU, META = torch.device("cpu"), torch.device("meta")


class Computer(ConsoleHost):
    """A host with a device of its own."""

    def __init__(self, device: torch.device, dtype: torch.dtype, settings: dict[Setting, Any] | None = None) -> None:
        super().__init__(settings)
        self._found = Devices(device, dtype, dtype)

    def devices(self) -> Devices:
        return self._found


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)


@pytest.fixture(params=[True, False], ids=["with bfloat16", "without"])
def has_bfloat16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A processor that has it, or that imitates it."""
    monkeypatch.setattr(device_module, "multiplies_in_bfloat16", lambda: request.param)
    return bool(request.param)


def test_the_command_lines_processor_takes_bfloat16_where_it_has_it(has_bfloat16: bool) -> None:
    found = places(ConsoleHost(device="cpu"))
    assert found.model == (CPU, BRAIN if has_bfloat16 else SINGLE)
    assert found.vae == (CPU, SINGLE)


def test_what_the_host_says_holds_until_somebody_says_otherwise() -> None:
    assert places(Computer(CPU, SINGLE)).model.dtype == SINGLE
    assert places(Computer(META, HALF)).model.dtype == HALF


@pytest.mark.parametrize(
    ("asked", "variable", "setting", "expected"),
    [
        ("float32", "float16", "float16", SINGLE),
        ("automatic", "float32", "float16", SINGLE),
        ("automatic", "automatic", "float32", SINGLE),
        ("automatic", "automatic", "automatic", HALF),
    ],
)
def test_the_request_comes_before_the_variable_and_that_before_the_setting(
    asked: str, variable: str, setting: str, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, variable)
    assert places(Computer(META, HALF, {PRECISION: setting}), asked).model.dtype == expected


@pytest.mark.parametrize("asked", ["float16", "bfloat16"])
def test_a_precision_that_the_device_does_not_have_is_not_used(asked: str, has_bfloat16: bool) -> None:
    expected = BRAIN if asked == "bfloat16" and has_bfloat16 else SINGLE
    assert places(Computer(CPU, SINGLE), asked).model.dtype == expected


def test_a_variable_that_names_no_precision_is_an_error_that_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "half")
    with pytest.raises(RequestError, match=r"TEXT2VIDEO_PRECISION is 'half'.*float32, float16, bfloat16"):
        places(Computer(CPU, SINGLE))


@pytest.mark.parametrize(
    ("mode", "vae"), [(VAE_HALF, (META, HALF)), (VAE_FULL, (META, SINGLE)), (VAE_CPU, (CPU, SINGLE))]
)
def test_vae_mode_places_the_autoencoder(mode: str, vae: tuple[torch.device, torch.dtype]) -> None:
    found = places(Computer(META, HALF, {VAE: mode}))
    assert (found.model, found.vae) == ((META, HALF), vae)

"""The noise schedule and the grids, against the originals' tables and diffusers' schedulers."""

import itertools
import math
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from sd_t2v.modelscope.errors import RequestError
from sd_t2v.modelscope.sampling import schedules as schedule
from sd_t2v.modelscope.sampling.schedules import NoiseLevel
from sd_t2v.tests.helpers.support import golden, golden_json

TABLES = golden("ddim_A")
RUNS: dict[str, Any] = golden_json("ddim_A")
WEBUI_RUNS: list[dict[str, Any]] = golden_json("webui_samplers_A")
# diffusers subtracts from 1 in float32, which costs the smallest sigmas their last digits.
SIGMA_TOLERANCE = 1e-4
GRIDS = [
    schedule.ddim_levels,
    schedule.ddim_gaussian_levels,
    schedule.linspace_levels,
    schedule.fractional_levels,
    schedule.karras_levels,
    schedule.consistency_levels,
]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")


def timesteps(levels: list[NoiseLevel]) -> list[float]:
    """What the network hears: the last level is only where the last step ends."""
    return [level.timestep for level in levels[:-1]]


def test_tables_are_the_originals() -> None:
    acp = schedule.alphas_cumprod()
    assert acp.dtype == torch.float64
    torch.testing.assert_close(acp, TABLES["alphas_cumprod_f64"], rtol=1e-13, atol=0)
    sigmas = torch.tensor(schedule.sigmas(), dtype=torch.float64)
    torch.testing.assert_close(sigmas, TABLES["sqrt_recipm1_alphas_cumprod_f64"], rtol=1e-13, atol=0)
    scales = torch.tensor([math.hypot(1, sigma) for sigma in schedule.sigmas()], dtype=torch.float64)
    torch.testing.assert_close(scales, TABLES["sqrt_recip_alphas_cumprod_f64"], rtol=1e-13, atol=0)


@pytest.mark.parametrize("run", RUNS["original"][:6], ids=lambda run: run["key"])
def test_ddim_grid_is_the_originals(run: dict[str, Any]) -> None:
    levels = schedule.ddim_levels(run["ddim_timesteps"])
    assert timesteps(levels) == run["timesteps"]
    assert levels[-1] == NoiseLevel(schedule.sigmas()[0], 0.0)


@pytest.mark.parametrize("steps", [6, 10, 20, 30])
def test_ddim_gaussian_grid_is_the_2023_extensions(steps: int) -> None:
    run = next(run for run in WEBUI_RUNS if run["key"] == f"webui.ddim_gaussian{steps}.gs9")
    # Each timestep is listed for both passes of guidance.
    assert timesteps(schedule.ddim_gaussian_levels(steps)) == run["t"][::2]


@pytest.mark.parametrize("run", RUNS["diffusers"], ids=lambda run: run["key"])
def test_grids_are_those_of_diffusers(run: dict[str, Any]) -> None:
    grids = {
        "ddim": lambda steps: schedule.ddim_levels(steps)[-steps - 1 :],
        "dpmpp2m": schedule.linspace_levels,
        "dpmpp2m_karras": schedule.karras_levels,
        "unipc": schedule.linspace_levels,
    }
    kind = run["key"].split(".")[1].rstrip("0123456789")
    assert timesteps(grids[kind](run["steps"])) == run["timesteps"]


def scheduled(kind: Any, steps: int, **config: Any) -> Any:
    scheduler = kind.from_config(RUNS["ddim_scheduler_config"], timestep_spacing="linspace", **config)
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("steps", [1, 3, 25, 100])
def test_sigmas_are_those_of_diffusers(steps: int, karras: bool) -> None:
    theirs = scheduled(diffusers.DPMSolverMultistepScheduler, steps, use_karras_sigmas=karras)
    ours = (schedule.karras_levels if karras else schedule.linspace_levels)(steps)
    np.testing.assert_allclose([level.sigma for level in ours], theirs.sigmas, rtol=SIGMA_TOLERANCE)
    assert timesteps(ours) == theirs.timesteps.tolist()


@pytest.mark.parametrize("steps", [2, 3, 25, 100])
def test_fractional_grid_is_eulers_in_diffusers(steps: int) -> None:
    theirs = scheduled(diffusers.EulerDiscreteScheduler, steps)
    ours = schedule.fractional_levels(steps)
    np.testing.assert_allclose(timesteps(ours), theirs.timesteps, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose([level.sigma for level in ours], theirs.sigmas, rtol=SIGMA_TOLERANCE)


def test_fractional_grid_of_one_step_starts_from_noise() -> None:
    assert schedule.fractional_levels(1) == [NoiseLevel(schedule.sigmas()[999], 999.0), schedule.END]


def test_linspace_rounds_as_numpy_for_every_number_of_steps() -> None:
    for steps in range(1, 1000):
        expected = np.linspace(0, 999, steps + 1).round()[:0:-1]
        assert timesteps(schedule.linspace_levels(steps)) == expected.tolist()


@pytest.mark.parametrize("grid", GRIDS[2:])
def test_sigmas_fall_without_repeating(grid: Any) -> None:
    for steps in (1, 2, 50) if grid is schedule.consistency_levels else (*range(1, 1000, 7), 999, 1000):
        sigmas = [level.sigma for level in grid(steps)]
        assert all(here > there for here, there in itertools.pairwise(sigmas))
        assert sigmas[0] == pytest.approx(schedule.sigmas()[-1]) and sigmas[-1] == 0


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 30, 334, 1000])
def test_ddim_makes_as_many_steps_as_the_original(steps: int) -> None:
    assert len(schedule.ddim_levels(steps)) - 1 == math.ceil(1000 / (1000 // steps))
    assert len(schedule.ddim_gaussian_levels(steps)) - 1 == steps


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("steps", [-1, 0, 1001])
def test_impossible_steps_are_refused(grid: Any, steps: int) -> None:
    with pytest.raises(RequestError, match=f"from 1 to 1000, not {steps}"):
        grid(steps)


def test_levels_between_timesteps() -> None:
    below, above = schedule.sigmas()[10:12]
    assert schedule.level_at(10.25).sigma == pytest.approx(0.75 * below + 0.25 * above)
    assert schedule.level_at(999) == NoiseLevel(schedule.sigmas()[999], 999.0)


def test_timestep_of_inverts_the_table_and_stops_at_its_ends() -> None:
    assert [schedule.timestep_of(sigma) for sigma in schedule.sigmas()] == pytest.approx(range(1000))
    between = math.sqrt(schedule.sigmas()[500] * schedule.sigmas()[501])
    assert schedule.timestep_of(between) == pytest.approx(500.5)
    assert (schedule.timestep_of(1e-9), schedule.timestep_of(1e9)) == (0, 999)


def test_coordinates() -> None:
    level = schedule.level_at(600)
    acp = schedule.alphas_cumprod()[600]
    x0, noise = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)).double()
    preserving = acp.sqrt() * x0 + (1 - acp).sqrt() * noise
    torch.testing.assert_close(schedule.to_ve(preserving, level), x0 + level.sigma * noise)
    torch.testing.assert_close(schedule.to_vp(schedule.to_ve(preserving, level), level), preserving)
    assert torch.equal(schedule.to_vp(x0, schedule.END), x0)
    assert schedule.to_ve(x0.float(), level).dtype == torch.float32

"""Every sampler against the original implementations, diffusers and mathematics."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from sd_t2v.modelscope.errors import RequestError
from sd_t2v.modelscope.sampling.catalogue import get_sampler, sampler_names
from sd_t2v.modelscope.sampling.ddim import ddim
from sd_t2v.modelscope.sampling.denoiser import make_denoiser
from sd_t2v.modelscope.sampling.guidance import Guidance, PredictNoise, guide
from sd_t2v.modelscope.sampling.sampler import Denoise, Noise, Solver
from sd_t2v.modelscope.sampling.schedules import NoiseLevel, alphas_cumprod, ddim_levels, to_ve, to_vp
from sd_t2v.modelscope.sampling.unipc import Variant, bh1, bh2, unipc
from sd_t2v.tests.helpers.support import golden, golden_json

ORIGINAL = golden("ddim_A")
WEBUI = golden("webui_samplers_A")
CONFIG: dict[str, Any] = golden_json("ddim_A")
TOLERANCE = 2e-4
STEPS = [1, 2, 3, 7, 25, 30, 50]
NOISY = ("Euler a", "LCM")
"""Those that draw noise in any case."""
DETERMINISTIC = [name for name in sampler_names() if name not in NOISY]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape or (2, 4, 3, 4, 5), generator=torch.Generator().manual_seed(seed))


def seeded(seed: int, like: Tensor) -> Noise:
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def refuse() -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")


def last(steps: Iterator[Tensor]) -> Tensor:
    *_, x = steps
    return x


def sample(
    solve: Solver,
    levels: list[NoiseLevel],
    predict: PredictNoise,
    start: Tensor,
    noise: Noise = refuse,
    eta: float = 0.0,
) -> Tensor:
    """From latents to latents, both as the network's, as the pipeline does it."""
    return to_vp(last(solve(make_denoiser(predict), to_ve(start, levels[0]), levels, noise, eta)), levels[-1])


# --- Golden vectors: results of the original implementations on a toy model


def toy(vectors: dict[str, Tensor], scale: float = 9.0) -> PredictNoise:
    """The goldens' toy model; the context enters as its mean."""

    def network(latents: Tensor, timesteps: Tensor, contexts: list[Tensor]) -> list[Tensor]:
        offsets = (0.01 * timesteps / 1000 + context.mean((1, 2)) for context in contexts)
        return [0.1 * latents + offset[:, None, None, None, None] for offset in offsets]

    return guide(network, vectors["cond"], vectors["uncond"], Guidance(scale))


@pytest.mark.parametrize("steps", [4, 6, 10, 20, 30, 50])
def test_ddim_is_the_originals(steps: int) -> None:
    x = sample(ddim, ddim_levels(steps), toy(ORIGINAL), ORIGINAL["noise"])
    torch.testing.assert_close(x, ORIGINAL[f"orig.ddim{steps}.gs9"], rtol=0, atol=TOLERANCE)


def test_ddim_without_guidance_is_the_originals() -> None:
    x = sample(ddim, ddim_levels(20), toy(ORIGINAL, scale=1.0), ORIGINAL["noise"])
    torch.testing.assert_close(x, ORIGINAL["orig.ddim20.nocfg"], rtol=0, atol=TOLERANCE)


def test_ddim_in_double_precision_is_the_originals() -> None:
    vectors = {name: ORIGINAL[name].double() for name in ("noise", "cond", "uncond")}
    x = sample(ddim, ddim_levels(20), toy(vectors), vectors["noise"])
    torch.testing.assert_close(x, ORIGINAL["orig.ddim20.gs9.f64"], rtol=0, atol=5e-6)


def test_ddim_with_clamped_x0_is_the_originals() -> None:
    levels, denoise = ddim_levels(20), make_denoiser(toy(ORIGINAL))
    x = to_ve(ORIGINAL["noise"], levels[0])
    x = last(ddim(lambda x, level: denoise(x, level).clamp(-1, 1), x, levels, refuse, 0.0))
    torch.testing.assert_close(to_vp(x, levels[-1]), ORIGINAL["orig.ddim20.gs9.clamp1"], rtol=0, atol=TOLERANCE)


def test_ddim_with_noise_is_the_originals() -> None:
    stream = iter(ORIGINAL["orig.ddim10.gs9.eta1.noise_stream"])
    x = sample(ddim, ddim_levels(10), toy(ORIGINAL), ORIGINAL["noise"], lambda: next(stream), eta=1.0)
    torch.testing.assert_close(x, ORIGINAL["orig.ddim10.gs9.eta1"], rtol=0, atol=TOLERANCE)
    assert next(stream, None) is None


@pytest.mark.parametrize("steps", [6, 10, 20, 30, 50])
@pytest.mark.parametrize(
    ("key", "name"), [("dpmpp2m", "DPM++ 2M"), ("dpmpp2m_karras", "DPM++ 2M Karras"), ("unipc", "UniPC")]
)
def test_multistep_samplers_are_those_of_diffusers(key: str, name: str, steps: int) -> None:
    sampler = get_sampler(name)
    x = sample(sampler.solve, sampler.grid(steps), toy(ORIGINAL), ORIGINAL["noise"])
    torch.testing.assert_close(x, ORIGINAL[f"diffusers.{key}{steps}.gs9"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("steps", [6, 10, 20, 30, 50])
def test_ddim_is_that_of_diffusers_without_the_surplus_step(steps: int) -> None:
    x = sample(ddim, ddim_levels(steps)[-steps - 1 :], toy(ORIGINAL), ORIGINAL["noise"])
    torch.testing.assert_close(x, ORIGINAL[f"diffusers.ddim{steps}.gs9"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("steps", [6, 10, 20, 30])
@pytest.mark.parametrize(("key", "name"), [("ddim", "DDIM"), ("ddim_gaussian", "DDIM_Gaussian")])
def test_ddim_samplers_are_the_2023_extensions(key: str, name: str, steps: int) -> None:
    sampler = get_sampler(name)
    x = sample(sampler.solve, sampler.grid(steps), toy(WEBUI), WEBUI["noise"])
    torch.testing.assert_close(x, WEBUI[f"webui.{key}{steps}.gs9"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("steps", [6, 10, 20, 30])
def test_unipc_of_third_order_is_the_2023_extensions(steps: int) -> None:
    timesteps = np.linspace(999, 0, steps + 1)
    acp = np.exp(np.interp(timesteps, np.arange(1000), alphas_cumprod().log()))
    levels = [NoiseLevel(((1 - a) / a) ** 0.5, t) for a, t in zip(acp.tolist(), timesteps.tolist(), strict=True)]
    x = sample(partial(unipc, variant=Variant(3, bh1)), levels, toy(WEBUI), WEBUI["noise"])
    torch.testing.assert_close(x, WEBUI[f"webui.unipc{steps}.gs9"], rtol=0, atol=TOLERANCE)


# --- diffusers, live, with a network that is neither linear nor the same everywhere

# ms-1.7b's own configuration names no spacing, so that each scheduler uses its default.
FREE_SPACING = {key: value for key, value in CONFIG["ddim_scheduler_config"].items() if key != "timestep_spacing"}
LIVE: dict[str, tuple[Any, dict[str, Any]]] = {
    "DDIM": (diffusers.DDIMScheduler, {"timestep_spacing": "leading"}),
    "Euler": (diffusers.EulerDiscreteScheduler, {}),
    "Euler a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "DPM++ 2M": (diffusers.DPMSolverMultistepScheduler, {}),
    "DPM++ 2M Karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "UniPC": (diffusers.UniPCMultistepScheduler, {}),
}
# diffusers' Euler starts a single step at timestep 0.
LIVE_CASES = [(name, steps) for name in LIVE for steps in (1, 2, 3, 7, 25, 50) if steps > 1 or "Euler" not in name]


def curved(latents: Tensor, timesteps: Tensor) -> Tensor:
    mixed = 0.6 * latents - 0.8 * latents.roll(1, dims=1)
    return torch.tanh(mixed) + latents.mean(2, keepdim=True) * timesteps[:, None, None, None, None] / 1000


def run_diffusers(name: str, steps: int, start: Tensor, **options: Any) -> Any:
    """start: latents as the network's; diffusers' Euler schedulers want them VE."""
    kind, config = LIVE[name]
    scheduler = kind.from_config(FREE_SPACING, **config)
    scheduler.set_timesteps(steps)
    variance_exploding = float(scheduler.init_noise_sigma) != 1
    x = start * (1 + float(scheduler.sigmas[0]) ** 2) ** 0.5 if variance_exploding else start
    for t in scheduler.timesteps:
        noise = curved(scheduler.scale_model_input(x, t), t.expand(len(x)).float())
        x = scheduler.step(noise, t, x, **options).prev_sample
    return x


@pytest.mark.parametrize(("name", "steps"), LIVE_CASES)
def test_samplers_follow_diffusers_on_a_nonlinear_model(name: str, steps: int) -> None:
    sampler, start = get_sampler(name), normal(0)
    options = {"generator": torch.Generator().manual_seed(3)} if name == "Euler a" else {}
    theirs = run_diffusers(name, steps, start, **options)
    noise = seeded(3, start) if name == "Euler a" else refuse
    ours = sample(sampler.solve, sampler.grid(steps)[-steps - 1 :], curved, start, noise)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("eta", [0.4, 1.0])
@pytest.mark.parametrize("steps", [2, 7, 25])
def test_noisy_ddim_follows_diffusers_on_a_nonlinear_model(steps: int, eta: float) -> None:
    start, generator = normal(0), torch.Generator().manual_seed(3)
    theirs = run_diffusers("DDIM", steps, start, eta=eta, generator=generator)
    ours = sample(ddim, ddim_levels(steps)[-steps - 1 :], curved, start, seeded(3, start), eta)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


# --- The battery: what must hold for whatever is registered

MEAN, SPREAD = 0.7, 1.6


def gaussian_model(x: Tensor, level: NoiseLevel) -> Tensor:
    """The perfect denoiser of data that is normal with MEAN and SPREAD: E[x0 | x]."""
    return MEAN + (x - MEAN) * (SPREAD**2 / (SPREAD**2 + level.sigma**2))


def gaussian_flow(x: Tensor, start: NoiseLevel, end: NoiseLevel) -> Tensor:
    """The exact solution of its probability flow."""
    return MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + end.sigma**2) / (SPREAD**2 + start.sigma**2))


def gaussian_error(solve: Solver, levels: list[NoiseLevel]) -> float:
    x = levels[0].sigma * normal(0).double()
    exact = gaussian_flow(x, levels[0], levels[-1])
    return (last(solve(gaussian_model, x, levels, refuse, 0.0)) - exact).abs().max().item()


def counted(denoise: Denoise, calls: list[NoiseLevel]) -> Denoise:
    def spy(x: Tensor, level: NoiseLevel) -> Tensor:
        calls.append(level)
        return denoise(x, level)

    return spy


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", sampler_names())
def test_one_yield_and_one_evaluation_per_step(name: str, steps: int) -> None:
    sampler, calls, x = get_sampler(name), list[NoiseLevel](), normal(0)
    levels = sampler.grid(steps)
    walk = sampler.solve(counted(gaussian_model, calls), to_ve(x, levels[0]), levels, seeded(1, x), 0.5)
    for done, step in enumerate(walk, start=1):
        assert calls == levels[:done]
        assert step.dtype == torch.float32 and step.shape == x.shape and step.isfinite().all()
    assert len(calls) == len(levels) - 1


@pytest.mark.parametrize("name", sampler_names())
def test_a_thousand_steps_stay_finite(name: str) -> None:
    sampler, x = get_sampler(name), normal(0, 1, 4, 1, 1, 1)
    levels = sampler.grid(50 if name == "LCM" else 1000)
    x = last(sampler.solve(gaussian_model, to_ve(x, levels[0]), levels, seeded(1, x), 0.0))
    assert x.isfinite().all() and x.abs().max() < 10


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", sampler_names())
@pytest.mark.parametrize("skipped", [0, 0.5])
def test_a_denoiser_that_knows_x0_leads_there(name: str, steps: int, skipped: float) -> None:
    """Also when started half-way, as video to video does."""
    sampler, x0, noise = get_sampler(name), normal(1), normal(2)
    levels = sampler.grid(steps)
    levels = levels[int(skipped * (len(levels) - 1)) :]
    x = last(sampler.solve(lambda x, level: x0, x0 + levels[0].sigma * noise, levels, seeded(1, x0), 0.0))
    # A consistency step near the end keeps a trace of where it came from.
    tolerance = 2e-4 if name == "LCM" else 2e-5
    torch.testing.assert_close(x, x0 + levels[-1].sigma * noise, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_more_steps_come_closer_to_the_exact_solution(name: str) -> None:
    sampler = get_sampler(name)
    few, more, most = (gaussian_error(sampler.solve, sampler.grid(steps)) for steps in (10, 50, 250))
    assert most < more / 2 < few / 4 and most < 0.04


ORDERS: list[tuple[str, Solver, int]] = [
    *((name, get_sampler(name).solve, 1) for name in ("DDIM", "DDIM_Gaussian", "Euler")),
    *((name, get_sampler(name).solve, 2) for name in ("DPM++ 2M", "DPM++ 2M Karras", "UniPC")),
    ("UniPC 3", partial(unipc, variant=Variant(3, bh2)), 2),
]


@pytest.mark.parametrize(("name", "solve", "order"), ORDERS, ids=[name for name, _, _ in ORDERS])
def test_order_of_convergence(name: str, solve: Solver, order: int) -> None:
    """On a grid of equal steps in log sigma. UniPC ends with a step of order 1, whose one error is of order 2."""

    def error(steps: int) -> float:
        return gaussian_error(solve, [NoiseLevel(10 ** (1 - 2 * i / steps), 0.0) for i in range(steps + 1)])

    assert np.log2(error(100) / error(200)) > order - 0.2


def test_orders_are_measured_for_every_deterministic_sampler() -> None:
    assert {name for name, _, _ in ORDERS} >= set(DETERMINISTIC)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_without_eta_nothing_is_drawn(name: str) -> None:
    sampler, x = get_sampler(name), normal(0)
    assert len(list(sampler.solve(gaussian_model, x, sampler.grid(7), refuse, 0.0))) >= 7


@pytest.mark.parametrize("name", sampler_names())
def test_noise_matters_only_where_declared(name: str) -> None:
    sampler, x = get_sampler(name), normal(0)

    def run(seed: int, eta: float) -> Tensor:
        return last(sampler.solve(gaussian_model, x, sampler.grid(7), seeded(seed, x), eta))

    assert torch.equal(run(1, 0.8), run(1, 0.8))
    assert torch.equal(run(1, 0.8), run(2, 0.8)) == (not sampler.uses_eta and name not in NOISY)
    assert torch.equal(run(1, 0.0), run(1, 0.8)) == (not sampler.uses_eta)


@pytest.mark.parametrize("name", ["DDIM", "Euler a"])
def test_noisy_samples_are_distributed_as_the_data(name: str) -> None:
    sampler = get_sampler(name)
    levels = sampler.grid(250)
    x = (MEAN + (SPREAD**2 + levels[0].sigma ** 2) ** 0.5 * normal(0, 10_000)).float()
    x = last(sampler.solve(gaussian_model, x, levels, seeded(1, x), 1.0))
    assert x.mean().item() == pytest.approx(MEAN, abs=0.06)
    assert x.std().item() == pytest.approx(SPREAD, rel=0.03)


def test_names_are_listed_in_order() -> None:
    expected = ["DDIM", "DDIM_Gaussian", "DPM++ 2M", "DPM++ 2M Karras", "Euler", "Euler a", "LCM", "UniPC"]
    assert sampler_names() == expected
    assert [get_sampler(name).name for name in expected] == expected


def test_defaults_are_usable() -> None:
    for sampler in map(get_sampler, sampler_names()):
        assert len(sampler.grid(sampler.default_steps)) - 1 == sampler.default_steps
    assert [name for name in sampler_names() if get_sampler(name).uses_eta] == ["DDIM", "DDIM_Gaussian"]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RequestError, match=r"'PLMS' is unknown. Choose one of: DDIM, .*, UniPC\."):
        get_sampler("PLMS")

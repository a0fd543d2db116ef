"""Classifier-free guidance, and the network's noise turned into x0."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from sd_t2v.modelscope.sampling.catalogue import get_sampler, sampler_names
from sd_t2v.modelscope.sampling.denoiser import make_denoiser
from sd_t2v.modelscope.sampling.guidance import Guidance, find_interval, guide
from sd_t2v.modelscope.sampling.schedules import NoiseLevel

LATENTS = torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
TIMESTEPS = torch.tensor([500.0, 500.0])


@dataclass
class Network:
    """Answers with each context times the latents, and remembers what it was asked."""

    dtype: torch.dtype = torch.float32
    asked: list[tuple[Tensor, Tensor, list[float]]] = field(default_factory=list)

    def __call__(self, latents: Tensor, timesteps: Tensor, contexts: list[float]) -> list[Tensor]:
        self.asked.append((latents, timesteps, contexts))
        return [(latents * context).to(self.dtype) for context in contexts]


@pytest.mark.parametrize("scale", [0.0, 0.5, 7.5, 17.0])
def test_guidance_extrapolates_from_unconditional_to_conditional(scale: float) -> None:
    noise = guide(Network(), 3.0, 2.0, Guidance(scale))(LATENTS, TIMESTEPS)
    torch.testing.assert_close(noise, LATENTS * (2 + scale))


def test_the_network_is_asked_once_for_both_contexts() -> None:
    network = Network()
    guide(network, 3.0, 2.0, Guidance(9.0))(LATENTS, TIMESTEPS)
    [(latents, timesteps, contexts)] = network.asked
    assert latents is LATENTS and timesteps is TIMESTEPS and contexts == [3.0, 2.0]


@pytest.mark.parametrize(("first", "last", "steps"), [(999, 0, 2), (499, 0, 1), (999, 501, 1), (500, 500, 2)])
def test_guidance_ends_outside_of_its_interval(first: float, last: float, steps: int) -> None:
    network = Network()
    noise = guide(network, 3.0, 2.0, Guidance(9.0, first=first, last=last))(LATENTS, TIMESTEPS)
    assert len(network.asked[0][2]) == steps
    torch.testing.assert_close(noise, LATENTS * (11 if steps == 2 else 3))


@pytest.mark.parametrize(
    ("begin", "end", "guided_steps"),
    [(0, 1, 4), (0, 0.5, 2), (0.5, 1, 2), (0.25, 0.3, 1), (0.3, 0.3, 0), (0, 0, 0), (1, 1, 0)],
)
def test_an_interval_is_a_share_of_the_steps(begin: float, end: float, guided_steps: int) -> None:
    # The network hears them in single precision, which has none of the two in the middle.
    timesteps = [900.0, 666.1, 333.3, 1.0]
    first, last = find_interval(timesteps, begin, end)
    network = Network()
    for timestep in timesteps:
        guide(network, 3.0, 2.0, Guidance(9.0, 0, first, last))(LATENTS, torch.full((2,), timestep))
    asked = [len(contexts) for _, _, contexts in network.asked]
    assert asked.count(2) == guided_steps
    # Those that begin within the shares, in a row.
    assert asked == [2 if begin <= number / 4 < end else 1 for number in range(4)]


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_rescaled_guidance_equals_diffusers(share: float) -> None:
    rescale_noise_cfg = pytest.importorskip(
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion"
    ).rescale_noise_cfg
    generator = torch.Generator().manual_seed(1)
    cond, uncond = torch.randn(2, *LATENTS.shape, generator=generator)
    noise = guide(lambda *_: [cond, uncond], 0, 1, Guidance(9.0, share))(LATENTS, TIMESTEPS)
    torch.testing.assert_close(noise, rescale_noise_cfg(uncond + 9 * (cond - uncond), cond, share))


def test_scale_one_runs_only_the_conditional_pass() -> None:
    network = Network()
    noise = guide(network, 3.0, 2.0, Guidance(1.0))(LATENTS, TIMESTEPS)
    assert [contexts for _, _, contexts in network.asked] == [[3.0]]
    assert torch.equal(noise, LATENTS * 3)


@pytest.mark.parametrize("scale", [1.0, 17.0])
def test_half_precision_predictions_are_combined_in_the_latents_precision(scale: float) -> None:
    # 17 times the difference would be beyond half precision's 65504.
    noise = guide(Network(torch.float16), 6000.0, 0.0, Guidance(scale))(LATENTS.sign(), TIMESTEPS)
    assert noise.dtype == torch.float32
    assert torch.equal(noise, LATENTS.sign() * 6000 * scale)


def test_denoiser_asks_in_the_networks_coordinates() -> None:
    network = Network()
    level = NoiseLevel(3.0, 412.75)
    x0 = make_denoiser(guide(network, 0.5, 0.0, Guidance(1.0)))(LATENTS, level)
    latents, timesteps, _ = network.asked[0]
    torch.testing.assert_close(latents, LATENTS / 10**0.5)
    assert timesteps.dtype == torch.float32 and timesteps.tolist() == [412.75, 412.75]
    torch.testing.assert_close(x0, LATENTS - 3 * 0.5 * latents)
    assert x0.dtype == torch.float32


def test_denoiser_recovers_x0_from_the_true_noise() -> None:
    noise = torch.randn(LATENTS.shape, generator=torch.Generator().manual_seed(1))
    level = NoiseLevel(2.5, 600.0)
    x0 = make_denoiser(lambda latents, timesteps: noise)(LATENTS + level.sigma * noise, level)
    torch.testing.assert_close(x0, LATENTS)


@pytest.mark.parametrize("name", sampler_names())
@pytest.mark.parametrize(("steps", "begin", "end"), [(4, 0, 0.5), (25, 0.2, 0.6), (31, 0.5, 1), (50, 0, 0.55)])
def test_every_samplers_steps_are_guided_as_asked(name: str, steps: int, begin: float, end: float) -> None:
    timesteps = [level.timestep for level in get_sampler(name).grid(steps)[:-1]]
    first, last = find_interval(timesteps, begin, end)
    guided_steps = sum(last <= float(torch.tensor(timestep)) <= first for timestep in timesteps)
    wanted = sum(begin <= number / len(timesteps) < end for number in range(len(timesteps)))
    # The Karras grid has some timesteps twice.
    assert guided_steps == wanted or (name == "DPM++ 2M Karras" and abs(guided_steps - wanted) <= 2)

"""Classifier-free guidance, and the network's noise turned into x0."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from sd_t2v.modelscope.guidance import guided
from sd_t2v.modelscope.samplers.parameterisation import denoiser
from sd_t2v.modelscope.schedule import Level

LATENTS = torch.randn(2, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
TIMESTEPS = torch.tensor([500.0, 500.0])


@dataclass
class Network:
    """Answers with its context times the latents, and remembers what it was asked."""

    dtype: torch.dtype = torch.float32
    asked: list[tuple[Tensor, Tensor, float]] = field(default_factory=list)

    def __call__(self, latents: Tensor, timesteps: Tensor, context: float) -> Tensor:
        self.asked.append((latents, timesteps, context))
        return (latents * context).to(self.dtype)


@pytest.mark.parametrize("scale", [0.0, 0.5, 7.5, 17.0])
def test_guidance_extrapolates_from_unconditional_to_conditional(scale: float) -> None:
    noise = guided(Network(), 3.0, 2.0, scale)(LATENTS, TIMESTEPS)
    torch.testing.assert_close(noise, LATENTS * (2 + scale))


def test_each_pass_gets_the_same_question_and_its_own_context() -> None:
    network = Network()
    guided(network, 3.0, 2.0, 9.0)(LATENTS, TIMESTEPS)
    assert [context for _, _, context in network.asked] == [3.0, 2.0]
    assert all(latents is LATENTS and timesteps is TIMESTEPS for latents, timesteps, _ in network.asked)


def test_scale_one_runs_only_the_conditional_pass() -> None:
    network = Network()
    noise = guided(network, 3.0, 2.0, 1.0)(LATENTS, TIMESTEPS)
    assert [context for _, _, context in network.asked] == [3.0]
    assert torch.equal(noise, LATENTS * 3)


@pytest.mark.parametrize("scale", [1.0, 17.0])
def test_half_precision_predictions_are_combined_in_the_latents_precision(scale: float) -> None:
    # 17 times the difference would be beyond half precision's 65504.
    noise = guided(Network(torch.float16), 6000.0, 0.0, scale)(LATENTS.sign(), TIMESTEPS)
    assert noise.dtype == torch.float32
    assert torch.equal(noise, LATENTS.sign() * 6000 * scale)


def test_denoiser_asks_in_the_networks_coordinates() -> None:
    network = Network()
    level = Level(3.0, 412.75)
    x0 = denoiser(guided(network, 0.5, 0.0, 1.0))(LATENTS, level)
    latents, timesteps, _ = network.asked[0]
    torch.testing.assert_close(latents, LATENTS / 10**0.5)
    assert timesteps.dtype == torch.float32 and timesteps.tolist() == [412.75, 412.75]
    torch.testing.assert_close(x0, LATENTS - 3 * 0.5 * latents)
    assert x0.dtype == torch.float32


def test_denoiser_recovers_x0_from_the_true_noise() -> None:
    noise = torch.randn(LATENTS.shape, generator=torch.Generator().manual_seed(1))
    level = Level(2.5, 600.0)
    x0 = denoiser(lambda latents, timesteps: noise)(LATENTS + level.sigma * noise, level)
    torch.testing.assert_close(x0, LATENTS)

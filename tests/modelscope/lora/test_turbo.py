"""T2V-Turbo against the original's own numbers, and how it runs."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from sd_t2v.modelscope.errors import RequestError
from sd_t2v.modelscope.lora.join_loras import join_loras
from sd_t2v.modelscope.lora.lora_file import read_lora
from sd_t2v.modelscope.lora.turbo import scale_condition, scale_embedding
from sd_t2v.modelscope.memory.lora_deltas import Delta, LoraDeltas
from sd_t2v.modelscope.memory.plan import BALANCED, FAST, SMALLEST
from sd_t2v.modelscope.memory.residency import Residency
from sd_t2v.modelscope.pipeline import generate
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.modelscope.run_options import RunOptions
from sd_t2v.modelscope.sampling.catalogue import get_sampler
from sd_t2v.modelscope.sampling.denoiser import make_denoiser
from sd_t2v.modelscope.sampling.schedules import consistency_levels, to_ve, to_vp
from sd_t2v.tests.helpers.loras import cloneofsimo_list
from sd_t2v.tests.helpers.support import golden, max_error, small_model

TURBO = golden("turbo_A")
TIMESTEPS = {
    1: [999],
    2: [999, 499],
    4: [999, 759, 519, 279],
    8: [999, 879, 759, 639, 519, 399, 279, 159],
    16: [*range(999, 98, -60)],
}
"""The original scheduler's."""
TOLERANCE = 5e-5


@pytest.mark.parametrize("steps", TIMESTEPS)
def test_timesteps_are_the_originals(steps: int) -> None:
    assert [level.timestep for level in consistency_levels(steps)[:-1]] == TIMESTEPS[steps]
    with pytest.raises(RequestError, match="LCM takes at most 50 steps, not 51"):
        consistency_levels(51)


@pytest.mark.parametrize("scale", [1.0, 7.5, 12.5])
def test_the_embedding_of_the_scale_is_the_originals(scale: float) -> None:
    assert max_error(scale_embedding(scale).expand(2, -1), TURBO[f"w_embedding_{scale}"]) < TOLERANCE


def test_the_sampler_is_the_original_scheduler() -> None:
    sampler, noise, count = get_sampler("LCM"), iter(TURBO["sched.noise"]), itertools.count()
    levels = sampler.grid(4)

    def predict(latents: Tensor, timesteps: Tensor) -> Tensor:
        """The golden's toy model."""
        return 0.1 * latents + TURBO["sched.eps"][next(count)]

    start = to_ve(TURBO["sched.x"], levels[0])
    walk = sampler.solve(make_denoiser(predict), start, levels, noise.__next__, 0)
    for step, (x, level) in enumerate(zip(walk, levels[1:], strict=True)):
        expected = TURBO["sched.denoised3" if step == 3 else f"sched.prev{step}"]
        assert max_error(to_vp(x, level), expected) < TOLERANCE
    assert len(list(noise)) == 1


@torch.no_grad()
def test_the_network_that_takes_the_scale_is_the_originals() -> None:
    # In double precision: sinusoids of 7500 radians and a large projection make much of the order of a sum.
    unet = copy.deepcopy(small_model().unet).double()
    projection = Delta(TURBO["unet.cond_proj.weight"], torch.eye(256))
    contexts = [unet.text_context(TURBO["unet.y"].double())]

    def noise(condition: Tensor | None) -> Tensor:
        condition = condition if condition is None else condition.double()
        return unet.predict_noise(TURBO["sched.x"].double(), TURBO["unet.t"].double(), contexts, condition=condition)[0]

    # The original computed them in single precision.
    assert max_error(noise(scale_condition([projection], 7.5)), TURBO["unet.out"]) < 2 * TOLERANCE
    assert max_error(noise(None), TURBO["unet.out_without_cond"]) < TOLERANCE
    assert max_error(noise(None), TURBO["unet.out"]) > 100 * TOLERANCE


@pytest.fixture(scope="module")
def turbo(tmp_path_factory: pytest.TempPathFactory) -> LoraDeltas:
    """The golden list, with the golden projection in the place that it has in T2V-Turbo's file."""
    pairs = cloneofsimo_list()
    up, down = torch.linalg.qr(TURBO["unet.cond_proj.weight"])
    path = tmp_path_factory.mktemp("turbo") / "unet_lora.pt"
    torch.save([*pairs[:4], up, down, *pairs[4:]], path)
    return read_lora(path, small_model())


def test_its_list_is_known_by_the_projection(turbo: LoraDeltas) -> None:
    assert turbo.is_turbo and len(turbo.unet) == 573
    expected = scale_condition([Delta(TURBO["unet.cond_proj.weight"], torch.eye(256))], 7.5)
    assert max_error(scale_condition(turbo.guidance, 7.5), expected) < 1e-5
    halved = turbo.times(0.5, 1)
    assert max_error(scale_condition(halved.guidance, 7.5), 0.5 * expected) < 1e-5
    assert not turbo.times(0, 0).is_turbo


class Spy:
    """Counts what the UNet is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[int, Any]] = []
        predict_noise = small_model().unet.predict_noise

        def spied(x: Tensor, timesteps: Tensor, contexts: list[Any], *args: Any, **options: Any) -> Any:
            self.calls.append((len(contexts), options["condition"]))
            return predict_noise(x, timesteps, contexts, *args, **options)

        monkeypatch.setattr(small_model().unet, "predict_noise", spied)


def request(**changes: Any) -> VideoRequest:
    return VideoRequest(
        **{
            "prompt": "a",
            "sampler": "LCM",
            "steps": 4,
            "cfg_scale": 7.5,
            "frames": 2,
            "width": 64,
            "height": 64,
            "seed": 1,
        }
        | changes
    )


@pytest.mark.parametrize("plan", [FAST, SMALLEST], ids=lambda plan: plan.name)
def test_one_pass_per_step_under_any_plan(turbo: LoraDeltas, plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    frames = generate(Residency(small_model()), request(), RunOptions(plan=plan, loras=join_loras([turbo])))
    assert [count for count, _ in spy.calls] == [1] * 4
    assert all(condition is not None for _, condition in spy.calls)
    other = generate(
        Residency(small_model()),
        request(negative_prompt="blurry"),
        RunOptions(plan=BALANCED, loras=join_loras([turbo])),
    )
    assert int((frames.int() - other.int()).abs().max()) <= 1


def test_the_scale_reaches_the_network_and_afterwards_the_model_is_guided_again(
    turbo: LoraDeltas, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    few = {"steps": 1, "frames": 1}
    assert not torch.equal(
        *(
            generate(Residency(small_model()), request(cfg_scale=scale, **few), RunOptions(loras=join_loras([turbo])))
            for scale in (1, 9)
        )
    )
    generate(Residency(small_model()), request(**few))
    assert spy.calls[-1] == (2, None)

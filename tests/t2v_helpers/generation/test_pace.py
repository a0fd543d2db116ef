"""Forecasts of time come from the steps of earlier runs, whatever their size and length were."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sd_t2v.modelscope.device import Place
from sd_t2v.modelscope.memory.plan import FAST, SMALL
from sd_t2v.modelscope.progress import Step, ignore
from sd_t2v.modelscope.request import VideoRequest
from sd_t2v.t2v_helpers.generation import pace as module
from sd_t2v.t2v_helpers.generation import stages
from sd_t2v.t2v_helpers.generation.pace import PACE, Pace, Watch, Work, count_work
from sd_t2v.t2v_helpers.request import MAKE_THEM, SAME
from sd_t2v.tests.helpers.support import CPU, small_model
from sd_t2v.tests.t2v_helpers.generation.test_stages import Person, make, write_long_source

WORK = Work(CPU, steps=10, frames=4, step=100.0, frame=7.0)


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)

    def run(self, pace: Pace, phase: module.Phase, seconds: list[float], work: Work = WORK) -> None:
        on_step = Watch(work, lambda: FAST, ignore, pace=pace)
        for done, each in enumerate(seconds, 1):
            self.now += each
            on_step(Step(phase, done, len(seconds)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_first_step_which_brings_the_weights_does_not_count(clock: Clock) -> None:
    pace = Pace()
    assert pace.forecast(WORK, FAST) is None
    clock.run(pace, "sample", [50.0, 2.0, 4.0])
    assert pace.forecast(WORK, FAST) == pytest.approx(10 * 3)
    clock.run(pace, "decode", [9.0, 1.0])
    assert pace.forecast(WORK, FAST) == pytest.approx(10 * 3 + 4 * 1)
    larger = replace(WORK, steps=20, step=200.0, frames=8, frame=14.0)
    assert pace.forecast(larger, FAST) == pytest.approx(4 * (10 * 3 + 4 * 1))


def test_a_plan_that_changes_begins_anew(clock: Clock) -> None:
    pace, plans = Pace(), [FAST]
    on_step = Watch(WORK, lambda: plans[0], ignore, pace=pace)
    for done, each in enumerate([1.0, 1.0, 60.0, 20.0, 20.0], 1):
        clock.now += each
        if done == 3:
            plans[0] = SMALL
        on_step(Step("sample", done, 5))
    assert (pace.forecast(WORK, FAST), pace.forecast(WORK, SMALL)) == (pytest.approx(10), pytest.approx(200))


def test_steps_that_a_source_leaves_out_do_not_count(clock: Clock) -> None:
    asked: list[float | None] = []
    on_step = Watch(WORK, lambda: FAST, ignore, asked.append, Pace())
    for done in (1, 2, 3):
        clock.now += 2.0
        on_step(Step("sample", done, 3))
    assert asked == [None, pytest.approx(3 * 2), pytest.approx(3 * 2)]


def test_the_most_similar_run_tells(clock: Clock) -> None:
    pace, twice = Pace(), replace(WORK, step=2 * WORK.step)
    clock.run(pace, "sample", [1.0, 1.0])
    clock.run(pace, "sample", [1.0, 3.0], twice)
    assert pace.forecast(WORK, FAST) == pytest.approx(10)
    assert pace.forecast(replace(WORK, step=8 * WORK.step), FAST) == pytest.approx(10 * 4 * 3)
    assert pace.forecast(replace(WORK, step=33 * WORK.step), FAST) is None
    for number in range(3, 200):
        clock.run(pace, "sample", [1.0, 1.0], replace(WORK, step=1000.0 * number))
    assert pace.forecast(WORK, FAST) is None


def test_other_plans_and_precisions_are_unknown(clock: Clock) -> None:
    pace = Pace()
    clock.run(pace, "sample", [1.0, 1.0])
    assert pace.forecast(WORK, FAST) is not None
    assert pace.forecast(WORK, SMALL) is None
    assert pace.forecast(replace(WORK, place=Place(torch.device("cpu"), torch.bfloat16)), FAST) is None


def test_a_single_step_tells_nothing(clock: Clock) -> None:
    pace = Pace()
    clock.run(pace, "sample", [5.0])
    clock.run(pace, "encode", [5.0, 5.0])
    assert pace.forecast(WORK, FAST) is None


def test_work_grows_with_what_is_computed() -> None:
    model, request = small_model(), VideoRequest(width=64, height=64, frames=4, steps=10, cfg_scale=5)
    once = count_work(model, request)

    def more(**changes: object) -> Work:
        return count_work(model, replace(request, **changes))  # type: ignore[arg-type]

    assert more(frames=8).step == pytest.approx(2 * once.step)
    assert more(width=128, height=128).step == pytest.approx(4 * once.step)
    assert more(cfg_scale=1).step == count_work(model, request, is_turbo=True).step == pytest.approx(once.step / 2)
    assert more(cfg_until=0.5).step == pytest.approx(0.75 * once.step)
    assert once.step / 2 < more(draft=2).step < once.step
    assert count_work(model, request, share=0.3).steps == pytest.approx(3)


def test_a_source_of_more_than_an_hours_work_is_asked_for_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"source": str(write_long_source(tmp_path)), "source_length": 3.0}
    monkeypatch.setattr(stages, "HOUR", 1e-6)
    monkeypatch.setattr(PACE, "_seen", {})
    person = Person(tmp_path / "out")
    outcome = make(tmp_path, person, **source)
    assert "All 24 frames of the source would take about" in str(outcome.error) and "make them" in str(outcome.error)
    # Its first steps have told, for all clips.
    assert not outcome.videos and "sampling 2/3" in person.seen[-1].text
    assert make(tmp_path, long_videos=MAKE_THEM, **source).videos[0].frames == 24


def test_passes_over_all_of_a_long_source_are_not_taken_for_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    refuse = stages.VideoStages._refuse_hours

    def note(self: stages.VideoStages, each: float | None) -> None:
        asked.append(each or 0.0)
        refuse(self, each)

    monkeypatch.setattr(stages.VideoStages, "_refuse_hours", note)
    long = {"source": str(write_long_source(tmp_path)), "source_length": 3.0, "hires": SAME, "hires_scale": 1.5}
    assert make(tmp_path, **long, extend=1, watermark=0.5).videos[0].finished
    # The steps of the first of four clips.
    assert len(asked) == 3

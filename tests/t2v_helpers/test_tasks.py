"""Who waits for a turn, without a thread; and questions that come faster than their answers."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from contextlib import closing
from typing import Any

import pytest

from sd_t2v.t2v_helpers.page.latest_only import Latest
from sd_t2v.t2v_helpers.tasks import Tasks, TooManyWaiting


def finished(task: Coroutine[Any, Any, Any]) -> Any:
    """What it gives, in a loop of its own."""
    with closing(asyncio.new_event_loop()) as loop:
        return loop.run_until_complete(task)


def test_runs_take_turns_in_order_and_wait_without_threads() -> None:
    tasks, order, most = Tasks(500), [], []
    before = threading.active_count()

    def work(task: str, number: int) -> int:
        assert task not in tasks.waiting
        most.append(threading.active_count())
        order.append(number)
        return number * 2

    async def all_of_them() -> list[int]:
        hold = threading.Event()
        first = asyncio.ensure_future(tasks.take_turn(lambda _: hold.wait(10), "first"))
        await asyncio.sleep(0.05)
        others = [asyncio.ensure_future(tasks.take_turn(work, f"task {number}", number)) for number in range(300)]
        await asyncio.sleep(0.05)
        assert tasks.waiting == [f"task {number}" for number in range(300)]
        hold.set()
        await first
        return list(await asyncio.gather(*others))

    assert finished(all_of_them()) == [2 * number for number in range(300)]
    assert order == list(range(300))
    assert max(most) <= before + 1
    assert tasks.waiting == []


def test_more_than_may_wait_are_refused_at_once_and_a_place_that_is_left_is_free() -> None:
    tasks = Tasks(2)

    async def crowd() -> None:
        hold = threading.Event()
        first = asyncio.ensure_future(tasks.take_turn(lambda _: hold.wait(10), "first"))
        await asyncio.sleep(0.05)
        waiting = [asyncio.ensure_future(tasks.take_turn(lambda _: None, str(number))) for number in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyWaiting):
            await tasks.take_turn(lambda _: None, "one more")
        waiting[0].cancel()
        await asyncio.sleep(0.05)
        assert tasks.waiting == ["1"]
        last = asyncio.ensure_future(tasks.take_turn(lambda _: "done", "last"))
        hold.set()
        assert await last == "done"
        await asyncio.gather(first, waiting[1])

    finished(crowd())


def test_an_error_reaches_whoever_waited_and_the_next_run_begins() -> None:
    tasks = Tasks(5)

    def fail(_: str) -> None:
        raise LookupError("ours")

    async def both() -> str:
        with pytest.raises(LookupError, match="ours"):
            await tasks.take_turn(fail, "a")
        return str(await tasks.take_turn(lambda _: "works", "b"))

    assert finished(both()) == "works"


def test_after_the_end_nothing_begins() -> None:
    tasks, begun = Tasks(5), []

    async def ending() -> None:
        hold = threading.Event()
        first = asyncio.ensure_future(tasks.take_turn(lambda _: hold.wait(10), "first"))
        await asyncio.sleep(0.05)
        second = asyncio.ensure_future(tasks.take_turn(begun.append, "second"))
        await asyncio.sleep(0.05)
        tasks.close()
        hold.set()
        await first
        with pytest.raises(asyncio.CancelledError):
            await second

    finished(ending())
    assert begun == []


def test_an_interrupt_at_the_very_start_is_not_lost() -> None:
    tasks, stopped, pressed = Tasks(5), threading.Event(), []

    class Watched(str):
        """A task whose page presses Interrupt while somebody looks whether it was withdrawn."""

        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            if not pressed:
                pressed.append(threading.Thread(target=tasks.interrupt, args=[["a"], stopped.set]))
                pressed[0].start()
                pressed[0].join(0.5)
            return str.__eq__(self, other)

    # So that there is something to compare with.
    tasks.interrupt(["another"], stopped.set)
    assert tasks.perform(Watched("a"), lambda: stopped.wait(10), withdrawn=False)
    pressed[0].join()


def test_of_a_task_that_fails_it_is_known_that_it_ended() -> None:
    tasks = Tasks(5)

    def fail() -> None:
        assert tasks.running == "a"
        raise LookupError

    with pytest.raises(LookupError):
        tasks.perform("a", fail, None)
    assert (tasks.running, tasks.is_finished("a"), tasks.results("a")) == (None, True, None)


def test_of_a_pages_questions_only_the_latest_is_answered() -> None:
    answered: list[tuple[str, int]] = []

    def answer(page: str, number: int) -> str:
        time.sleep(0.05)
        answered.append((page, number))
        return f"{page}{number}"

    async def asked() -> list[str]:
        latest = Latest(answer, overtaken="-")
        questions = [latest.answer(page, page, number) for number in range(20) for page in "ab"]
        return list(await asyncio.gather(*questions))

    answers = finished(asked())
    # The very first was being answered when the others came.
    assert answered == [("a", 0), ("a", 19), ("b", 19)]
    assert answers.count("-") == 37
    assert answers[-2:] == ["a19", "b19"]

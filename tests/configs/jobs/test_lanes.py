"""Two tasks in one process: one is prepared while the other is finished, and none overtakes another."""

import threading
import time
from collections.abc import Callable

import pytest

from dp360.configs.jobs.lanes import Lanes
from dp360.configs.jobs.peak_memory import PeakMemory
from dp360.configs.jobs.progress import JobCancelled

_LONG_S = 30.0


class Played:
    """A task in a thread of its own that says where it is, and goes on when it is let."""

    def __init__(self, lanes: Lanes, *, calls_halfway: bool = True) -> None:
        self.first, self.second, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.go, self.cancelled, self.was_cancelled = threading.Semaphore(0), False, False
        self._lanes, self._calls_halfway = lanes, calls_halfway
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            with self._lanes.task(lambda: self.cancelled) as halfway:
                self.first.set()
                self.go.acquire()
                if self._calls_halfway:
                    halfway()
                    self.second.set()
                    self.go.acquire()
        except JobCancelled:
            self.was_cancelled = True
        self.ended.set()


def comes(event: threading.Event) -> bool:
    return event.wait(_LONG_S)


def test_the_next_is_prepared_while_one_is_finished():
    lanes = Lanes()
    one = Played(lanes)
    assert comes(one.first)
    two = Played(lanes)
    one.go.release()
    assert comes(one.second) and comes(two.first)
    three = Played(lanes)
    two.go.release()
    time.sleep(0.3)
    assert not two.second.is_set(), "it may not be finished beside another"
    assert not three.first.is_set(), "one at most is ahead"
    one.go.release()
    assert comes(two.second) and comes(three.first)
    for task in (two, three, three):
        task.go.release()
    assert comes(two.ended) and comes(three.ended)


def test_a_task_of_one_half_lets_the_next_one_in():
    lanes = Lanes()
    one, two = Played(lanes, calls_halfway=False), Played(lanes)
    assert comes(one.first) or comes(two.first)
    for task in (one, two, two):
        task.go.release()
    assert comes(one.ended) and comes(two.ended)


@pytest.mark.parametrize("waits_for", ["its turn", "the second half"])
def test_a_waiting_task_is_cancelled(waits_for):
    lanes = Lanes()
    one = Played(lanes)
    assert comes(one.first)
    if waits_for == "the second half":
        one.go.release()
        assert comes(one.second)
    two = Played(lanes)
    two.go.release()
    two.cancelled = True
    assert comes(two.ended) and two.was_cancelled
    three = Played(lanes)
    for task in (one, one, three, three):
        task.go.release()
    assert comes(one.ended) and comes(three.ended) and three.second.is_set(), "what it held is free again"


@pytest.fixture
def played_memory() -> tuple[PeakMemory, Callable[[int], None]]:
    """A watch over memory that is told, and what tells it how much the process holds."""
    held, most = 0, 0

    def hold(memory_bytes: int) -> None:
        nonlocal held, most
        held, most = memory_bytes, max(most, memory_bytes)

    def forget() -> None:
        nonlocal most
        most = held

    return PeakMemory(lambda: most, forget), hold


def test_each_task_has_the_peak_of_its_own_time(played_memory):
    watch, hold = played_memory
    hold(9)
    hold(1)
    with watch.during() as of_first:
        hold(5)
        hold(2)
        with watch.during() as of_second:
            hold(3)
            assert (of_first(), of_second()) == (5, 3)
        hold(7)
        assert of_first() == 7
    hold(1)
    with watch.during() as of_third:
        assert of_third() == 1

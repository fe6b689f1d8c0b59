"""Reports of a job: shares only grow, estimates follow the machine's pace, and a job stops between two steps."""

import pytest

from dp360.configs.jobs.progress import STAGES, JobCancelled, JobClock, Progress, expected_stage_s
from dp360.configs.options import HeadOptions
from dp360.configs.recipe import head_recipe
from dp360.generation.progress import silent

EXPECTED_S = {"portrait": 2.0, "views": 8.0, "fit": 30.0, "export": 10.0}


class Machine:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.time_s, self.told = 100.0, list[Progress]()

    def clock(self, **more) -> JobClock:
        return JobClock(dict(EXPECTED_S), self.told.append, now_s=lambda: self.time_s, **more)

    def play(self, clock: JobClock, pace: float) -> None:
        """All stages, each `pace` times as long as expected, those with a loop in twenty steps."""
        track = clock.tracking(silent)
        for stage, expected_s in EXPECTED_S.items():
            clock.begin(stage)
            for _ in track(range(20), total=20, description=f"the {stage}"):
                self.time_s += pace * expected_s / 20
            clock.end(stage)


@pytest.mark.parametrize("pace", [0.5, 1.0, 3.0])
def test_shares_only_grow_and_end_at_one(pace):
    machine = Machine()
    machine.play(machine.clock(), pace)
    shares = [progress.unit for progress in machine.told]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == pytest.approx(1)
    assert all(0 <= progress.stage_unit <= 1 for progress in machine.told)
    assert machine.told[-1].left_s == pytest.approx(0, abs=0.01)
    assert machine.told[-1].elapsed_s == pytest.approx(pace * sum(EXPECTED_S.values()))
    assert {progress.step for progress in machine.told} >= {"the views", "the fit"}


@pytest.mark.parametrize("pace", [0.5, 1.0, 3.0])
def test_the_estimate_knows_the_pace_after_the_first_stages(pace):
    machine = Machine()
    machine.play(machine.clock(), pace)
    total_s = pace * sum(EXPECTED_S.values())
    for progress in machine.told:
        if progress.stage in ("fit", "export"):
            assert progress.left_s == pytest.approx(total_s - progress.elapsed_s, abs=0.1 * total_s)


def test_a_stage_that_takes_longer_is_not_called_done():
    machine = Machine()
    clock = machine.clock()
    clock.begin("export")
    for _ in clock.tracking(silent)(range(4), total=4, description="mesh"):
        machine.time_s += 1000
    assert machine.told[-1].stage_unit < 1 and machine.told[-1].unit < 1


def test_stages_of_an_earlier_run_are_left_out():
    machine = Machine()
    clock = machine.clock()
    clock.skip(("portrait", "views", "fit"))
    clock.begin("export")
    assert machine.told[-1].left_s == pytest.approx(10) and machine.told[-1].unit == pytest.approx(0.8)


def test_a_job_stops_between_two_steps():
    asked, done = [False], []
    clock = Machine().clock(is_cancelled=lambda: asked[0])
    clock.begin("fit")
    with pytest.raises(JobCancelled):
        for step in clock.tracking(silent)(range(10), total=10, description="fit"):
            done.append(step)
            asked[0] = step == 3
    assert done == [0, 1, 2, 3]
    with pytest.raises(JobCancelled):
        clock.begin("export")


def test_first_guesses_grow_with_the_work():
    fast, high = (
        expected_stage_s(options, head_recipe(options))
        for options in (HeadOptions(quality="fast", generator="prior"), HeadOptions(quality="high", generator="prior"))
    )
    assert tuple(fast) == STAGES == tuple(high)
    assert high["fit"] > 5 * fast["fit"] and high["views"] > 2 * fast["views"]

"""How far a job is, and how long it still takes: seconds of each stage as expected, put right by those measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dp360.exporters.formats import format_of
from dp360.generation.progress import Track

from ..options import RENDERED, HeadOptions
from ..recipe import HeadRecipe

STAGES = ("portrait", "weights", "prior", "views", "dataset", "fit", "export")
"""Stages of a head in their order. `weights` takes time only where a diffusion model is opened."""
FORMATS_STAGE = "formats"
"""What may follow them: the head in further formats."""
_COUNTED = ("views", "fit")
"""Stages with one loop that takes most of their time: its steps say how far they are."""
_MOST_BY_TIME = 0.95
"""A stage that nothing is counted in is not called finished before it is."""
_EVERY_S = 0.2
"""Least time between two reports within a stage."""
_PACE_RANGE = (0.1, 20.0)
"""How much slower than expected a machine may be taken for."""


class JobCancelled(Exception):
    """Somebody asked a job to stop; what was complete is kept."""


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    stage: str
    """The stage that runs, one of `STAGES`."""
    step: str
    """What it is doing, in words for people."""
    stage_unit: float
    """Share of the stage that is done, [0, 1]."""
    unit: float
    """Share of the whole job that is done, by expected time, [0, 1]."""
    elapsed_s: float
    """Wall seconds since the job began."""
    left_s: float
    """Wall seconds that it is expected to take still."""


Hear = Callable[[Progress], None]
"""Is told how far a job is."""


def hear_nothing(progress: Progress) -> None:
    """The `Hear` that does nothing."""
    del progress


def expected_stage_s(options: HeadOptions, recipe: HeadRecipe) -> dict[str, float]:
    """Seconds of each stage on two CPU cores, as a first guess: measured at `fast` and `standard`, scaled by counts.

    Args:
        options: the portrait and how it is treated; the generator's name is settled already.
    """
    views, megapixels = len(recipe.orbit.cameras(8)), (recipe.size_px / 1000) ** 2
    pictures = views * megapixels
    is_drawn = options.generator not in RENDERED
    per_step_s = 0.012 + 1.1e-6 * recipe.fit.densify.max_count * (0.35 + 2.5 * megapixels)
    return {
        "portrait": 3.0,
        "weights": 5.0 if is_drawn else 0.05,
        "prior": 6.5,
        "views": 1.0 + (3.0 if is_drawn else 0.6) * pictures,
        "dataset": 0.6 + 0.12 * pictures,
        "fit": 1.5 + per_step_s * recipe.fit.iterations,
        "export": 4.0 if recipe.size_px < 384 else 6.0,
    }


def expected_format_s(ending: str) -> float:
    """Seconds that a head in one more format takes on two CPU cores, as a first guess.

    Args:
        ending: of its file, without dot.
    """
    return {"mesh": 30.0, "turntable": 25.0, "sheet": 2.0, "splats": 3.0}[format_of(f"head.{ending}").kind]


@dataclass
class JobClock:
    """Turns stages that begin and end, and the steps of a `Track`, into reports; and stops the job when asked to."""

    expected_s: Mapping[str, float]
    """Seconds of each stage as expected; stages that are not named do not run."""
    hear: Hear = hear_nothing
    """Is told how far the job is."""
    is_cancelled: Callable[[], bool] = lambda: False
    """Asked between any two steps."""
    now_s: Callable[[], float] = time.monotonic
    """Seconds on some clock."""
    _stage: str = ""
    _step: str = ""
    _counted_unit: float = 0.0
    _stage_unit: float = 0.0
    _unit: float = 0.0
    _took_s: dict[str, float] = field(default_factory=dict)
    _skipped: set[str] = field(default_factory=set)
    _began_s: float = 0.0
    _stage_began_s: float = 0.0
    _told_s: float = 0.0

    def __post_init__(self) -> None:
        self._began_s = self._stage_began_s = self._told_s = self.now_s()

    def skip(self, stages: Iterable[str]) -> None:
        """Take stages as done: an earlier run did them."""
        self._skipped |= set(stages)

    def begin(self, stage: str) -> None:
        """A stage begins.

        Raises:
            JobCancelled: the job shall stop.
        """
        self.stop_if_cancelled()
        self._stage, self._step, self._counted_unit, self._stage_unit = stage, "", 0.0, 0.0
        self._stage_began_s = self.now_s()
        self._tell()

    def end(self, stage: str) -> None:
        """A stage is done.

        Raises:
            JobCancelled: the job shall stop.
        """
        self._took_s[stage] = self.now_s() - self._stage_began_s
        self._counted_unit = self._stage_unit = 1.0
        self._tell()
        self.stop_if_cancelled()

    def tracking(self, track: Track) -> Track:
        """A `Track` that also counts steps and stops between two of them.

        Args:
            track: is shown the same.
        """

        def tracked(sequence: Iterable[Any], *, total: float | int | None, description: str) -> Iterator[Any]:
            self._step = description
            for number, item in enumerate(track(sequence, total=total, description=description)):
                self.stop_if_cancelled()
                if total and self._stage in _COUNTED:
                    self._counted_unit = min(1.0, number / total)
                if self.now_s() - self._told_s >= _EVERY_S:
                    self._tell()
                yield item

        return tracked

    def stop_if_cancelled(self) -> None:
        """Stop where that was asked for.

        Raises:
            JobCancelled: it was.
        """
        if self.is_cancelled():
            raise JobCancelled

    def _tell(self) -> None:
        self._told_s = self.now_s()
        pace, within_s = self._pace(), self._told_s - self._stage_began_s
        expected_s = max(self.expected_s.get(self._stage, 0.0) * pace, 1e-3)
        if self._stage not in self._took_s:
            by_time = min(within_s / expected_s, _MOST_BY_TIME)
            unit = self._counted_unit if self._stage in _COUNTED else by_time
            self._stage_unit = max(self._stage_unit, unit)
        u = self._stage_unit
        measured_s = within_s * (1 - u) / u if self._stage in _COUNTED and u > 0 else max(expected_s - within_s, 0.0)
        left_s = u * measured_s + (1 - u) * (1 - u) * expected_s if u < 1 else 0.0
        finished = (self._skipped | self._took_s.keys()) - {self._stage}
        done = sum(value for name, value in self.expected_s.items() if name in finished)
        whole = sum(self.expected_s.values()) or 1.0
        left_s += pace * (whole - done - self.expected_s.get(self._stage, 0.0))
        self._unit = max(self._unit, min((done + u * self.expected_s.get(self._stage, 0.0)) / whole, 1.0))
        self.hear(Progress(self._stage, self._step, u, self._unit, self._told_s - self._began_s, left_s))

    def _pace(self) -> float:
        """Measured seconds per expected one, over the stages that are done."""
        expected_s = sum(self.expected_s.get(name, 0.0) for name in self._took_s)
        if expected_s <= 0:
            return 1.0
        low, high = _PACE_RANGE
        return min(max(sum(self._took_s.values()) / expected_s, low), high)

"""What many heads take, by the stages that a batch has measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import mean

from dp360.generation import InputError

from .results import PortraitResult


@dataclass(frozen=True)
class BatchCost:
    """A forecast: every head takes what the measured ones took on average, and jobs do not disturb each other."""

    measured: int
    """Heads whose stages are known."""
    stage_s: dict[str, float]
    """Mean seconds of each stage."""
    failed_share: float
    """Share of portraits without a head, [0, 1]."""
    peak_memory_bytes: int
    """Most memory that a worker held."""
    portraits: int
    """Portraits of the forecast."""
    jobs: int
    """Heads at once, on all machines together."""

    @property
    def head_s(self) -> float:
        """Seconds of one head."""
        return sum(self.stage_s.values())

    @property
    def wall_hours(self) -> float:
        """Hours for all portraits. One without a head is counted as its first stage."""
        failed_s = next(iter(self.stage_s.values()), 0.0)
        each_s = (1 - self.failed_share) * self.head_s + self.failed_share * failed_s
        return self.portraits * each_s / self.jobs / 3600

    def to_text(self) -> str:
        """A table for people."""
        rows = [f"{name:<12}{seconds:>9.1f} s" for name, seconds in self.stage_s.items() if seconds >= 0.05]
        return "\n".join(
            [
                f"means of {self.measured} heads; at most {self.peak_memory_bytes / 1e9:.1f} GB each",
                *rows,
                f"{'one head':<12}{self.head_s:>9.1f} s",
                f"{self.portraits} portraits, {self.jobs} at once, {100 * self.failed_share:.0f} % without a head: "
                f"{self.wall_hours:.1f} hours ({self.wall_hours * self.jobs:.0f} hours of one job)",
            ]
        )

    def to_json(self) -> str:
        """The same for programs."""
        return json.dumps({**asdict(self), "head_s": self.head_s, "wall_hours": self.wall_hours}, indent=1)


def batch_cost(results: Iterable[PortraitResult], *, portraits: int, jobs: int) -> BatchCost:
    """Forecast from what was measured.

    Args:
        results: of a batch like the one to come.
        portraits: how many there will be, at least 1.
        jobs: heads at once, at least 1.

    Raises:
        InputError: no head was measured, or a number below 1.
    """
    results = list(results)
    done = [result for result in results if result.status == "done" and result.stages_s]
    if not done:
        raise InputError("Cannot forecast: expected a results.jsonl with at least one head that was made, got none")
    if portraits < 1 or jobs < 1:
        raise InputError(f"Cannot forecast: expected --heads and --jobs of at least 1, got {portraits} and {jobs}")
    names = dict.fromkeys(name for result in done for name in result.stages_s)
    stage_s = {name: mean(result.stages_s.get(name, 0.0) for result in done) for name in names}
    most = max((result.peak_memory_bytes or 0 for result in done), default=0)
    return BatchCost(len(done), stage_s, 1 - len(done) / len(results), most, portraits, jobs)

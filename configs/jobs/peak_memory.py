"""The most memory that a process holds during each of several tasks that overlap."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dp360.generation.system import forget_peak_memory, peak_memory_bytes


@dataclass
class PeakMemory:
    """Lets the system count anew for every task that begins, and keeps what it has counted for those that run."""

    peak_bytes: Callable[[], int] = peak_memory_bytes
    """What the system has counted since it last forgot."""
    forget: Callable[[], None] = forget_peak_memory
    """Lets it count from here on."""
    _before: dict[int, int] = field(default_factory=dict)
    _number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def during(self) -> Iterator[Callable[[], int]]:
        """A task; yields what tells the most memory, bytes, that the process held since the block began."""
        with self._lock:
            counted = self.peak_bytes()
            self._before = {number: max(most, counted) for number, most in self._before.items()}
            self.forget()
            self._number += 1
            number, self._before[self._number] = self._number, 0
        try:
            yield lambda: max(self._before[number], self.peak_bytes())
        finally:
            with self._lock:
                del self._before[number]


PEAK_MEMORY = PeakMemory()
"""Of this process."""

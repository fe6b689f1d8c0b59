"""Two tasks in one process, one behind the other: while one is finished the next is prepared.

Preparing a head hardly ever takes more than one core, and so does most of finishing it. A lock for each half lets one
task at most be in it, so that memory is that of one head and a half, and no task overtakes another.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from .progress import JobCancelled

_ASKED_EVERY_S = 0.1


class Lanes:
    """The two halves of a task, for all threads of a process that do tasks."""

    def __init__(self) -> None:
        self._first, self._second = threading.Lock(), threading.Lock()

    @contextlib.contextmanager
    def task(self, is_cancelled: Callable[[], bool]) -> Iterator[Callable[[], None]]:
        """A task from its beginning to its end: waits until no other is in its first half.

        Args:
            is_cancelled: asked while it waits.

        Yields:
            What the task calls where its second half begins: waits until no other is in that. A task that does not call
            it has a first half alone.

        Raises:
            JobCancelled: `is_cancelled` said so.
        """
        _take(self._first, is_cancelled)
        held = self._first

        def halfway() -> None:
            nonlocal held
            if held is self._first:
                _take(self._second, is_cancelled)
                held = self._second
                self._first.release()

        try:
            yield halfway
        finally:
            held.release()


def _take(lock: threading.Lock, is_cancelled: Callable[[], bool]) -> None:
    """Wait for a lock.

    Raises:
        JobCancelled: `is_cancelled` said so.
    """
    while not lock.acquire(timeout=_ASKED_EVERY_S):
        if is_cancelled():
            raise JobCancelled

"""The loop of `dp360 batch`: hand portraits to workers, write down how each ended, and make the table of all."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from dp360.generation.files import write_bytes_atomically
from dp360.generation.system import usable_cores

from ..console import Notify
from .head_task import HeadMade, HeadTask, export_name, file_sha256, missing_formats
from .job import Job, read_record
from .manifest import BatchItem
from .progress import Progress
from .results import RESULTS_NAME, PortraitResult, ResultsFile, Status
from .table import TABLE_FOLDER, TABLE_NAME, table_page
from .thumbnails import thumbnail
from .workers import MOST_DEATHS, Pool, WorkEvent

_WAIT_S = 0.5
_TABLE_EVERY_S = 30.0
"""The table is written anew so often while a batch runs."""
_RECENT = 8
"""Finished heads whose stages the estimate follows."""


@runtime_checkable
class Board(Protocol):
    """Shows how far a batch is, and each running portrait."""

    def whole(self, done: int, total: int, left_s: float | None) -> None:
        """How many heads have ended, of how many, and the seconds that the rest is expected to take."""
        ...

    def portrait(self, name: str, progress: Progress | None) -> None:
        """How far one portrait is; None when it runs no more."""
        ...

    def ended(self, result: PortraitResult) -> None:
        """How one portrait ended."""
        ...


@dataclass
class Batch:
    """A batch in its folder."""

    items: Sequence[BatchItem]
    """What is asked for, by name."""
    folder: Path
    """Where the heads' folders, results.jsonl and table.html go."""
    formats: tuple[str, ...] = ()
    """Endings of further formats, without dot."""
    again: bool = False
    """Also what failed before."""
    now_s: Callable[[], float] = time.monotonic
    """Seconds on some clock."""
    _deaths: Counter[str] = field(default_factory=Counter)
    _hashes: dict[str, str] = field(default_factory=dict)
    _progress: dict[str, Progress] = field(default_factory=dict)
    _recent: dict[str, deque[dict[str, float]]] = field(default_factory=dict)
    _table_told_s: float = 0.0

    @property
    def results(self) -> ResultsFile:
        """How the portraits ended, in this run and in earlier ones."""
        return ResultsFile(self.folder / RESULTS_NAME)

    def run(self, pool: Pool, board: Board, notify: Notify) -> dict[str, PortraitResult]:
        """Make what is missing.

        Args:
            pool: of workers that make heads as `make_head` does; it stays open.
            board: shows how far all is.
            notify: is told what people should know.

        Returns:
            The results of all `items` that ended, now or earlier, by name.

        Raises:
            InputError: the folder cannot be written.
        """
        for ending in self.formats:
            export_name(ending)  # an unknown one is refused before the first portrait
        waiting = self._missing(notify)
        total, ended = len(waiting), 0
        by_name = {item.name: item for item in self.items}
        self._write_table()
        while waiting or pool.running:
            while waiting and pool.free:
                item = waiting.popleft()
                pool.start(item.name, self._task(item))
            board.whole(ended, total, self._left_s(len(waiting), pool))
            for event in pool.events(_WAIT_S):
                if not event.is_end:
                    self._show(event, board, notify)
                    continue
                self._progress.pop(event.task, None)
                board.portrait(event.task, None)
                item = by_name[event.task]
                if event.kind == "died":
                    self._deaths[item.name] += 1
                    if self._deaths[item.name] < MOST_DEATHS:
                        notify(f"{item.name}: {event.value}; it is tried once more")
                        waiting.append(item)
                        continue
                ended += 1
                if event.kind == "done" and event.value is None:
                    notify(f"{item.name}: another dp360 is making this head; it is left to that one")
                    continue
                result = self._result(item, event)
                self.results.append(result)
                self._follow(item, result)
                board.ended(result)
            if self.now_s() - self._table_told_s > _TABLE_EVERY_S:
                self._write_table()
        board.whole(ended, total, 0.0)
        self._write_table()
        read = self.results.read()
        return {item.name: read[item.name] for item in self.items if item.name in read}

    def _missing(self, notify: Notify) -> deque[BatchItem]:
        """What is neither there nor known to fail."""
        earlier, missing, failed = self.results.read(), deque[BatchItem](), 0
        for item in self.items:
            digest = self._sha256(item)
            key, known = item.key(digest), earlier.get(item.name)
            folder = self.folder / item.name
            if Job(item.options, folder).is_done(digest) and not missing_formats(folder, self.formats):
                if (
                    known is None or known.status != "done" or known.key != key
                ):  # killed before it could write this down
                    self.results.append(self._found(item, key))
            elif known is not None and known.key == key and known.status in ("refused", "set aside") and not self.again:
                failed += 1
            else:
                missing.append(item)
        if len(missing) < len(self.items):
            there = len(self.items) - len(missing) - failed
            hint = f"; {failed} failed before and are left out, --again tries them" if failed else ""
            notify(f"{there} of {len(self.items)} heads are there already{hint}")
        return missing

    def _sha256(self, item: BatchItem) -> str:
        if item.name not in self._hashes:
            self._hashes[item.name] = file_sha256(item.options.portrait)
        return self._hashes[item.name]

    def _task(self, item: BatchItem) -> HeadTask:
        recent = self._recent.get(item.options.quality)
        stage_s = None
        if recent:
            stage_s = {name: sum(run.get(name, 0.0) for run in recent) / len(recent) for name in recent[-1]}
        return HeadTask(item.options, self.folder / item.name, self.formats, stage_s)

    def _show(self, event: WorkEvent, board: Board, notify: Notify) -> None:
        if event.kind == "note":
            notify(f"{event.task}: {event.value}")
        else:
            self._progress[event.task] = event.value
            board.portrait(event.task, event.value)

    def _result(self, item: BatchItem, event: WorkEvent) -> PortraitResult:
        """What is written down about a portrait that ended."""
        key = item.key(self._sha256(item))
        if event.kind == "done":
            made: HeadMade = event.value
            self._write_thumbnail(item.name)
            return _of_record(item, key, made.record, made.exported, made.seconds, made.peak_memory_bytes)
        status: dict[str, Status] = {"refused": "refused", "died": "set aside"}
        error = str(event.value or "it was stopped").strip()
        if event.kind == "died":
            error = f"{error}, twice"
        return PortraitResult(
            item.name,
            str(item.options.portrait),
            status.get(event.kind, "crashed"),
            key,
            error=error,
            input_sha256=self._sha256(item) or None,
        )

    def _found(self, item: BatchItem, key: str) -> PortraitResult:
        """What is written down about a head that an earlier run finished, but could not write down any more."""
        self._write_thumbnail(item.name)
        exported = tuple(export_name(ending) for ending in self.formats)
        return _of_record(item, key, read_record(self.folder / item.name) or {}, exported, None, None)

    def _follow(self, item: BatchItem, result: PortraitResult) -> None:
        """Let estimates follow the stages of a finished head."""
        if result.status == "done" and result.stages_s:
            self._recent.setdefault(item.options.quality, deque(maxlen=_RECENT)).append(result.stages_s)

    def _left_s(self, waiting: int, pool: Pool) -> float | None:
        """Seconds that the rest is expected to take, by the finished heads or else by the running ones."""
        running = [self._progress[name].left_s for name in pool.running if name in self._progress]
        finished = [sum(run.values()) for runs in self._recent.values() for run in runs]
        finished = finished or [p.elapsed_s + p.left_s for p in self._progress.values()]
        if not finished:
            return None
        each = sum(finished) / len(finished)
        started = len(pool.running) - len(running)
        at_once = max(pool.jobs, len(pool.running))  # a head that waits for the one before it has begun as well
        return max([(sum(running) + (waiting + started) * each) / at_once, *running])

    def _write_thumbnail(self, name: str) -> None:
        picture = thumbnail(self.folder / name)
        if picture is not None:
            write_bytes_atomically(self.folder / TABLE_FOLDER / f"{name}.jpg", picture)

    def _write_table(self) -> None:
        """table.html with all results of the folder, those of other shards included."""
        self._table_told_s = self.now_s()
        results = sorted(self.results.read().values(), key=lambda result: result.name)
        write_bytes_atomically(self.folder / TABLE_NAME, table_page(results, self.folder))


def _of_record(
    item: BatchItem,
    key: str,
    record: Mapping[str, object],
    exported: Sequence[str],
    seconds: float | None,
    peak_memory_bytes: int | None,
) -> PortraitResult:
    """The result of a head that is there, as its dp360.json says."""
    told, stages, files = record.get("warnings"), record.get("timings_s"), record.get("files")
    return PortraitResult(
        item.name,
        str(item.options.portrait),
        "done",
        key,
        seconds=None if seconds is None else round(seconds, 3),
        stages_s=stages if isinstance(stages, dict) else {},
        peak_memory_bytes=peak_memory_bytes,
        warnings=told if isinstance(told, list) else [],
        input_sha256=str(record.get("input_sha256", "")) or None,
        files=files if isinstance(files, dict) else {},
        exported=list(exported),
    )


def threads_of_each(jobs: int) -> int | None:
    """Threads for each of several workers, so that together they have as many as cores; None for a single one."""
    return None if jobs == 1 else max(1, (os.cpu_count() or 1) // jobs)


def lanes_of_each(jobs: int) -> Literal[1, 2]:
    """Heads in each of several workers: two, one behind the other, where it has a second core."""
    return 2 if usable_cores() >= 2 * jobs else 1

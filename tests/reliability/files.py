"""The campaign on files: damaged ones for every reader, in processes of their own that are watched.

Broken promises: anything but reading or one sentence, more than `SLOWEST_S` for a file, more than `MOST_MEMORY_BYTES`
above what the process took before, and a process that dies.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from .mutations import mutated
from .readers import Reader, all_readers, others_of, outcome_of, prepared

SLOWEST_S = 5.0
"""CPU seconds of one file above which its reader counts as hanging."""
MOST_MEMORY_BYTES = 1 << 30
"""Memory above what the process took before a file."""
_GIVEN_UP_AFTER_S = 900.0
"""Wall seconds without a word from a process until it is killed."""
_PER_MESSAGE = 25
_ROOMS = ("generation", "reconstruction", "exporters", "configs")
_ADDRESS_SPACE_BYTES = 6 << 30
"""Address space of a process above what it takes at first: a reader that asks for more gets a MemoryError."""


@dataclass(frozen=True)
class Finding:
    """A broken promise, and how to see it again."""

    reader: str
    index: int
    what: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.reader} #{self.index}: {self.what}{' at ' + self.where if self.where else ''}"


@dataclass
class Tally:
    """What came of a campaign."""

    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """How many were read, and how many refused."""
    findings: list[Finding] = field(default_factory=list)
    slowest_s: float = 0.0
    """CPU seconds of the slowest file."""
    most_bytes: int = 0
    """The most memory that a file took above the base."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.files + other.files,
            self.outcomes + other.outcomes,
            self.findings + other.findings,
            max(self.slowest_s, other.slowest_s),
            max(self.most_bytes, other.most_bytes),
        )

    def __str__(self) -> str:
        kinds = Counter(f.what.split(":")[0] for f in self.findings)
        broken = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "0 broken promises"
        return (
            f"{self.files} files: {self.outcomes['read']} read, {self.outcomes['refused']} refused; {broken}; slowest "
            f"{self.slowest_s:.2f} s, at most {self.most_bytes / 2**20:.0f} MB above base"
        )


def damaged(reader: Reader, index: int, seed: int, others: tuple[bytes, ...]) -> bytes:
    """The file of a number in the campaign of a seed."""
    rng = np.random.default_rng([seed, zlib.crc32(reader.name.encode()), index])
    whole = reader.files[rng.integers(len(reader.files))]
    return mutated(whole, rng, structure=reader.structure, others=others)


def tried(
    reader: Reader, indices: range, seed: int, folder: Path, readers: list[Reader]
) -> Iterator[tuple[int, str, Finding | None]]:
    """Read damaged files one after another: number, outcome, and a finding where a promise is broken.

    Args:
        folder: for the files.
        readers: all of the campaign, whose files are spliced.
    """
    path, others = prepared(reader, folder), others_of(readers)
    for index in indices:
        data = damaged(reader, index, seed, others)
        try:
            yield index, outcome_of(reader, path, data), None
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if any(f"/{room}/" in f.filename for room in _ROOMS)] or list(frames)
            where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
            yield index, "broken", Finding(reader.name, index, f"{type(error).__name__}: {str(error)[:200]}", where)


def _work(connection: Connection, seed: int, cases: Path | None, folder: Path) -> None:
    """One process: takes a reader's name and numbers, again and again, and reports every few files."""
    readers = all_readers(cases)
    by_name = {reader.name: reader for reader in readers}
    for reader in readers:  # imports and kernels are no file's time or memory
        path = prepared(reader, folder)
        for data in reader.files:
            outcome_of(reader, path, data)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _ADDRESS_SPACE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    connection.send(None)
    while True:
        name, indices = connection.recv()
        base, outcomes = _peak_bytes(reset=True), Counter[str]()
        start, slowest, most_bytes = time.process_time(), 0.0, 0
        for index, outcome, finding in tried(by_name[name], indices, seed, folder, readers):
            now = time.process_time()
            spent, start = now - start, now
            slowest = max(slowest, spent)
            outcomes[outcome] += 1
            findings = [finding] if finding is not None else []
            if spent > SLOWEST_S:
                findings.append(Finding(name, index, f"slow: {spent:.1f} s"))
            above = _peak_bytes() - base
            most_bytes = max(most_bytes, above)
            if above > MOST_MEMORY_BYTES:
                findings.append(Finding(name, index, f"memory: {above / 2**20:.0f} MB"))
                base = _peak_bytes(reset=True)
            if findings or sum(outcomes.values()) >= _PER_MESSAGE:
                connection.send((dict(outcomes), index, findings, slowest, most_bytes))
                outcomes.clear()
        connection.send((dict(outcomes), indices.stop - 1, [], slowest, most_bytes))
        connection.send(None)


def _peak_bytes(*, reset: bool = False) -> int:
    """The most memory that this process had resident since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


@dataclass
class _Process:
    """A process at work, or waiting for some."""

    process: Any
    name: str = ""
    indices: range = range(0)
    heard_s: float = field(default_factory=time.monotonic)


def campaign(
    count: int,
    seed: int = 0,
    *,
    jobs: int = 2,
    cases: Path | None = None,
    only: str = "",
    report: Callable[[str], None] = lambda line: None,
) -> Tally:
    """Try all readers on damaged files.

    Args:
        count: files in all.
        seed: the same seed gives the same files.
        jobs: processes side by side.
        cases: a folder with files as people meet them.
        only: readers whose name has this in it.
        report: gets a line for every finding, and one for every reader that is through.
    """
    readers = [reader for reader in all_readers(cases) if only in reader.name]
    per_share = count / sum(reader.share for reader in readers)
    waiting = [(reader.name, range(max(1, round(per_share * reader.share)))) for reader in readers]
    waiting.sort(key=lambda item: -len(item[1]))
    by_reader = {reader.name: Tally() for reader in readers}
    context = multiprocessing.get_context("spawn")
    running: dict[Connection, _Process] = {}
    with tempfile.TemporaryDirectory() as scratch:
        while waiting or any(worker.name for worker in running.values()):
            while len(running) < min(jobs, len(waiting) + sum(bool(worker.name) for worker in running.values())):
                ours, theirs = context.Pipe()
                folder = Path(tempfile.mkdtemp(dir=scratch))
                process = context.Process(target=_work, args=(theirs, seed, cases, folder), daemon=True)
                process.start()
                theirs.close()
                running[ours] = _Process(process, "-")
            for connection in wait(list(running), timeout=1.0):
                assert isinstance(connection, Connection)
                worker = running[connection]
                try:
                    message = connection.recv()
                except (EOFError, ConnectionResetError):
                    worker.process.join()
                    del running[connection]
                    if worker.name == "-":
                        raise RuntimeError("a process of the campaign ended before its first file") from None
                    rest = _after_death(worker, by_reader[worker.name], report)
                    waiting[:0] = [(worker.name, rest)] if len(rest) else []
                    continue
                worker.heard_s = time.monotonic()
                if message is None:
                    if worker.name != "-":
                        report(f"{worker.name}: {by_reader[worker.name]}")
                    worker.name, worker.indices = waiting.pop(0) if waiting else ("", range(0))
                    if worker.name:
                        connection.send((worker.name, worker.indices))
                else:
                    outcomes, index, findings, slowest, most_bytes = message
                    by_reader[worker.name] += Tally(
                        sum(outcomes.values()), Counter(outcomes), findings, slowest, most_bytes
                    )
                    for finding in findings:
                        report(f"BROKEN {finding}")
                    worker.indices = range(index + 1, worker.indices.stop)
            for worker in running.values():
                if worker.name and time.monotonic() - worker.heard_s > _GIVEN_UP_AFTER_S:
                    worker.process.kill()
        for worker in running.values():
            worker.process.kill()
            worker.process.join()
    return sum(by_reader.values(), Tally())


def _after_death(worker: _Process, tally: Tally, report: Callable[[str], None]) -> range:
    """Note that a process has died; the rest of its numbers, past the files of which one was its end."""
    start, stop = worker.indices.start, worker.indices.stop
    code = worker.process.exitcode
    finding = Finding(worker.name, start, f"died: with code {code} within the next {_PER_MESSAGE} files")
    tally.findings.append(finding)
    report(f"BROKEN {finding}")
    return range(min(start + _PER_MESSAGE, stop), stop)

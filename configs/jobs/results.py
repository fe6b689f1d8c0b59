"""`results.jsonl` of a batch: a line for every portrait that ended, appended whole; the last one of a name counts."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

from filelock import FileLock

from dp360.generation.files import write_errors_for_people

RESULTS_NAME = "results.jsonl"
Status = Literal["done", "refused", "crashed", "set aside"]
"""`refused`: the picture or a setting cannot be used. `crashed`: an error of ours. `set aside`: it ended its worker's
process twice."""


@dataclass(frozen=True)
class PortraitResult:
    """How one portrait of a batch ended."""

    name: str
    """Name of its folder."""
    portrait: str
    """The picture, as it was named."""
    status: Status
    """How it ended."""
    key: str
    """SHA-256 of what was asked for: the picture's bytes and the options. A portrait that failed is tried again where
    this has changed."""
    seconds: float | None = None
    """Wall seconds of the run that finished it."""
    stages_s: dict[str, float] = field(default_factory=dict)
    """Wall seconds of each stage, those of stopped runs included."""
    peak_memory_bytes: int | None = None
    """Most memory that its worker held."""
    warnings: list[str] = field(default_factory=list)
    """Sentences that people should see."""
    error: str | None = None
    """Why there is no head."""
    input_sha256: str | None = None
    """Hash of the picture's bytes."""
    files: dict[str, str | None] = field(default_factory=dict)
    """Names inside the folder, with SHA-256 where they are files."""
    exported: list[str] = field(default_factory=list)
    """Names of files in the formats that were asked for."""


@dataclass(frozen=True)
class ResultsFile:
    """The file; several processes, also of several machines, may append to it."""

    path: Path
    """Where it lies."""

    def append(self, result: PortraitResult) -> None:
        """Add a line, whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        line = (json.dumps(asdict(result), ensure_ascii=False) + "\n").encode()
        with write_errors_for_people(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._alone(), self.path.open("ab+", buffering=0) as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        line = b"\n" + line  # whoever wrote the last line was killed over it
                file.write(line)  # goes to the end, wherever the file stands
                with contextlib.suppress(OSError):
                    os.fsync(file.fileno())

    def read(self) -> dict[str, PortraitResult]:
        """The last result of each name; lines that cannot be read count for nothing."""
        known = {f.name for f in fields(PortraitResult)}
        found: dict[str, PortraitResult] = {}
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return {}
        for line in lines:
            try:
                given = json.loads(line)
                result = PortraitResult(**{name: value for name, value in given.items() if name in known})
            except (ValueError, TypeError, AttributeError):
                continue
            found[result.name] = result
        return found

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else appends meanwhile, where the file system has locks."""
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            lock.acquire()
        except OSError:
            yield
            return
        try:
            yield
        finally:
            lock.release()

"""The campaigns on commands that end too soon: killed at any moment, or writing to a disk that is full.

A command runs in a forked process, so that libraries are imported once. It is killed at a random time, or by itself at
a random one of its own file operations (Python's audit events: open, rename, mkdir, remove, ...), which meets the
moments at which files take their names.

What has to hold afterwards: every file with its final name can be read, a record names only files that are as it says,
and the command, run again, ends with the bytes of a run that nobody disturbed, with nothing left over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dp360.configs import cli
from dp360.configs.console import EXIT_INPUT_ERROR
from dp360.configs.example import write_example_portrait
from dp360.exporters.formats import format_of, read_splat_file
from dp360.exporters.mesh_read import is_mesh_file, read_mesh
from dp360.generation.dataset.view_dataset import read_dataset, write_dataset

from .readers import ball_views

_OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.link", "os.truncate")
_TOOK_TOO_LONG_S = 900.0


@dataclass(frozen=True)
class Command:
    """A command whose results lie in one folder."""

    name: str
    words: Callable[[Path], Sequence[str]]
    """The command line that writes into a folder."""


@dataclass
class Undisturbed:
    """A run that nobody disturbed."""

    hashes: dict[str, str]
    """Of its files, but the record of the run, which has times in it."""
    seconds: float
    operations: int
    """File operations in its folder."""


@dataclass
class Kills:
    """What came of a campaign."""

    count: int = 0
    in_between: int = 0
    """Kills that met the command before its end."""
    reruns: int = 0
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kills = f"{self.count} kills, {self.in_between} before the end, {self.reruns} reruns"
        return f"{kills}: {len(self.findings)} broken promises"


def undisturbed(command: Command, folder: Path) -> Undisturbed:
    """Run to the end.

    Raises:
        RuntimeError: the command fails.
    """
    start, counter = time.monotonic(), folder.with_name(f"{folder.name}.operations")
    code = wait_for(started(command, folder, count_into=counter), _TOOK_TOO_LONG_S)
    if code != 0:
        raise RuntimeError(f"{command.name} ends with {code}: {_told(folder)}")
    return Undisturbed(hashes(folder), time.monotonic() - start, int(counter.read_text()))


def killed_often(command: Command, whole: Undisturbed, scratch: Path, count: int, rng: np.random.Generator) -> Kills:
    """Kill the command again and again, two to four times in a folder before it is let run to the end there.

    Args:
        whole: the same command, undisturbed.
        scratch: for folders.
        count: kills.
    """
    result, turn = Kills(), 0
    while result.count < count:
        turn += 1
        folder = scratch / f"{command.name}_{turn}"
        for _ in range(min(int(rng.integers(2, 5)), count - result.count)):
            result.count += 1
            if rng.random() < 0.5:
                at = int(rng.integers(1, whole.operations + 1))
                code = wait_for(started(command, folder, kill_at=at), _TOOK_TOO_LONG_S)
            else:
                process = started(command, folder)
                code = wait_for(process, float(rng.uniform(0, 1.05 * whole.seconds)))
                if code is None:
                    os.kill(process, signal.SIGKILL)
                    code = wait_for(process, _TOOK_TOO_LONG_S)
            result.in_between += code == -signal.SIGKILL
            result.findings += [f"{command.name}, folder {turn}: {found}" for found in unreadable(folder)]
        result.reruns += 1
        code = wait_for(started(command, folder), _TOOK_TOO_LONG_S)
        if code != 0:
            result.findings.append(f"{command.name}, folder {turn}: the rerun ends with {code}: {_told(folder)}")
        elif hashes(folder) != whole.hashes:
            differing = {n for n in {*hashes(folder), *whole.hashes} if hashes(folder).get(n) != whole.hashes.get(n)}
            result.findings.append(
                f"{command.name}, folder {turn}: other bytes after the rerun: {sorted(differing)[:5]}"
            )
        left = [str(path.relative_to(folder)) for path in folder.rglob(".dp360*")]
        result.findings += [f"{command.name}, folder {turn}: left over {path}" for path in left]
        shutil.rmtree(folder, ignore_errors=True)
    return result


def started(command: Command, folder: Path, *, kill_at: int | None = None, count_into: Path | None = None) -> int:
    """Fork a process that runs the command; its number.

    Args:
        kill_at: the file operation in the folder at which it kills itself.
        count_into: gets the number of such operations at the end.
    """
    process = os.fork()
    if process:
        return process
    with contextlib.suppress(BaseException):
        log = os.open(_log(folder), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        operations = 0

        def counted(event: str, arguments: tuple) -> None:
            nonlocal operations
            if event in _OPERATIONS and str(folder) in str(arguments[0]):
                operations += 1
                if operations == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(counted)
        try:
            code = cli.main(list(command.words(folder)))
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 70
        except BaseException:
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
        if count_into is not None:
            count_into.write_text(str(operations))
        os._exit(code)
    os._exit(71)


def wait_for(process: int, seconds: float) -> int | None:
    """Exit code of a child, negative for a signal; None if it still runs after the time."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.005)


def _log(folder: Path) -> Path:
    """What a command says; beside its folder, or beside the disk that its folder is on."""
    place = folder.parent if folder.parent.is_mount() else folder
    return place.with_name(f"{place.name}.log")


def _told(folder: Path) -> str:
    log = _log(folder)
    return log.read_text(errors="replace")[-600:] if log.is_file() else ""


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files in a folder, by name; hidden ones and records, which tell times, are left out."""
    files = [
        p for p in sorted(folder.rglob("*")) if p.is_file() and not _is_hidden(p, folder) and p.name != "dp360.json"
    ]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def unreadable(folder: Path) -> list[str]:
    """What in a folder is not as whoever opens it expects."""
    found = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if _is_hidden(path, folder) or not path.is_file():
            continue
        try:
            read_published(path)
        except Exception as error:
            found.append(f"{path.relative_to(folder)} cannot be read: {type(error).__name__}: {str(error)[:200]}")
    for transforms in folder.rglob("transforms.json"):
        if not _is_hidden(transforms, folder):
            try:
                read_dataset(transforms.parent)
            except Exception as error:
                found.append(f"half a data set: {str(error)[:200]}")
    for place in folder.rglob("dataset"):
        if place.is_dir() and not _is_hidden(place, folder) and not (place / "transforms.json").is_file():
            found.append("a data set without transforms.json")
    return found


def read_published(path: Path) -> None:
    """Read a file by its own reader.

    Raises:
        Exception: it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        record = json.loads(path.read_text())
        files = record.get("files", {}) if path.name == "dp360.json" else {}
        for name, sha256 in files.items():
            beside = path.parent / name
            if sha256 is not None and hashlib.sha256(beside.read_bytes()).hexdigest() != sha256:
                raise ValueError(f"{name} is not the file that the record names")
    elif suffix in (".png", ".jpg", ".webp", ".gif"):
        with Image.open(path) as picture:
            picture.load()
    elif suffix == ".mp4":
        subprocess.run(["ffprobe", "-v", "error", str(path)], check=True)
    elif suffix in (".glb", ".ply", ".obj", ".stl") and is_mesh_file(path):
        read_mesh(path)
    elif path.name == "sparse_pc.ply":
        return  # read with its data set
    elif format_of(path.name).decode is not None:
        read_splat_file(path.name, path.read_bytes())


def commands(scratch: Path) -> tuple[Command, ...]:
    """The commands of the campaign: views of a real portrait, and a fit and an export of a small head.

    Args:
        scratch: for what they read.
    """
    from dp360.exporters import splat_ply

    head, views = ball_views()
    write_dataset(views, scratch / "data")
    (scratch / "in.ply").write_bytes(splat_ply.encode(head, views.provenance))
    outputs = ("a.spz", "b.sog", "c.glb", "d.html", "e.ply", "f.compressed.ply", "g.splat")
    fit = ("--fit.iterations", "12", "--device", "cpu")
    few = ("--quality", "fast", "--rings", "level", "--views", "8")
    write_example_portrait(scratch / "face.png")
    return (
        Command("fit", lambda folder: ("fit", "--data", str(scratch / "data"), "--output", str(folder), *fit)),
        Command(
            "export",
            lambda folder: (
                *("export", "--input", str(scratch / "in.ply"), "--output", *(str(folder / name) for name in outputs)),
                *("--kind", "splats"),
            ),
        ),
        Command("views", lambda folder: ("views", str(scratch / "face.png"), "--output", str(folder), *few)),
    )


@dataclass
class FullDisks:
    """What came of a campaign."""

    count: int = 0
    stopped: int = 0
    """Runs for which the disk was too small."""
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.count} disks, {self.stopped} too small: {len(self.findings)} broken promises"


def on_full_disks(command: Command, whole: Undisturbed, disk: Path, count: int, rng: np.random.Generator) -> FullDisks:
    """Run a command where an earlier result lies and little room is left.

    Args:
        disk: a memory file system of `DISK_BYTES`, for this alone.
        count: disks.
    """
    result, folder, filler = FullDisks(), disk / "out", disk / "filler"
    code = wait_for(started(command, folder), _TOOK_TOO_LONG_S)
    if code != 0:
        raise RuntimeError(f"{command.name} ends with {code}: {_told(folder)}")
    earlier = hashes(folder)
    needed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    for _ in range(count):
        result.count += 1
        room = os.statvfs(disk)
        free = room.f_bavail * room.f_frsize
        left = int(rng.integers(0, int(1.1 * needed)))
        filler.write_bytes(bytes(max(0, free - left)))
        code = wait_for(started(command, folder), _TOOK_TOO_LONG_S)
        filler.unlink()
        told = _told(folder)
        where = f"{command.name} with {left} bytes left"
        if code == 0:
            continue
        result.stopped += 1
        sentences = [line for line in told.splitlines() if "disk is full" in line]
        if code != EXIT_INPUT_ERROR or len(sentences) != 1 or "Traceback" in told:
            result.findings.append(f"{where}: ends with {code} and says {told[-300:]!r}")
        if hashes(folder) != earlier:
            result.findings.append(f"{where}: the earlier result has changed")
        result.findings += [f"{where}: {found}" for found in unreadable(folder)]
        result.findings += [f"{where}: left over {path.name}" for path in folder.rglob(".dp360*")]
    return result


DISK_BYTES = 64 << 20


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A memory file system of `DISK_BYTES` at a folder; needs the right to mount one.

    Raises:
        CalledProcessError: it cannot be mounted.
    """
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)

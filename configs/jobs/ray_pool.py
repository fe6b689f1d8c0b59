"""Workers of `dp360 batch` on a Ray cluster: each part of a head a task with resources of its own.

Portrait and prior, views, fit, and files are tasks of their own; a diffusion model stays open in actors. Between the
parts a few heads wait and no more, and heads that are further go first, so that neither memory nor the object store
fills up. Ray places, starts and watches processes: https://docs.ray.io/en/latest/ray-core/walkthrough.html.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import Any

from dp360.generation import InputError

from ..cluster import ClusterConfig
from ..extras import refuse_missing
from .head_task import HeadMade, HeadTask
from .job import PreparedJob
from .progress import Progress
from .ray_parts import (
    PARTS,
    FilesOf,
    KeptGenerator,
    Part,
    PartDone,
    PartTask,
    RunPart,
    arrived,
    is_drawn,
    run_part,
    write_files,
)
from .workers import Reporter, WorkEvent

_LOCAL_ATTEMPTS = 3
_CANCEL_ASKED_EVERY_S = 1.0
_PROGRESS_EVERY_S = 1.0
"""Least time between two reports of a part: each is a message over the network."""


@dataclass
class _Head:
    """A head on its way."""

    task: HeadTask
    number: int
    part: int = 0
    prepared: Any = None
    """Reference to what the part before made, in Ray's store."""
    files: FilesOf | None = None
    ref: Any = None
    """Reference of the part that runs; None while the head waits for one."""
    actor: int | None = None
    seconds: float = 0.0
    peak_memory_bytes: int = 0


@dataclass
class RayPool:
    """A pool of workers, as `WorkerPool` is, whose tasks are heads and whose processes are Ray's.

    Used by one thread; nothing happens but in its methods.
    """

    address: str
    """local: Ray is started here and ends with the pool; auto: a cluster that runs here; else the cluster's address.
    Where this process has joined a Ray already, that one is taken."""
    config: ClusterConfig = field(default_factory=ClusterConfig)
    """What each part takes."""
    jobs: int = 2
    """Heads on their way at once."""
    runner: RunPart = run_part
    """Does one part, in a process of Ray's: a function of a module."""
    _heads: dict[str, _Head] = field(default_factory=dict)
    _actors: dict[int, Any] = field(default_factory=dict)
    _board: Any = None
    _number: int = 0
    _is_ours: bool = False
    """Whether this pool started or joined Ray, and so leaves it."""

    @property
    def free(self) -> int:
        """How many more heads can be started: none while as many as may wait have not begun."""
        unbegun = sum(head.part == 0 and head.ref is None for head in self._heads.values())
        return max(0, min(self.jobs - len(self._heads), self.config.waiting - unbegun))

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the heads that are on their way."""
        return tuple(self._heads)

    def start(self, task: str, payload: HeadTask) -> None:
        """Take a head in; `free` is above zero.

        Raises:
            InputError: no Ray, or no such cluster.
        """
        self._connect()
        self._number += 1
        self._heads[task] = _Head(payload, self._number)
        self._submit()

    def cancel(self, task: str) -> None:
        """Ask a head to stop: it does between two steps."""
        self._board.cancel.remote(task)

    def events(self, timeout_s: float) -> list[WorkEvent]:
        """What became known, waiting for it for some time; empty where nothing did."""
        ray = _ray()

        refs = {head.ref: name for name, head in self._heads.items() if head.ref is not None}
        if not refs:
            time.sleep(timeout_s)
            return []
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=timeout_s)
        found: list[WorkEvent] = ray.get(self._board.heard.remote())
        found = [event for event in found if event.task in self._heads]
        for ref in ready:
            found += self._ended(refs[ref], ref)
        self._submit()
        return found

    def close(self) -> None:
        """Stop everything; a Ray that was started for this pool ends."""
        if self._board is not None:
            ray = _ray()
            for name, head in self._heads.items():
                with contextlib.suppress(Exception):  # a cluster that is gone has nothing to stop
                    self._board.cancel.remote(name)
                    if head.ref is not None and head.actor is None:
                        ray.cancel(head.ref, force=True)
            for actor in (*self._actors.values(), self._board):
                with contextlib.suppress(Exception):
                    ray.kill(actor)
        self._heads.clear()
        self._actors.clear()
        self._board = None
        if self._is_ours:
            _ray().shutdown()
            self._is_ours = False

    def _connect(self) -> None:
        """Start Ray, or join it, once.

        Raises:
            InputError: no Ray, or no such cluster.
        """
        if self._board is not None:
            return
        ray = _ray()
        if not ray.is_initialized():
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
            self._join(ray)
            self._is_ours = True
        self._see_that_it_fits(ray.cluster_resources())
        self._board = ray.remote(num_cpus=0)(_Board).remote()

    def _join(self, ray: Any) -> None:
        """Start Ray, or join it; a busy machine may need more than one attempt to start it.

        Raises:
            InputError: no such cluster, or Ray does not start.
        """
        attempts = _LOCAL_ATTEMPTS if self.address == "local" else 1
        for attempt in range(attempts):
            try:
                ray.init(
                    address=self.address,
                    include_dashboard=False if self.address == "local" else None,
                    log_to_driver=False,
                    configure_logging=False,
                    namespace="dp360",
                )
                return
            except Exception as error:  # Ray raises bare ones too
                ray.shutdown()
                if attempt + 1 == attempts:
                    why = " ".join(str(error).split())[:200]
                    raise InputError(
                        f"Cannot start: no Ray at --ray {self.address} ({why}); start a cluster with ray start --head, "
                        "or let --ray local start one on this machine"
                    ) from error

    def _see_that_it_fits(self, there: dict[str, float]) -> None:
        """Refuse what the cluster could never place; it would wait for ever.

        Raises:
            InputError: a part needs more than the whole cluster has.
        """
        for part in PARTS:
            for name, wanted in needs_of(self.config, part).items():
                found = there.get(name.removeprefix("num_").rstrip("s").upper(), 0.0)
                if wanted > found:
                    option = f"--cluster.{part}-{name.removeprefix('num_')}"
                    self.close()
                    raise InputError(
                        f"Cannot start: {option} asks for {wanted:g}, and the cluster has {found:g}; give a smaller "
                        "number, or start more machines"
                    )

    def _submit(self) -> None:
        """Give Ray what may run now: heads that are further first, and only so many of each part."""
        ray = _ray()

        busy = Counter(head.part for head in self._heads.values() if head.ref is not None)
        idle = [(name, head) for name, head in self._heads.items() if head.ref is None]
        ahead = Counter(head.part for _, head in idle)
        for name, head in sorted(idle, key=lambda item: (-item[1].part, item[1].number)):
            part = PARTS[head.part]
            crowded = head.part + 1 < len(PARTS) and ahead[head.part + 1] >= self.config.waiting
            if busy[head.part] >= self._slots(part, head) or crowded:
                continue
            needs, threads = needs_of(self.config, part), self._threads(part)
            travels = self.config.files == "returned"
            task = PartTask(name, head.task, threads, _bytes_of(head.task) if travels else None, head.files)
            if part == "views" and is_drawn(head.task.options):
                head.actor = self._idle_actor()
                head.ref = self._actors[head.actor].run.remote(self.runner, task, self._board, head.prepared)
            else:
                remote = ray.remote(max_retries=0, **needs)(_run_part)
                head.ref = remote.remote(self.runner, part, task, self._board, head.prepared)
            busy[head.part] += 1
            ahead[head.part] -= 1

    def _slots(self, part: Part, head: _Head) -> int:
        """How many of a part run at once: as many as the cluster has room for, and one at least."""
        ray = _ray()

        if part == "views" and is_drawn(head.task.options):
            return self.config.views_actors
        there, needs = ray.cluster_resources(), needs_of(self.config, part)
        room = [there.get(name, 0.0) / n for name, n in (("CPU", needs["num_cpus"]), ("GPU", needs["num_gpus"])) if n]
        return max(1, int(min(room, default=1.0)))

    def _threads(self, part: Part) -> int:
        return max(1, round(needs_of(self.config, part)["num_cpus"]))

    def _idle_actor(self) -> int:
        """An actor that has nothing to do, started if need be."""
        ray = _ray()

        taken = {head.actor for head in self._heads.values() if head.ref is not None}
        number = next(k for k in range(self.config.views_actors) if k not in taken)
        if number not in self._actors:
            self._actors[number] = ray.remote(max_restarts=0, **needs_of(self.config, "views"))(_Views).remote()
        return number

    def _ended(self, name: str, ref: Any) -> list[WorkEvent]:
        """What the end of a part means for its head."""
        ray = _ray()

        head = self._heads[name]
        actor, head.ref, head.actor = head.actor, None, None
        try:
            done: PartDone = ray.get(ref)
        except (ray.exceptions.RayError, OSError) as error:
            if actor is not None:
                self._actors.pop(actor, None)
            del self._heads[name]
            return [WorkEvent(name, "died", f"its process ended: {' '.join(str(error).split())[:200]}")]
        head.files, head.seconds = done.files, head.seconds + done.seconds
        head.peak_memory_bytes = max(head.peak_memory_bytes, done.peak_memory_bytes)
        if done.is_whole:
            del self._heads[name]
            if done.files is not None and isinstance(done.event.value, HeadMade):
                try:
                    write_files(arrived(done.files, head.task), head.task.folder)
                except InputError as error:
                    return [WorkEvent(name, "refused", " ".join(str(error).split()))]
            if isinstance(done.event.value, HeadMade):
                made = replace(done.event.value, seconds=head.seconds, peak_memory_bytes=head.peak_memory_bytes)
                return [replace(done.event, value=made)]
            return [done.event]
        head.prepared = None if done.prepared is None else ray.put(done.prepared)
        head.part += 1
        return []


class _Board:
    """Where parts tell how far they are, and read whether they shall stop; an actor."""

    def __init__(self) -> None:
        self._events: deque[WorkEvent] = deque(maxlen=10_000)
        self._cancelled: set[str] = set()

    def tell(self, event: WorkEvent) -> None:
        self._events.append(event)

    def heard(self) -> list[WorkEvent]:
        found = list(self._events)
        self._events.clear()
        return found

    def cancel(self, task: str) -> None:
        self._cancelled.add(task)

    def is_cancelled(self, task: str) -> bool:
        return task in self._cancelled


class _Views:
    """Makes views with a diffusion model that stays open; an actor."""

    def __init__(self) -> None:
        self._kept = KeptGenerator()

    def run(self, runner: RunPart, task: PartTask, board: Any, prepared: PreparedJob | None) -> PartDone:
        return runner("views", task, _reporter(task.name, board), prepared, self._kept)


def _run_part(runner: RunPart, part: Part, task: PartTask, board: Any, prepared: PreparedJob | None) -> PartDone:
    """One part in a process of Ray's."""
    return runner(part, task, _reporter(task.name, board), prepared, KeptGenerator())


def _reporter(name: str, board: Any) -> Reporter:
    """The way back to the pool."""
    ray = _ray()
    told_s, asked_s, cancelled = 0.0, 0.0, False

    def hear(progress: Progress) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= _PROGRESS_EVERY_S:
            told_s = time.monotonic()
            board.tell.remote(WorkEvent(name, "progress", progress))

    def is_cancelled() -> bool:
        nonlocal asked_s, cancelled
        if time.monotonic() - asked_s >= _CANCEL_ASKED_EVERY_S:
            asked_s = time.monotonic()
            cancelled = ray.get(board.is_cancelled.remote(name))
        return cancelled

    return Reporter(hear, lambda sentence: board.tell.remote(WorkEvent(name, "note", sentence)), is_cancelled)


def _ray() -> Any:
    """The package, whose types say too little about `remote`.

    Raises:
        InputError: it is not installed.
    """
    refuse_missing(["ray"], "--ray")
    import ray.exceptions

    return ray


def needs_of(config: ClusterConfig, part: Part) -> dict[str, float]:
    """Cores and GPUs of one part, under Ray's names."""
    cpus: float = getattr(config, f"{part}_cpus")
    return {"num_cpus": cpus, "num_gpus": getattr(config, f"{part}_gpus", 0.0)}


def _bytes_of(task: HeadTask) -> bytes:
    """The portrait's bytes; empty where it cannot be read, which the part says that opens it."""
    try:
        return task.options.portrait.read_bytes()
    except OSError:
        return b""

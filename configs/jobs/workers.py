"""Worker processes that stay: each opens libraries, kernels and weights once and then does one task after another.

Plain processes, started afresh (`spawn`), with one pipe each. A task that crashes ends as a message; one that kills its
process (out of memory, a signal) ends that process alone, and a new one takes its place. Workers end with their parent,
however it ends.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, Protocol, runtime_checkable

from dp360.generation import InputError

from .progress import JobCancelled, Progress

MOST_DEATHS = 2
"""A task that has killed its worker so often is set aside."""
_CANCEL_GRACE_S = 20.0
"""A cancelled task that has not stopped by then loses its process."""
_CLOSE_GRACE_S = 5.0
Outcome = Literal["progress", "note", "done", "refused", "cancelled", "crashed", "died"]


@dataclass(frozen=True)
class WorkEvent:
    """What became known about a task."""

    task: str
    """Its name."""
    kind: Outcome
    """`progress` and `note` come while it runs; all others end it."""
    value: Any = None
    """A `Progress`; a sentence (`note`, `refused`, `crashed`, `died`); what the runner returned (`done`)."""

    @property
    def is_end(self) -> bool:
        """Whether the task runs no more."""
        return self.kind not in ("progress", "note")


@dataclass(frozen=True)
class Reporter:
    """What a runner may use: the way back to whoever gave it a task."""

    hear: Callable[[Progress], None]
    """Takes how far the task is."""
    notify: Callable[[str], None]
    """Takes a sentence for people."""
    is_cancelled: Callable[[], bool]
    """Whether the task shall stop."""


Runner = Callable[[Any, Reporter], Any]
"""Does one task in a worker: a function of a module, so that it pickles. What it returns pickles as well."""


@dataclass
class _Worker:
    """One process, and what it is doing."""

    process: Any
    pipe: Connection
    task: str | None = None
    cancelled_at_s: float | None = None


@runtime_checkable
class Pool(Protocol):
    """Does tasks in processes of their own: `WorkerPool` on this machine, `RayPool` on a cluster."""

    jobs: int
    """Tasks at once, at most."""

    @property
    def free(self) -> int:
        """How many more tasks can be started."""
        ...

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the tasks that run."""
        ...

    def start(self, task: str, payload: Any) -> None:
        """Hand in a task; `free` is above zero."""
        ...

    def events(self, timeout_s: float) -> list[WorkEvent]:
        """What became known, waiting for it for some time; empty where nothing did."""
        ...

    def close(self) -> None:
        """Stop everything."""
        ...


@dataclass
class WorkerPool:
    """Up to `jobs` workers. Used by one thread; nothing happens but in its methods."""

    runner: Runner
    """Does the tasks."""
    jobs: int = 1
    """Processes at most; they are started when there is something to do."""
    threads: int | None = None
    """Threads of each; None leaves it to the libraries, which take all cores."""
    _workers: list[_Worker] = field(default_factory=list)

    @property
    def free(self) -> int:
        """How many more tasks can be started."""
        return self.jobs - sum(worker.task is not None for worker in self._workers)

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the tasks that run."""
        return tuple(worker.task for worker in self._workers if worker.task is not None)

    def start(self, task: str, payload: Any) -> None:
        """Hand a task to a worker that has nothing to do; `free` is above zero.

        Args:
            task: a name that no running task has.
            payload: what the runner gets; it pickles.
        """
        idle = [worker for worker in self._workers if worker.task is None]
        worker = idle[0] if idle else self._new_worker()
        worker.task, worker.cancelled_at_s = task, None
        with contextlib.suppress(OSError):  # it died while it had nothing to do: `events` finds it
            worker.pipe.send(("run", task, payload))

    def cancel(self, task: str) -> None:
        """Ask a running task to stop; one that does not listen loses its process after some seconds."""
        for worker in self._workers:
            if worker.task == task and worker.cancelled_at_s is None:
                worker.cancelled_at_s = time.monotonic()
                with contextlib.suppress(OSError):
                    worker.pipe.send(("cancel", task, None))

    def events(self, timeout_s: float) -> list[WorkEvent]:
        """What became known, waiting for it for some time; empty where nothing did."""
        for worker in self._workers:
            if worker.cancelled_at_s is not None and time.monotonic() - worker.cancelled_at_s > _CANCEL_GRACE_S:
                worker.process.kill()
        ready = wait([worker.pipe for worker in self._workers], timeout_s) if self._workers else []
        if not self._workers:
            time.sleep(timeout_s)
        found: list[WorkEvent] = []
        for worker in [worker for worker in self._workers if worker.pipe in ready]:
            found += self._received(worker)
        return found

    def close(self) -> None:
        """Stop everything; tasks that run are cancelled."""
        for worker in self._workers:
            with contextlib.suppress(OSError):
                if worker.task is not None:
                    worker.pipe.send(("cancel", worker.task, None))
                worker.pipe.send(("stop", "", None))
        end_s = time.monotonic() + _CLOSE_GRACE_S
        for worker in self._workers:
            worker.process.join(max(0.0, end_s - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def _new_worker(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self.runner, self.threads), daemon=True)
        process.start()
        theirs.close()  # so that its end is heard here
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def _received(self, worker: _Worker) -> list[WorkEvent]:
        found: list[WorkEvent] = []
        try:
            while worker.pipe.poll():
                event: WorkEvent = worker.pipe.recv()
                found.append(event)
                if event.is_end:
                    worker.task = worker.cancelled_at_s = None
        except (EOFError, OSError):
            self._workers.remove(worker)
            worker.pipe.close()
            worker.process.join()
            if worker.task is not None:
                is_meant = worker.cancelled_at_s is not None
                sentence = _death(worker.process.exitcode)
                found.append(WorkEvent(worker.task, "cancelled" if is_meant else "died", sentence))
        return found


def _death(exit_code: int | None) -> str:
    """How a process ended, in words."""
    if exit_code is not None and exit_code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-exit_code).name
            hint = "; often the memory of the machine was not enough" if name == "SIGKILL" else ""
            return f"its process was ended by the signal {name}{hint}"
    return f"its process ended by itself with the exit code {exit_code}"


def _work(pipe: Connection, runner: Runner, threads: int | None) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent tells what it means
    if threads is not None:
        limit_threads(threads)
    tasks: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
    cancelled: set[str] = set()

    def listen() -> None:
        while True:
            try:
                what, task, payload = pipe.recv()
            except (EOFError, OSError):
                os._exit(0)  # the parent is gone: nobody waits for a result
            if what == "run":
                cancelled.discard(task)
                tasks.put((task, payload))
            elif what == "cancel":
                cancelled.add(task)
            else:
                tasks.put(None)

    threading.Thread(target=listen, daemon=True).start()
    while (given := tasks.get()) is not None:
        pipe.send(_done(runner, *given, cancelled, pipe))
        gc.collect()


def _done(runner: Runner, task: str, payload: Any, cancelled: set[str], pipe: Connection) -> WorkEvent:
    """One task's end."""
    reporter = Reporter(
        lambda progress: pipe.send(WorkEvent(task, "progress", progress)),
        lambda sentence: pipe.send(WorkEvent(task, "note", sentence)),
        lambda: task in cancelled,
    )
    try:
        return WorkEvent(task, "done", runner(payload, reporter))
    except JobCancelled:
        return WorkEvent(task, "cancelled")
    except InputError as error:
        return WorkEvent(task, "refused", " ".join(str(error).split()))
    except Exception:  # whatever a task runs into is that task's alone
        return WorkEvent(task, "crashed", traceback.format_exc())


def limit_threads(count: int) -> None:
    """Several processes with as many threads as cores each would only wait for each other."""
    import cv2
    import numba
    import torch

    torch.set_num_threads(count)
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    cv2.setNumThreads(count)

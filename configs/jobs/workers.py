"""Worker processes that stay: each opens libraries, kernels and weights once and then does one task after another.

Plain processes, started afresh (`spawn`), with one pipe each. A task that crashes ends as a message; one that kills its
process (out of memory, a signal) ends that process alone, and a new one takes its place. Workers end with their parent,
however it ends.

A worker may do two tasks one behind the other, see `Lanes`. If its process then dies nobody knows by which of them:
both have died, and a task that has died once has a process of its own when it is started again.
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
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, Protocol, runtime_checkable

from dp360.generation import InputError
from dp360.generation.system import give_back_large_blocks

from .lanes import Lanes
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


def _go_on() -> None:
    """Nobody is in the second half."""


@dataclass(frozen=True)
class Reporter:
    """What a runner may use: the way back to whoever gave it a task."""

    hear: Callable[[Progress], None]
    """Takes how far the task is."""
    notify: Callable[[str], None]
    """Takes a sentence for people."""
    is_cancelled: Callable[[], bool]
    """Whether the task shall stop."""
    halfway: Callable[[], None] = _go_on
    """Called where the second half of the task begins: waits until no other task of this process is in its own, and
    lets the first half of the next one begin. Raises JobCancelled if the task shall stop meanwhile."""


Runner = Callable[[Any, Reporter], Any]
"""Does one task in a worker: a function of a module, so that it pickles. What it returns pickles as well."""


@dataclass
class _Worker:
    """One process, and what it is doing."""

    process: Any
    pipe: Connection
    tasks: list[str] = field(default_factory=list)
    cancelled_at_s: dict[str, float] = field(default_factory=dict)


@runtime_checkable
class Pool(Protocol):
    """Does tasks in processes of their own: `WorkerPool` on this machine, `RayPool` on a cluster."""

    jobs: int
    """Tasks that are finished at once, at most; more may be on their way."""

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
    lanes: Literal[1, 2] = 1
    """Tasks in each process, one behind the other."""
    _workers: list[_Worker] = field(default_factory=list)
    _waiting: deque[tuple[str, Any]] = field(default_factory=deque)
    """Started, but not handed to a worker yet."""
    _died: set[str] = field(default_factory=set)

    @property
    def free(self) -> int:
        """How many more tasks can be started."""
        return 0 if self._waiting else self.jobs * self.lanes - len(self.running)

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the tasks that run."""
        there = (task for worker in self._workers for task in worker.tasks)
        return (*there, *(task for task, _ in self._waiting))

    def start(self, task: str, payload: Any) -> None:
        """Hand a task to a worker; `free` is above zero.

        Args:
            task: a name that no running task has.
            payload: what the runner gets; it pickles.
        """
        self._waiting.append((task, payload))
        self._hand_out()

    def cancel(self, task: str) -> None:
        """Ask a running task to stop; one that does not listen loses its process after some seconds."""
        for worker in self._workers:
            if task in worker.tasks and task not in worker.cancelled_at_s:
                worker.cancelled_at_s[task] = time.monotonic()
                with contextlib.suppress(OSError):
                    worker.pipe.send(("cancel", task, None))

    def events(self, timeout_s: float) -> list[WorkEvent]:
        """What became known, waiting for it for some time; empty where nothing did."""
        for worker in self._workers:
            if any(time.monotonic() - asked_s > _CANCEL_GRACE_S for asked_s in worker.cancelled_at_s.values()):
                worker.process.kill()
        ready = wait([worker.pipe for worker in self._workers], timeout_s) if self._workers else []
        if not self._workers:
            time.sleep(timeout_s)
        found: list[WorkEvent] = []
        for worker in [worker for worker in self._workers if worker.pipe in ready]:
            found += self._received(worker)
        self._hand_out()
        return found

    def close(self) -> None:
        """Stop everything; tasks that run are cancelled."""
        self._waiting.clear()
        for worker in self._workers:
            with contextlib.suppress(OSError):
                for task in worker.tasks:
                    worker.pipe.send(("cancel", task, None))
                worker.pipe.send(("stop", "", None))
        end_s = time.monotonic() + _CLOSE_GRACE_S
        for worker in self._workers:
            worker.process.join(max(0.0, end_s - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def _hand_out(self) -> None:
        """Give workers what waits, in its order."""
        while self._waiting and (worker := self._worker_for(self._waiting[0][0])) is not None:
            task, payload = self._waiting.popleft()
            worker.tasks.append(task)
            with contextlib.suppress(OSError):  # it died while it had nothing to do: `events` finds it
                worker.pipe.send(("run", task, payload))

    def _worker_for(self, task: str) -> _Worker | None:
        """One that has nothing to do, or room in its second lane; None if there is none now."""
        idle = [worker for worker in self._workers if not worker.tasks]
        if idle:
            return idle[0]
        if len(self._workers) < self.jobs:
            return self._new_worker()
        room = [worker for worker in self._workers if len(worker.tasks) < self.lanes]
        return next((worker for worker in room if not self._died & {task, *worker.tasks}), None)

    def _new_worker(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self.runner, self.threads, self.lanes), daemon=True)
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
                    worker.tasks.remove(event.task)
                    worker.cancelled_at_s.pop(event.task, None)
        except (EOFError, OSError):
            self._workers.remove(worker)
            worker.pipe.close()
            worker.process.join()
            sentence = _death(worker.process.exitcode)
            for task in worker.tasks:
                is_meant = task in worker.cancelled_at_s
                found.append(WorkEvent(task, "cancelled" if is_meant else "died", sentence))
                if not is_meant:
                    self._died.add(task)
        return found


def _death(exit_code: int | None) -> str:
    """How a process ended, in words."""
    if exit_code is not None and exit_code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-exit_code).name
            hint = "; often the memory of the machine was not enough" if name == "SIGKILL" else ""
            return f"its process was ended by the signal {name}{hint}"
    return f"its process ended by itself with the exit code {exit_code}"


def _work(pipe: Connection, runner: Runner, threads: int | None, lane_count: int) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent tells what it means
    give_back_large_blocks()
    lanes, sending = Lanes(), threading.Lock()
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

    def send(event: WorkEvent) -> None:
        with sending:
            pipe.send(event)

    def work(torch_threads: int | None) -> None:
        if threads is not None:
            limit_threads(threads)
        elif torch_threads is not None:
            torch.set_num_threads(torch_threads)
        while (given := tasks.get()) is not None:
            send(_done(runner, *given, cancelled, send, lanes))
            gc.collect()
        tasks.put(None)  # for the other lane

    threading.Thread(target=listen, daemon=True).start()
    if lane_count == 1:
        work(None)
        return
    import torch

    usual = torch.get_num_threads()  # a thread that sets nothing may take what another one has set for itself
    beside = threading.Thread(target=work, args=(usual,), daemon=True)
    beside.start()
    work(usual)
    beside.join()


def _done(
    runner: Runner,
    task: str,
    payload: Any,
    cancelled: set[str],
    send: Callable[[WorkEvent], None],
    lanes: Lanes,
) -> WorkEvent:
    """One task's end."""

    def hear(progress: Progress) -> None:
        send(WorkEvent(task, "progress", progress))

    def notify(sentence: str) -> None:
        send(WorkEvent(task, "note", sentence))

    def is_cancelled() -> bool:
        return task in cancelled

    try:
        with lanes.task(is_cancelled) as halfway:
            return WorkEvent(task, "done", runner(payload, Reporter(hear, notify, is_cancelled, halfway)))
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

"""The thread behind the page: it starts waiting jobs in workers, keeps what is known of each, and tells listeners."""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dp360.generation import InputError

from ..jobs.batch_run import threads_of_each
from ..jobs.head_task import HeadMade, HeadTask, export_name
from ..jobs.job import Job
from ..jobs.progress import Progress
from ..jobs.workers import MOST_DEATHS, Runner, WorkerPool, WorkEvent
from .store import JobStore, PageJob, PageSettings
from .tasks import PREVIEW_NAME, Look, LookTask

VIEWER_FORMAT = "html"
"""Made with every head, since the page shows it."""
_WAIT_S = 0.1
_MOST_WAITING = 200
"""Jobs that may wait."""
_MOST_DRAFTS = 50
"""Pictures that nothing was asked for yet; the oldest go."""
_LOOK_S = 60.0
"""A picture that cannot be looked at in this time is refused."""
_LOG = logging.getLogger(__name__)
Listener = Callable[[str, dict[str, Any] | None], None]
"""Is told a job's id and what is known of it; None when it is deleted. Called in the engine's thread."""


@dataclass(frozen=True)
class EngineConfig:
    """How a page works."""

    work: Path
    """Folder of all that it keeps."""
    jobs: int = 1
    """Heads at once."""


class Engine:
    """Jobs, workers and listeners. Its methods may be called by any thread."""

    def __init__(self, config: EngineConfig, head_runner: Runner, look_runner: Runner) -> None:
        """Read what an earlier engine left; jobs that were waiting or running wait again.

        Args:
            config: where and how.
            head_runner: does `HeadTask`s: `make_shown_head`.
            look_runner: does `LookTask`s: `look_at_portrait`.
        """
        self._store = JobStore(config.work)
        self._lock = threading.RLock()
        self._jobs = {job.id: job for job in self._store.read_all()}
        self._numbers = itertools.count(max((job.number for job in self._jobs.values()), default=0) + 1)
        self._heads = WorkerPool(head_runner, config.jobs, threads_of_each(config.jobs))
        self._looks = WorkerPool(look_runner, 1, 1)
        self._looking: dict[str, Future[Look]] = {}
        self._waiting_looks: list[tuple[str, LookTask]] = []
        self._look_began_s = 0.0
        self._progress: dict[str, Progress] = {}
        self._running: set[str] = set()
        self._formats_due = {job.id for job in self._jobs.values() if job.status == "done"}
        self._cancelled: set[str] = set()
        self._deleted: set[str] = set()
        self._listeners: list[Listener] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dp360-engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self) -> None:
        """Stop; what runs is stopped and waits for the next engine."""
        self._stop.set()
        self._thread.join()
        self._heads.close()
        self._looks.close()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell somebody of every change; what ends it."""
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return end

    def shown(self, job_id: str) -> dict[str, Any]:
        """What is known of a job, as plain data.

        Raises:
            KeyError: no such job.
        """
        with self._lock:
            return self._shown(self._known(job_id))

    def all_shown(self) -> list[dict[str, Any]]:
        """All jobs but drafts, the newest first."""
        with self._lock:
            jobs = sorted(self._jobs.values(), key=lambda job: -job.number)
            return [self._shown(job) for job in jobs if job.status != "draft" and job.id not in self._deleted]

    def _known(self, job_id: str) -> PageJob:
        """A job that nobody has deleted; one that still runs is stopped meanwhile.

        Raises:
            KeyError: no such job.
        """
        if job_id in self._deleted:
            raise KeyError(job_id)
        return self._jobs[job_id]

    def folder(self, job_id: str) -> Path:
        """Where a job's files lie.

        Raises:
            KeyError: no such job.
        """
        with self._lock:
            return self._store.folder(self._known(job_id).id)

    def look(self, name: str, picture: bytes) -> dict[str, Any]:
        """Keep a picture as a draft and look at it. Blocks for as long as that takes.

        Raises:
            InputError: the picture cannot be used; nothing of it is kept.
        """
        with self._lock:
            drafts = sorted((job for job in self._jobs.values() if job.status == "draft"), key=lambda job: job.number)
            for old in drafts[: max(0, len(drafts) - _MOST_DRAFTS + 1)]:
                if old.id not in self._looking:
                    self._forget(old.id)
            job = self._store.create(name, picture, next(self._numbers))
            self._jobs[job.id] = job
            seen: Future[Look] = Future()
            self._looking[job.id] = seen
            task = LookTask(self._store.portrait(job), self._store.folder(job.id) / PREVIEW_NAME)
            self._waiting_looks.append((job.id, task))
        try:
            look = seen.result(timeout=4 * _LOOK_S)
        except BaseException as error:
            with self._lock:
                self._forget(job.id)
            if isinstance(error, concurrent.futures.TimeoutError):  # a name of its own before Python 3.11
                raise InputError("Too many pictures are waiting to be looked at; try again in a minute") from error
            raise
        with self._lock:
            job = replace(job, faces=look.faces, has_face=look.has_face, warnings=look.notices)
            self._keep(job)
            return self._shown(job)

    def begin(self, job_id: str, settings: PageSettings) -> dict[str, Any]:
        """Ask for a draft's head, or for the head of a failed or cancelled job again.

        Raises:
            KeyError: no such job.
            InputError: the settings contradict each other, the job has been asked for, or too many wait.
        """
        with self._lock:
            job = self._known(job_id)
            if job.status not in ("draft", "failed", "cancelled"):
                raise InputError(f"{job.name} is {job.status} already")
            if sum(other.status == "queued" for other in self._jobs.values()) >= _MOST_WAITING:
                raise InputError(f"{_MOST_WAITING} heads are waiting; try again when some of them are done")
            Job(settings.options(self._store.portrait(job)), Path()).check()
            job = replace(job, status="queued", settings=settings, error=None, seconds=None, deaths=0)
            self._keep(job)
            return self._shown(job)

    def want(self, job_id: str, ending: str) -> dict[str, Any]:
        """Ask for a finished head in one more format.

        Raises:
            KeyError: no such job.
            InputError: no such format, or the head is not finished.
        """
        export_name(ending)
        with self._lock:
            job = self._known(job_id)
            if job.status != "done":
                raise InputError(f"{job.name} has no head yet")
            if ending not in job.wanted:
                self._formats_due.add(job.id)
                self._keep(replace(job, wanted=[*job.wanted, ending], error=None))
            return self._shown(self._known(job_id))

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Stop a waiting or running job; one that is neither stays as it is.

        Raises:
            KeyError: no such job.
        """
        with self._lock:
            job = self._known(job_id)
            if job.status == "queued":
                self._keep(replace(job, status="cancelled"))
                self._tell_waiting()
            elif job.id in self._running:
                self._cancelled.add(job.id)
            return self._shown(self._known(job_id))

    def delete(self, job_id: str) -> None:
        """Remove a job and all its files; one that runs is stopped first.

        Raises:
            KeyError: no such job.
        """
        with self._lock:
            job = self._known(job_id)
            if job.id in self._running:
                self._cancelled.add(job.id)
                self._deleted.add(job.id)
            else:
                self._forget(job.id)
                self._tell_waiting()

    def _shown(self, job: PageJob) -> dict[str, Any]:
        progress = self._progress.get(job.id)
        ahead = 0
        if job.status == "queued":
            ahead = sum(other.status == "queued" and other.number < job.number for other in self._jobs.values())
            ahead += len(self._running) >= self._heads.jobs  # one of those that run has to end first
        head = self._store.head_folder(job.id)
        made = (
            [ending for ending in job.wanted if (head / export_name(ending)).is_file()] if job.status == "done" else []
        )
        return {
            **{name: value for name, value in asdict(job).items() if name not in ("portrait_name", "deaths", "wanted")},
            "ahead": ahead,
            "progress": None if progress is None else asdict(progress),
            "made": made,
            "making": [ending for ending in job.wanted if ending not in made],
        }

    def _keep(self, job: PageJob) -> None:
        self._jobs[job.id] = job
        self._store.save(job)
        self._tell(job.id)

    def _forget(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)
        self._progress.pop(job_id, None)
        self._cancelled.discard(job_id)
        self._deleted.discard(job_id)
        self._store.delete(job_id)
        self._tell(job_id)

    def _tell_waiting(self) -> None:
        """Those who wait have moved up."""
        for job in tuple(self._jobs.values()):
            if job.status == "queued":
                self._tell(job.id)

    def _tell(self, job_id: str) -> None:
        job = self._jobs.get(job_id)
        for listener in tuple(self._listeners):
            listener(job_id, None if job is None else self._shown(job))

    def _run(self) -> None:
        """The thread: nothing that goes wrong with one job ends it."""
        while not self._stop.is_set():
            try:
                with self._lock:
                    self._start_looks()
                    self._start_heads()
                    for job_id in self._cancelled:
                        self._heads.cancel(job_id)
                for event in self._looks.events(_WAIT_S / 2):
                    self._looked(event)
                for event in self._heads.events(_WAIT_S / 2):
                    with self._lock:
                        self._headed(event)
            except Exception:  # a full disk, for instance: the next turn tries again
                _LOG.exception("the queue met an error")
                time.sleep(1.0)

    def _start_looks(self) -> None:
        if self._looks.running and time.monotonic() - self._look_began_s > _LOOK_S:
            self._looks.cancel(self._looks.running[0])
        if self._waiting_looks and self._looks.free:
            job_id, task = self._waiting_looks.pop(0)
            self._look_began_s = time.monotonic()
            self._looks.start(job_id, task)

    def _looked(self, event: WorkEvent) -> None:
        if not event.is_end:
            return
        seen = self._looking.pop(event.task, None)
        if seen is None:
            return
        if event.kind == "done":
            seen.set_result(event.value)
        elif event.kind == "refused":
            sentence = _for_visitor(str(event.value), self._jobs.get(event.task))
            seen.set_exception(InputError(sentence))
        else:
            seen.set_exception(InputError("The picture cannot be read; save it as PNG or JPEG and try again"))

    def _start_heads(self) -> None:
        """Waiting heads in their order, then formats."""
        jobs = sorted(self._jobs.values(), key=lambda job: job.number)
        due = [job for job in jobs if job.id in self._formats_due and job.id not in self._running]
        asked = [job for job in jobs if job.status == "queued" and job.id not in self._running]
        for job in [*asked, *due]:
            if not self._heads.free:
                return
            self._formats_due.discard(job.id)
            if job.status != "queued" and not self._shown(job)["making"]:
                continue
            formats = tuple(dict.fromkeys((VIEWER_FORMAT, *job.wanted)))
            job = replace(job, wanted=list(formats), status="running" if job.status == "queued" else job.status)
            self._keep(job)
            options = job.settings.options(self._store.portrait(job))
            self._running.add(job.id)
            self._heads.start(job.id, HeadTask(options, self._store.head_folder(job.id), formats))

    def _headed(self, event: WorkEvent) -> None:
        """What a worker says about a head."""
        job = self._jobs.get(event.task)
        if job is None:
            return
        if event.kind == "progress":
            self._progress[job.id] = event.value
            self._tell(job.id)
            return
        if event.kind == "note":
            if event.value not in job.warnings:
                self._keep(replace(job, warnings=[*job.warnings, event.value]))
            return
        self._progress.pop(job.id, None)
        self._cancelled.discard(job.id)
        self._running.discard(job.id)
        if job.id in self._deleted:
            self._forget(job.id)
        else:
            self._keep(_ended(job, event))
        self._tell_waiting()


def _ended(job: PageJob, event: WorkEvent) -> PageJob:
    """A job whose task ended. A head that is there stays there, whatever becomes of a further format."""
    if event.kind == "done" and event.value is not None:
        made: HeadMade = event.value
        seconds = job.seconds if job.status == "done" else round(sum(made.record.get("timings_s", {}).values()), 1)
        return replace(job, status="done", error=None, seconds=seconds, warnings=made.record.get("warnings", []))
    if job.status == "done":
        error = None if event.kind == "cancelled" else f"The format was not made: {_last_line(event)}"
        return replace(job, error=error, wanted=[VIEWER_FORMAT])
    if event.kind == "cancelled":
        return replace(job, status="cancelled")
    if event.kind == "died" and job.deaths + 1 < MOST_DEATHS:
        return replace(job, status="queued", deaths=job.deaths + 1)
    if event.kind == "done":
        return replace(job, status="failed", error="Another dp360 is writing this head")
    words = {"died": "It failed twice: ", "crashed": "Something went wrong on our side: "}.get(event.kind, "")
    return replace(job, status="failed", error=words + _for_visitor(_last_line(event), job))


def _last_line(event: WorkEvent) -> str:
    return (str(event.value).strip().splitlines() or [""])[-1]


def _for_visitor(sentence: str, job: PageJob | None) -> str:
    """A sentence with the visitor's own name of the picture in place of where we keep it."""
    if job is None:
        return sentence
    words = (word if job.id not in word else re.split(r"[/\\]", word)[-1] for word in sentence.split(" "))
    return " ".join(words).replace(job.portrait_name, job.name)

"""`Job`: one portrait becomes one head, in stages that report, can be cancelled and are resumed.

Every road takes it: `dp360 run` and `dp360 views` here in this process, `dp360 batch` and `dp360 serve` in workers.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jaxtyping import UInt8
from torch import Tensor

from dp360.exporters import splat_ply, viewer_html
from dp360.exporters.head_files import SPLATS_NAME
from dp360.generation import Provenance, ViewSet
from dp360.generation.progress import Track, silent
from dp360.generation.same_threads import same_blas_threads
from dp360.generation.system import give_back_memory
from dp360.reconstruction.splats import Splats

from ..console import Notify, ignore
from ..device import choose_device
from ..given_pictures import read_given
from ..options import HeadOptions
from ..portrait_to_head import (
    DATASET_NAME,
    PRIOR_MESH_NAME,
    PortraitViews,
    PreparedHead,
    aligned_portrait,
    finish_head,
    fit_views,
    portrait_to_dataset,
    prior_of,
    prior_to_dataset,
    settings_of,
)
from ..recipe import HeadRecipe, head_recipe
from ..run_folder import HEAD_FIT_NAME, PORTRAIT_NAME, RECORD_NAME, RunRecord, aligned_portrait_rgb, exclusive_run
from ..run_keys import head_key
from ..view_generators import OpenViews, open_generator, refuse_contradictions, settled
from .job_state import Facts, JobState, Reached, forget_state, keep_splats, keep_views, read_state
from .progress import STAGES, Hear, JobClock, expected_stage_s, hear_nothing

_BEFORE_FIT = (PORTRAIT_NAME, PRIOR_MESH_NAME, HEAD_FIT_NAME, DATASET_NAME)
_AFTER_DATASET = ("fit", "export")
_NO_LOOKS = ("image", "verbose", "quality", "views", "size_px", "fit", "rings")
"""Options that say nothing about a head that its picture and its recipe do not say."""
_GOES_ON = {
    "dataset": "going on with the fit: an earlier run, which was stopped, made the views",
    "fit": "going on with the export: an earlier run, which was stopped, fitted the splats",
}


@dataclass(frozen=True)
class HeadResult:
    """A finished head, or its views."""

    folder: Path
    """Where it stands."""
    files: tuple[Path, ...]
    """What was made, dp360.json last."""
    timings_s: dict[str, float]
    """Wall seconds of each stage."""
    warnings: tuple[str, ...]
    """Sentences that people were told."""

    def _repr_html_(self) -> str:
        """The head to turn, as Jupyter shows a result: the offline viewer in a frame that can reach nothing."""
        path = self.folder / SPLATS_NAME
        if not path.is_file():
            return f"<p>Views in {html.escape(str(self.folder))}</p>"
        splats, origin = splat_ply.decode(path.read_bytes())
        page = viewer_html.encode(
            splats, origin or Provenance.unknown("A head of unknown origin"), title=self.folder.name
        )
        return (
            f'<iframe sandbox="allow-scripts" title="3D head" srcdoc="{html.escape(page.decode())}" '
            'style="width: 100%; height: 480px; border: 0"></iframe>'
        )


@dataclass(frozen=True)
class PreparedJob:
    """What `Job.prepare` made; it pickles, so that another process goes on with it."""

    head: PreparedHead
    """The portrait and its prior."""
    timings_s: dict[str, float]
    """Wall seconds of the stages that are done."""
    warnings: tuple[str, ...]
    """What people were told."""


@dataclass(frozen=True)
class _Way:
    """How one `Job.run` goes about it."""

    options: HeadOptions
    device: str
    record: RunRecord
    clock: JobClock
    track: Track
    notify: Notify
    prepared: PreparedJob | None
    open_views: OpenViews
    pause_after: Reached | None
    before_fit: Callable[[], None] | None

    def facts(self, key: str, reached: Reached) -> Facts:
        """What is left beside the results of a stage."""
        return Facts(key, self.record.timings_s, self.record.warnings, self.pause_after == reached)


@dataclass(frozen=True)
class Job:
    """One portrait, how it is treated, and where its head goes.

    A job that was stopped, by whatever, goes on after its last finished part when it is run again: after the data set,
    or after the fit. The bytes are those of a run that was never stopped.
    """

    options: HeadOptions
    """The portrait and how it is treated; `auto` is settled when the job runs."""
    folder: Path
    """Folder of the run; made if missing."""
    until: Literal["dataset", "export"] = "export"
    """The last stage: `dataset` makes the views and stops."""

    @cached_property
    def recipe(self) -> HeadRecipe:
        """The numbers in force.

        Raises:
            InputError: a number, or the seed, is out of its range.
        """
        return head_recipe(self.options)

    def check(self) -> None:
        """Refuse at once what can be refused without work: numbers out of range, contradictions, a missing device.

        Raises:
            InputError: one of these.
        """
        assert self.recipe and choose_device(self.options.device)
        refuse_contradictions(self.options)

    def run(
        self,
        *,
        track: Track = silent,
        notify: Notify = ignore,
        hear: Hear = hear_nothing,
        is_cancelled: Callable[[], bool] = lambda: False,
        expected_s: dict[str, float] | None = None,
        prepared: PreparedJob | None = None,
        open_views: OpenViews = open_generator,
        pause_after: Reached | None = None,
        before_fit: Callable[[], None] | None = None,
    ) -> HeadResult:
        """Run all stages that are missing.

        Args:
            track: shows the loops within stages.
            notify: is told what people should know.
            hear: is told how far the job is.
            is_cancelled: asked between any two steps; True stops the job.
            expected_s: seconds of each stage, where somebody has measured them.
            prepared: what `prepare` made of this job, by whatever process.
            open_views: opens the view generator; one that stays open from job to job, for example.
            pause_after: go on only to the end of this stage, and leave everything for whoever goes on.
            before_fit: called when the views are there; may wait until another job of this process is through.

        Returns:
            The head; where the job pauses, the files of this run that stand there so far.

        Raises:
            InputError: the picture or a setting cannot be used, or the folder cannot be written.
            JobCancelled: `is_cancelled` said so. What was complete stays, and the next run goes on from it.
        """
        self.check()
        options, device = settled(self.options, notify), choose_device(self.options.device)
        clock = JobClock(self._stages_of(expected_s or expected_stage_s(options, self.recipe)), hear, is_cancelled)
        with same_blas_threads(), exclusive_run(self.folder):
            record = RunRecord(self.folder / RECORD_NAME, settings_of(options, self.recipe), clock=clock)
            tell, track = record.telling(notify), clock.tracking(track)
            if self.until == "dataset":
                made = portrait_to_dataset(options, self.recipe, self.folder, record, track=track, notify=tell)
                files = (*made.files, record.write(made.views.provenance.input_sha256, made.files))
            else:
                way = _Way(options, device, record, clock, track, notify, prepared, open_views, pause_after, before_fit)
                files = self._whole_head(way)
            if pause_after is None:
                forget_state(self.folder)
        give_back_memory()
        return HeadResult(self.folder, files, dict(record.timings_s), tuple(record.warnings))

    def prepare(
        self,
        *,
        track: Track = silent,
        notify: Notify = ignore,
        hear: Hear = hear_nothing,
        is_cancelled: Callable[[], bool] = lambda: False,
        expected_s: dict[str, float] | None = None,
    ) -> PreparedJob | None:
        """The portrait and its prior alone, for a process elsewhere that makes the views of them: `run` takes them.

        Returns:
            What was made; None where an earlier run, which was stopped later, has left its views.

        Raises:
            InputError: the picture or a setting cannot be used, or the folder cannot be written.
            JobCancelled: `is_cancelled` said so.
        """
        self.check()
        options, device = settled(self.options), choose_device(self.options.device)
        clock = JobClock(self._stages_of(expected_s or expected_stage_s(options, self.recipe)), hear, is_cancelled)
        with exclusive_run(self.folder):
            record = RunRecord(self.folder / RECORD_NAME, {}, clock=clock)
            if options.portrait.is_file() and self._earlier(head_key(options, self.recipe, device)) is not None:
                return None
            with record.stage("portrait"):
                portrait = aligned_portrait(options, track=clock.tracking(track), notify=record.telling(notify))
            with record.stage("prior"):
                prior = prior_of(portrait, options, self.recipe)
        return PreparedJob(PreparedHead(portrait, prior), dict(record.timings_s), tuple(record.warnings))

    def _whole_head(self, way: _Way) -> tuple[Path, ...]:
        """Views, fit and files, each taken from an earlier run where it came so far."""
        folder, record = self.folder, way.record
        key = head_key(way.options, self.recipe, way.device) if way.options.portrait.is_file() else ""
        files = tuple(folder / name for name in _BEFORE_FIT)
        earlier = self._earlier(key)
        if earlier is None:
            forget_state(folder)
            made = self._views_made(way)
            views, splats, portrait_rgb = made.views, None, made.portrait_rgb
            keep_views(folder, views, way.facts(key, "dataset"))
        else:
            views, splats, portrait_rgb = self._taken_up(earlier, record, way.clock, way.notify)
        if way.pause_after == "dataset":
            return files
        give_back_memory()
        if way.before_fit is not None:
            way.before_fit()
        if splats is None:
            with record.stage("fit"):
                splats = fit_views(views, self.recipe.fit, way.options.seed, way.device, folder, track=way.track)
            keep_splats(folder, splats, way.facts(key, "fit"))
            give_back_memory()
        if way.pause_after == "fit":
            return files
        return finish_head(splats, views, portrait_rgb, folder, record, earlier=files, track=way.track)

    def _earlier(self, key: str) -> JobState | None:
        """What an earlier run of the same job has left, if all of it stands there."""
        if not all((self.folder / name).exists() for name in _BEFORE_FIT):
            return None
        return read_state(self.folder, self.folder / DATASET_NAME, key)

    def _views_made(self, way: _Way) -> PortraitViews:
        """The views and their data set, from the portrait or from what was prepared."""
        tell, record = way.record.telling(way.notify), way.record
        if way.prepared is None:
            return portrait_to_dataset(
                way.options, self.recipe, self.folder, record, track=way.track, notify=tell, open_views=way.open_views
            )
        record.timings_s.update(way.prepared.timings_s)
        record.warnings.extend(way.prepared.warnings)
        way.clock.skip(("portrait", "prior"))
        cameras = self.recipe.orbit.cameras(self.recipe.size_px)
        with record.stage("weights"):
            generator = way.open_views(way.options, read_given(way.options, cameras), cameras, track=way.track)
        head = way.prepared.head
        return prior_to_dataset(head, generator, way.options, self.recipe, self.folder, record, track=way.track)

    def _taken_up(
        self, earlier: JobState, record: RunRecord, clock: JobClock, notify: Notify
    ) -> tuple[ViewSet, Splats | None, UInt8[Tensor, "h w 3"] | None]:
        """What an earlier run made, and its part of the record."""
        if not earlier.is_handed_on:
            for sentence in (_GOES_ON[earlier.reached], *earlier.warnings):
                notify(sentence)
        record.timings_s.update(earlier.timings_s)
        record.warnings.extend(earlier.warnings)
        clock.skip(STAGES[: STAGES.index(earlier.reached) + 1])
        return earlier.views, earlier.splats, aligned_portrait_rgb(self.folder)

    def _stages_of(self, expected_s: dict[str, float]) -> dict[str, float]:
        left_out = _AFTER_DATASET if self.until == "dataset" else ()
        return {name: value for name, value in expected_s.items() if name not in left_out}

    def is_done(self, input_sha256: str) -> bool:
        """Whether the folder holds this very head: of this picture, with these settings, and whole.

        Args:
            input_sha256: of the portrait's bytes, hexadecimal.
        """
        record = read_record(self.folder)
        if record is None or record.get("input_sha256") != input_sha256:
            return False
        asked = json.loads(json.dumps(settings_of(settled(self.options), self.recipe), default=str))
        same = record.get("recipe") == asked["recipe"] and _looks(record.get("command")) == _looks(asked["command"])
        names = record.get("files")
        return same and isinstance(names, dict) and all((self.folder / name).exists() for name in names)


def read_record(folder: Path) -> dict[str, Any] | None:
    """What a folder's dp360.json says; None where there is none: the folder holds nothing that is complete."""
    try:
        record = json.loads((folder / RECORD_NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _looks(command: Any) -> dict[str, Any]:
    """The options that decide what a head is: without names of files and folders, and what is only said or shown."""
    if not isinstance(command, dict):
        return {}
    return {f.name: command.get(f.name) for f in fields(HeadOptions) if f.name not in _NO_LOOKS}

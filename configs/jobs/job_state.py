"""What an unfinished job leaves in its folder, so that the next one goes on: the views' surface, and the fitted splats.

Pictures and poses of the views are read back from the data set, bit for bit; what the data set rounds is kept here. A
state counts only for the same key, that is for the same picture, settings, weights and code: whoever goes on reaches
the same bytes as whoever was never stopped.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dp360.generation import InputError, PointCloud, ViewSet
from dp360.generation.dataset.view_dataset import read_dataset
from dp360.generation.files import write_bytes_atomically
from dp360.reconstruction.splats import Splats

STATE_NAME = ".dp360.job"
"""Folder inside the run's folder; it goes when the run is complete."""
_FACTS_NAME, _SURFACE_NAME, _SPLATS_NAME = "job.json", "surface.npz", "splats.npz"
Reached = Literal["dataset", "fit"]
"""The last stage that a state holds."""


@dataclass(frozen=True)
class Facts:
    """What a state says about the run that left it."""

    key: str
    """Of its picture, settings, weights and code."""
    timings_s: Mapping[str, float]
    """Wall seconds of the stages that were done."""
    warnings: Sequence[str]
    """What people were told."""
    is_handed_on: bool = False
    """Whether it pauses here for somebody to go on."""


@dataclass(frozen=True)
class JobState:
    """How far an unfinished job came."""

    views: ViewSet
    """The views, exactly as they were made."""
    splats: Splats | None
    """The fitted splats; None where the fit is still to come."""
    timings_s: dict[str, float]
    """Wall seconds of the stages that were done."""
    warnings: tuple[str, ...]
    """What people were told."""
    is_handed_on: bool = False
    """Whether its maker paused there for somebody to go on, and was not stopped."""

    @property
    def reached(self) -> Reached:
        """The last stage that was done."""
        return "dataset" if self.splats is None else "fit"


def keep_views(folder: Path, views: ViewSet, facts: Facts) -> None:
    """Leave what follows the stage `dataset`; the data set itself stands in `folder` already."""
    write_bytes_atomically(folder / STATE_NAME / _SURFACE_NAME, _npz(views.surface))
    _write_facts(folder, "dataset", facts)


def keep_splats(folder: Path, splats: Splats, facts: Facts) -> None:
    """Leave what follows the stage `fit`."""
    write_bytes_atomically(folder / STATE_NAME / _SPLATS_NAME, _npz(splats))
    _write_facts(folder, "fit", facts)


def read_state(folder: Path, dataset: Path, key: str) -> JobState | None:
    """How far an earlier job with the same key came; None where there was none, or it left nothing whole.

    Args:
        folder: of the run.
        dataset: its data set.
    """
    state = folder / STATE_NAME
    try:
        facts = json.loads((state / _FACTS_NAME).read_text("utf-8"))
        if facts["key"] != key:
            return None
        surface = PointCloud(**_tensors(PointCloud, state / _SURFACE_NAME))
        views = replace(read_dataset(dataset), surface=surface)
        splats = Splats(**_tensors(Splats, state / _SPLATS_NAME)) if facts["reached"] == "fit" else None
        timings_s = {str(name): float(value) for name, value in facts["timings_s"].items()}
        told = tuple(map(str, facts["warnings"]))
        return JobState(views, splats, timings_s, told, bool(facts["is_handed_on"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, InputError):
        return None


def forget_state(folder: Path) -> None:
    """Remove what an unfinished job left, if it left anything."""
    shutil.rmtree(folder / STATE_NAME, ignore_errors=True)


def _write_facts(folder: Path, reached: Reached, facts: Facts) -> None:
    """Written last: what it names is whole."""
    data = json.dumps({"reached": reached, **asdict(facts)}) + "\n"
    write_bytes_atomically(folder / STATE_NAME / _FACTS_NAME, data.encode())


def _npz(value: PointCloud | Splats) -> bytes:
    """The tensors of a dataclass under their names, exactly."""
    tensors = {f.name: getattr(value, f.name) for f in fields(value)}
    buffer = io.BytesIO()
    np.savez(buffer, **{name: tensor.cpu().numpy() for name, tensor in tensors.items() if tensor is not None})
    return buffer.getvalue()


def _tensors(kind: type, path: Path) -> dict[str, Any]:
    """Tensors by the names of a dataclass's fields, None where the file has none."""
    with np.load(path, allow_pickle=False) as file:
        return {f.name: torch.from_numpy(file[f.name]) if f.name in file.files else None for f in fields(kind)}

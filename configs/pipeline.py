"""The whole way from a portrait to files, in the order of the story; every stage is a call into its own folder."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dp360.exporters import mesh_glb, portrait_png, splat_ply, write_head
from dp360.exporters.head_files import MESH_NAME, PORTRAIT_NAME, SPLATS_NAME
from dp360.generation import InputError, OrbitConfig, ViewSet
from dp360.generation.dataset.view_dataset import TRANSFORMS, read_dataset, write_dataset
from dp360.generation.files import write_bytes_atomically
from dp360.generation.portrait import Portrait, PortraitConfig, prepare_portrait
from dp360.generation.prior import build_head_prior
from dp360.generation.progress import Track, silent
from dp360.reconstruction.fit import SplatFitConfig, fit_splats, splats_from_parameters
from dp360.reconstruction.prepare import fit_threads
from dp360.reconstruction.splats import Splats

from .commands import FitCommand, RunCommand, ViewsCommand
from .device import choose_device
from .given_pictures import read_given
from .presets import Preset
from .run_lock import exclusive_run
from .view_generators import open_generator, refuse_contradictions, settled

DATASET_NAME, RECORD_NAME = "dataset", "dp360.json"
_RECORDED_VERSIONS = ("dp360", "torch", "diffusers", "numpy", "numba", "mediapipe", "gsplat")
Notify = Callable[[str], None]
"""Shows one sentence to the person who started the run."""


def ignore(sentence: str) -> None:
    """The default `Notify`: shows nothing."""
    del sentence


def run_pipeline(command: RunCommand, *, track: Track = silent, notify: Notify = ignore) -> tuple[Path, ...]:
    """Portrait, views, splats, mesh and contact sheet into one folder.

    dp360.json is written last: while it is there, all files of the folder belong together. What is complete when a run
    is stopped stays, and so do the splats as far as they were fitted.

    Args:
        command: what to make and how.
        track: shows progress.
        notify: shows what people should know about their picture.

    Returns:
        The files and folders made.

    Raises:
        InputError: the picture or a setting cannot be used, or the folder cannot be written.
    """
    preset, device = _checked(command), choose_device(command.device)
    command = settled(command, notify)
    with exclusive_run(command.output):
        record = _Record(command.output / RECORD_NAME, asdict(command), preset, command.seed)
        portrait, views, files = _portrait_to_views(command, preset, record, track, notify)
        with record.stage("fit"):
            splats = fit_views(views, preset.iterations, command.seed, device, command.output, track=track)
        with record.stage("export"):
            head_files = write_head(command.output, splats, views, portrait_rgb=torch.from_numpy(portrait.rgb))
        files = (*files, *head_files)
        return (*files, record.write(portrait.source_sha256, files))


def make_views(command: ViewsCommand, *, track: Track = silent, notify: Notify = ignore) -> tuple[Path, ...]:
    """The aligned portrait, the mesh and the data set; arguments and errors as `run_pipeline`."""
    preset = _checked(command)
    command = settled(command, notify)
    with exclusive_run(command.output):
        record = _Record(command.output / RECORD_NAME, asdict(command), preset, command.seed)
        portrait, _, files = _portrait_to_views(command, preset, record, track, notify)
        return (*files, record.write(portrait.source_sha256, files))


def fit_dataset(command: FitCommand, *, track: Track = silent) -> tuple[Path, ...]:
    """Splats and contact sheet from a data set on disk; errors as `run_pipeline`."""
    preset, device = _checked(command), choose_device(command.device)
    folder = dataset_folder(command.data)
    with exclusive_run(command.output):
        record = _Record(command.output / RECORD_NAME, asdict(command), preset, command.seed)
        with record.stage("read"):
            views = read_dataset(folder)
        with record.stage("fit"):
            splats = fit_views(views, preset.iterations, command.seed, device, command.output, track=track)
        with record.stage("export"):
            files = write_head(command.output, splats, views)
        return (*files, record.write(views.provenance.input_sha256, files))


def dataset_folder(given: Path) -> Path:
    """The data set in `given`, which may be the data set itself or a folder that `dp360 run` or `dp360 views` made."""
    nested = given / DATASET_NAME
    return nested if (nested / TRANSFORMS).is_file() else given


def fit_views(
    views: ViewSet, iterations: int, seed: int, device: str, output: Path, *, track: Track = silent
) -> Splats:
    """`fit_splats`; when it is interrupted, the splats reached so far are written to `output` as head.ply."""
    reached: dict[str, Any] = {}

    def remember(step: int, loss: float, params: Any) -> None:
        reached.update(step=step, params=params)

    config = SplatFitConfig(iterations=iterations)
    generator = torch.Generator().manual_seed(seed)
    size_px = round(config.coarse_scale * views.cameras.width)
    threads = fit_threads(track, gaussians=config.start_count, size_px=size_px) if device == "cpu" else nullcontext()
    try:
        with threads:
            return fit_splats(views, config, generator, track=track, on_iteration=remember, device=device)
    except KeyboardInterrupt:
        with suppress(ValueError, KeyError):  # stopped in the middle of a step that changes the number of Gaussians
            splats = splats_from_parameters(reached["params"])
            settings = {**views.provenance.settings, "stopped_at_iteration": reached["step"]}
            provenance = replace(views.provenance, settings=settings)
            write_bytes_atomically(output / SPLATS_NAME, splat_ply.encode(splats, provenance))
        raise


def _portrait_to_views(
    command: ViewsCommand, preset: Preset, record: _Record, track: Track, notify: Notify
) -> tuple[Portrait, ViewSet, tuple[Path, ...]]:
    """The stages that `views` and `run` share."""
    portrait_path, mesh_path = command.output / PORTRAIT_NAME, command.output / MESH_NAME
    dataset_path = command.output / DATASET_NAME
    if dataset_path.exists() and not (dataset_path / TRANSFORMS).is_file():
        raise InputError(f"{dataset_path} exists and is no data set; move it away or choose another --output")
    lower, upper = round(preset.views / 4), round(preset.views * 3 / 8)
    level_only = command.rings == "level"
    orbit = OrbitConfig(preset.views, 0 if level_only else upper, lower_count=0 if level_only else lower)
    cameras = orbit.cameras(preset.size_px)
    given = read_given(command, cameras)
    with record.stage("portrait"):
        config = PortraitConfig(crop=command.crop, face_index=command.face_index, no_face=command.no_face)
        portrait = prepare_portrait(command.image, config, track=track)
        for notice in portrait.notices:
            notify(notice)
    with record.stage("weights"):
        view_generator = open_generator(command, given, cameras, track=track)
    with record.stage("prior"):
        prior = build_head_prior(portrait, seed=command.seed)
    with record.stage("views"):
        generator = torch.Generator().manual_seed(command.seed)
        views = view_generator.generate(portrait, prior, cameras, generator, track=track)
    with record.stage("dataset"):
        write_bytes_atomically(portrait_path, portrait_png.encode(portrait, views.provenance))
        write_bytes_atomically(mesh_path, mesh_glb.encode(prior.textured_mesh(), views.provenance))
        write_dataset(views, dataset_path)
    return portrait, views, (portrait_path, mesh_path, dataset_path)


def _checked(command: FitCommand | ViewsCommand) -> Preset:
    """The numbers in force if every one of them, and the seed, is in its range."""
    sentence = command.preset.out_of_range()
    if not 0 <= command.seed < 2**32:
        sentence = sentence or f"expected --seed from 0 to {2**32 - 1}, got {command.seed}"
    if sentence:
        raise InputError(f"Cannot start: {sentence}")
    if isinstance(command, ViewsCommand):
        refuse_contradictions(command)
    return command.preset


@dataclass
class _Record:
    """What dp360.json will say; an old one goes when a new run begins."""

    path: Path
    """Where it is written."""
    command: dict[str, Any]
    """The subcommand's settings as given."""
    preset: Preset
    """The numbers in force."""
    seed: int
    """Seed of the run."""
    timings_s: dict[str, float] = field(default_factory=dict)
    """Wall seconds per stage."""

    def __post_init__(self) -> None:
        self.path.unlink(missing_ok=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the wall time of a block."""
        start = time.perf_counter()
        yield
        self.timings_s[name] = round(time.perf_counter() - start, 3)

    def write(self, input_sha256: str, files: tuple[Path, ...]) -> Path:
        """Write dp360.json; returns its path."""
        content = {
            "command": self.command,
            "preset": asdict(self.preset),
            "seed": self.seed,
            "input_sha256": input_sha256,
            "files": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()},
            "timings_s": self.timings_s,
            "versions": {
                "python": platform.python_version(),
                **{n: metadata.version(n) for n in _RECORDED_VERSIONS},
            },
        }
        write_bytes_atomically(self.path, (json.dumps(content, indent=1, default=str) + "\n").encode())
        return self.path

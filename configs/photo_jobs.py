"""What `dp360 eval photos` does: every portrait of a folder once, then tables and contact sheets of all."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dp360.generation import InputError
from dp360.generation.dataset.view_dataset import png_bytes
from dp360.generation.diffusion.view_pictures import PICTURE_ENDINGS
from dp360.generation.files import write_bytes_atomically
from dp360.reconstruction.evaluation import identity, photo_measures, photo_sheets, photos
from dp360.reconstruction.evaluation.heads import spread
from dp360.reconstruction.evaluation.identity import FaceEmbedder
from dp360.reconstruction.evaluation.photo_reports import photos_result
from dp360.reconstruction.evaluation.photo_sheets import photo_sheet
from dp360.reconstruction.evaluation.photos import (
    PhotoResult,
    evaluate_photo,
    read_photo_result,
    strip_path,
    write_photo_result,
)
from dp360.reconstruction.evaluation.results import EvaluationResult

from .code_hash import update_with_generation
from .evaluate import EvalPhotosCommand
from .processes import in_processes

if TYPE_CHECKING:
    from .console import Display

SHEET_ROWS = 4
"""Portraits on one contact sheet."""
_MEASURING = (photos, photo_measures, photo_sheets, identity)
"""Modules that decide what stands in a portrait's result."""


def evaluate_photos(command: EvalPhotosCommand, display: Display) -> EvaluationResult:
    """Measure every portrait that has no result yet, sum up, and write the contact sheets.

    A portrait that crashed is tried again when the command is given again; a refused one is not, unless picture, code
    or weights have changed.

    Raises:
        InputError: no folder, no pictures in it, or numbers that make no sense.
    """
    pictures, folder = _pictures(command), command.output / "photos"
    with_identity = _has_embedder()
    code = _code_sha256(identity=with_identity)
    hashes = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures}
    keys = {path: hashlib.sha256(f"{hashes[path]} {code}".encode()).hexdigest() for path in pictures}
    todo = [(str(path), keys[path]) for path in pictures if not _up_to_date(folder, path, keys[path])]
    if len(todo) < len(pictures):
        display.notify(f"{len(pictures) - len(todo)} of {len(pictures)} portraits were measured earlier")
    measured = in_processes(partial(_measure, folder, with_identity), todo, command.jobs)
    for (path, _), refusal in display.track(measured, total=len(todo), description="Portraits"):
        if refusal is not None:
            display.notify(f"no head from {Path(path).name}: {refusal}")
    results = [result for path in pictures if (result := read_photo_result(folder, path.name)) is not None]
    _write_sheets(command.output / "sheets", folder, [r.name for r in results if r.figures is not None])
    facts = {
        "version": importlib.metadata.version("dp360"),
        "seed": 0,
        "data_sha256": hashlib.sha256("\n".join(hashes[path] for path in pictures).encode()).hexdigest(),
        "code_sha256": code,
    }
    return photos_result(results, facts, identity=with_identity)


def _pictures(command: EvalPhotosCommand) -> list[Path]:
    """The portraits that are asked for, by name."""
    for name, value in (("jobs", command.jobs), ("most", command.most)):
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}")
    if not command.images.is_dir():
        raise InputError(f"No folder at {command.images}; expected --images with a folder of portraits")
    inside = (path for path in command.images.iterdir() if path.suffix.lower() in PICTURE_ENDINGS and path.is_file())
    found = sorted(path for path in inside if not path.name.startswith("."))
    if not found:
        raise InputError(f"No pictures in {command.images}; expected files that end in {', '.join(PICTURE_ENDINGS)}")
    return found if command.most is None else [found[k] for k in spread(len(found), command.most)]


def _has_embedder() -> bool:
    try:
        FaceEmbedder()
    except InputError:
        return False
    return True


def _code_sha256(*, identity: bool) -> str:
    """Hash of the code and weights that make and measure heads, and of what else decides the figures."""
    digest = hashlib.sha256(f"{identity}\n".encode())
    update_with_generation(digest)
    for module in _MEASURING:
        digest.update(Path(inspect.getfile(module)).read_bytes())
    return digest.hexdigest()


def _up_to_date(folder: Path, path: Path, key: str) -> bool:
    result = read_photo_result(folder, path.name)
    return result is not None and result.key == key and not result.crashed


def _measure(folder: Path, with_identity: bool, item: tuple[str, str]) -> str | None:
    """Measure one portrait and write what was found; why there is no head, if there is none."""
    result: PhotoResult = evaluate_photo(Path(item[0]), item[1], FaceEmbedder() if with_identity else None)
    write_photo_result(folder, result)
    return result.refusal


def _write_sheets(sheets: Path, folder: Path, names: Sequence[str]) -> None:
    """Contact sheets of `SHEET_ROWS` portraits each; those of an earlier run with more portraits go."""
    groups = [names[k : k + SHEET_ROWS] for k in range(0, len(names), SHEET_ROWS)]
    written = set()
    for number, group in enumerate(groups, start=1):
        strips = [(name, _picture(strip_path(folder, name))) for name in group]
        sheet = photo_sheet(f"Sheet {number} of {len(groups)}", strips)
        write_bytes_atomically(sheets / f"sheet_{number:03d}.png", png_bytes(sheet))
        written.add(f"sheet_{number:03d}.png")
    for path in sheets.glob("sheet_*.png"):
        if re.fullmatch(r"sheet_\d{3,}\.png", path.name) and path.name not in written:
            path.unlink()


def _picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    with Image.open(path) as opened:
        return np.array(opened.convert("RGB"))

"""The compact weights that ship: where they are, whether they are whole, and whether they are better than the prior.

`generation/weights/compact` is a pipeline folder of diffusers (safetensors in half precision) and two files of ours:
`checksums.json`, {file relative to the folder: SHA-256}, and `held_out.json`, what `compact` and `prior` reach on the
same held-out heads: {"heads": n, "views": m, "figures": {"prior": {"psnr_head": dB, "perceptual": distance, ...},
"compact": {...}}}.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from ..errors import InputError
from ..files import directory_written_atomically

if TYPE_CHECKING:
    from .pipeline import DiffPortrait360Pipeline

COMPACT_NAME = "compact-1"
"""Name of the weights that ship, for provenance."""
FOLDER_NAME, CHECKSUMS_NAME, HELD_OUT_NAME = "compact", "checksums.json", "held_out.json"

Winner = Literal["prior", "compact"]


@dataclass(frozen=True)
class HeldOut:
    """Figures of both generators on the same held-out heads."""

    heads: int
    """How many heads."""
    views: int
    """True views of each."""
    prior: Mapping[str, float]
    """Means of the prior's renders: psnr_head in dB, perceptual as a distance, and whatever else was measured."""
    compact: Mapping[str, float]
    """The same of the compact model's views."""

    @property
    def winner(self) -> Winner:
        """The rule of `--generator auto`: the compact model where its PSNR of the head is higher and its perceptual
        distance not larger. A figure that is missing on either side speaks for the prior."""
        try:
            sharper = self.compact["psnr_head"] > self.prior["psnr_head"]
            alike = self.compact["perceptual"] <= self.prior["perceptual"]
        except KeyError:
            return "prior"
        return "compact" if sharper and alike else "prior"


def compact_folder() -> Path | None:
    """Where the weights are; None where this installation lacks them."""
    folder = Path(str(resources.files("dp360.generation.weights"))) / FOLDER_NAME
    return folder if (folder / CHECKSUMS_NAME).is_file() else None


def held_out() -> HeldOut | None:
    """What was measured before the weights were shipped; None without weights or figures.

    Raises:
        InputError: the file is damaged.
    """
    folder = compact_folder()
    if folder is None or not (folder / HELD_OUT_NAME).is_file():
        return None
    path = folder / HELD_OUT_NAME
    try:
        found = json.loads(path.read_text("utf-8"))
        figures = {
            name: {key: float(value) for key, value in found["figures"][name].items() if value is not None}
            for name in ("prior", "compact")
        }
        return HeldOut(int(found["heads"]), int(found["views"]), figures["prior"], figures["compact"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged: expected the figures of both generators; install dp360 again") from error


def load_compact(dtype: torch.dtype) -> tuple[DiffPortrait360Pipeline, str] | None:
    """The compact model that ships, on the CPU, and its name with a hash; None where this installation lacks it.

    Args:
        dtype: numbers to compute with; a CPU wants float32.

    Raises:
        InputError: a file that is missing or not what it was when it was shipped.
    """
    folder = compact_folder()
    if folder is None:
        return None
    name = verified_name(folder)
    return load_pipeline(folder, dtype), name


def write_compact(pipeline: DiffPortrait360Pipeline, measured: HeldOut | None, folder: Path) -> None:
    """Write weights as they ship: half precision, checksums, figures; whole or not at all. Model cards stay.

    Args:
        pipeline: trained; its networks are left in half precision.
        measured: figures on held-out heads; None leaves the earlier ones out, so that `auto` takes the prior.
        folder: for example generation/weights/compact.

    Raises:
        InputError: the folder cannot be written.
    """
    cards = {card.name: card.read_bytes() for card in folder.glob("*.md")} if folder.is_dir() else {}
    with directory_written_atomically(folder) as temporary:
        pipeline.to(dtype=torch.float16).save_pretrained(temporary)
        for file in temporary.rglob("*.json"):  # where the weights lay is nobody's business
            content = json.loads(file.read_text("utf-8"))
            content.pop("_name_or_path", None)
            file.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        if measured is not None:
            figures = {"prior": dict(measured.prior), "compact": dict(measured.compact)}
            text = json.dumps({"heads": measured.heads, "views": measured.views, "figures": figures}, indent=1)
            (temporary / HELD_OUT_NAME).write_text(text + "\n", "utf-8")
        files = sorted(_files_to_check(temporary))
        sums = {name: hashlib.sha256((temporary / name).read_bytes()).hexdigest() for name in files}
        (temporary / CHECKSUMS_NAME).write_text(json.dumps(sums, indent=1) + "\n", "utf-8")
        for name, content in cards.items():
            (temporary / name).write_bytes(content)


def verified_name(folder: Path) -> str:
    """Name and hash of the weights in `folder` after every file was compared with `checksums.json`.

    Raises:
        InputError: as `load_compact`.
    """
    try:
        expected = dict(json.loads((folder / CHECKSUMS_NAME).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder / CHECKSUMS_NAME} is damaged: expected SHA-256 by file; {_CURE}") from error
    unlisted = _files_to_check(folder) - expected.keys()
    if unlisted or "model_index.json" not in expected:
        what = min(unlisted) if unlisted else "model_index.json"
        raise InputError(f"{folder / what} is damaged: expected it in {CHECKSUMS_NAME}, got nothing there; {_CURE}")
    for name, sha256 in sorted(expected.items()):
        file = folder / name
        found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no file"
        if found != sha256:
            raise InputError(f"{file} is damaged: expected sha256 {sha256}, got {found}; {_CURE}")
    digest = hashlib.sha256(json.dumps(expected, sort_keys=True).encode()).hexdigest()
    return f"{COMPACT_NAME} (sha256 {digest[:16]})"


def _files_to_check(folder: Path) -> set[str]:
    """Weights and everything that decides how they are used, relative to the folder."""
    files = {path for ending in ("json", "safetensors") for path in folder.rglob(f"*.{ending}")}
    return {path.relative_to(folder).as_posix() for path in files} - {CHECKSUMS_NAME}


_CURE = "install dp360 again"


LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError)
"""How loaders of diffusers and transformers fail on folders that are not theirs."""


def short_reason(error: Exception) -> str:
    """What somebody else's error says, as part of a sentence of ours."""
    return " ".join(str(error).split())[:200]


def load_pipeline(folder: Path, dtype: torch.dtype) -> DiffPortrait360Pipeline:
    """A pipeline folder on the CPU.

    Raises:
        InputError: it cannot be loaded.
    """
    from diffusers.utils import logging
    from diffusers.utils.import_utils import compare_versions

    from .pipeline import DiffPortrait360Pipeline  # seconds of imports

    named = "dtype" if compare_versions("diffusers", ">=", "0.42") else "torch_dtype"
    shows_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return DiffPortrait360Pipeline.from_pretrained(folder, local_files_only=True, **{named: dtype})
    except LOADING_ERRORS as error:
        raise InputError(
            f"The pipeline in {folder} cannot be loaded ({short_reason(error)}); convert or train it again"
        ) from error
    finally:
        if shows_bars:
            logging.enable_progress_bar()

"""The release's folder layout: where the files of one portrait lie, its camera labels, and its finished views.

    sample_data/
      input_image/  NAME.png ...  dataset.json      aligned crops and their cameras
      cam_condition/sphere32/  0000000.png ...      control pictures
      3DNoise/NAME/condition32.mp4                  start views
      Back_Head/NAME.png                            back of the head, made by F
      result/NAME.png.mp4                           the views

Source: the defaults of the release's scripts, https://github.com/FreedomGu/Diffportrait360.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...cameras import Cameras, look_at_origin
from ...errors import InputError
from ...progress import Track, silent
from ..cutout import cut_out_views, edge_colour, has_plain_background
from ..view_pictures import PICTURE_ENDINGS, read_film, resized_pictures

LABELS_NAME = "dataset.json"
_PARTS = ("input_image", "cam_condition", "3DNoise", "Back_Head", "result")
_RELEASE_PI = 3.14
"""The release writes 3.14 where it means pi; its cameras stand accordingly."""
_LABEL_LENGTH = 25
_MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True)
class ReleaseFolder:
    """The paths of one portrait in the release's layout that views are read from; None where a file is not there."""

    root: Path
    """The folder `sample_data`."""
    name: str
    """Name of the portrait, without ending."""
    input_image: Path | None
    """The aligned crop."""
    labels: Path | None
    """dataset.json with the crops' cameras."""
    result: Path | None
    """Film of the finished views."""

    @classmethod
    def find(cls, root: Path, name: str) -> ReleaseFolder:
        """Look for the files of one portrait.

        Args:
            root: the folder `sample_data`, or the one that holds it.
            name: name of the portrait, with or without ending.

        Raises:
            InputError: the folder is not in the release's layout, or has nothing of that name.
        """
        root = root / "sample_data" if (root / "sample_data").is_dir() else root
        if not any((root / part).is_dir() for part in _PARTS):
            raise InputError(
                f"{root}: expected the release's layout, a folder with {', '.join(_PARTS)}; give its sample_data"
            )
        stem = _stem(name)
        labels = root / "input_image" / LABELS_NAME
        found = cls(
            root,
            stem,
            _first(root / "input_image" / f"{stem}{ending}" for ending in PICTURE_ENDINGS),
            labels if labels.is_file() else None,
            _first(root / "result" / f"{stem}{ending}.mp4" for ending in (*PICTURE_ENDINGS, "")),
        )
        if found.input_image is None and found.result is None:
            pictures = (p for p in (root / "input_image").glob("*") if p.suffix.lower() in PICTURE_ENDINGS)
            known = sorted({*(p.stem for p in pictures), *(_stem(p.stem) for p in (root / "result").glob("*.mp4"))})
            raise InputError(
                f"{root}: nothing named {name!r} in it; it has {', '.join(known[:8]) or 'no portraits'}"
                f"{' ...' if len(known) > 8 else ''}"
            )
        return found

    def label(self) -> Float[Tensor, " 25"] | None:
        """Camera of the aligned crop; None without dataset.json.

        Raises:
            InputError: dataset.json is damaged, or does not name this portrait.
        """
        return None if self.labels is None else label_of(self.labels, self.name)


def read_result(folder: ReleaseFolder, *, track: Track = silent) -> tuple[UInt8[Tensor, "n h w 4"], Cameras]:
    """The finished views of a portrait with their cameras: frame 0 from the front, a quarter round at +x.

    Returns:
        Straight colour and alpha, and the release's own cameras.

    Raises:
        InputError: no result, a film that cannot be decoded, frames that are not square, or frames without a plain
            light background.
    """
    if folder.result is None:
        raise InputError(
            f"{folder.root}: no result/{folder.name}.png.mp4 in it; run the release's last step, or check --name"
        )
    frames = read_film(folder.result)
    count, height, width, _ = frames.shape
    if height != width:
        raise InputError(f"{folder.result}: expected square frames, got {width}x{height}")
    pictures = resized_pictures(frames, width, height)
    background = edge_colour(pictures)
    for i, picture in enumerate(pictures):
        if not has_plain_background(picture, background):
            raise InputError(
                f"{folder.result}: frame {i} has no plain background like the others, so the head cannot be cut out; "
                "give the release portraits over white"
            )
    rgba = cut_out_views(pictures, background_rgb_unit=background, track=track)
    return rgba, release_ring(count, size_px=width)


def release_ring(count: int, *, size_px: int = 512) -> Cameras:
    """The release's cameras as its formula gives them, with 3.14 for pi: up to 0.2 degrees from an even ring.

    Args:
        count: views; 32 in the release.

    Source: `LookAtPoseSampler` of EG3D (https://github.com/NVlabs/eg3d, camera_utils.py) as the release calls it, with
    horizontal angle 3.14/2 + 2*3.14*i/count and vertical angle 3.14/2.
    """
    steps = torch.arange(count, dtype=torch.float64)
    theta = _RELEASE_PI / 2 + 2 * _RELEASE_PI * steps / count
    phi = torch.full_like(theta, math.acos(1 - 2 * (_RELEASE_PI / 2) / math.pi))
    return look_at_origin(theta - math.pi / 2, math.pi / 2 - phi, size_px=size_px)


def read_labels(path: Path) -> dict[str, Float[Tensor, " 25"]]:
    """Camera labels by the names in a dataset.json; numbers may be written as texts, as in the release's sample.

    Raises:
        InputError: not such a file, or a label that is not 25 finite numbers with a rigid pose.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise InputError(f"{path}: larger than {_MAX_JSON_BYTES >> 20} MB; expected a list of camera labels")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); make it again") from error
    entries = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise InputError(f'{path}: expected {{"labels": [[name, [25 numbers]], ...]}} as PanoHead writes it')
    return dict(_label_entry(path, entry) for entry in entries)


def label_of(path: Path, name: str) -> Float[Tensor, " 25"]:
    """The label of one picture, whatever the ending: keys end in .png even where the picture is a .jpg.

    Raises:
        InputError: as `read_labels`, or there is no such picture.
    """
    labels = read_labels(path)
    by_stem = {Path(key).stem: label for key, label in labels.items()}
    stem = _stem(name)
    if stem not in by_stem:
        raise InputError(f"{path}: no camera of {stem!r} in it; it has {', '.join(sorted(by_stem)[:8]) or 'none'}")
    return by_stem[stem]


def _label_entry(path: Path, entry: Any) -> tuple[str, Float[Tensor, " 25"]]:
    if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], list)):
        raise InputError(f"{path}: expected entries of a name and {_LABEL_LENGTH} numbers, got {str(entry)[:80]}")
    name, values = entry
    try:
        label = torch.tensor([float(value) for value in values], dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: the label of {name} holds something that is no number ({error})") from error
    if len(label) != _LABEL_LENGTH or not bool(torch.isfinite(label).all()):
        raise InputError(f"{path}: expected {_LABEL_LENGTH} finite numbers for {name}, got {len(label)}")
    T, K = label[:16].reshape(4, 4), label[16:].reshape(3, 3)
    R, bottom = T[:3, :3], torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    rigid = torch.allclose(R @ R.T, torch.eye(3, dtype=torch.float64), atol=1e-3) and float(torch.linalg.det(R)) > 0
    if not rigid or not torch.allclose(T[3], bottom, atol=1e-6) or float(K[0, 0]) <= 0 or float(K[1, 1]) <= 0:
        raise InputError(
            f"{path}: the label of {name} is no camera: expected a rigid 4x4 pose row by row, then 3x3 intrinsics"
        )
    return name, label


def _stem(name: str) -> str:
    return Path(name).stem if Path(name).suffix.lower() in PICTURE_ENDINGS else name


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)

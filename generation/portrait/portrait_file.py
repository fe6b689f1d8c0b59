"""A prepared portrait as one file: what the view generators start from, read back equal."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import torch

from ..cameras import Cameras
from ..errors import InputError
from ..head_model import HeadFit
from .portrait import Portrait

_ARRAYS = ("rgb", "alpha_unit", "foreground_unit", "inside")
_FIT_ARRAYS = ("identity", "expression", "vertices_world", "residual_px")
_CAMERA_ARRAYS = ("T_world_camera", "focal_px", "principal_px")


def encode_portrait(portrait: Portrait) -> bytes:
    """The portrait as the bytes of an .npz file; the same portrait gives the same bytes."""
    camera = portrait.head.camera
    facts = {
        "format": 1,
        "width": camera.width,
        "height": camera.height,
        "crop": portrait.crop,
        "source_name": portrait.source_name,
        "source_sha256": portrait.source_sha256,
        "notices": list(portrait.notices),
        "weights": list(portrait.weights),
    }
    arrays = {name: getattr(portrait, name) for name in _ARRAYS}
    arrays |= {f"fit_{name}": getattr(portrait.head, name) for name in _FIT_ARRAYS}
    arrays |= {f"camera_{name}": getattr(camera, name).numpy() for name in _CAMERA_ARRAYS}
    if portrait.landmarks_px is not None:
        arrays["landmarks_px"] = portrait.landmarks_px
    file = io.BytesIO()
    np.savez_compressed(file, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)
    return file.getvalue()


def read_portrait(path: Path) -> Portrait:
    """The portrait in a file of `encode_portrait`.

    Raises:
        InputError: the file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"No prepared portrait at {path}; make the head again with dp360 data heads")
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(file["facts"].tobytes())
            arrays = {name: torch.from_numpy(file[f"camera_{name}"]) for name in _CAMERA_ARRAYS}
            camera = Cameras(**arrays, width=facts["width"], height=facts["height"])
            fit = {name: file[f"fit_{name}"] for name in _FIT_ARRAYS}
            return Portrait(
                **{name: file[name] for name in _ARRAYS},
                landmarks_px=file["landmarks_px"] if "landmarks_px" in file.files else None,
                head=HeadFit(camera=camera, **fit),
                crop=facts["crop"],
                source_name=facts["source_name"],
                source_sha256=facts["source_sha256"],
                notices=tuple(facts["notices"]),
                weights=tuple(facts.get("weights", ())),  # not in files of earlier versions
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}); make the head again with dp360 data heads") from error

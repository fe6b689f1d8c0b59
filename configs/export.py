"""`dp360 export`: what was fitted, written in another form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from dp360.exporters import splat_pictures, splat_ply
from dp360.exporters.contact_sheet import contact_sheet, sheet_cameras
from dp360.exporters.head_files import MESH_NAME, PORTRAIT_NAME, SHEET_NAME, SPLATS_NAME
from dp360.generation import InputError, Provenance, ViewSet
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.files import write_bytes_atomically
from dp360.reconstruction.dataset import read_dataset
from dp360.reconstruction.splats import Splats

from .commands import ExportCommand

_KINDS = (".ply", ".png", ".glb")


def export(command: ExportCommand) -> tuple[Path, ...]:
    """Write the file, or the folder of files, that `command.output` names.

    Returns:
        The files written.

    Raises:
        InputError: neither or both of a run and a .ply given, one of them cannot be read, it does not hold what the
            output needs, or the output cannot be written.
    """
    metres_per_unit = METRES_PER_UNIT if command.metres_per_unit is None else command.metres_per_unit
    if not (math.isfinite(metres_per_unit) and metres_per_unit > 0):
        raise InputError(f"Cannot export: expected a positive --metres-per-unit, got {metres_per_unit}")
    if (command.load_config is None) == (command.input is None):
        raise InputError("Cannot export: give either --load-config CONFIG.YML of a run or --input HEAD.PLY")
    kind = command.output.suffix.lower()
    if command.input is not None:
        if kind != ".ply":
            raise InputError(
                f"Cannot make {command.output} from a .ply: give an --output that ends in .ply, or the run with "
                "--load-config"
            )
        splats, provenance = _read_ply(command.input)
        encoded = splat_ply.encode(splats, provenance, metres_per_unit=metres_per_unit, up_axis=command.up_axis)
        write_bytes_atomically(command.output, encoded)
        return (command.output,)

    assert command.load_config is not None
    splats, data = _load_run(command.load_config)
    views = read_dataset(data)
    files = {}
    if kind not in (".png", ".glb"):
        files[SPLATS_NAME] = splat_ply.encode(
            splats, views.provenance, metres_per_unit=metres_per_unit, up_axis=command.up_axis
        )
    if kind not in (".ply", ".glb"):
        files[SHEET_NAME] = contact_sheet(_portrait_rgb(data, views), views, splat_pictures(splats, sheet_cameras(448)))
    if kind not in (".ply", ".png"):
        mesh = data.parent / MESH_NAME  # made together with the views
        if mesh.is_file():
            files[MESH_NAME] = mesh.read_bytes()
        elif kind == ".glb":
            raise InputError(f"Cannot make {command.output}: no {MESH_NAME} beside the run's data set {data}")
    if kind in _KINDS:
        paths = (command.output,)
    else:
        paths = tuple(command.output / name for name in files)
    for path, content in zip(paths, files.values()):
        write_bytes_atomically(path, content)
    return paths


def _read_ply(path: Path) -> tuple[Splats, Provenance]:
    """Splats and their origin, which another program's file does not tell."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}") from error
    try:
        splats, provenance = splat_ply.decode(data), splat_ply.decode_provenance(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if provenance is None:
        provenance = Provenance("unknown", "unknown", 0, "unknown", "unknown", "Gaussian splats of unknown origin")
    return splats, provenance


def _load_run(config_path: Path) -> tuple[Splats, Path]:
    """Splats of the newest checkpoint of an ns-train run, and the folder of its data set.

    The configuration is read as all ns-* tools read it: it may name code to run, so open only your own.
    """
    if not config_path.is_file():
        raise InputError(f"Cannot read {config_path}: no such file; ns-train prints the path of its config.yml")
    from nerfstudio.utils.eval_utils import eval_setup

    from dp360.reconstruction.nerfstudio_splat import HeadSplatModel

    config, pipeline, _, _ = eval_setup(config_path, test_mode="inference")
    model = pipeline.model
    if not isinstance(model, HeadSplatModel):
        raise InputError(f"Cannot export {config_path}: expected a run of dp360-splat, got {config.method_name}")
    data = config.pipeline.datamanager.data or config.data
    if data is None:
        raise InputError(f"Cannot export {config_path}: it names no data set")
    return model.splats, Path(data)


def _portrait_rgb(data: Path, views: ViewSet) -> UInt8[Tensor, "h w 3"]:
    """The aligned portrait that was written together with the views; the first view where it is gone."""
    path = data.parent / PORTRAIT_NAME
    if path.is_file():
        return torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    return (views.rgb_unit()[0] * 255).round().byte()

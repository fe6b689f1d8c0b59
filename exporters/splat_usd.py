"""Gaussian splats as OpenUSD: one `ParticleField3DGaussianSplat` prim (OpenUSD 26.03 and newer), lossless.

Attributes in single precision: positions, orientations of length one, linear scales, opacities in [0, 1], and the
harmonics of each Gaussian side by side, in the order of degree and, within it, from -l to l. Scenes that hold it are
binary crates (`.usdc`, also `.usd`), text (`.usda`) or a package (`.usdz`).

Frame and unit: stage metadata say y up and one metre per unit; the face looks to +z. Origin and unit stand in the
layer's `customLayerData` under `dp360`.

Source: https://openusd.org/release/user_guides/schemas/usdVol/ParticleField3DGaussianSplat.html
"""

# pyright: reportAttributeAccessIssue=false
# OpenUSD's modules are compiled and come without stubs.

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dp360.generation import InputError

from .json_document import json_object
from .splat_file_frame import FileNote, SplatArrays, check_promised_count, file_note, splat_encoder
from .splat_moves import joined, moved, refuse_unless_rigid, up_axis_matrix
from .splat_reading import ParsedSplats, named, splat_decoder
from .usd_stage import ROOT, SPLATS_TYPE, UsdForm, encode_stage, require_usd

if TYPE_CHECKING:
    from pxr import Usd

ATTRIBUTES = ("positions", "orientations", "scales", "opacities", "radiance:sphericalHarmonicsCoefficients")
"""Attributes of a field of Gaussians, in the order of `SplatArrays.from_linear`."""
DEGREE = "radiance:sphericalHarmonicsDegree"
_SPARE_MEGABYTES, _MEMORY_PER_BYTE = 512, 64
"""Memory that the reader may take, whatever the file; and more for each of its bytes, of which text needs several."""
_SPARE_S, _BYTES_PER_S = 60.0, 1e6


@splat_encoder
def encode(arrays: SplatArrays, note: FileNote, *, form: UsdForm = "usdc") -> bytes:
    """A complete OpenUSD file, the origin in the layer's custom data.

    Args:
        arrays: numbers of the file, at least one Gaussian.
        form: binary crate, text, or a package with a crate in it.

    Raises:
        InputError: the package usd-core is missing.
        ValueError: no Gaussians.
    """
    if not len(arrays):
        raise ValueError("splat_usd.encode: expected at least one Gaussian, got none")

    def build(stage: Usd.Stage) -> None:
        from pxr import UsdVol, Vt

        reach = 3 * arrays.scales.max(axis=1, keepdims=True)  # three standard deviations
        extent = np.stack([(arrays.means - reach).min(axis=0), (arrays.means + reach).max(axis=0)]).astype(np.float32)
        field = UsdVol.ParticleField3DGaussianSplat.Define(stage, f"{ROOT}/splats")
        values = {
            "positions": Vt.Vec3fArray.FromNumpy(arrays.means),
            "orientations": Vt.QuatfArray.FromNumpy(arrays.quats_xyzw),
            "scales": Vt.Vec3fArray.FromNumpy(arrays.scales),
            "opacities": Vt.FloatArray.FromNumpy(arrays.opacity),
            "radiance:sphericalHarmonicsDegree": arrays.sh_degree,
            "radiance:sphericalHarmonicsCoefficients": Vt.Vec3fArray.FromNumpy(arrays.harmonics.reshape(-1, 3)),
            "extent": Vt.Vec3fArray.FromNumpy(extent),
        }
        for name, value in values.items():
            field.GetPrim().GetAttribute(name).Set(value)

    assert note.provenance is not None
    text = json.dumps(note.as_json_data(), sort_keys=True)
    return encode_stage(build, note.provenance, note=text, form=form)


@splat_decoder("splats from this OpenUSD file")
def decode(data: bytes) -> ParsedSplats:
    """All Gaussians that the stage shows, moved as it says, y up; other files that it refers to are not opened.

    OpenUSD reads the file in a process of its own (`usd_dump`), which may take `_SPARE_MEGABYTES` and
    `_MEMORY_PER_BYTE` times the file's size.

    Raises:
        InputError: the package usd-core is missing, not such a file, none such in it, one is moved by more than a
            rotation and a shift, or its arrays differ in length.
    """
    suffixes = {b"PXR-USDC": ".usdc", b"#usda 1.": ".usda", b"PK\x03\x04": ".usdz"}
    suffix = next((suffix for magic, suffix in suffixes.items() if data.startswith(magic)), None)
    if suffix is None:
        raise InputError(f"expected an OpenUSD file (usda, usdc or usdz), got {data[:16]!r}")
    require_usd()
    arrays = _dumped(data, suffix)
    facts = json_object(arrays["facts"].tobytes(), "description")
    note = FileNote() if facts["note"] is None else file_note(json_object(facts["note"], "dp360 note"))
    parts = []
    for index, path in enumerate(facts["fields"]):
        T = arrays[f"transform_{index}"]
        refuse_unless_rigid(T[:3, :3], f"a transform moves {path[:80]}")
        parts.append(moved(_field(arrays, index, len(data)), T[:3, :3], T[:3, 3]))
    hidden, others, metres = facts["hidden"], facts["others"], facts["metres_per_unit"]
    if not parts:
        what = "shows" if hidden else "holds"
        raise InputError(f"it {what} no {SPLATS_TYPE}; a mesh is no Gaussian splat file")
    notices = []
    if facts["left_out"]:
        notices.append("What it takes from other files or variants is left out.")
    if hidden:
        notices.append(f"{hidden} of its Gaussian fields are invisible and left out.")
    if others:
        notices.append(f"Its prims {named(others)} are no Gaussians and left out.")
    if note.provenance is not None or metres is None or not 0 < metres < float("inf"):
        metres = None
    elif metres != 1.0:
        notices.append(f"It says that its unit is {metres:g} m; lengths become metres.")
    return ParsedSplats(joined(parts), note, up_axis_matrix(facts["up_axis"]), metres, notices=tuple(notices))


def _dumped(data: bytes, suffix: str) -> dict[str, np.ndarray]:
    """What `usd_dump` makes of a file.

    Raises:
        InputError: the reader fails, whatever way.
    """
    megabytes = _SPARE_MEGABYTES + _MEMORY_PER_BYTE * len(data) // 2**20
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / f"head{suffix}", Path(folder) / "arrays.npz"
        source.write_bytes(data)
        words = [sys.executable, "-E", str(Path(__file__).with_name("usd_dump.py")), str(source), str(target)]
        few_threads = {**os.environ, "PXR_WORK_THREAD_LIMIT": "1"}
        try:
            subprocess.run(
                [*words, str(megabytes)], check=True, capture_output=True, env=few_threads,
                timeout=_SPARE_S + len(data) / _BYTES_PER_S,
            )  # fmt: skip
            with np.load(target, allow_pickle=False) as arrays:
                return dict(arrays)
        except (subprocess.SubprocessError, OSError, ValueError, zipfile.BadZipFile) as error:
            raise InputError("it is cut off or damaged") from error


def _field(arrays: Mapping[str, np.ndarray], index: int, file_bytes: int) -> SplatArrays:
    """The numbers of one field of Gaussians, in its own frame."""
    for name in ATTRIBUTES:
        if f"{name}_{index}" not in arrays:
            raise InputError(f"{name} is missing or of another kind")
    means, quats_xyzw, scales, opacity, harmonics = (arrays[f"{name}_{index}"] for name in ATTRIBUTES)
    count, degree = len(means), int(arrays.get(f"{DEGREE}_{index}", -1))
    check_promised_count(count, file_bytes)
    lengths = (len(quats_xyzw), len(scales), len(opacity))
    if degree not in (0, 1, 2, 3) or lengths != (count,) * 3 or len(harmonics) != count * (degree + 1) ** 2:
        raise InputError(
            f"its {count} positions do not fit {lengths} rotations, scales and opacities and {len(harmonics)} "
            f"harmonics of degree {degree}"
        )
    harmonics = harmonics.reshape(count, (degree + 1) ** 2, 3)
    return SplatArrays.from_linear(means, scales, quats_xyzw, opacity[:, 0], harmonics)

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
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dp360.generation import InputError, Provenance
from dp360.reconstruction.splats import Splats

from .json_document import json_object
from .splat_file_frame import (
    FileNote,
    SplatArrays,
    check_promised_count,
    file_note,
    reading,
    splat_encoder,
    splats_from_file,
)
from .usd_stage import ROOT, SPLATS_TYPE, UsdForm, encode_stage, require_usd

if TYPE_CHECKING:
    from pxr import Sdf, Usd


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


@reading("splats from this OpenUSD file")
def decode(data: bytes) -> tuple[Splats, Provenance | None]:
    """Gaussians in world units out of the first prim of that type, and the origin in our custom data.

    Raises:
        InputError: the package usd-core is missing, not such a file, none such in it, it is moved by a transform (bake
            that first), its arrays differ in length, or a number is not finite or out of range.
    """
    layer = _open(data)
    prims = []
    layer.Traverse("/", lambda path: prims.append(path) if path.IsPrimPath() else None)
    prim = next((p for p in sorted(prims) if layer.GetPrimAtPath(p).typeName == SPLATS_TYPE), None)
    if prim is None:
        raise InputError(f"it holds no {SPLATS_TYPE}; a mesh is no Gaussian splat file")
    above = [layer.GetPrimAtPath(prefix) for prefix in prim.GetPrefixes()]
    if any(name.startswith("xformOp") for holder in above for name in holder.properties.keys()):
        raise InputError("a transform moves them; bake the transform first")

    def read(name: str, components: int) -> np.ndarray:
        attribute = layer.GetAttributeAtPath(prim.AppendProperty(name))
        try:
            values = None if attribute is None else attribute.default
            return np.array(values, dtype=np.float32).reshape(-1, components)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} is missing or of another kind") from error

    means, quats_xyzw, scales = read("positions", 3), read("orientations", 4), read("scales", 3)
    opacity, harmonics = read("opacities", 1)[:, 0], read("radiance:sphericalHarmonicsCoefficients", 3)
    count = len(means)
    check_promised_count(count, len(data))
    degree_attribute = layer.GetAttributeAtPath(prim.AppendProperty("radiance:sphericalHarmonicsDegree"))
    degree = degree_attribute.default if degree_attribute is not None else 3
    lengths = (len(quats_xyzw), len(scales), len(opacity))
    if degree not in (0, 1, 2, 3) or lengths != (count,) * 3 or len(harmonics) != count * (degree + 1) ** 2:
        raise InputError(
            f"its {count} positions do not fit {lengths} rotations, scales and opacities and {len(harmonics)} "
            f"harmonics of degree {degree}"
        )
    harmonics = harmonics.reshape(count, (degree + 1) ** 2, 3)
    return splats_from_file(SplatArrays.from_linear(means, scales, quats_xyzw, opacity, harmonics), _note(layer))


def _open(data: bytes) -> Sdf.Layer:
    """A file's layer, read alone: nothing that it refers to is opened."""
    suffixes = {b"PXR-USDC": ".usdc", b"#usda 1.": ".usda", b"PK\x03\x04": ".usdz"}
    suffix = next((suffix for magic, suffix in suffixes.items() if data.startswith(magic)), None)
    if suffix is None:
        raise InputError(f"expected an OpenUSD file (usda, usdc or usdz), got {data[:16]!r}")
    require_usd()
    from pxr import Sdf, Tf

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"head{suffix}"
        path.write_bytes(data)
        try:
            layer = Sdf.Layer.OpenAsAnonymous(str(path))
        except (Tf.ErrorException, RuntimeError):
            layer = None
    if layer is None:
        raise InputError("it is cut off or damaged")
    return layer


def _note(layer: Sdf.Layer) -> FileNote:
    """Our note in the layer's custom data."""
    text = dict(layer.customLayerData).get("dp360")
    return file_note(json_object(text, "dp360 note")) if isinstance(text, str) else FileNote()

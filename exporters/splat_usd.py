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
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dp360.generation import InputError, Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.reconstruction.splats import Splats

from .splat_file_frame import FileNote, SplatArrays, arrays_for_file, check_promised_count, file_note, splats_from_file
from .splat_packing import logits, sigmoid, unit_quats
from .usd_stage import ROOT, SPLATS_TYPE, UsdForm, encode_stage, require_usd

if TYPE_CHECKING:
    from pxr import Sdf, Usd

_WHAT = "this OpenUSD file"


def encode(
    splats: Splats,
    provenance: Provenance,
    *,
    metres_per_unit: float = METRES_PER_UNIT,
    form: UsdForm = "usdc",
) -> bytes:
    """A complete OpenUSD file.

    Args:
        splats: Gaussians in world units, at least one.
        provenance: origin, written to the layer's custom data.
        metres_per_unit: positive factor on lengths.
        form: binary crate, text, or a package with a crate in it.

    Raises:
        InputError: the package usd-core is missing.
        ValueError: no Gaussians, a number is not finite, or the factor is not positive.
    """
    arrays = arrays_for_file(splats, metres_per_unit=metres_per_unit, up_axis="+y", writer="splat_usd.encode")
    if not len(arrays):
        raise ValueError("splat_usd.encode: expected at least one Gaussian, got none")
    scales = np.exp(np.clip(arrays.log_scales.astype(np.float64), -80, 80)).astype(np.float32)

    def build(stage: Usd.Stage) -> None:
        from pxr import UsdVol, Vt

        harmonics = np.concatenate([arrays.sh0[:, None], arrays.sh_rest], axis=1).reshape(-1, 3)
        field = UsdVol.ParticleField3DGaussianSplat.Define(stage, f"{ROOT}/splats")
        values = {
            "positions": Vt.Vec3fArray.FromNumpy(arrays.means),
            "orientations": Vt.QuatfArray.FromNumpy(_gf_quats(arrays.quats_wxyz)),
            "scales": Vt.Vec3fArray.FromNumpy(scales),
            "opacities": Vt.FloatArray.FromNumpy(sigmoid(arrays.opacity_logits)),
            "radiance:sphericalHarmonicsDegree": arrays.sh_degree,
            "radiance:sphericalHarmonicsCoefficients": Vt.Vec3fArray.FromNumpy(harmonics),
            "extent": Vt.Vec3fArray.FromNumpy(_extent(arrays, scales)),
        }
        for name, value in values.items():
            field.GetPrim().GetAttribute(name).Set(value)

    note = json.dumps(FileNote(provenance, metres_per_unit).as_json_data(), sort_keys=True)
    return encode_stage(build, provenance, note=note, form=form)


def decode(data: bytes) -> Splats:
    """Gaussians in world units out of the first prim of that type.

    Raises:
        InputError: the package usd-core is missing, not such a file, none such in it, it is moved by a transform (bake
            that first), its arrays differ in length, or a number is not finite or out of range.
    """
    arrays, note = _read(data)
    return splats_from_file(arrays, note, what=_WHAT)


def decode_provenance(data: bytes) -> Provenance | None:
    """The origin that `encode` wrote into the custom data, or None in another program's file.

    Raises:
        InputError: as `decode`, or the note is damaged.
    """
    return _read(data)[1].provenance


def _read(data: bytes) -> tuple[SplatArrays, FileNote]:
    """Arrays and note of a file; its layer is read alone, so nothing that it refers to is opened."""
    suffixes = {b"PXR-USDC": ".usdc", b"#usda 1.": ".usda", b"PK\x03\x04": ".usdz"}
    suffix = next((suffix for magic, suffix in suffixes.items() if data.startswith(magic)), None)
    if suffix is None:
        raise InputError(f"Cannot read splats: expected an OpenUSD file (usda, usdc or usdz), got {data[:16]!r}")
    require_usd()
    from pxr import Sdf, Tf

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"head{suffix}"
        path.write_bytes(data)
        try:
            layer = Sdf.Layer.OpenAsAnonymous(str(path))
        except (Tf.ErrorException, RuntimeError) as error:
            raise InputError(f"Cannot read splats from {_WHAT}: it is cut off or damaged") from error
        if layer is None:
            raise InputError(f"Cannot read splats from {_WHAT}: it is cut off or damaged")
        prims = []
        layer.Traverse(Sdf.Path.absoluteRootPath, lambda path: prims.append(path) if path.IsPrimPath() else None)
        chosen = next((p for p in sorted(prims) if layer.GetPrimAtPath(p).typeName == SPLATS_TYPE), None)
        if chosen is None:
            raise InputError(
                f"Cannot read splats from {_WHAT}: it holds no {SPLATS_TYPE}; a mesh is no Gaussian splat file"
            )
        prefixes = [layer.GetPrimAtPath(prefix) for prefix in chosen.GetPrefixes()]
        if any(name.startswith("xformOp") for prim in prefixes for name in prim.properties.keys()):
            raise InputError(f"Cannot read splats from {_WHAT}: a transform moves them; bake the transform first")

        def read(name: str, components: int) -> np.ndarray:
            attribute = layer.GetAttributeAtPath(chosen.AppendProperty(name))
            value = None if attribute is None else attribute.default
            try:
                array = np.asarray(value, dtype=np.float32).reshape(-1, components)
            except (TypeError, ValueError) as error:
                raise InputError(f"Cannot read splats from {_WHAT}: {name} is missing or of another kind") from error
            return array.copy()

        return _arrays(layer, chosen, read, len(data)), _note(layer)


def _arrays(
    layer: Sdf.Layer, prim_path: Sdf.Path, read: Callable[[str, int], np.ndarray], file_bytes: int
) -> SplatArrays:
    """Arrays of the prim, checked against each other."""
    means, quats_xyzw, scales = read("positions", 3), read("orientations", 4), read("scales", 3)
    opacity, harmonics = read("opacities", 1)[:, 0], read("radiance:sphericalHarmonicsCoefficients", 3)
    count = len(means)
    check_promised_count(count, file_bytes, what=_WHAT)
    degree_attribute = layer.GetAttributeAtPath(prim_path.AppendProperty("radiance:sphericalHarmonicsDegree"))
    degree = degree_attribute.default if degree_attribute is not None else 3
    lengths = (len(quats_xyzw), len(scales), len(opacity))
    if degree not in (0, 1, 2, 3) or lengths != (count,) * 3 or len(harmonics) != count * (degree + 1) ** 2:
        raise InputError(
            f"Cannot read splats from {_WHAT}: its {count} positions do not fit {lengths} rotations, scales and "
            f"opacities and {len(harmonics)} harmonics of degree {degree}"
        )
    if not ((scales > 0) & (scales < np.inf)).all() or not ((opacity >= 0) & (opacity <= 1)).all():
        raise InputError(f"Cannot read splats from {_WHAT}: expected positive scales and opacities in [0, 1]")
    harmonics = harmonics.reshape(count, (degree + 1) ** 2, 3)
    return SplatArrays(
        means=means,
        log_scales=np.log(scales.astype(np.float64)).astype(np.float32),
        quats_wxyz=quats_xyzw[:, [3, 0, 1, 2]],
        opacity_logits=logits(opacity),
        sh0=harmonics[:, 0],
        sh_rest=harmonics[:, 1:],
    )


def _note(layer: Sdf.Layer) -> FileNote:
    """Our note in the layer's custom data."""
    text = dict(layer.customLayerData).get("dp360")
    if not isinstance(text, str):
        return FileNote()
    try:
        return file_note(json.loads(text))
    except (RecursionError, json.JSONDecodeError) as error:
        raise InputError(f"Cannot read splats from {_WHAT}: its dp360 note is no JSON") from error


def _gf_quats(quats_wxyz: np.ndarray) -> np.ndarray:
    """Unit quaternions in the memory order of GfQuatf: x, y, z, w."""
    return np.ascontiguousarray(unit_quats(quats_wxyz)[:, [1, 2, 3, 0]])


def _extent(arrays: SplatArrays, scales: np.ndarray) -> np.ndarray:
    """Corners of the box around all Gaussians, out to three standard deviations."""
    reach = 3 * scales.max(axis=1, keepdims=True)
    return np.stack([(arrays.means - reach).min(axis=0), (arrays.means + reach).max(axis=0)]).astype(np.float32)

"""Reads the Gaussians of an OpenUSD file in a process of its own: `python usd_dump.py IN OUT.npz MEGABYTES`.

OpenUSD's reader believes what a damaged file promises: it makes tables of gigabytes for a file of two kilobytes, and
native code that fails takes its process with it. So it works here, with a limit on its memory, and hands over plain
arrays: `facts` (JSON: note, up_axis, metres_per_unit, others, hidden, left_out, fields) and, for field number i of
Gaussians, `transform_i` and an array for each attribute. What makes no sense in them is the caller's to refuse.

Imports nothing of dp360 but one file by its path, so that it starts at once.
"""

# pyright: reportAttributeAccessIssue=false
# OpenUSD's modules are compiled and come without stubs.

from __future__ import annotations

import contextlib
import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pxr import Sdf, Usd, UsdGeom

SPLATS_TYPE = "ParticleField3DGaussianSplat"
ATTRIBUTES = {
    "positions": 3,
    "orientations": 4,
    "scales": 3,
    "opacities": 1,
    "radiance:sphericalHarmonicsCoefficients": 3,
}
"""Attributes by name, and how many numbers an entry has; each may be there in half precision, with an h at its end."""
DEGREE = "radiance:sphericalHarmonicsDegree"

_SYSTEM = Path(__file__).parents[1] / "generation" / "system.py"
_ARCS = ("references", "payload", "inheritPaths", "specializes", "variantSetNames", "variantSelection", "clips")
"""What a prim takes from other prims or files."""


def dump(source: str, target: str) -> None:
    """Read a layer alone, nothing that it refers to, and write what it shows."""
    layer = Sdf.Layer.OpenAsAnonymous(source)
    left_out = _without_other_files(layer)
    stage = Usd.Stage.Open(layer)
    transforms, arrays, fields, hidden = UsdGeom.XformCache(), dict[str, np.ndarray](), list[str](), 0
    others: list[str] = []
    for prim in stage.Traverse():
        if prim.GetTypeName() == SPLATS_TYPE:
            if UsdGeom.Imageable(prim).ComputeVisibility() == UsdGeom.Tokens.invisible:
                hidden += 1
                continue
            arrays[f"transform_{len(fields)}"] = np.array(transforms.GetLocalToWorldTransform(prim), np.float64).T
            for name, value in _values(prim):
                arrays[f"{name}_{len(fields)}"] = value
            fields.append(str(prim.GetPath()))
        elif prim.IsA(UsdGeom.Gprim):
            others.append(str(prim.GetPath()))
    note = dict(layer.customLayerData).get("dp360")
    says_unit = UsdGeom.StageHasAuthoredMetersPerUnit(stage)
    facts = {
        "note": note if isinstance(note, str) else None,
        "up_axis": "z" if UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.z else "y",
        "metres_per_unit": UsdGeom.GetStageMetersPerUnit(stage) if says_unit else None,
        "others": others[:1000],
        "hidden": hidden,
        "left_out": left_out,
        "fields": fields,
    }
    text = np.frombuffer(json.dumps(facts).encode("utf-8", "replace"), np.uint8)
    with open(target, "wb") as file:
        np.savez(file, facts=text, **arrays)


def _values(prim: Usd.Prim) -> Iterator[tuple[str, np.ndarray]]:
    """The attributes of a field of Gaussians that are there."""

    def value(name: str) -> Any:
        attribute = prim.GetAttribute(name)
        return attribute.Get(Usd.TimeCode.EarliestTime()) if attribute else None

    for name, numbers in ATTRIBUTES.items():
        found = value(name)
        found = value(f"{name}h") if found is None else found
        with contextlib.suppress(TypeError, ValueError):
            yield name, np.array(found, dtype=np.float32).reshape(-1, numbers)
    degree = value(DEGREE)
    if isinstance(degree, int):
        yield DEGREE, np.array(degree, np.int64)


def _without_other_files(layer: Sdf.Layer) -> bool:
    """Cut off, in place, what a layer takes from elsewhere, so that opening it as a stage opens nothing else."""
    found = bool(layer.subLayerPaths)
    layer.subLayerPaths.clear()
    paths = []
    layer.Traverse("/", lambda path: paths.append(path) if path.IsPrimPath() else None)
    for path in paths:
        spec = layer.GetPrimAtPath(path)
        for key in _ARCS:
            if spec.HasInfo(key):
                spec.ClearInfo(key)
                found = True
    return found


if __name__ == "__main__":
    runpy.run_path(str(_SYSTEM))["limit_memory"](int(sys.argv[3]))
    dump(sys.argv[1], sys.argv[2])

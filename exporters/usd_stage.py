"""OpenUSD scenes of one head, of splats or of a mesh: metres, +y up, and the origin in the layer's `customLayerData`.

Uses usd-core, OpenUSD's own Python package (extra `usd`): a hand-written binary crate would be a second implementation.
"""

# pyright: reportAttributeAccessIssue=false
# OpenUSD's modules are compiled and come without stubs.

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dp360.generation import InputError, Provenance

if TYPE_CHECKING:
    from pxr import Usd

UsdForm = Literal["usdc", "usda", "usdz"]
"""A binary crate, text, or a package that holds a crate and its pictures."""
ROOT, SPLATS_TYPE = "/head", "ParticleField3DGaussianSplat"

_ZIP_EPOCH = time.mktime((1980, 1, 1, 0, 0, 0, 0, 0, -1))
"""The date of every file in a package, and the first that a zip can hold."""


def require_usd() -> None:
    """Refuse with the way to install it where OpenUSD, or the splat schema in it, is missing."""
    try:
        from pxr import UsdVol

        known = hasattr(UsdVol, SPLATS_TYPE)
    except ImportError:
        known = False
    if not known:
        raise InputError("OpenUSD needs the package usd-core, 26.3 or newer; run `pip install 'dp360[usd]'`")


def encode_stage(
    build: Callable[[Usd.Stage], None],
    provenance: Provenance,
    *,
    note: str,
    form: UsdForm,
    pictures: Mapping[str, bytes] | None = None,
) -> bytes:
    """A complete OpenUSD file.

    Args:
        build: puts prims below `ROOT` into the stage.
        provenance: origin, for people.
        note: the same for programs, as JSON.
        pictures: content of files that the stage names, by name; for packages.

    Raises:
        InputError: the package usd-core is missing.
    """
    require_usd()
    from pxr import Sdf, Usd, UsdGeom

    with tempfile.TemporaryDirectory() as folder:
        # a crate can only be made in a file; its name is what it is called inside a package
        path, package = Path(folder) / ("head.usda" if form == "usda" else "head.usdc"), Path(folder) / "head.usdz"
        for name, content in (pictures or {}).items():
            (Path(folder) / name).write_bytes(content)
        stage = Usd.Stage.CreateNew(str(path))
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, ROOT).GetPrim())
        build(stage)
        layer = stage.GetRootLayer()
        layer.customLayerData = {"dp360": note, "generator": f"dp360 {provenance.version}"}
        layer.documentation = provenance.statement
        layer.Save()
        if form != "usdz":
            return path.read_bytes()
        writer = Sdf.ZipFileWriter.CreateNew(str(package))
        for file in (path, *(Path(folder) / name for name in pictures or {})):  # readers want the stage first
            os.utime(file, (_ZIP_EPOCH, _ZIP_EPOCH))  # the same head gives the same bytes at any time
            writer.AddFile(str(file), file.name)
        writer.Save()
        return package.read_bytes()

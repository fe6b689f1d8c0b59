"""A textured mesh as OpenUSD: a .usdz package (binary crate and texture), as AR viewers open it.

Frame and unit: stage metadata say y up and one metre per unit; the face looks to +z. Points are welded, texture
coordinates belong to the corners of faces, and normals to points. The material is a UsdPreviewSurface, rough and not
metallic. The origin stands in the layer's `customLayerData` under `dp360`.

Uses usd-core, OpenUSD's own Python package (extra `usd`).

Source: https://openusd.org/release/spec_usdpreviewsurface.html and https://openusd.org/release/spec_usdz.html
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from dp360.generation import InputError, Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh

from .mesh_arrays import arrays_for_mesh_file, texture_png
from .provenance import provenance_to_json


def encode(mesh: TexturedMesh, provenance: Provenance, *, metres_per_unit: float = METRES_PER_UNIT) -> bytes:
    """A complete .usdz package.

    Args:
        mesh: in world units.
        provenance: origin, written to the layer's custom data and into the texture.
        metres_per_unit: positive factor on positions.

    Raises:
        InputError: the package usd-core is missing.
        ValueError: as `arrays_for_mesh_file`.
    """
    arrays = arrays_for_mesh_file(mesh, metres_per_unit=metres_per_unit, writer="mesh_usd.encode")
    try:
        from pxr import Sdf, Usd, UsdGeom, UsdShade, UsdUtils, Vt
    except ImportError as error:
        raise InputError("OpenUSD needs the package usd-core; run `pip install 'dp360[usd]'`") from error
    with tempfile.TemporaryDirectory() as folder:
        path, package = Path(folder) / "head.usdc", Path(folder) / "head.usdz"
        (Path(folder) / "head.png").write_bytes(texture_png(mesh, provenance))
        stage = Usd.Stage.CreateNew(str(path))
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        root = UsdGeom.Xform.Define(stage, "/head")
        stage.SetDefaultPrim(root.GetPrim())
        surface = UsdGeom.Mesh.Define(stage, "/head/surface")
        surface.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(arrays.positions))
        surface.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(arrays.faces), 3, np.int32)))
        surface.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(np.ascontiguousarray(arrays.faces.reshape(-1))))
        surface.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(arrays.normals))
        surface.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
        surface.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
        extent = np.stack([arrays.positions.min(axis=0), arrays.positions.max(axis=0)])
        surface.CreateExtentAttr(Vt.Vec3fArray.FromNumpy(extent))
        st = UsdGeom.PrimvarsAPI(surface).CreatePrimvar(
            "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying
        )
        st.Set(Vt.Vec2fArray.FromNumpy(arrays.uv_bottom_left))
        st.SetIndices(Vt.IntArray.FromNumpy(np.ascontiguousarray(arrays.uv_faces.reshape(-1))))

        material = UsdShade.Material.Define(stage, "/head/material")
        shader = _shader(stage, "/head/material/preview", "UsdPreviewSurface")
        shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(1.0)
        shader.CreateInput("metallic", Sdf.ValueTypeNames.Float).Set(0.0)
        reader = _shader(stage, "/head/material/st", "UsdPrimvarReader_float2")
        reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
        texture = _shader(stage, "/head/material/texture", "UsdUVTexture")
        texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(Sdf.AssetPath("head.png"))
        texture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
        for axis in ("wrapS", "wrapT"):
            texture.CreateInput(axis, Sdf.ValueTypeNames.Token).Set("clamp")
        texture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(
            reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
        )
        shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).ConnectToSource(
            texture.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
        )
        material.CreateSurfaceOutput().ConnectToSource(shader.CreateOutput("surface", Sdf.ValueTypeNames.Token))
        UsdShade.MaterialBindingAPI.Apply(surface.GetPrim()).Bind(material)

        layer = stage.GetRootLayer()
        layer.customLayerData = {
            "dp360": provenance_to_json(provenance),
            "generator": f"dp360 {provenance.version}",
        }
        layer.documentation = provenance.statement
        layer.Save()
        if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(path)), str(package)):
            raise InputError("Cannot write a .usdz: OpenUSD could not package the mesh; is the temporary folder full?")
        return package.read_bytes()


def _shader(stage, path: str, kind: str):
    """A shader node of one of the kinds that every renderer of UsdPreviewSurface knows."""
    from pxr import UsdShade

    shader = UsdShade.Shader.Define(stage, path)
    shader.CreateIdAttr(kind)
    return shader

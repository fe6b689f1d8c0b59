"""A textured mesh as OpenUSD: a .usdz package (binary crate and texture), as AR viewers open it.

Frame and unit: stage metadata say y up and one metre per unit; the face looks to +z. Points are welded, texture
coordinates belong to the corners of faces, and normals to points. The material is a UsdPreviewSurface, rough and not
metallic. The origin stands in the layer's `customLayerData` under `dp360`.

Source: https://openusd.org/release/spec_usdpreviewsurface.html and https://openusd.org/release/spec_usdz.html
"""

# pyright: reportAttributeAccessIssue=false
# OpenUSD's modules are compiled and come without stubs.

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dp360.generation import Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh

from .mesh_arrays import MeshArrays, arrays_for_mesh_file, texture_png
from .provenance import provenance_to_json
from .usd_stage import ROOT, encode_stage

if TYPE_CHECKING:
    from pxr import Usd, UsdShade

_TEXTURE_NAME = "head.png"


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
    return encode_stage(
        lambda stage: _build(stage, arrays),
        provenance,
        note=provenance_to_json(provenance),
        form="usdz",
        pictures={_TEXTURE_NAME: texture_png(mesh, provenance)},
    )


def _build(stage: Usd.Stage, arrays: MeshArrays) -> None:
    """Surface, texture coordinates and material."""
    from pxr import Sdf, UsdGeom, UsdShade, Vt

    surface = UsdGeom.Mesh.Define(stage, f"{ROOT}/surface")
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

    material = UsdShade.Material.Define(stage, f"{ROOT}/material")
    shader = _shader(stage, f"{ROOT}/material/preview", "UsdPreviewSurface")
    shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(1.0)
    shader.CreateInput("metallic", Sdf.ValueTypeNames.Float).Set(0.0)
    reader = _shader(stage, f"{ROOT}/material/st", "UsdPrimvarReader_float2")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    texture = _shader(stage, f"{ROOT}/material/texture", "UsdUVTexture")
    texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(Sdf.AssetPath(_TEXTURE_NAME))
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


def _shader(stage: Usd.Stage, path: str, kind: str) -> UsdShade.Shader:
    """A shader node of one of the kinds that every renderer of UsdPreviewSurface knows."""
    from pxr import UsdShade

    shader = UsdShade.Shader.Define(stage, path)
    shader.CreateIdAttr(kind)
    return shader

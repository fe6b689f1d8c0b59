"""Mesh files read back by other programs: in metres, upright, facing +z, closed, with colours in their places."""

# pyright: reportAttributeAccessIssue=false
# OpenUSD's modules are compiled and come without stubs.

from __future__ import annotations

import io
import json
import math
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import SimpleMaterial

from dp360.exporters import mesh_obj, mesh_ply, mesh_stl, mesh_usd
from dp360.generation import Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh

PROVENANCE = Provenance("prior", "head_model-1 (sha256 00)", 7, "ab" * 32, "0.1.0", settings={"size_px": 64})
RED, BLUE, GREEN = (250, 20, 30), (20, 30, 250), (20, 250, 30)


def closed_head() -> TexturedMesh:
    """A closed ellipsoid split along one meridian, with a blue nose at +z, a red left ear at +x, a green crown."""
    rows, columns = 24, 48
    v, u = np.meshgrid(np.linspace(0, 1, rows + 1), np.linspace(0, 1, columns + 1), indexing="ij")
    azimuth, polar = (u - 0.5) * 2 * np.pi, v * np.pi  # u = 0.5 looks to +z, u = 0.75 to +x
    azimuth[:, -1] = azimuth[:, 0]  # both sides of the seam at the same bits
    normal = np.stack([np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], axis=-1)
    normal[0], normal[-1] = (0, 1, 0), (0, -1, 0)
    vertices = normal * [0.15, 0.2, 0.17]
    vertices[rows // 2, columns // 2, 2] += 0.05  # the nose
    vertices[rows // 2, 3 * columns // 4, 0] += 0.03  # the ear
    index = np.arange((rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    lower = np.stack((a, b, c), axis=-1)[:-1].reshape(-1, 3)  # the triangles at the poles that are none are left out
    upper = np.stack((a, c, d), axis=-1)[1:].reshape(-1, 3)
    texture = np.full((64, 128, 3), 120, np.uint8)
    texture[29:36, 60:69] = BLUE
    texture[29:36, 92:101] = RED
    texture[:4] = GREEN
    return TexturedMesh(
        vertices.reshape(-1, 3).astype(np.float32),
        (normal.reshape(-1, 3) * 1.5).astype(np.float32),
        np.stack([u, v], axis=-1).reshape(-1, 2).astype(np.float32),
        np.concatenate([lower, upper]).astype(np.int32),
        texture,
    )


def check_frame(vertices: np.ndarray) -> None:
    """Nose at +z, ear at +x, crown at +y, in metres."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    np.testing.assert_allclose(high, np.array([0.18, 0.2, 0.22]) * METRES_PER_UNIT, rtol=1e-5)
    np.testing.assert_allclose(low, np.array([-0.15, -0.2, -0.17]) * METRES_PER_UNIT, rtol=1e-5)


def check_marks(vertices: np.ndarray, colours: np.ndarray) -> None:
    for direction, rgb in (((1, 0, 0), RED), ((0, 0, 1), BLUE), ((0, 1, 0), GREEN)):
        found = colours[(vertices @ direction).argmax()]
        assert np.abs(found[:3].astype(int) - rgb).max() <= 2, (direction, found)


def check_closed(mesh: trimesh.Trimesh) -> None:
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0 and mesh.euler_number == 2


def write_obj(folder, stem: str = "head"):
    (folder / f"{stem}.obj").write_bytes(mesh_obj.encode(closed_head(), PROVENANCE, stem=stem))
    for name, data in mesh_obj.companions(closed_head(), PROVENANCE, stem=stem).items():
        (folder / name).write_bytes(data)
    return folder / f"{stem}.obj"


def picture_of(mesh: trimesh.Trimesh) -> Image.Image:
    assert isinstance(mesh.visual, TextureVisuals) and isinstance(mesh.visual.material, SimpleMaterial)
    assert mesh.visual.material.image is not None
    return mesh.visual.material.image


def test_obj_by_open3d_and_trimesh(tmp_path):
    import open3d

    path = write_obj(tmp_path)
    read = open3d.io.read_triangle_mesh(path, enable_post_processing=False)
    check_frame(np.asarray(read.vertices))
    assert read.has_triangle_uvs() and len(read.triangles) == len(closed_head().faces)
    mesh = trimesh.load_mesh(path, process=False, maintain_order=True)
    check_frame(mesh.vertices)
    assert isinstance(mesh.visual, TextureVisuals)
    check_marks(mesh.vertices, mesh.visual.to_color().vertex_colors)
    np.testing.assert_array_equal(np.asarray(picture_of(mesh).convert("RGB")), closed_head().texture_rgb)


def test_obj_names_its_companions(tmp_path):
    path = write_obj(tmp_path, "my head é")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my head é.obj", "my_head__.mtl", "my_head__.png"]
    assert (
        "mtllib my_head__.mtl" in path.read_text()
        and "map_Kd my_head__.png" in (tmp_path / "my_head__.mtl").read_text()
    )
    assert picture_of(trimesh.load_mesh(path)).size == (128, 64)
    for name in ("my head é.obj", "my_head__.mtl"):
        assert '"input_sha256": "' + "ab" * 32 in (tmp_path / name).read_text()


def test_ply_by_plyfile_and_open3d(tmp_path):
    import open3d
    import plyfile

    data = mesh_ply.encode(closed_head(), PROVENANCE)
    read = plyfile.PlyData.read(io.BytesIO(data))
    table = read["vertex"]
    vertices = np.stack([table[k] for k in "xyz"], axis=1)
    check_frame(vertices)
    check_marks(vertices, np.stack([table[k] for k in ("red", "green", "blue")], axis=1))
    np.testing.assert_allclose(sum(table[k].astype(float) ** 2 for k in ("nx", "ny", "nz")), 1, atol=1e-5)
    note = "".join(c.removeprefix("dp360.provenance ") for c in read.comments if c.startswith("dp360.provenance "))
    assert json.loads(note)["seed"] == 7 and PROVENANCE.statement in read.comments
    check_closed(trimesh.load_mesh(io.BytesIO(data), file_type="ply", process=False))
    (tmp_path / "head.ply").write_bytes(data)
    mesh = open3d.io.read_triangle_mesh(tmp_path / "head.ply")
    assert mesh.is_watertight() and mesh.has_vertex_colors() and mesh.has_vertex_normals()


def test_stl_by_trimesh_and_open3d(tmp_path):
    import open3d

    data = mesh_stl.encode(closed_head(), PROVENANCE)
    header = data[:80].decode("ascii")
    assert header.startswith("dp360 0.1.0 AI-generated") and "prior seed 7" in header and "abababababababab" in header
    assert len(data) == 84 + 50 * struct.unpack("<I", data[80:84])[0]
    mesh = trimesh.load_mesh(io.BytesIO(data), file_type="stl")
    check_frame(mesh.vertices)
    check_closed(mesh)
    facet = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    stored = np.frombuffer(data, facet, offset=84)["normal"]
    np.testing.assert_allclose(stored, mesh.face_normals, atol=1e-4)
    (tmp_path / "head.stl").write_bytes(data)
    assert len(open3d.io.read_triangle_mesh(tmp_path / "head.stl").triangles) == len(closed_head().faces)


def test_usdz_by_openusd(tmp_path):
    from pxr import Ar, Usd, UsdGeom, UsdShade, UsdValidation

    path = tmp_path / "head.usdz"
    path.write_bytes(mesh_usd.encode(closed_head(), PROVENANCE))
    stage = Usd.Stage.Open(str(path))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert not [e.GetMessage() for e in UsdValidation.ValidationContext(validators).Validate(stage)]
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    (prim,) = [p for p in stage.Traverse() if p.IsA(UsdGeom.Mesh)]
    mesh = UsdGeom.Mesh(prim)
    points = np.array(mesh.GetPointsAttr().Get())
    faces = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    check_frame(points)
    check_closed(trimesh.Trimesh(points, faces, process=False))
    uv = np.array(UsdGeom.PrimvarsAPI(prim).GetPrimvar("st").ComputeFlattened())
    material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
    asset = UsdShade.Shader(stage.GetPrimAtPath(material.GetPath().AppendChild("texture"))).GetInput("file").Get()
    resolved = Ar.GetResolver().OpenAsset(Ar.GetResolver().Resolve(asset.resolvedPath or asset.path))
    picture = Image.open(io.BytesIO(bytes(resolved.GetBuffer())))
    texture = np.asarray(picture.convert("RGB"))
    rows = ((1 - uv[:, 1]) * 64).astype(int).clip(0, 63)
    columns = (uv[:, 0] * 128).astype(int).clip(0, 127)
    check_marks(points[faces.reshape(-1)], texture[rows, columns])
    note = stage.GetRootLayer().customLayerData
    assert (
        json.loads(note["dp360"])["weights"] == PROVENANCE.weights
        and json.loads(picture.info["dp360.provenance"])["seed"] == 7
    )


@pytest.mark.parametrize("module", [mesh_obj, mesh_ply, mesh_stl, mesh_usd])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"faces": np.zeros((0, 3), np.int32)}, "expected vertices and faces"),
        ({"faces": np.array([[0, 1, 99999]], np.int32)}, "faces name vertices 0..99999"),
        ({"vertices_world": np.full((1225, 3), np.nan, np.float32)}, "vertices_world hold NaN"),
    ],
)
def test_broken_meshes_are_refused(module, change, message):
    head = closed_head()
    broken = TexturedMesh(**{**{f: getattr(head, f) for f in head.__dataclass_fields__}, **change})
    with pytest.raises(ValueError, match=message):
        module.encode(broken, PROVENANCE)


@pytest.mark.parametrize("module", [mesh_obj, mesh_ply, mesh_stl, mesh_usd])
@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan])
def test_a_factor_is_positive(module, factor):
    with pytest.raises(ValueError, match="expected a positive metres_per_unit"):
        module.encode(closed_head(), PROVENANCE, metres_per_unit=factor)


@pytest.mark.parametrize("module", [mesh_obj, mesh_ply, mesh_stl])
def test_same_mesh_same_bytes(module):
    assert module.encode(closed_head(), PROVENANCE) == module.encode(closed_head(), PROVENANCE)

"""The .glb is read back by another library: in metres, upright, facing +z, with every texel in its place."""

import io
import json
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from dp360.exporters import mesh_glb
from dp360.generation import Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh

PROVENANCE = Provenance("prior", "head_model-1 (sha256 00)", 7, "ab" * 32, "0.1.0", settings={"size_px": 64})
EAR_RGB = (250, 20, 30)
"""The marked left ear; the head's left is +x."""


def marked_head() -> TexturedMesh:
    """A UV sphere, taller than wide, with a nose to +z and a red patch on the texture where the left ear is."""
    rows, columns = 24, 48
    v, u = np.meshgrid(np.linspace(0, 1, rows + 1), np.linspace(0, 1, columns + 1), indexing="ij")
    azimuth, polar = (u - 0.5) * 2 * np.pi, v * np.pi  # u = 0.5 looks to +z, u = 0.75 to +x
    normal = np.stack([np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], axis=-1)
    vertices = normal * [0.15, 0.2, 0.17]
    vertices[rows // 2, columns // 2, 2] += 0.05  # the nose
    index = np.arange((rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    texture = np.random.default_rng(0).integers(90, 110, (64, 128, 3), dtype=np.uint8)
    texture[28:36, 92:100] = EAR_RGB
    return TexturedMesh(
        vertices.reshape(-1, 3).astype(np.float32),
        (normal.reshape(-1, 3) * 1.5).astype(np.float32),
        np.stack([u, v], axis=-1).reshape(-1, 2).astype(np.float32),
        faces.astype(np.int32),
        texture,
    )


def read(data: bytes) -> trimesh.Trimesh:
    scene = trimesh.load_scene(io.BytesIO(data), file_type="glb")
    (mesh,) = scene.geometry.values()
    assert isinstance(mesh, trimesh.Trimesh)
    np.testing.assert_array_equal(scene.graph.get(scene.graph.nodes_geometry[0])[0], np.eye(4))
    return mesh


def look(mesh: trimesh.Trimesh) -> tuple[PBRMaterial, np.ndarray]:
    """Material, and texture coordinates from the bottom left."""
    assert isinstance(mesh.visual, TextureVisuals) and isinstance(mesh.visual.material, PBRMaterial)
    assert mesh.visual.uv is not None
    return mesh.visual.material, mesh.visual.uv


def texels(material: PBRMaterial) -> np.ndarray:
    assert material.baseColorTexture is not None
    return np.asarray(material.baseColorTexture.convert("RGB"))


def document(data: bytes) -> dict:
    length, kind = struct.unpack("<I4s", data[12:20])
    assert kind == b"JSON"
    return json.loads(data[20 : 20 + length])


def test_another_reader_finds_metres_upright_and_facing_z():
    head = marked_head()
    mesh = read(mesh_glb.encode(head, PROVENANCE))
    np.testing.assert_allclose(mesh.vertices, head.vertices_world * METRES_PER_UNIT, rtol=1e-6)
    np.testing.assert_array_equal(mesh.faces, head.faces)
    size_m = mesh.bounds[1] - mesh.bounds[0]
    assert size_m.argmax() == 1 and 0.1 < size_m[1] < 0.4
    nose = mesh.vertices[mesh.vertices[:, 2].argmax()]
    assert abs(nose[0]) < 1e-3 and nose[2] > 0.1


def test_faces_look_outwards():
    mesh = read(mesh_glb.encode(marked_head(), PROVENANCE))
    with_area = mesh.area_faces > 1e-9
    outwards = (mesh.face_normals * mesh.triangles_center).sum(axis=1)
    assert with_area.sum() > 2000 and (outwards[with_area] > 0).all()


def test_left_ear_is_marked_on_the_left():
    mesh = read(mesh_glb.encode(marked_head(), PROVENANCE))
    material, uv = look(mesh)
    picture = texels(material)
    column = np.clip(np.round(uv[:, 0] * 128 - 0.5), 0, 127).astype(int)
    row = np.clip(np.round((1 - uv[:, 1]) * 64 - 0.5), 0, 63).astype(int)
    ear = (picture[row, column, :3] == EAR_RGB).all(axis=1)
    assert ear.any() and (mesh.vertices[ear, 0] > 0.05).all() and abs(mesh.vertices[ear, 1]).max() < 0.03


def test_texture_is_kept_texel_by_texel():
    head = marked_head()
    material, _ = look(read(mesh_glb.encode(head, PROVENANCE)))
    np.testing.assert_array_equal(texels(material), head.texture_rgb)
    assert material.metallicFactor == 0.0 and material.roughnessFactor == 1.0


def test_jpeg_texture_is_smaller_and_close():
    head = marked_head()
    png, jpeg = mesh_glb.encode(head, PROVENANCE), mesh_glb.encode(head, PROVENANCE, texture_format="jpeg")
    picture = texels(look(read(jpeg))[0]).astype(int)
    assert len(jpeg) < len(png) and abs(picture - head.texture_rgb).mean() < 5


def test_container_and_provenance():
    data = mesh_glb.encode(marked_head(), PROVENANCE)
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data)) and len(data) % 4 == 0
    asset = document(data)["asset"]
    assert asset["generator"] == "dp360 0.1.0" and asset["extras"]["dp360"]["settings"] == {"size_px": 64}
    assert document(data)["materials"][0]["extensions"] == {"KHR_materials_unlit": {}}
    assert all(view["byteOffset"] % 4 == 0 for view in document(data)["bufferViews"])


def test_normals_have_length_one():
    data = mesh_glb.encode(marked_head(), PROVENANCE)
    content = document(data)
    accessor = content["accessors"][content["meshes"][0]["primitives"][0]["attributes"]["NORMAL"]]
    view = content["bufferViews"][accessor["bufferView"]]
    start = data.index(b"BIN\0") + 4 + view["byteOffset"]
    normals = np.frombuffer(data, "<f4", view["byteLength"] // 4, start).reshape(-1, 3)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)


def test_same_mesh_same_bytes():
    assert mesh_glb.encode(marked_head(), PROVENANCE) == mesh_glb.encode(marked_head(), PROVENANCE)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("faces", np.zeros((0, 3), np.int32), "expected vertices and faces"),
        ("faces", np.array([[0, 1, 99999]], np.int32), "faces name vertices 0..99999"),
        ("vertices_world", np.full((1225, 3), np.nan, np.float32), "vertices_world hold NaN"),
    ],
)
def test_broken_meshes_are_refused(field, value, message):
    head = marked_head()
    broken = TexturedMesh(**{**{f: getattr(head, f) for f in head.__dataclass_fields__}, field: value})
    with pytest.raises(ValueError, match=message):
        mesh_glb.encode(broken, PROVENANCE)


def test_texture_can_be_opened_alone():
    data = mesh_glb.encode(marked_head(), PROVENANCE)
    content = document(data)
    view = content["bufferViews"][content["images"][0]["bufferView"]]
    start = data.index(b"BIN\0") + 4 + view["byteOffset"]
    assert Image.open(io.BytesIO(data[start : start + view["byteLength"]])).size == (128, 64)

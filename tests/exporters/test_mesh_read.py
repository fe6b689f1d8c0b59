"""Other people's meshes: whatever trimesh writes comes back in place, with its colours and, if ours, its origin."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial

from dp360.exporters import formats
from dp360.exporters.mesh_read import is_mesh_file, read_mesh
from dp360.generation import InputError, Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh


def write(path: Path, kind: formats.Kind, asset: object, provenance: Provenance) -> Path:
    for name, data in formats.format_of(path, kind).files(path, asset, provenance).items():
        name.write_bytes(data)
    return path


def colours_at(mesh: TexturedMesh, index: np.ndarray) -> np.ndarray:
    height, width = mesh.texture_rgb.shape[:2]
    columns, rows = np.clip((mesh.uv_unit[index] * [width, height]).astype(int), 0, [width - 1, height - 1]).T
    return mesh.texture_rgb[rows, columns].astype(int)


@pytest.mark.parametrize("extension", [".glb", ".obj", ".ply", ".stl"])
def test_ours_come_back(extension, marked_mesh, provenance, tmp_path):
    path = write(tmp_path / f"head{extension}", "mesh", marked_mesh, provenance)
    assert is_mesh_file(path)
    mesh, origin = read_mesh(path)
    assert origin == (None if extension == ".stl" else provenance)
    np.testing.assert_allclose(mesh.vertices_world.max(axis=0), marked_mesh.vertices_world.max(axis=0), rtol=1e-5)
    np.testing.assert_allclose(mesh.vertices_world.min(axis=0), marked_mesh.vertices_world.min(axis=0), rtol=1e-5)
    if extension in (".glb", ".obj"):
        np.testing.assert_array_equal(mesh.texture_rgb, marked_mesh.texture_rgb)
    if extension != ".stl":
        for axis, channel in ((0, 0), (1, 1), (2, 2)):  # red left ear, green crown, blue nose
            tip = colours_at(mesh, np.array([mesh.vertices_world[:, axis].argmax()]))[0]
            assert tip[channel] > 200 and np.delete(tip, channel).max() < 60
    again = write(tmp_path / "again.glb", "mesh", mesh, provenance)
    np.testing.assert_allclose(read_mesh(again)[0].vertices_world, mesh.vertices_world, atol=1e-6)


def test_colours_of_faces_become_a_texture(tmp_path):
    box = trimesh.creation.box(extents=[0.1, 0.2, 0.3])
    box.unmerge_vertices()
    colours = np.where(box.vertices[:, :1] > 0, [[250, 10, 20, 255]], [[10, 20, 250, 255]])
    box.visual = ColorVisuals(box, vertex_colors=colours.astype(np.uint8))
    box.export(tmp_path / "box.glb")
    mesh, origin = read_mesh(tmp_path / "box.glb")
    assert origin is None
    np.testing.assert_allclose(np.ptp(mesh.vertices_world, axis=0) * METRES_PER_UNIT, [0.1, 0.2, 0.3], rtol=1e-5)
    red = mesh.vertices_world[:, 0] > 0
    assert np.abs(colours_at(mesh, red) - [253, 56, 79]).max() < 40  # what glTF holds is linear
    assert np.abs(colours_at(mesh, ~red) - [56, 79, 253]).max() < 40


@pytest.mark.parametrize(("extension", "shown"), [(".glb", 188), (".ply", 128)])
def test_vertex_colours_are_linear_in_gltf_alone(tmp_path, extension, shown):
    ball = trimesh.creation.icosphere(radius=0.05, subdivisions=1)
    ball.visual = ColorVisuals(ball, vertex_colors=np.full((len(ball.vertices), 4), [128, 128, 128, 255], np.uint8))
    ball.export(tmp_path / f"ball{extension}")
    mesh, _ = read_mesh(tmp_path / f"ball{extension}")
    assert np.abs(colours_at(mesh, np.arange(len(mesh.vertices_world))) - shown).max() <= 1


def test_the_factor_of_a_texture_is_applied_to_light(tmp_path):
    box = trimesh.creation.box()
    material = PBRMaterial(baseColorTexture=Image.new("RGB", (4, 4), (188, 188, 188)), baseColorFactor=[0.5, 1, 0, 1])
    box.visual = TextureVisuals(np.full((8, 2), 0.5), material=material)
    box.export(tmp_path / "box.glb")
    texture = read_mesh(tmp_path / "box.glb")[0].texture_rgb
    assert np.abs(texture[0, 0].astype(int) - [137, 188, 0]).max() <= 1


def test_parts_of_a_scene_become_one_mesh(tmp_path):
    ball = trimesh.creation.icosphere(radius=0.05)
    scene = trimesh.Scene([ball, ball.copy().apply_translation([0.2, 0, 0])])
    scene.export(tmp_path / "two.glb")
    mesh, _ = read_mesh(tmp_path / "two.glb")
    assert len(mesh.faces) == 2 * len(ball.faces)
    np.testing.assert_allclose(np.ptp(mesh.vertices_world[:, 0]) * METRES_PER_UNIT, 0.3, rtol=1e-5)


def test_a_mesh_that_only_names_the_extension_of_splats_is_a_mesh(tmp_path):
    ball = trimesh.creation.icosphere(radius=0.05)
    ball.metadata["note"] = "made from KHR_gaussian_splatting"
    ball.export(tmp_path / "ball.glb")
    assert b"KHR_gaussian_splatting" in (tmp_path / "ball.glb").read_bytes()
    assert is_mesh_file(tmp_path / "ball.glb") and len(read_mesh(tmp_path / "ball.glb")[0].faces) == len(ball.faces)


def test_what_is_no_mesh_is_said(tmp_path, make_splats, provenance):
    for extension in (".ply", ".glb"):
        assert not is_mesh_file(write(tmp_path / f"splats{extension}", "splats", make_splats(9, 0), provenance))
    trimesh.PointCloud(np.eye(3)).export(tmp_path / "points.ply")
    (tmp_path / "cut.stl").write_bytes(b"\0" * 84 + b"x" * 7)
    (tmp_path / "nan.obj").write_text("v nan 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n")
    (tmp_path / "far.obj").write_text("v 1e9 0 0\nv 0 1 0\nv 0 0 1\nv 1 0 0\nf 1 2 3\nf 2 3 4\n")
    (tmp_path / "lost.obj").write_text("v 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 7\n")
    repeated = trimesh.creation.box()
    material = PBRMaterial(baseColorTexture=Image.new("RGB", (4, 4)))
    repeated.visual = TextureVisuals(np.linspace(0, 3, 16).reshape(8, 2), material=material)
    repeated.export(tmp_path / "repeated.glb")
    for name, message in (
        ("none.obj", "Cannot read .*none.obj"),
        ("head.fbx", "ends in one of .glb, .obj, .ply, .stl"),
        ("points.ply", "point cloud is no mesh"),
        ("cut.stl", "damaged or no mesh|expected triangles"),
        ("nan.obj", "NaN or Inf"),
        ("far.obj", r"a vertex lies 1e\+09 times as far out as most"),
        ("lost.obj", "damaged or no mesh|do not fit its vertices"),
        ("repeated.glb", "its texture repeats"),
    ):
        with pytest.raises(InputError, match=message):
            read_mesh(tmp_path / name)

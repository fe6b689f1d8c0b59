"""A middle grey in every format, as another reader finds it: sRGB in splats and pictures, light in glTF's numbers."""

import io
import json
import struct
import zipfile
from typing import Any

import gsply
import numpy as np
import open3d
import plyfile
import pytest
import torch
import trimesh
from PIL import Image

from dp360.exporters import formats
from dp360.generation.mesh import TexturedMesh
from dp360.reconstruction.spherical_harmonics import SH_C0, sh0_from_rgb
from dp360.reconstruction.splats import Splats

GREY, LIGHT = 0.5, 0.2140
"""The same colour in sRGB and as linear light."""


@pytest.fixture
def grey_splats() -> Splats:
    n = 40
    means = 0.1 * torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    sh0 = sh0_from_rgb(torch.full((n, 3), GREY))
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(n, 4)
    return Splats(means, torch.full((n, 3), -4.0), quats.clone(), torch.ones(n), sh0, torch.zeros(n, 0, 3))


@pytest.mark.parametrize("extension", [".ply", ".compressed.ply", ".spz"])
def test_splats_hold_srgb(grey_splats, provenance, tmp_path, extension):
    path = tmp_path / f"a{extension}"
    path.write_bytes(formats.format_of(path, "splats").encode(grey_splats, provenance))
    read = {".ply": gsply.plyread, ".compressed.ply": gsply.plyread, ".spz": gsply.read_spz}
    theirs = read[extension](str(path))
    np.testing.assert_allclose(0.5 + SH_C0 * np.asarray(theirs.sh0), GREY, atol=0.012)
    if extension == ".ply":
        np.testing.assert_allclose(0.5 + SH_C0 * plyfile.PlyData.read(str(path))["vertex"]["f_dc_1"], GREY, atol=1e-6)


def test_codebooks_of_sog_hold_srgb(grey_splats, provenance):
    """Unpacked as its page says: gsply's reader of this format wants a package more."""
    archive = zipfile.ZipFile(io.BytesIO(formats.format_of("a.sog").encode(grey_splats, provenance)))
    codebook = np.array(json.loads(archive.read("meta.json"))["sh0"]["codebook"])
    pixels = np.asarray(Image.open(io.BytesIO(archive.read("sh0.webp")))).reshape(-1, 4)[: len(grey_splats)]
    np.testing.assert_allclose(0.5 + SH_C0 * codebook[pixels[:, :3]], GREY, atol=0.004)


def test_splat_bytes_hold_srgb(grey_splats, provenance):
    data = formats.format_of("a.splat").encode(grey_splats, provenance)
    assert set(np.frombuffer(data, np.uint8).reshape(-1, 32)[:, 24:27].ravel()) <= {127, 128}


def test_the_point_cloud_in_a_glb_is_light(grey_splats, provenance):
    data = formats.format_of("a.glb", "splats").encode(grey_splats, provenance)
    length = struct.unpack("<I", data[12:16])[0]
    document = json.loads(data[20 : 20 + length])
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    view = document["bufferViews"][document["accessors"][attributes["COLOR_0"]]["bufferView"]]
    colours = np.frombuffer(data, "<f4", len(grey_splats) * 4, 28 + length + view["byteOffset"]).reshape(-1, 4)
    np.testing.assert_allclose(colours[:, :3], LIGHT, atol=1e-4)
    described = document["meshes"][0]["primitives"][0]["extensions"]["KHR_gaussian_splatting"]
    assert described["colorSpace"] == "srgb_rec709_display"


def test_meshes_hold_srgb_in_pictures_and_ply(provenance, tmp_path):
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    grey = np.full((64, 64, 3), 128, np.uint8)
    mesh = TexturedMesh(corners, corners + np.float32(0.1), corners[:, :2].copy(), faces, grey)
    for extension in (".glb", ".ply"):
        path = tmp_path / f"mesh{extension}"
        path.write_bytes(formats.format_of(path, "mesh").encode(mesh, provenance))
    visual: Any = trimesh.load_mesh(tmp_path / "mesh.glb").visual
    material = visual.material
    assert np.asarray(material.baseColorTexture.convert("RGB")).mean() == 128
    assert material.baseColorFactor is None or (np.asarray(material.baseColorFactor) == 255).all()
    seen = np.asarray(open3d.io.read_triangle_mesh(tmp_path / "mesh.ply").vertex_colors)
    np.testing.assert_allclose(seen, 128 / 255, atol=1e-6)

"""Programs outside Python read our splats too; skipped where Node or its packages are missing (NODE_PATH)."""

import json
import os
import shutil
import subprocess

import numpy as np
import plyfile
import pytest
import torch

from dp360.exporters import formats, mesh_glb, splat_glb, splat_ply
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh

VALIDATE = """
const validator = require('gltf-validator');
const bytes = new Uint8Array(require('fs').readFileSync(process.argv[1]));
validator.validateBytes(bytes, {maxIssues: 0}).then(report => console.log(JSON.stringify(report.issues)));
"""


def node(*words: str) -> str:
    """What a Node program prints."""
    if shutil.which("node") is None:
        pytest.skip("needs Node")
    done = subprocess.run(["node", *words], check=False, capture_output=True, text=True, timeout=120)
    if "Cannot find module" in done.stderr:
        pytest.skip("needs NODE_PATH with gltf-validator and @playcanvas/splat-transform")
    assert done.returncode == 0, done.stderr
    return done.stdout


def errors(path) -> list[dict]:
    """Errors of the Khronos validator."""
    return [m for m in json.loads(node("-e", VALIDATE, str(path)))["messages"] if m["severity"] == 0]


@pytest.mark.parametrize("degree", [0, 3])
def test_khronos_validator_finds_no_error_in_splats(make_splats, provenance, tmp_path, degree):
    """Released validators (2.0.0-dev.3.10) take every attribute name with an extension's prefix for an error
    (https://github.com/KhronosGroup/glTF-Validator/issues/252): that one code on those names is all they say, and with
    a leading underscore, which they accept, they say nothing."""
    data = splat_glb.encode(make_splats(300, degree), provenance)
    (tmp_path / "head.glb").write_bytes(data)
    found = errors(tmp_path / "head.glb")
    assert {e["code"] for e in found} <= {"MESH_PRIMITIVE_INVALID_ATTRIBUTE"}
    assert all("/attributes/KHR_gaussian_splatting:" in e["pointer"] for e in found)
    length = int.from_bytes(data[12:16], "little")
    text = data[20 : 20 + length].replace(b'"KHR_gaussian_splatting:', b'"_KHR_GAUSSIAN_SPLATTING:')
    text += b" " * (-len(text) % 4)
    total = (len(data) - length + len(text)).to_bytes(4, "little")
    renamed = data[:8] + total + len(text).to_bytes(4, "little") + b"JSON" + text + data[20 + length :]
    (tmp_path / "renamed.glb").write_bytes(renamed)
    assert errors(tmp_path / "renamed.glb") == []


def test_khronos_validator_finds_no_error_in_a_mesh(provenance, tmp_path):
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    texture = np.zeros((8, 8, 3), np.uint8)
    mesh = TexturedMesh(corners, corners + np.float32(0.1), corners[:, :2].copy(), faces, texture)
    (tmp_path / "mesh.glb").write_bytes(mesh_glb.encode(mesh, provenance))
    assert errors(tmp_path / "mesh.glb") == []


@pytest.mark.parametrize("extension", [".compressed.ply", ".splat", ".spz", ".sog"])
def test_splat_transform_reads_the_same_numbers(shiny_head, provenance, tmp_path, extension):
    roots = [
        os.path.join(r, "@playcanvas/splat-transform/bin/cli.mjs") for r in os.environ.get("NODE_PATH", "").split(":")
    ]
    program = next((r for r in roots if os.path.exists(r)), None)
    if program is None:
        pytest.skip("needs NODE_PATH with @playcanvas/splat-transform")
    data = formats.format_of(f"x{extension}").encode(shiny_head, provenance)
    (tmp_path / f"in{extension}").write_bytes(data)
    node(program, str(tmp_path / f"in{extension}"), str(tmp_path / "out.ply"))
    theirs = splat_ply.decode((tmp_path / "out.ply").read_bytes())[0]
    ours, _ = formats.decode_splats(f"in{extension}", data)
    means = theirs.means_world / METRES_PER_UNIT
    quats = theirs.quats_wxyz
    if extension == ".spz":  # releases before 3 turn it from RUB, which .spz is, to RDF, which they take .ply for
        flip = torch.tensor([1.0, -1.0, -1.0])
        if not torch.allclose(means, ours.means_world, atol=1e-5):
            means, quats = means * flip, quats * torch.tensor([1.0, 1.0, -1.0, -1.0])
    torch.testing.assert_close(means, ours.means_world, atol=1e-5, rtol=0)
    torch.testing.assert_close(theirs.log_scales - np.log(METRES_PER_UNIT), ours.log_scales, atol=1e-4, rtol=0)
    torch.testing.assert_close(theirs.sh0, ours.sh0, atol=1e-4, rtol=0)
    normalised = torch.nn.functional.normalize
    assert ((normalised(quats, dim=1) * normalised(ours.quats_wxyz, dim=1)).sum(dim=1).abs() > 0.9998).all()
    if extension in (".compressed.ply", ".sog"):
        torch.testing.assert_close(theirs.sh_rest, ours.sh_rest, atol=1e-5, rtol=0)
    assert plyfile.PlyData.read(str(tmp_path / "out.ply"))["vertex"].count == len(shiny_head)

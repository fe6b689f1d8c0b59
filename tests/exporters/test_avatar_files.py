"""Avatars as files: 52 named targets, a skin and materials that other readers find, and a page without a network."""

import base64
import gzip
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from dp360.exporters import avatar_glb, avatar_html
from dp360.exporters.formats import format_of
from dp360.exporters.gltf_binary import read_accessor, read_glb
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.reconstruction.avatar.arkit import ARKIT_NAMES, index_of
from dp360.reconstruction.avatar.skeleton import JOINTS

VALIDATOR = Path(__file__).parents[2] / "node_modules" / "gltf-validator"


def dense(document: dict, buffer: memoryview, index: int) -> np.ndarray:
    """A sparse accessor of three floats as plain numbers, read by the specification (3.6.2.3)."""
    accessor = document["accessors"][index]
    values = np.zeros((accessor["count"], 3), np.float32)
    if "sparse" in accessor:
        sparse, views = accessor["sparse"], document["bufferViews"]
        at = [views[sparse[part]["bufferView"]]["byteOffset"] for part in ("indices", "values")]
        kind = {5123: "<u2", 5125: "<u4"}[sparse["indices"]["componentType"]]
        rows = np.frombuffer(buffer, kind, sparse["count"], at[0])
        assert (np.diff(rows.astype(int)) > 0).all()
        values[rows] = np.frombuffer(buffer, "<f4", 3 * sparse["count"], at[1]).reshape(-1, 3)
        np.testing.assert_array_equal(values.min(0), np.float32(accessor["min"])) if "min" in accessor else None
    return values


def test_targets_have_arkits_names_and_hold_the_shapes(rig, provenance):
    document, buffer = read_glb(avatar_glb.encode(rig, provenance))
    mesh = document["meshes"][0]
    assert mesh["extras"]["targetNames"] == list(ARKIT_NAMES) and mesh["weights"] == [0.0] * 52
    assert mesh["extras"]["poses"]["portrait"]["mouthSmileLeft"] > 0.4
    names = [material["name"] for material in document["materials"]]
    assert {"skin", "mouth", "teeth", "eyes"} <= set(names)
    assert "extensionsUsed" not in document
    skin = mesh["primitives"][names.index("skin")]
    assert all(len(primitive["targets"]) == 52 for primitive in mesh["primitives"])
    jaw = dense(document, buffer, skin["targets"][index_of("jawOpen")]["POSITION"])
    used = np.unique(rig.faces[rig.material == 0])
    expected = rig.shapes[index_of("jawOpen")][used] * METRES_PER_UNIT
    np.testing.assert_allclose(jaw, expected, atol=2.1e-5)
    positions = read_accessor(document, buffer, skin["attributes"]["POSITION"], 3)
    np.testing.assert_allclose(positions, rig.vertices_world[used] * METRES_PER_UNIT, atol=1e-7)
    weights = read_accessor(document, buffer, skin["attributes"]["WEIGHTS_0"], 4)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)


def test_the_skeleton_hangs_together(rig, provenance):
    document, _ = read_glb(avatar_glb.encode(rig, provenance))
    joints = [document["nodes"][k] for k in document["skins"][0]["joints"]]
    assert [joint["name"] for joint in joints] == list(JOINTS)
    places, waiting = {}, [(document["skins"][0]["skeleton"], np.zeros(3))]
    while waiting:
        number, origin = waiting.pop()
        node = document["nodes"][number]
        places[node["name"]] = origin + node["translation"]
        waiting += [(child, places[node["name"]]) for child in node.get("children", [])]
    got = np.stack([places[name] for name in JOINTS])
    np.testing.assert_allclose(got, rig.skeleton.positions_world * METRES_PER_UNIT, atol=1e-9)
    assert places["leftEye"][0] > 0 > places["rightEye"][0]


def test_another_reader_finds_an_upright_head_in_metres(rig, provenance):
    data = avatar_glb.encode(rig, provenance, unlit=True)
    document, _ = read_glb(data)
    assert document["extensionsUsed"] == ["KHR_materials_unlit"]
    assert all("NORMAL" not in target for target in document["meshes"][0]["primitives"][0]["targets"])
    scene = trimesh.load_scene(io.BytesIO(data), file_type="glb")
    low, high = scene.bounds
    assert 0.2 < high[1] - low[1] < 0.5 and high[2] > 0.1
    assert data == avatar_glb.encode(rig, provenance, unlit=True)
    with pytest.raises(ValueError, match="positive metres_per_unit, got -1"):
        avatar_glb.encode(rig, provenance, metres_per_unit=-1.0)


def test_names_say_that_a_file_is_an_avatar():
    assert format_of("heads/face/avatar.glb").kind == format_of("my_Avatar.HTML").kind == "avatar"
    assert format_of("head.glb").kind == "mesh" and format_of("head.html").kind == "splats"


def test_the_page_holds_all_it_needs(rig, provenance):
    page = avatar_html.encode(rig, provenance, title="A <b>head</b>").decode()
    assert len(page) < 12_000_000
    assert "A &lt;b&gt;head&lt;/b&gt;" in page and "default-src 'none'" in page and "@MODEL@" not in page
    model = page.split('id="model">')[1].split("</script>")[0]
    document, _ = read_glb(gzip.decompress(base64.b64decode(model)))
    assert document["meshes"][0]["extras"]["targetNames"] == list(ARKIT_NAMES)
    facts = json.loads(page.split('id="facts">')[1].split("</script>")[0])
    assert len(facts["names"]) == 52 and "portrait" in facts["presets"]
    picture = page.split('id="lit-picture">')[1].split("</script>")[0]
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == rig.texture_rgb.shape[1::-1]


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("node") is None or not VALIDATOR.is_dir(), reason="needs node, and npm install gltf-validator"
)
@pytest.mark.parametrize("unlit", [False, True])
def test_khronos_validator_finds_nothing(rig, provenance, tmp_path, unlit):
    path = tmp_path / "avatar.glb"
    path.write_bytes(avatar_glb.encode(rig, provenance, unlit=unlit))
    script = (
        "require('gltf-validator').validateBytes(new Uint8Array(require('fs').readFileSync(process.argv[1])))"
        ".then(r => console.log(JSON.stringify(r.issues)))"
    )
    found = subprocess.run(
        ["node", "-e", script, str(path)], capture_output=True, text=True, check=True, cwd=VALIDATOR.parents[1]
    )
    issues = json.loads(found.stdout)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"][:5]

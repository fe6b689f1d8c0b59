"""Splat files of other programs: their numbers stay, single bad Gaussians do no harm, and what is not read is said."""

import dataclasses
import itertools
import json
import math
import struct
from collections.abc import Callable

import numpy as np
import pytest
import torch
import zstandard

from dp360.exporters import splat_antimatter, splat_glb, splat_ply, splat_spz, splat_usd
from dp360.exporters.formats import read_splat_file
from dp360.exporters.ply_tables import ply_bytes
from dp360.exporters.splat_file_frame import SplatArrays
from dp360.exporters.splat_moves import axes_matrix, guessed_up_axis, moved, up_axis_matrix
from dp360.exporters.splat_reading import SplatFile
from dp360.generation import Cameras, InputError, Provenance, orbit
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.reconstruction.spherical_harmonics import SH_C0
from dp360.reconstruction.splats import Splats, render_splats

Columns = dict[str, np.ndarray]


def columns_of(splats: Splats) -> Columns:
    """The properties of a 3DGS .ply."""
    rest = splats.sh_rest.permute(0, 2, 1).flatten(1)
    parts = {
        "x y z": splats.means_world,
        "f_dc_0 f_dc_1 f_dc_2": splats.sh0,
        " ".join(f"f_rest_{i}" for i in range(rest.shape[1])): rest,
        "opacity": splats.opacity_logits[:, None],
        "scale_0 scale_1 scale_2": splats.log_scales,
        "rot_0 rot_1 rot_2 rot_3": splats.quats_wxyz,
    }
    return {name: values[:, i].numpy() for names, values in parts.items() for i, name in enumerate(names.split())}


def strangers_ply(columns: Columns, comments: tuple[str, ...] = ()) -> bytes:
    table = np.stack(list(columns.values()), axis=1).astype("<f4")
    return ply_bytes([f"comment {c}" for c in comments], [("vertex", tuple(columns), table)])


def read(data: bytes, extension: str = ".ply", **options) -> SplatFile:
    return read_splat_file(f"stranger{extension}", data, **options)


def as_arrays(splats: Splats) -> SplatArrays:
    return SplatArrays(*(value.numpy() for value in vars(splats).values()))


def as_splats(arrays: SplatArrays) -> Splats:
    return Splats(*(torch.from_numpy(np.ascontiguousarray(value)) for value in vars(arrays).values()))


@pytest.fixture
def head(make_splats) -> Splats:
    """Shiny Gaussians of degree 3, small enough to be seen one by one."""
    splats = make_splats(60, 3)
    return dataclasses.replace(
        splats, means_world=splats.means_world * 0.08, log_scales=splats.log_scales, sh_rest=splats.sh_rest * 0.2
    )


# --- Axes and units


def turned_cameras(cameras: Cameras, linear: np.ndarray) -> Cameras:
    T = torch.eye(4, dtype=cameras.T_world_camera.dtype)
    T[:3, :3] = torch.from_numpy(linear)
    return dataclasses.replace(cameras, T_world_camera=T @ cameras.T_world_camera)


@pytest.mark.parametrize("letters", ["RDF", "RFU", "RBD", "LUF", "BUL"])
def test_turned_gaussians_look_the_same_from_turned_cameras(head, letters):
    linear, cameras = axes_matrix(letters), orbit(5, size_px=48)
    before, _ = render_splats(head, cameras)
    after, _ = render_splats(as_splats(moved(as_arrays(head), linear)), turned_cameras(cameras, linear))
    torch.testing.assert_close(after, before, atol=2e-5, rtol=0)


def test_any_rotation_turns_harmonics_too(head):
    generator = np.random.default_rng(3)
    linear = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    linear *= np.linalg.det(linear)
    cameras = orbit(4, size_px=48)
    turned = as_splats(moved(as_arrays(head), linear, np.array([0.0, 0.0, 0.0])))
    before, _ = render_splats(head, cameras)
    after, _ = render_splats(turned, turned_cameras(cameras, linear))
    torch.testing.assert_close(after, before, atol=2e-5, rtol=0)


def test_a_mirrored_frame_mirrors_the_picture(head):
    """x points left in the file: what a camera in front sees is the mirror image."""
    front = orbit(1, size_px=64)
    before, _ = render_splats(head, front)
    after, _ = render_splats(as_splats(moved(as_arrays(head), axes_matrix("LUB"))), front)
    torch.testing.assert_close(after, before.flip(2), atol=2e-5, rtol=0)


@pytest.mark.parametrize("up_axis", ["y", "-y", "z", "-z"])
def test_named_and_guessed_up_axes(up_axis):
    """A cone that stands on its base, with its front at +z."""
    generator = np.random.default_rng(0)
    height, angle = generator.random(400), generator.random(400) * 2 * np.pi
    cone = np.stack([(1 - height) * np.cos(angle), height - 0.4, (1 - height) * np.sin(angle)], axis=1)
    linear = up_axis_matrix(up_axis)
    assert np.linalg.det(linear) == 1
    in_file = cone @ linear  # the inverse of p -> linear p
    assert guessed_up_axis(in_file) == up_axis
    number = {"y": (1, 1), "-y": (1, -1), "z": (2, 1), "-z": (2, -1)}[up_axis]
    assert in_file[height.argmax(), number[0]] * number[1] > 0.5


def test_auto_says_what_it_takes(make_splats):
    tall = make_splats(200, 0)
    tall.means_world[:] *= torch.tensor([1.0, 3.0, 1.0])
    tall.means_world[:, [0, 2]] *= torch.sigmoid(tall.means_world[:, 1:2])  # narrow at -y
    columns = columns_of(tall)
    guessed = read(strangers_ply(columns), input_up_axis="auto")
    assert any("-y is guessed from its shape" in n for n in guessed.notices)
    assert torch.equal(guessed.splats.means_world[:, 1], -tall.means_world[:, 1] + 0.0)
    told = read(strangers_ply(columns, ("Vertical axis: -z",)), input_up_axis="auto")
    assert any("-z is guessed from a remark" in n for n in told.notices)
    left = read(strangers_ply(columns, ("Vertical axis: -y",)))
    assert torch.equal(left.splats.means_world, tall.means_world)
    assert any("--input-up-axis -y turns it upright" in n for n in left.notices)


def test_our_files_are_in_metres_and_a_strangers_in_its_own_unit(head, provenance):
    ours = read(splat_ply.encode(head, provenance))
    assert ours.metres_per_unit == METRES_PER_UNIT and ours.notices == ()
    theirs = read(strangers_ply(columns_of(head)))
    assert theirs.metres_per_unit == 1.0 and theirs.provenance is None
    assert torch.equal(theirs.splats.means_world, head.means_world)
    unknown = Provenance.unknown("A head of unknown origin")
    handed_on = read(splat_ply.encode(theirs.splats, unknown, metres_per_unit=0.01))
    assert handed_on.metres_per_unit == 0.01  # what keeps the lengths of that file
    splat = read(splat_antimatter.encode(head, provenance, metres_per_unit=1.0), ".splat")
    assert splat.metres_per_unit == 1.0
    assert splat.splats.means_world.abs().max() == head.means_world.abs().max()


def spz_with(splats: Splats, provenance, extensions: bytes, *, version: int) -> bytes:
    """Version 3 unpacked, or version 4, with records of extensions where each has them."""
    import gzip

    payload = gzip.decompress(splat_spz.encode(splats, provenance, metres_per_unit=1.0))
    header = bytearray(payload[:16])
    header[14] = 2 if extensions else 0
    if version == 3:
        return bytes(header) + payload[16:] + extensions
    header[4] = 4
    k = (splats.sh_degree + 1) ** 2 - 1
    sizes = [len(splats) * size for size in (9, 1, 3, 3, 4, 3 * k) if size]
    starts = np.cumsum([16, *sizes])
    pieces = [payload[a:b] for a, b in itertools.pairwise(starts)]
    packed = [zstandard.ZstdCompressor().compress(piece) for piece in pieces]
    header[15] = len(packed)
    head = bytes(header) + struct.pack("<I12x", 32 + len(extensions)) + extensions
    return head + b"".join(struct.pack("<QQ", len(p), len(q)) for p, q in zip(packed, pieces)) + b"".join(packed)


@pytest.mark.parametrize("version", [3, 4])
def test_spz_that_states_its_axes_is_believed(head, provenance, version):
    plain = read(spz_with(head, provenance, b"", version=version), ".spz")
    torch.testing.assert_close(plain.splats.means_world, head.means_world, atol=1e-4, rtol=0)
    record = struct.pack("<III", 0xADBE0003, 4, 6)  # RDF
    stated = read(spz_with(head, provenance, record, version=version), ".spz")
    torch.testing.assert_close(
        stated.splats.means_world, head.means_world * torch.tensor([1.0, -1.0, -1.0]), atol=1e-4, rtol=0
    )
    assert stated.notices == ()
    unsaid = read(spz_with(head, provenance, struct.pack("<III", 0x12340001, 4, 6), version=version), ".spz")
    assert torch.equal(unsaid.splats.means_world, plain.splats.means_world)
    assert any("0x12340001" in n for n in unsaid.notices)
    overruled = read(spz_with(head, provenance, record, version=version), ".spz", input_up_axis="y")
    assert torch.equal(overruled.splats.means_world, plain.splats.means_world)


# --- Bad Gaussians


@pytest.mark.parametrize(
    ("property_name", "value", "kept", "said"),
    [
        ("opacity", np.inf, True, "1 are infinitely opaque and become opaque"),
        ("opacity", -np.inf, True, "1 are infinitely transparent"),
        ("opacity", np.nan, False, "1 have an opacity that is no number: left out"),
        ("scale_1", -np.inf, True, "1 have no thickness and become flat"),
        ("scale_0", np.nan, False, "1 have no finite size: left out"),
        ("x", np.inf, False, "1 are at no finite place: left out"),
        ("rot_2", np.nan, False, "1 have no finite rotation: left out"),
        ("f_dc_0", np.nan, False, "1 have no finite colour: left out"),
        ("f_rest_7", np.nan, True, "1 have no finite harmonics"),
    ],
)
def test_one_bad_gaussian_is_mended_or_left_out(head, property_name, value, kept, said):
    columns = {name: column.copy() for name, column in columns_of(head).items()}
    columns[property_name][4] = value
    file = read(strangers_ply(columns))
    (notice,) = file.notices
    assert notice.startswith("1 of 60 Gaussians are damaged (") and said in notice
    assert len(file.splats) == 60 - (not kept)
    others = torch.arange(60) != 4
    whole = file.splats[others] if kept else file.splats
    assert torch.equal(whole.means_world, head.means_world[others])
    if value == np.inf and kept:
        assert float(file.splats.opacities[4]) > 0.9999
    if property_name == "scale_1":
        extents = file.splats.scales[4]
        assert float(extents[1]) == pytest.approx(0.01 * float(extents[[0, 2]].min()), rel=1e-4)


def test_zero_rotations_turn_nothing_and_no_size_is_left_out(head):
    columns = {name: column.copy() for name, column in columns_of(head).items()}
    for i in range(4):
        columns[f"rot_{i}"][2] = 0
    for i in range(3):
        columns[f"scale_{i}"][3] = -np.inf
    file = read(strangers_ply(columns))
    assert len(file.splats) == 59 and file.splats.quats_wxyz[2].tolist() == [1, 0, 0, 0]
    assert "2 of 60" in file.notices[0]


def test_more_than_half_bad_is_refused_with_the_count(head):
    columns = {name: column.copy() for name, column in columns_of(head).items()}
    columns["y"][:30] = np.nan
    assert len(read(strangers_ply(columns)).splats) == 30
    columns["z"][30] = np.inf
    with pytest.raises(InputError, match=r"31 of 60 Gaussians cannot be drawn \(31 are at no finite place\)"):
        read(strangers_ply(columns))


def test_one_bad_row_of_a_splat(head, provenance):
    data = bytearray(splat_antimatter.encode(head, provenance))
    data[32 * 5 + 12 : 32 * 5 + 24] = bytes(12)
    file = read(bytes(data), ".splat")
    assert len(file.splats) == 59 and "1 have no size: left out" in file.notices[0]


# --- .ply in other forms


def headed(data: bytes, change: Callable[[str], str]) -> bytes:
    head, body = data.split(b"end_header\n", 1)
    return change(head.decode() + "end_header\n").encode() + body


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t.replace("\n", " \n").replace(" float ", "  float\t"),
        lambda t: t.replace("format", "\nformat"),
        lambda t: t.replace("format", "comment Größe in µm\nobj_info seen\nformat"),
        lambda t: "\ufeff" + t,
    ],
)
def test_odd_headers_are_read(head, change):
    plain = strangers_ply(columns_of(head))
    file = read(headed(plain, change))
    assert torch.equal(file.splats.means_world, head.means_world) and file.notices == ()


def test_elements_around_the_vertices_are_walked_over(head):
    plain = strangers_ply(columns_of(head))
    lists = struct.pack("<B3iB2i", 3, 1, 2, 3, 2, 4, 5)

    def change(text: str) -> str:
        before = "element time 2\nproperty double t\nelement strip 2\nproperty list uchar int places\n"
        return text.replace("element vertex", before + "element vertex").replace(
            "end_header", "element frame 1\nproperty int n\nend_header"
        )

    head_text, body = headed(plain, change).split(b"end_header\n", 1)
    data = head_text + b"end_header\n" + bytes(16) + lists + body + bytes(4)
    assert torch.equal(read(data).splats.means_world, head.means_world)
    with pytest.raises(InputError, match=r"promises|behind the file"):
        read(data[:-300])


@pytest.mark.parametrize("end", [b"\n", b"\r\n  \n", b"\0" * 8])
def test_white_space_behind_the_numbers_does_no_harm(head, end):
    plain = strangers_ply(columns_of(head))
    assert len(read(plain + end).splats) == 60
    with pytest.raises(InputError, match="promises 60 vertices"):
        read(plain + end + b"more")


def test_degree_4_keeps_the_first_three_degrees_of_each_channel(head):
    columns = columns_of(head)
    extra = {name: column for name, column in columns.items() if not name.startswith("f_rest")}
    rest = np.random.default_rng(0).normal(size=(60, 3, 24)).astype(np.float32)
    rest[:, :, :15] = head.sh_rest.permute(0, 2, 1).numpy()
    extra |= {f"f_rest_{i}": rest.reshape(60, 72)[:, i] for i in range(72)}
    file = read(strangers_ply(extra))
    assert torch.equal(file.splats.sh_rest, head.sh_rest)
    assert any("above degree 3 are left out" in n for n in file.notices)


@pytest.mark.parametrize(("kind", "most"), [("u1", 255), ("<f4", 1), ("<f4", 255)])
def test_red_green_blue_stand_for_constant_harmonics(head, kind, most):
    columns = {n: c for n, c in columns_of(head).items() if not n.startswith("f_")}
    rgb = np.random.default_rng(1).integers(0, 256, (60, 3))
    rows = np.empty(60, [(n, "<f4") for n in columns] + [(n, kind) for n in ("red", "green", "blue")])
    for name, column in columns.items():
        rows[name] = column
    for i, name in enumerate(("red", "green", "blue")):
        rows[name] = rgb[:, i] * (most / 255)
    types = {"u1": "uchar", "<f4": "float"}
    text = "".join(
        f"property {types[kind] if n in ('red', 'green', 'blue') else 'float'} {n}\n" for n in rows.dtype.names or ()
    )
    data = f"ply\nformat binary_little_endian 1.0\nelement vertex 60\n{text}end_header\n".encode() + rows.tobytes()
    shown = 0.5 + SH_C0 * read(data).splats.sh0.numpy()
    np.testing.assert_allclose(shown, rgb / 255, atol=1e-6)


def test_flat_and_round_gaussians_are_read(head):
    columns = columns_of(head)
    flat = {name: column for name, column in columns.items() if name != "scale_2"}
    scales = read(strangers_ply(flat)).splats.scales
    torch.testing.assert_close(scales[:, 2], 0.01 * scales[:, :2].min(dim=1).values)
    balls = {n: c for n, c in flat.items() if n != "scale_1" and not n.startswith("rot")}
    file = read(strangers_ply(balls))
    assert torch.equal(file.splats.log_scales, head.log_scales[:, :1].expand(60, 3))
    assert file.splats.quats_wxyz[0].tolist() == [1, 0, 0, 0]


def test_properties_that_are_not_read_are_named_once(head):
    columns = columns_of(head) | {"filter_3D": np.ones(60), "nx": np.zeros(60)}
    (notice,) = read(strangers_ply(columns)).notices
    assert "filter_3D" in notice and "nx" not in notice


# --- glTF and OpenUSD


def glb_with(document: dict, buffer: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(buffer), b"BIN\0") + buffer
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def parts_of(glb: bytes) -> tuple[dict, bytes]:
    length = struct.unpack("<I", glb[12:16])[0]
    document = json.loads(glb[20 : 20 + length])
    document["asset"].pop("extras")
    return document, glb[28 + length :]


@pytest.fixture
def glb_parts(head, provenance) -> tuple[dict, bytes]:
    """A stranger's .glb: our numbers without our note."""
    return parts_of(splat_glb.encode(head, provenance, metres_per_unit=1.0))


def test_all_primitives_and_nodes_of_a_glb_are_read(head, glb_parts):
    document, buffer = glb_parts
    half = math.sqrt(0.5)
    document["nodes"] = [
        {"mesh": 0, "matrix": np.eye(4).ravel().tolist()},
        {"children": [2], "translation": [0.0, 1.0, 0.0], "rotation": [0.0, half, 0.0, half]},
        {"mesh": 0, "translation": [0.0, 0.0, 2.0]},
        {"mesh": 0, "name": "not shown"},
    ]
    document["scenes"] = [{"nodes": [0, 1]}]
    plain = {"attributes": {"POSITION": 0}, "mode": 0}
    document["meshes"] = [{"primitives": [document["meshes"][0]["primitives"][0], plain]}]
    file = read(glb_with(document, buffer), ".glb")
    assert len(file.splats) == 120 and file.metres_per_unit == 1.0
    x, y, z = head.means_world.unbind(1)
    torch.testing.assert_close(file.splats.means_world[:60], head.means_world)
    expected = torch.stack([z + 2, y + 1, -x], dim=1)  # a quarter turn about y takes z to x
    torch.testing.assert_close(file.splats.means_world[60:], expected)
    assert any("2 primitives that are no Gaussians" in n for n in file.notices)
    linear = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    before, _ = render_splats(head, orbit(3, size_px=32))
    upright = dataclasses.replace(file.splats[60:], means_world=expected - torch.tensor([2.0, 1.0, 0.0]))
    after, _ = render_splats(upright, turned_cameras(orbit(3, size_px=32), linear))
    torch.testing.assert_close(after, before, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"scale": [2, 2, 2]}, "node 'crown' moves them by its scale"),
        ({"matrix": [1, 0, 0, 0, 0.5, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]}, "node 'crown' moves them by its matrix"),
        ({"scale": [-1, 1, 1]}, "node 'crown' moves them by its scale"),
        ({"rotation": [0, 0, 0, 0]}, "rotation of length zero"),
        ({"children": [0]}, "round in a circle"),
    ],
)
def test_other_transforms_are_refused_by_name(glb_parts, node, message):
    document, buffer = glb_parts
    document["nodes"] = [{"mesh": 0, "name": "crown", **node}]
    document["scenes"] = [{"nodes": [0]}]
    with pytest.raises(InputError, match=message):
        read(glb_with(document, buffer), ".glb")


def test_colour_spaces_of_a_glb(head, glb_parts):
    document, buffer = glb_parts
    described = document["meshes"][0]["primitives"][0]["extensions"]["KHR_gaussian_splatting"]
    del described["colorSpace"]
    unnamed = read(glb_with(document, buffer), ".glb")
    assert torch.equal(unnamed.splats.sh0, head.sh0)
    assert any("does not name its colour space" in n for n in unnamed.notices)
    described["colorSpace"] = "lin_rec709_display"
    linear = read(glb_with(document, buffer), ".glb")
    rgb = (0.5 + SH_C0 * head.sh0).clamp_min(0).double()
    srgb = torch.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb.clamp_min(1e-9) ** (1 / 2.4) - 0.055)
    torch.testing.assert_close((0.5 + SH_C0 * linear.splats.sh0).double(), srgb, atol=1e-5, rtol=0)
    described["colorSpace"] = "aces"
    with pytest.raises(InputError, match="expected colours in"):
        read(glb_with(document, buffer), ".glb")


def test_openusd_scenes_are_read_as_a_whole(head, provenance):
    Gf, Sdf, Usd, UsdGeom = (pytest.importorskip(f"pxr.{name}") for name in ("Gf", "Sdf", "Usd", "UsdGeom"))
    layer = Sdf.Layer.CreateAnonymous(".usda")
    layer.ImportFromString(splat_usd.encode(head, provenance, form="usda", metres_per_unit=1.0).decode())
    layer.customLayerData = {}
    stage = Usd.Stage.Open(layer)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 0.01)
    Sdf.CopySpec(layer, "/head/splats", layer, "/head/more")
    UsdGeom.Xformable(stage.GetPrimAtPath("/head/more")).AddTranslateOp().Set(Gf.Vec3d(1, 2, 3))
    Sdf.CopySpec(layer, "/head/splats", layer, "/head/hidden")
    UsdGeom.Imageable(stage.GetPrimAtPath("/head/hidden")).MakeInvisible()
    UsdGeom.Sphere.Define(stage, "/head/ball")
    stage.GetPrimAtPath("/head").GetReferences().AddReference("elsewhere.usda")
    file = read(layer.ExportToString().encode(), ".usda")
    assert len(file.splats) == 120 and file.metres_per_unit == pytest.approx(0.01)
    x, y, z = torch.cat([head.means_world, head.means_world + torch.tensor([1.0, 2.0, 3.0])]).unbind(1)
    found = {tuple(row) for row in (file.splats.means_world * 1e4).round().int().tolist()}
    assert found == {tuple(row) for row in (torch.stack([x, z, -y], 1) * 1e4).round().int().tolist()}
    for said in ("from other files", "/head/ball are no Gaussians", "1 of its Gaussian fields are invisible", "0.01 m"):
        assert any(said in n for n in file.notices)
    UsdGeom.Xformable(stage.GetPrimAtPath("/head/more")).AddScaleOp().Set(Gf.Vec3f(2, 1, 1))
    with pytest.raises(InputError, match="a transform moves /head/more, which is more than a rotation"):
        read(layer.ExportToString().encode(), ".usda")

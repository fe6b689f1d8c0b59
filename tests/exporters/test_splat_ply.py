"""The .ply comes back bit for bit, other readers find the same numbers, and damaged files are refused."""

import io
import re
from dataclasses import fields

import numpy as np
import plyfile
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dp360.exporters import splat_ply
from dp360.exporters.splat_file_frame import half_turn_about_z
from dp360.generation import Cameras, InputError, Provenance, look_at_origin
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.reconstruction.splats import Splats, render_splats


def assert_same_bits(a: Splats, b: Splats) -> None:
    for field in fields(Splats):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert x.shape == y.shape and x.dtype == y.dtype, field.name
        assert x.contiguous().numpy().tobytes() == y.contiguous().numpy().tobytes(), field.name


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 257])
def test_round_trip_in_world_units_keeps_every_bit(make_splats, provenance, count, degree):
    splats = make_splats(count, degree)
    if count:
        splats.means_world[0] = torch.tensor([-0.0, 1e-42, 3.4e38])  # signed zero, subnormal, nearly the largest
        splats.log_scales[0] = -0.0
    assert_same_bits(round_trip(splats, provenance, 1.0), splats)


def round_trip(splats: Splats, provenance, metres_per_unit: float) -> Splats:
    return splat_ply.decode(splat_ply.encode(splats, provenance, metres_per_unit=metres_per_unit))[0]


def test_round_trip_in_metres_loses_a_rounding_at_most(make_splats, provenance):
    splats = make_splats(300, 3)
    back = round_trip(splats, provenance, METRES_PER_UNIT)
    torch.testing.assert_close(back.means_world, splats.means_world, rtol=2**-22, atol=0)
    torch.testing.assert_close(back.log_scales, splats.log_scales, rtol=0, atol=2**-20)
    torch.testing.assert_close(back.sh_rest, splats.sh_rest, rtol=0, atol=0)


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_turned_for_other_viewers_and_back_keeps_every_bit(make_splats, provenance, degree):
    splats = make_splats(100, degree)
    data = splat_ply.encode(splats, provenance, metres_per_unit=1.0, up_axis="-y")
    assert_same_bits(splat_ply.decode(data)[0], splats)
    vertex = plyfile.PlyData.read(io.BytesIO(data))["vertex"]
    np.testing.assert_array_equal(vertex["y"], -splats.means_world[:, 1].numpy())
    np.testing.assert_array_equal(vertex["z"], splats.means_world[:, 2].numpy())


def test_turned_splats_look_the_same_from_turned_cameras(make_splats):
    """Positions, rotations and harmonics move together: the picture of an uneven, shiny heap does not change."""
    splats = make_splats(200, 3)
    splats.means_world.mul_(0.1)
    splats.sh_rest.mul_(0.3)
    cameras = look_at_origin([0.3, 2.0], [0.4, -0.2], size_px=64)
    turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
    turned = Cameras(turn @ cameras.T_world_camera, cameras.focal_px, cameras.principal_px, 64, 64)
    before, _ = render_splats(splats, cameras)
    after, _ = render_splats(half_turn_about_z(splats), turned)
    assert before.std() > 0.1
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)
    unturned, _ = render_splats(splats, turned)
    assert (unturned - before).abs().mean() > 0.02


def test_plyfile_reads_the_layout_of_3dgs(make_splats, provenance):
    splats = make_splats(50, 2)
    vertex = plyfile.PlyData.read(io.BytesIO(splat_ply.encode(splats, provenance)))["vertex"]
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(24))]
    expected += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    assert [p.name for p in vertex.properties] == expected
    np.testing.assert_allclose(vertex["y"], splats.means_world[:, 1].numpy() * METRES_PER_UNIT, rtol=1e-6)
    np.testing.assert_allclose(np.exp(vertex["scale_2"]), splats.scales[:, 2].numpy() * METRES_PER_UNIT, rtol=1e-5)
    np.testing.assert_array_equal(vertex["rot_0"], splats.quats_wxyz[:, 0].numpy())
    np.testing.assert_array_equal(vertex["opacity"], splats.opacity_logits.numpy())
    for basis in range(8):
        for channel in range(3):  # channel-major: all of red first
            np.testing.assert_array_equal(vertex[f"f_rest_{channel * 8 + basis}"], splats.sh_rest[:, basis, channel])


def test_open3d_reads_it(make_splats, provenance, tmp_path):
    open3d = pytest.importorskip("open3d", exc_type=ImportError)
    splats = make_splats(50, 3)
    (tmp_path / "head.ply").write_bytes(splat_ply.encode(splats, provenance, metres_per_unit=1.0))
    cloud = open3d.t.io.read_point_cloud(str(tmp_path / "head.ply"))
    np.testing.assert_array_equal(cloud.point.positions.numpy(), splats.means_world.numpy())


def test_head_stands_upright_in_metres_with_its_left_at_plus_x(ball, provenance):
    """The marked side of the ball: red Gaussians lie at +x, bright ones at +z, none moved or turned."""
    vertex = plyfile.PlyData.read(io.BytesIO(splat_ply.encode(ball, provenance)))["vertex"]
    red, blue = (0.5 + 0.28209479 * vertex[f"f_dc_{c}"] for c in (0, 2))
    position = np.stack([vertex[a] for a in "xyz"], axis=1)
    assert np.linalg.norm(position, axis=1) == pytest.approx(0.2 * METRES_PER_UNIT, rel=1e-4)
    assert (position[red - blue > 0.5][:, 0] > 0.08).all()
    bright = (red > 0.8) & (red - blue < 0.1)
    assert bright.any() and (position[bright][:, 2] > 0.05).all()


def test_provenance_travels_and_lines_stay_short(make_splats, provenance):
    data = splat_ply.encode(make_splats(3, 0), provenance)
    assert splat_ply.decode(data)[1] == provenance
    header = data[: data.index(b"end_header")]
    assert header.isascii() and max(map(len, header.splitlines())) < 256
    assert b"comment 3D head, AI-generated from one image" in header


def test_another_programs_file_has_no_provenance_and_scale_one(make_splats, provenance):
    data = splat_ply.encode(make_splats(4, 1), provenance, metres_per_unit=1.0)
    stripped = re.sub(rb"comment [^\n]*\n", b"", data)
    assert splat_ply.decode(stripped)[1] is None
    assert_same_bits(splat_ply.decode(stripped)[0], splat_ply.decode(data)[0])


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_any_order_and_type_of_properties(make_splats, provenance, kind):
    """Written by plyfile in alphabetical order, with a stranger's property, without normals."""
    splats = make_splats(20, 1)
    vertex = plyfile.PlyData.read(io.BytesIO(splat_ply.encode(splats, provenance, metres_per_unit=1.0)))["vertex"]
    names = sorted(n for n in vertex.data.dtype.names if n not in ("nx", "ny", "nz"))
    table = np.zeros(20, dtype=[*((n, kind) for n in names), ("stranger", "u1")])
    for name in names:
        table[name] = vertex[name]
    buffer = io.BytesIO()
    plyfile.PlyData([plyfile.PlyElement.describe(table, "vertex")], byte_order="<").write(buffer)
    assert_same_bits(splat_ply.decode(buffer.getvalue())[0], splats)


def test_same_splats_same_bytes(make_splats, provenance):
    assert splat_ply.encode(make_splats(9, 3), provenance) == splat_ply.encode(make_splats(9, 3), provenance)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"ply\n", b"png\n", "expected a first line 'ply'"),
        (b"binary_little_endian", b"ascii", "convert text or big endian"),
        (b"element vertex 5", b"element vertex 6", "promises 6 vertices"),
        (b"element vertex 5", b"element vertex 4", "promises 4 vertices"),
        (b"element vertex 5", b"element vertex 999999999999999", "promises 999999999999999 vertices"),
        (b"element vertex 5", b"element vertex -5", "expected one 'element vertex COUNT'"),
        (b"element vertex 5", b"element face 5", "declares no vertices"),
        (b"property float opacity", b"property float opacitx", "lack opacity"),
        (b"property float f_rest_3", b"property float g_rest_3", "f_rest_0.. to count 0, 9, 24 or 45"),
        (b"property float scale_0", b"property float scale_9", "expected scale_0, scale_1 and scale_2"),
        (b"property float rot_1", b"property float rot_0", "one number per property, got 'property float rot_0'"),
        (b"property float rot_1", b"property list uchar int rot_1", "one number per property"),
        (b"property float rot_1", b"property float128 rot_1", "one number per property"),
        (b"end_header\n", b"end_heaven\n", "no line 'end_header'"),
        (b"metres_per_unit 1.0", b"metres_per_unit nan", "expected a positive dp360.metres_per_unit"),
        (b"metres_per_unit 1.0", b"metres_per_unit -1", "expected a positive dp360.metres_per_unit"),
    ],
)
def test_lying_headers_are_refused(make_splats, provenance, old, new, message):
    data = splat_ply.encode(make_splats(5, 1), provenance, metres_per_unit=1.0)
    assert data.count(old) == 1 or old in (b"ply\n", b"property float f_rest_3")
    with pytest.raises(InputError, match=re.escape(message)):
        splat_ply.decode(data.replace(old, new, 1))


def test_numbers_that_overflow_are_never_written(make_splats, provenance):
    splats = make_splats(2, 0)
    splats.means_world[1, 1] = 3e38
    with pytest.raises(ValueError, match="1 of 2 Gaussians hold NaN or Inf"):
        splat_ply.encode(splats, provenance, metres_per_unit=10.0)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused_but_never_crash(data):
    splats = Splats(
        torch.ones(3, 3), torch.ones(3, 3), torch.ones(3, 4), torch.ones(3), torch.ones(3, 3), torch.ones(3, 3, 3)
    )

    file = bytearray(splat_ply.encode(splats, Provenance("prior", "w", 0, "0" * 64, "0.1.0")))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(file[: data.draw(st.integers(len(file) // 2, len(file)))])
    try:
        splat_ply.decode(damaged)
    except InputError:
        pass

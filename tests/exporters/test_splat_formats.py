"""Every splat format: it looks the same when read back, within its steps, and says where it comes from."""

# pyright: reportAttributeAccessIssue=false
# OpenUSD's modules are compiled and come without stubs.

import gzip
import io
import itertools
import math
import struct
import zipfile
from dataclasses import replace

import numpy as np
import plyfile
import pytest
import torch

from dp360.exporters import (
    formats,
    splat_antimatter,
    splat_compressed_ply,
    splat_ply,
    splat_sog,
    splat_spz,
    splat_usd,
)
from dp360.generation import orbit
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.reconstruction.spherical_harmonics import SH_C0
from dp360.reconstruction.splats import Splats, render_splats


def needs_usd(extension: str) -> None:
    if extension.startswith(".usd"):
        pytest.importorskip("pxr.UsdVol")


def encode(extension: str, splats: Splats, provenance, **options) -> bytes:
    needs_usd(extension)
    return formats.format_of(f"head{extension}", "splats").encode(splats, provenance, **options)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10(float(((a - b) ** 2).mean()) + 1e-20)


@pytest.mark.parametrize(
    ("module", "least"),
    [(splat_spz, 40), (splat_sog, 38), (splat_compressed_ply, 36), (splat_antimatter, 32)],
)
def test_lossy_formats_look_like_their_source_from_eight_cameras(shiny_head, provenance, module, least):
    cameras = orbit(8, size_px=96)
    back = module.decode(module.encode(shiny_head, provenance))[0]
    source = replace(shiny_head, sh_rest=shiny_head.sh_rest[:, :0]) if module is splat_antimatter else shiny_head
    before, alpha = render_splats(source, cameras, background_rgb_unit=(0.0, 0.0, 0.0))
    after, _ = render_splats(back, cameras, background_rgb_unit=(0.0, 0.0, 0.0))
    inside = alpha > 0.02
    assert inside.float().mean() > 0.1
    assert min(psnr(after[i][inside[i]], before[i][inside[i]]) for i in range(8)) >= least


@pytest.mark.parametrize("extension", [".ply", ".glb", ".usdc"])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_lossless_formats_give_everything_back(make_splats, provenance, extension, degree):
    splats = make_splats(300, degree)
    back, origin = formats.decode_splats(f"head{extension}", encode(extension, splats, provenance))
    assert origin == provenance and back.sh_degree == degree
    torch.testing.assert_close(back.means_world, splats.means_world, rtol=2**-22, atol=0)
    torch.testing.assert_close(back.log_scales, splats.log_scales, rtol=0, atol=2**-18)
    torch.testing.assert_close(back.opacity_logits, splats.opacity_logits, rtol=0, atol=1e-5)
    for name in ("sh0", "sh_rest"):
        torch.testing.assert_close(getattr(back, name), getattr(splats, name), rtol=0, atol=0)
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(unit(back.quats_wxyz, dim=1), unit(splats.quats_wxyz, dim=1), rtol=0, atol=3e-7)


LOSSY = {
    splat_spz: dict(position=2e-5, log_scale=1 / 32, angle=4e-3, opacity=1 / 250, rgb=0.004, sh=1 / 250),
    splat_sog: dict(position=1e-4, log_scale=0.25, angle=8e-3, opacity=1 / 500, rgb=0.02, sh=None),
    splat_compressed_ply: dict(position=4e-3, log_scale=0.01, angle=3e-3, opacity=1 / 250, rgb=0.01, sh=1 / 60),
    splat_antimatter: dict(position=1e-6, log_scale=1e-5, angle=2e-2, opacity=1 / 500, rgb=1 / 500, sh=None),
}


@pytest.mark.parametrize("module", LOSSY)
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_lossy_formats_stay_within_their_steps(make_splats, provenance, module, degree):
    splats = make_splats(700, degree)
    splats.sh_rest.clamp_(-0.95, 0.95)
    splats.means_world.mul_(0.1)
    splats.sh0.clamp_(-1.7, 1.7)
    back, source = module.decode(module.encode(splats, provenance))[0], splats
    distance = torch.cdist(back.means_world, source.means_world)  # formats may reorder
    source = source[distance.argmin(dim=1)]
    assert sorted(distance.argmin(dim=1).tolist()) == list(range(700))
    limit = LOSSY[module]
    assert (back.means_world - source.means_world).abs().max() < limit["position"] / METRES_PER_UNIT
    assert (back.log_scales - source.log_scales).abs().max() <= limit["log_scale"] + 1e-5
    unit = torch.nn.functional.normalize
    dot = (unit(back.quats_wxyz, dim=1) * unit(source.quats_wxyz, dim=1)).sum(dim=1).abs()
    assert 2 * dot.clamp(max=1).acos().max() < 2 * limit["angle"]
    assert (back.opacities - source.opacities).abs().max() < limit["opacity"]
    assert ((back.sh0 - source.sh0) * SH_C0).abs().max() < limit["rgb"]
    if module is splat_antimatter:
        assert back.sh_degree == 0
    else:
        assert back.sh_degree == degree
        if limit["sh"] is not None and degree:
            assert (back.sh_rest - source.sh_rest).abs().max() < limit["sh"]


@pytest.mark.parametrize("module", [splat_ply, splat_compressed_ply, splat_antimatter, splat_spz, splat_sog])
@pytest.mark.parametrize("metres_per_unit", [1.0, METRES_PER_UNIT])
def test_turned_files_come_back_upright(shiny_head, provenance, module, metres_per_unit):
    """The crown of a turned file points to -y, and our reader turns positions, rotations and harmonics back."""
    options = dict(metres_per_unit=metres_per_unit, up_axis="-y")
    known = options if module is splat_antimatter else {}
    data = module.encode(shiny_head, provenance, **options)
    upright = module.encode(shiny_head, provenance, metres_per_unit=metres_per_unit)
    assert data != upright
    back = module.decode(data, **known)[0]
    cameras = orbit(2, size_px=64)
    source = replace(shiny_head, sh_rest=shiny_head.sh_rest[:, :0]) if module is splat_antimatter else shiny_head
    before, _ = render_splats(source, cameras)
    after, _ = render_splats(back, cameras)
    assert psnr(after, before) > 32
    if known:
        unturned, _ = render_splats(module.decode(data, metres_per_unit=metres_per_unit)[0], cameras)
        assert psnr(unturned, before) < 25


@pytest.mark.parametrize("extension", [f.extension for f in formats.FORMATS if f.kind == "splats"])
def test_provenance_travels_where_the_format_has_a_place(marked_head, provenance, extension):
    data = encode(extension, marked_head, provenance)
    _, origin = formats.decode_splats(f"head{extension}", data)
    assert origin == (None if extension == ".splat" else provenance)
    if extension not in (".splat", ".usdc", ".usd", ".usdz"):
        assert b"AI-generated from one image" in data


@pytest.mark.parametrize("extension", [".ply", ".compressed.ply", ".splat", ".spz", ".sog", ".glb", ".usda"])
def test_same_splats_same_bytes(marked_head, provenance, extension):
    assert encode(extension, marked_head, provenance) == encode(extension, marked_head, provenance)


@pytest.mark.parametrize("kind", ["splats", "mesh"])
def test_packages_hold_no_time(marked_head, marked_mesh, provenance, kind):
    needs_usd(".usdz")
    data = formats.format_of("a.usdz", kind).encode({"splats": marked_head, "mesh": marked_mesh}[kind], provenance)
    dates = {file.date_time for file in zipfile.ZipFile(io.BytesIO(data)).infolist()}
    assert dates == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("extension", [".ply", ".compressed.ply", ".splat", ".spz", ".sog", ".glb", ".usdc"])
def test_numbers_that_overflow_are_never_written(make_splats, provenance, extension):
    splats = make_splats(2, 0)
    splats.means_world[1, 1] = 3e38
    with pytest.raises(ValueError, match="1 of 2 Gaussians hold NaN or Inf"):
        encode(extension, splats, provenance, metres_per_unit=10.0)
    with pytest.raises(ValueError, match="positive factor metres_per_unit"):
        encode(extension, splats, provenance, metres_per_unit=-1.0)


@pytest.mark.parametrize("extension", [".compressed.ply", ".splat", ".spz", ".sog", ".glb", ".usdc"])
def test_extreme_values_survive(make_splats, provenance, extension):
    """Nearly opaque, nearly invisible, tiny, huge and saturated Gaussians stay finite."""
    splats = make_splats(8, 3)
    splats.opacity_logits[:2] = torch.tensor([60.0, -60.0])
    splats.log_scales[2:4] = torch.tensor([[-40.0], [12.0]])
    splats.sh0[4:6] = torch.tensor([[30.0], [-30.0]])
    splats.sh_rest[6:8] = torch.tensor([50.0, -50.0])[:, None, None]
    splats.quats_wxyz[7] *= 1e-15
    back, _ = formats.decode_splats(f"head{extension}", encode(extension, splats, provenance))
    assert len(back) == 8  # Splats themselves refuse what is not finite


def test_splat_puts_the_important_ones_first(make_splats, provenance):
    splats = make_splats(400, 0)
    importance = splats.opacities.double() * splats.scales.double().prod(dim=1)
    written = splat_antimatter.decode(
        splat_antimatter.encode(splats, provenance, metres_per_unit=1.0), metres_per_unit=1.0
    )[0]
    torch.testing.assert_close(written.means_world, splats.means_world[importance.argsort(descending=True)])


def test_spz_uses_the_steps_that_the_size_allows(marked_head, provenance):
    head, room = (
        splat_spz.encode(marked_head, provenance),
        replace(marked_head, means_world=marked_head.means_world * 9999),
    )
    bits = [gzip.decompress(d)[13] for d in (head, splat_spz.encode(room, provenance))]
    assert bits[0] == 18 and bits[1] <= 12
    with pytest.raises(ValueError, match="positions below"):
        splat_spz.encode(replace(marked_head, means_world=marked_head.means_world * 1e9), provenance)


@pytest.mark.parametrize("version", [2, 3])
def test_spz_versions_for_old_and_new_readers(shiny_head, provenance, version):
    data = splat_spz.encode(shiny_head, provenance, version=version)
    assert gzip.decompress(data)[:8] == b"NGSP" + bytes([version, 0, 0, 0])
    cameras = orbit(2, size_px=64)
    before, after = (render_splats(s, cameras)[0] for s in (shiny_head, splat_spz.decode(data)[0]))
    assert psnr(after, before) > 40
    smaller = splat_spz.encode(shiny_head, provenance, version=version, sh_bits=4)
    assert len(smaller) < 0.8 * len(data)


def rewritten(data: bytes, *, version: int) -> bytes:
    """The payload of version 3 as version 1 or 4, by hand."""
    payload = gzip.decompress(data)
    n, degree, bits = struct.unpack("<IBB", payload[8:14])
    sizes = [9 * n, n, 3 * n, 3 * n, 4 * n, len(payload) - 16 - 20 * n]
    starts = np.cumsum([16, *sizes])
    streams = [payload[a:b] for a, b in itertools.pairwise(starts) if a != b]
    if version == 4:
        zstandard = pytest.importorskip("zstandard")
        packed = [zstandard.ZstdCompressor().compress(s) for s in streams]
        table = b"".join(struct.pack("<QQ", len(p), len(s)) for p, s in zip(packed, streams))
        return struct.pack("<4sIIBBBBI12x", b"NGSP", 4, n, degree, bits, 0, len(streams), 32) + table + b"".join(packed)
    fixed = [int.from_bytes(streams[0][i : i + 3], "little", signed=True) for i in range(0, 9 * n, 3)]
    streams[0] = (np.array(fixed) / 2**bits).astype("<f2").tobytes()
    streams[4] = b"\xff\x80\x80" * n  # x = 1, almost
    return gzip.compress(payload[:4] + struct.pack("<I", 1) + payload[8:16] + b"".join(streams))


def test_spz_of_version_4_holds_the_same(shiny_head, provenance):
    data = splat_spz.encode(shiny_head, provenance, metres_per_unit=1.0)
    old, new = splat_spz.decode(data)[0], splat_spz.decode(rewritten(data, version=4))[0]
    for name in ("means_world", "log_scales", "quats_wxyz", "opacity_logits", "sh0", "sh_rest"):
        torch.testing.assert_close(getattr(new, name), getattr(old, name), rtol=0, atol=0)
    assert splat_spz.decode(rewritten(data, version=4))[1] is None


def test_spz_of_version_1_is_read(make_splats, provenance):
    splats = make_splats(20, 2)
    data = splat_spz.encode(splats, provenance, metres_per_unit=1.0)
    back = splat_spz.decode(rewritten(data, version=1))[0]
    torch.testing.assert_close(back.means_world, splats.means_world, rtol=1e-3, atol=1e-4)
    assert back.quats_wxyz[:, 1].min() > 0.99


def test_early_compressed_ply_has_no_colour_bounds(marked_head, provenance):
    """Files of before 2024 have twelve bounds per chunk and colours in [0, 1]."""
    data = splat_compressed_ply.encode(marked_head, provenance, metres_per_unit=1.0)
    ply = plyfile.PlyData.read(io.BytesIO(data))
    names = ply["chunk"].data.dtype.names[:12]
    chunk = np.zeros(len(ply["chunk"].data), dtype=[(n, "<f4") for n in names])
    for name in names:
        chunk[name] = ply["chunk"][name]
    vertex = ply["vertex"].data.copy()
    vertex["packed_color"] = 0xFF0000FF
    elements = [plyfile.PlyElement.describe(chunk, "chunk"), plyfile.PlyElement.describe(vertex, "vertex")]
    buffer = io.BytesIO()
    plyfile.PlyData(elements, byte_order="<").write(buffer)
    back = splat_compressed_ply.decode(buffer.getvalue())[0]
    torch.testing.assert_close(0.5 + SH_C0 * back.sh0, torch.tensor([[1.0, 0.0, 0.0]]).expand(len(back), 3))


def test_sog_palette_may_be_small(shiny_head, provenance):
    large, small = (splat_sog.encode(shiny_head, provenance, palette_size=n) for n in (6000, 64))
    assert len(small) < 0.7 * len(large)
    assert len(torch.unique(splat_sog.decode(small)[0].sh_rest.flatten(1), dim=0)) <= 64


def test_usd_text_is_the_schema_of_openusd(marked_head, provenance):
    pytest.importorskip("pxr.UsdVol")
    from pxr import Usd, UsdValidation

    text = splat_usd.encode(marked_head, provenance, form="usda").decode()
    assert 'def ParticleField3DGaussianSplat "splats"' in text and 'upAxis = "Y"' in text
    stage = Usd.Stage.CreateInMemory()
    stage.GetRootLayer().ImportFromString(text)
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    errors = UsdValidation.ValidationContext(validators).Validate(stage)
    assert len(validators) > 10 and [e.GetName() for e in errors] == []

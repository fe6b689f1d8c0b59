"""The table of formats: names, kinds, what is known, and files whose content decides."""

import inspect
import itertools
import sys

import pytest

from dp360.exporters import formats, mesh_glb, splat_compressed_ply, splat_glb, splat_ply, splat_usd
from dp360.generation import InputError


@pytest.mark.parametrize(
    ("name", "kind", "encode"),
    [
        ("head.ply", None, splat_ply.encode),
        ("out/HEAD.PLY", None, splat_ply.encode),
        ("a.b/head.compressed.ply", None, splat_compressed_ply.encode),
        ("head.glb", None, mesh_glb.encode),
        ("head.glb", "mesh", mesh_glb.encode),
        ("head.glb", "splats", splat_glb.encode),
    ],
)
def test_the_extension_says_the_format(name, kind, encode):
    assert formats.format_of(name, kind).encode is encode


@pytest.mark.parametrize(
    ("name", "kind", "known"),
    [
        ("head.gltf2", None, r"\.compressed\.ply, .*\.glb, \.html, .*\.ply, \.png, \.sog, \.splat, \.spz"),
        ("head", None, r"\.ply"),
        ("head.splat", "mesh", r"expected a name that ends in one of .*\.glb.* for a mesh"),
        (".ply.txt", "splats", "for splats"),
    ],
)
def test_unknown_extensions_list_the_known_ones(name, kind, known):
    with pytest.raises(InputError, match=known):
        formats.format_of(name, kind)


def test_a_plain_name_may_hold_a_compressed_ply_and_the_reverse(make_splats, provenance):
    splats = make_splats(10, 1)
    compressed, plain = splat_compressed_ply.encode(splats, provenance), splat_ply.encode(splats, provenance)
    assert len(formats.decode_splats("head.ply", compressed)[0]) == 10
    assert len(formats.decode_splats("head.compressed.ply", plain)[0]) == 10


def test_refusals_name_the_file(make_splats, provenance):
    with pytest.raises(InputError, match=r"^some/head\.spz: Cannot read splats from this \.spz: expected a gzip"):
        formats.decode_splats("some/head.spz", b"no")


def test_every_row_is_whole():
    for row in formats.FORMATS:
        assert row.extension.startswith((".", "avatar.")) and row.extension == row.extension.lower()
        assert row.options <= {"metres_per_unit", "up_axis", *inspect.signature(row.encode).parameters}
        assert (row.decode is None) == (row.kind != "splats")
        if row.kind in ("splats", "mesh") and row.extension != ".html":
            assert "metres_per_unit" in row.options
    for pair in itertools.combinations(formats.FORMATS, 2):
        assert (pair[0].extension, pair[0].kind) != (pair[1].extension, pair[1].kind)


@pytest.mark.parametrize("name", ["head.obj", "head.png", "head.mp4", "head.xyz", "head"])
def test_names_without_a_reader_list_what_can_be_read(name):
    with pytest.raises(InputError, match=r"cannot read splats: expected a name that ends in one of .*\.ply, \.sog"):
        formats.decode_splats(name, b"")


def test_a_missing_openusd_says_what_to_install(make_splats, provenance, monkeypatch):
    monkeypatch.setitem(sys.modules, "pxr", None)
    for call in (lambda: splat_usd.encode(make_splats(3, 0), provenance), lambda: splat_usd.decode(b"PXR-USDC")):
        with pytest.raises(InputError, match=r"pip install 'dp360\[usd\]'"):
            call()


@pytest.mark.parametrize("form", ["usdc", "usda", "usdz"])
def test_damaged_openusd_is_refused(make_splats, provenance, form):
    pytest.importorskip("pxr.UsdVol")
    data = splat_usd.encode(make_splats(30, 1), provenance, form=form)
    for broken in (b"", b"PNG", data[: len(data) // 3], data[:60]):
        with pytest.raises(InputError, match="Cannot read splats"):
            splat_usd.decode(broken)


def test_openusd_that_does_not_fit_is_refused(make_splats, provenance):
    pytest.importorskip("pxr.UsdVol")
    text = splat_usd.encode(make_splats(3, 0), provenance, form="usda").decode()
    assert len(splat_usd.decode(text.encode())[0]) == 3
    for old, new, message in (
        ("sphericalHarmonicsDegree = 0", "sphericalHarmonicsDegree = 1", "3 harmonics of degree 1"),
        ("ParticleField3DGaussianSplat", "Points", "holds no ParticleField3DGaussianSplat"),
        ("float3[] scales = [", "float3[] scales = [(1, 1, 1), ", "3 positions do not fit"),
        ("point3f[] positions = [(", "point3f[] positions = [(nan, 0, 0), (", "do not fit"),
        (
            'def Xform "head"\n{',
            'def Xform "head"\n{\n    double3 xformOp:scale = (1, 2, 1)\n'
            '    uniform token[] xformOpOrder = ["xformOp:scale"]',
            "a transform moves /head/splats",
        ),
    ):
        assert old in text
        with pytest.raises(InputError, match=message):
            splat_usd.decode(text.replace(old, new).encode())

"""Damaged splat files: one clear sentence, soon, without much memory; never a crash, never NaN."""

import gzip
import io
import json
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dp360.exporters import splat_antimatter, splat_compressed_ply, splat_glb, splat_ply, splat_sog, splat_spz
from dp360.generation import InputError, Provenance
from dp360.reconstruction.splats import Splats

PROVENANCE = Provenance("prior", "w", 0, "0" * 64, "0.1.0")
MODULES = {
    ".ply": splat_ply,
    ".compressed.ply": splat_compressed_ply,
    ".splat": splat_antimatter,
    ".spz": splat_spz,
    ".sog": splat_sog,
    ".glb": splat_glb,
}


def small(count: int = 5) -> Splats:
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Splats(
        normal(count, 3), normal(count, 3), normal(count, 4), normal(count), normal(count, 3), normal(count, 3, 3)
    )


FILES = {extension: module.encode(small(), PROVENANCE) for extension, module in MODULES.items()}


def refused(extension: str, data: bytes, match: str = "Cannot read") -> None:
    """Refused with one sentence, and within 1 GB."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=match) as caught:
            MODULES[extension].decode(data)
        assert tracemalloc.get_traced_memory()[1] < 1e9
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("extension", MODULES)
def test_empty_files_and_other_files_are_refused(extension):
    refused(extension, b"")
    refused(extension, b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3)
    refused(extension, b"<!DOCTYPE html>")


@pytest.mark.parametrize("extension", MODULES)
def test_files_cut_off_anywhere_are_refused(extension):
    data = FILES[extension]
    lengths = set(range(1, len(data), max(1, len(data) // 150)))
    for length in lengths - (set(range(0, len(data), 32)) if extension == ".splat" else set()):
        with pytest.raises(InputError):
            MODULES[extension].decode(data[:length])


def repacked_spz(change) -> bytes:
    payload = bytearray(gzip.decompress(FILES[".spz"]))
    change(payload)
    return gzip.compress(bytes(payload))


def patched_glb(change, data: bytes = FILES[".glb"]) -> bytes:
    """A .glb with its JSON changed in place."""
    length = struct.unpack("<I", data[12:16])[0]
    document = json.loads(data[20 : 20 + length])
    change(document)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON") + text + rest


def patched_sog(change: Callable[[dict], None] | None = None, /, **parts: bytes | None) -> bytes:
    """A .sog with its meta.json changed, or other parts put in."""
    archive = zipfile.ZipFile(io.BytesIO(FILES[".sog"]))
    files: dict[str, bytes | None] = {name: archive.read(name) for name in archive.namelist()}
    files |= {name.replace("_webp", ".webp"): content for name, content in parts.items()}
    if change is not None:
        meta = json.loads(archive.read("meta.json"))
        change(meta)
        files["meta.json"] = json.dumps(meta).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in files.items():
            if content is not None:
                new.writestr(name, content)
    return buffer.getvalue()


def put(payload: bytearray, offset: int, kind: str, value: float) -> None:
    struct.pack_into(kind, payload, offset, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: put(p, 8, "<I", 6), "promises 6 Gaussians"),
        (lambda p: put(p, 8, "<I", 4), "longer or cut off"),
        (lambda p: put(p, 8, "<I", 4_000_000_000), "promises 4000000000 Gaussians"),
        (lambda p: put(p, 4, "<I", 7), "expected version 1 to 4"),
        (lambda p: put(p, 4, "<I", 4), "no gzip stream"),
        (lambda p: put(p, 0, "<I", 7), "expected version 1 to 4"),
        (lambda p: put(p, 12, "B", 9), "harmonics to degree 4"),
        (lambda p: put(p, 13, "B", 60), "24 fractional bits"),
    ],
)
def test_lying_spz_headers(change, message):
    refused(".spz", repacked_spz(change), message)


def test_spz_bombs_are_bounded():
    header = struct.pack("<IIIBBBB", 0x5053474E, 3, 5, 0, 12, 0, 0)
    refused(".spz", gzip.compress(header + bytes(100_000_000), 1), "longer or cut off")
    claims = struct.pack("<IIIBBBB", 0x5053474E, 3, 1_000_000, 3, 12, 0, 0)
    refused(".spz", gzip.compress(claims + bytes(65 * 1_000_000), 1), "promises 1000000 Gaussians")
    believed = struct.pack("<IIIBBBB", 0x5053474E, 3, 250_000, 3, 12, 0, 0)
    tracemalloc.start()
    assert len(splat_spz.decode(gzip.compress(believed + bytes(65 * 250_000)))[0]) == 250_000
    assert tracemalloc.get_traced_memory()[1] < 1e9
    tracemalloc.stop()


def test_spz_with_a_checksum_that_does_not_fit():
    data = bytearray(FILES[".spz"])
    data[-6] ^= 1
    refused(".spz", bytes(data), "gzip stream is damaged")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ((5, 0, 12, 0, 6, 32), "expected a table of 5 streams"),
        ((5, 0, 12, 0, 5, 4_000_000_000), "expected a table of 5 streams"),
        ((4_000_000_000, 0, 12, 0, 5, 32), "promises 4000000000 Gaussians"),
        ((5, 0, 12, 0, 5, 32), "damaged|zstandard"),
    ],
)
def test_lying_spz_headers_of_version_4(header, message):
    refused(".spz", struct.pack("<4sIIBBBBI12x", b"NGSP", 4, *header) + bytes(100), message)


def test_zstd_bombs_are_bounded():
    zstandard = pytest.importorskip("zstandard")
    bomb = zstandard.ZstdCompressor().compress(bytes(100_000_000))
    sizes = [45, 5, 15, 15, 20]
    table = b"".join(struct.pack("<QQ", len(bomb), size) for size in sizes)
    data = struct.pack("<4sIIBBBBI12x", b"NGSP", 4, 5, 0, 12, 0, 5, 32) + table + bomb * 5
    refused(".spz", data, "holds 46 bytes instead of 45")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"element vertex 5", b"element vertex 600", "600 vertices|expected 3 chunks"),
        (b"element vertex 5", b"element vertex 99999999999", "Gaussians|promises"),
        (b"element chunk 1", b"element chunk 2", "promises|expected 1 chunks"),
        (b"element chunk 1", b"element chunk 0", "expected 1 chunks"),
        (b"element sh 5", b"element sh 4", "expected 5 rows"),
        (b"f_rest_8", b"f_rest_9", "f_rest_0.. in element sh"),
        (b"packed_color", b"packed_colou", "lacks packed_color"),
        (b"property uint packed_rotation", b"property float packed_rotation", "lacks packed_rotation"),
        (b"property float min_x", b"property list uchar float min_x", "one number per property"),
    ],
)
def test_lying_compressed_ply_tabless(old, new, message):
    data = FILES[".compressed.ply"]
    assert data.count(old) == 1
    refused(".compressed.ply", data.replace(old, new), message)


def test_compressed_ply_with_nan_bounds():
    data = bytearray(FILES[".compressed.ply"])
    start = data.index(b"end_header\n") + 11
    data[start + 4 : start + 8] = np.float32(np.nan).tobytes()
    refused(".compressed.ply", bytes(data), "5 of 5 Gaussians cannot be drawn")


@pytest.mark.parametrize(
    ("offset", "value", "kept"), [(0, np.nan, 4), (4, np.inf, 4), (12, 0.0, 5), (16, -1.0, 5), (20, np.nan, 4)]
)
def test_splat_with_impossible_numbers(offset, value, kept):
    data = bytearray(FILES[".splat"])
    data[32 + offset : 36 + offset] = np.float32(value).tobytes()
    assert len(splat_antimatter.decode(bytes(data))[0]) == kept
    for row in range(5):
        data[32 * row + 12 : 32 * row + 16] = np.float32(np.nan).tobytes()
    refused(".splat", bytes(data), "positive finite scales")


def set_at(*path, value):
    def change(document):
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


ROTATION = "KHR_gaussian_splatting:ROTATION"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_at("accessors", 0, "count", value=6), "promises 6 vertices"),
        (set_at("accessors", 0, "count", value=10**11), "promises 100000000000 vertices"),
        (set_at("accessors", 0, "count", value=-1), "expected a whole number"),
        (set_at("accessors", 0, "count", value=4), "differ in length"),
        (set_at("accessors", 0, "count", value="5"), "expected a whole number"),
        (set_at("accessors", 0, "bufferView", value=99), "lacks bufferViews/99"),
        (set_at("accessors", 2, "type", value="VEC3"), "expected an accessor of 4 numbers"),
        (set_at("accessors", 0, "componentType", value=[]), "expected an accessor of 3 numbers"),
        (set_at("accessors", 0, "sparse", value={}), "sparse accessors"),
        (set_at("bufferViews", 0, "byteLength", value=10**9), "cut off or damaged"),
        (set_at("bufferViews", 0, "byteOffset", value=10**9), "cut off or damaged"),
        (set_at("bufferViews", 0, "byteStride", value=4), "cut off or damaged"),
        (set_at("bufferViews", 0, "buffer", value=1), "outside buffers"),
        (set_at("meshes", 0, "primitives", 0, "extensions", value={}), "holds no KHR_gaussian_splatting"),
        (set_at("meshes", value=None), "lacks meshes/0"),
        (set_at("nodes", 0, "scale", value=[1, 2, 1]), "node 'head' moves them by its scale"),
        (set_at("nodes", 0, "rotation", value="east"), "not 4 finite numbers"),
        (set_at("nodes", 0, "children", value=[0]), "round in a circle"),
        (
            lambda d: d["meshes"][0]["primitives"][0]["attributes"].pop(ROTATION),
            "lacks KHR_gaussian_splatting:ROTATION",
        ),
        (
            set_at(
                "meshes",
                0,
                "primitives",
                0,
                "extensions",
                "KHR_gaussian_splatting",
                "colorSpace",
                value="aces",
            ),
            "expected colours in srgb_rec709_display",
        ),
        (set_at("asset", "extras", "dp360", value=[1]), "expected a JSON object"),
        (set_at("asset", "extras", "dp360", "metres_per_unit", value=0), "positive dp360.metres_per_unit"),
    ],
)
def test_lying_glb_documents(change, message):
    refused(".glb", patched_glb(change), message)


def test_glb_with_nan_loses_what_is_at_no_place():
    document_length = struct.unpack("<I", FILES[".glb"][12:16])[0]
    for view, kept in ((0, 4), (3, 4), (4, 4), (5, 4)):
        data = bytearray(FILES[".glb"])
        offset = json.loads(data[20 : 20 + document_length])["bufferViews"][view]["byteOffset"]
        start = 28 + document_length + offset
        data[start : start + 4] = np.float32(np.nan).tobytes()
        assert len(splat_glb.decode(bytes(data))[0]) == kept


def test_deep_json_is_refused():
    text = b"[" * 1_000_000
    refused(".glb", struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text), len(text), b"JSON") + text, "no JSON")
    refused(".sog", patched_sog(**{"meta.json": text}), "no JSON")


def test_long_chains_of_nodes_take_no_long_time():
    def chain(document):
        document["nodes"] += [{"children": [i]} for i in range(50_000)]

    assert len(splat_glb.decode(patched_glb(chain))[0]) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_at("count", value=10_000), "promises 10000 Gaussians"),
        (set_at("count", value=10**9), "promises 1000000000 Gaussians"),
        (set_at("count", value=-3), "expected a whole number"),
        (set_at("count", value=True), "expected a whole number"),
        (set_at("version", value=1), "expected version 2"),
        (set_at("means", "mins", value=[0, 0]), "expected 3 numbers means.mins"),
        (set_at("means", "mins", value=[float("nan"), 0, 0]), "5 of 5 Gaussians cannot be drawn"),
        (set_at("means", "maxs", value=[10**400, 0, 0]), "too large"),
        (set_at("means", "maxs", value=[1e308, 0, 0]), "at no finite place"),
        (set_at("means", "files", value=["../../etc/passwd", "x"]), "missing or damaged"),
        (set_at("scales", "codebook", value=[]), "expected 256 numbers scales.codebook"),
        (set_at("scales", "codebook", value=["a"] * 256), "expected 256 numbers scales.codebook"),
        (set_at("quats", "files", value=["sh0.webp"]), "marked with numbers below"),
        (set_at("sh0", value=None), "lacks sh0/files/0"),
        (set_at("shN", "bands", value=4), "1 to 3 harmonic bands"),
        (set_at("shN", "count", value=2), "labels name entries beyond"),
        (set_at("shN", "bands", value=2), "palette picture"),
        (set_at("shN", value=7), "lacks shN/bands"),
    ],
)
def test_lying_sog_descriptions(change, message):
    refused(".sog", patched_sog(change), message)


def test_sog_bombs_are_bounded():
    buffer = io.BytesIO()
    Image.new("RGBA", (8000, 8000)).save(buffer, "WEBP", lossless=True, method=0, quality=0)
    refused(".sog", patched_sog(means_l_webp=buffer.getvalue()), "promises 16000000 Gaussians")
    refused(".sog", patched_sog(means_l_webp=bytes(60_000_000)), "larger than")
    refused(".sog", patched_sog(**{"meta.json": b" " * 50_000_000}), "larger than")


def test_sog_with_a_missing_or_damaged_picture():
    refused(".sog", patched_sog(quats_webp=None), "quats.webp is missing or damaged")
    refused(".sog", patched_sog(quats_webp=b"RIFF"), "quats.webp is damaged")
    refused(".sog", patched_sog(**{"meta.json": None}), "meta.json is missing")


@pytest.mark.parametrize("extension", MODULES)
@settings(max_examples=120, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused_but_never_crash(extension, data):
    """Bytes of the file change; for packed formats, now and then, bytes below the checksum."""
    module, file = MODULES[extension], FILES[extension]
    inner = extension in (".spz", ".sog") and data.draw(st.booleans())
    if inner and extension == ".spz":
        file = gzip.decompress(file)
    if inner and extension == ".sog":
        archive = zipfile.ZipFile(io.BytesIO(file))
        part = data.draw(st.sampled_from(archive.namelist()))
        file = archive.read(part)
    damaged = bytearray(file)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(damaged[: data.draw(st.one_of(st.just(len(file)), st.integers(len(file) // 2, len(file))))])
    if inner:
        broken = gzip.compress(broken) if extension == ".spz" else patched_sog(**{part: broken})
    try:
        module.decode(broken)
    except InputError as error:
        assert re.match(r"Cannot read", str(error))

"""Where a head comes from stands in every file that has a place for it, and readers that are not ours find it."""

# pyright: reportAttributeAccessIssue=false
# OpenUSD's modules are compiled and come without stubs.

import hashlib
import json
import re
import shutil
import struct
import subprocess
import zipfile
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import plyfile
import pytest
import torch
from PIL import Image

from dp360.exporters import formats
from dp360.exporters.contact_sheet import SheetContent
from dp360.generation import Provenance
from dp360.generation.head_model import load_head_model

STATEMENT = "AI-generated from one image"
IDS = [f"{f.extension}-{f.kind}" for f in formats.FORMATS]


def of_ply(path: Path) -> str:
    """Long notes are cut into pieces, since some readers refuse long lines."""
    comments = plyfile.PlyData.read(str(path)).comments
    pieces = [line.removeprefix("dp360.provenance ") for line in comments if line.startswith("dp360.provenance ")]
    return "\n".join([*comments, "".join(pieces)])


def of_spz(path: Path) -> str:
    """The comment of the gzip header (RFC 1952): flag 16, after ten bytes of which we use no further fields."""
    data = path.read_bytes()
    assert data[:3] == b"\x1f\x8b\x08" and data[3] == 16
    return data[10 : data.index(b"\0", 10)].decode("latin-1")


def of_sog(path: Path) -> str:
    return zipfile.ZipFile(path).read("meta.json").decode()


def of_glb(path: Path) -> str:
    data = path.read_bytes()
    length = struct.unpack("<I", data[12:16])[0]
    return json.dumps(json.loads(data[20 : 20 + length])["asset"])


def of_usd(path: Path) -> str:
    pytest.importorskip("pxr.Usd")
    from pxr import Sdf

    return str(Sdf.Layer.FindOrOpen(str(path)).customLayerData)


class _Metas(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.contents: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag == "meta":
            self.contents.append(dict(attrs).get("content") or "")


def of_html(path: Path) -> str:
    page = _Metas()
    page.feed(path.read_text())
    return "\n".join(page.contents)


def of_picture(path: Path) -> str:
    """Text chunks, comment or XMP."""
    with Image.open(path) as picture:
        found = [value for name, value in picture.info.items() if name in ("comment", "xmp") or isinstance(value, str)]
    texts = [value.decode() if isinstance(value, bytes) else value for value in found]
    return "\n".join(texts).replace("&quot;", '"')


def of_mp4(path: Path) -> str:
    if shutil.which("ffprobe"):
        words = ["ffprobe", "-v", "error", "-show_entries", "format_tags", "-of", "json", str(path)]
        tags = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)["format"]["tags"]
    else:
        av = pytest.importorskip("av")
        with av.open(str(path)) as film:
            tags = dict(film.metadata)
    return "\n".join(tags.values())


def of_lines(path: Path) -> str:
    """Comments of a text file."""
    return "\n".join(line[1:] for line in path.read_text().splitlines() if line.startswith("#"))


READERS = {
    **dict.fromkeys((".ply", ".compressed.ply"), of_ply),
    ".spz": of_spz,
    ".sog": of_sog,
    ".glb": of_glb,
    **dict.fromkeys((".usd", ".usda", ".usdc", ".usdz"), of_usd),
    ".html": of_html,
    ".mp4": of_mp4,
    **dict.fromkeys((".gif", ".webp", ".png"), of_picture),
    **dict.fromkeys((".obj", ".mtl"), of_lines),
}


@pytest.fixture
def origin() -> Provenance:
    weights = "model-1 (sha256 " + "12345678" * 8 + ")"
    return Provenance("prior", weights, 4711, "ab" * 32, "0.1.0", settings={"quotes": "\"'<&>", "é": "\n"})


def tells_all(text: str, origin: Provenance) -> None:
    for words in (STATEMENT, origin.generator, origin.weights, origin.input_sha256, origin.version):
        assert words in text, words
    assert re.search(r"seed\W+4711\b", text)


@pytest.fixture
def files(request, marked_head, marked_mesh, views, origin, tmp_path) -> list[Path]:
    """Everything that one format writes."""
    row: formats.Format = request.param
    if row.extension.startswith(".usd"):
        pytest.importorskip("pxr.UsdVol")
    frames = [torch.full((32, 32, 4), grey, dtype=torch.uint8) for grey in (100, 200)]
    sheet = SheetContent(views.rgba[0, ..., :3], views, None)
    asset = {"splats": marked_head, "mesh": marked_mesh, "turntable": frames, "sheet": sheet}[row.kind]
    written = row.files(tmp_path / f"head{row.extension}", asset, origin)
    for path, data in written.items():
        path.write_bytes(data)
    return list(written)


WITH_A_PLACE = [
    f for f in formats.FORMATS if f.keeps_provenance and f.extension != ".stl" and f.kind != "avatar"
]  # avatars: test_avatar_files.py


@pytest.mark.parametrize("files", WITH_A_PLACE, ids=[f"{f.extension}-{f.kind}" for f in WITH_A_PLACE], indirect=True)
def test_another_reader_finds_the_origin(files, origin):
    for path in files:
        extension = formats.format_of(path).extension if path.suffix != ".mtl" else ".mtl"
        tells_all(READERS[extension](path), origin)


@pytest.mark.parametrize("files", [formats.format_of("a.stl")], indirect=True)
def test_stl_has_room_for_little(files, origin):
    """80 bytes: the statement, and the start of the input's hash."""
    header = files[0].read_bytes()[:80].rstrip(b"\0 ").decode("ascii")
    for words in ("AI-generated", "from one image", origin.generator, origin.version, origin.input_sha256[:8], "4711"):
        assert words in header, header


def test_only_splat_has_no_place():
    assert [f.extension for f in formats.FORMATS if not f.keeps_provenance] == [".splat"]


def test_our_own_origin_names_the_shipped_model_and_its_hash():
    """What the prior generator hands on: name and SHA-256 of the very file that ships."""
    data = resources.files("dp360.generation.weights").joinpath("head_model.npz").read_bytes()
    name = load_head_model().weights_name
    assert name.startswith("head_model-") and hashlib.sha256(data).hexdigest()[:16] in name
    assert STATEMENT in Provenance("prior", name, 0, "0", "0").statement

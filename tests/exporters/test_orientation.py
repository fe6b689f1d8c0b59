"""Every format, read by a reader that is not ours: left ear at +x, nose at +z, crown at +y, in metres.

Splats and mesh have a red left ear, a blue nose tip and a green crown; pictures are looked at where those must show.
"""

# pyright: reportAttributeAccessIssue=false
# OpenUSD's modules are compiled and come without stubs.

import base64
import gzip
import io
import json
import struct
import tempfile
import zipfile
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import plyfile
import pytest
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import SimpleMaterial

from dp360.exporters import formats, splat_glb
from dp360.exporters.contact_sheet import SheetContent, sheet_cameras
from dp360.generation import orbit
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh
from dp360.reconstruction.splats import Splats, splat_pictures

SH_C0 = 0.28209479


@dataclass
class Read:
    """What another reader finds in splats: metres, constant colours, covariance where it looks at rotations."""

    position: np.ndarray
    rgb: np.ndarray
    covariance: np.ndarray | None = None
    sh1: np.ndarray | None = None


def covariance(quats_wxyz: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Written out by hand (not the package's), from quaternions of any length."""
    w, x, y, z = (quats_wxyz / np.linalg.norm(quats_wxyz, axis=1, keepdims=True)).T
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)
    axes = rotation * scales[:, None, :]
    return axes @ axes.transpose(0, 2, 1)


def plyfile_reads_ply(data: bytes) -> Read:
    v = plyfile.PlyData.read(io.BytesIO(data))["vertex"]

    def stack(*names: str) -> np.ndarray:
        return np.stack([v[n] for n in names], axis=1)

    rgb = 0.5 + SH_C0 * stack("f_dc_0", "f_dc_1", "f_dc_2")
    scales = np.exp(stack("scale_0", "scale_1", "scale_2"))
    quats = stack("rot_0", "rot_1", "rot_2", "rot_3")
    return Read(stack("x", "y", "z"), rgb, covariance(quats, scales), stack("f_rest_0", "f_rest_1", "f_rest_2"))


def plyfile_reads_compressed_ply(data: bytes) -> Read:
    """Tables by plyfile, bits by hand."""
    ply = plyfile.PlyData.read(io.BytesIO(data))
    chunk, vertex = ply["chunk"], ply["vertex"]
    index = np.arange(len(vertex)) // 256

    def lerp(names: str, unit: np.ndarray, prefix: str = "") -> np.ndarray:
        low, high = (np.stack([chunk[f"{b}_{prefix}{n}"][index] for n in names], 1) for b in ("min", "max"))
        return low * (1 - unit) + high * unit

    p, c = vertex["packed_position"], vertex["packed_color"]
    position = np.stack([(p >> 21) / 2047, ((p >> 11) & 1023) / 1023, (p & 2047) / 2047], 1)
    rgb = np.stack([c >> 24, (c >> 16) & 255, (c >> 8) & 255], 1) / 255
    return Read(lerp("xyz", position), lerp("rgb", rgb))


def numpy_reads_splat(data: bytes) -> Read:
    rows = [struct.unpack("<6f8B", data[i : i + 32]) for i in range(0, len(data), 32)]
    table = np.array(rows)
    return Read(table[:, :3], table[:, 6:9] / 255, covariance(table[:, 10:] / 128 - 1, table[:, 3:6]))


def gzip_reads_spz(data: bytes) -> Read:
    payload = gzip.decompress(data)
    magic, version, n, degree, bits = struct.unpack("<4sIIBB", payload[:14])
    assert (magic, version, degree) == (b"NGSP", 3, 1)
    fixed = [int.from_bytes(payload[i : i + 3], "little", signed=True) for i in range(16, 16 + 9 * n, 3)]
    start = 16 + 9 * n + n
    colour = np.frombuffer(payload, np.uint8, 3 * n, start).reshape(n, 3)
    return Read(np.array(fixed).reshape(n, 3) / 2**bits, 0.5 + SH_C0 * (colour / 255 - 0.5) / 0.15)


def pillow_reads_sog(data: bytes) -> Read:
    archive = zipfile.ZipFile(io.BytesIO(data))
    meta = json.loads(archive.read("meta.json"))

    def pixels(name: str) -> np.ndarray:
        return (
            np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGBA"))
            .reshape(-1, 4)[: meta["count"]]
            .astype(int)
        )

    low, high = np.array(meta["means"]["mins"]), np.array(meta["means"]["maxs"])
    bits = pixels("means_l.webp")[:, :3] + 256 * pixels("means_u.webp")[:, :3]
    logarithm = low + (high - low) * bits / 65535
    rgb = 0.5 + SH_C0 * np.array(meta["sh0"]["codebook"])[pixels("sh0.webp")[:, :3]]
    return Read(np.sign(logarithm) * (np.exp(np.abs(logarithm)) - 1), rgb)


def glb_parts(data: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    length = struct.unpack("<I", data[12:16])[0]
    document = json.loads(data[20 : 20 + length])
    found = {}
    for name, index in document["meshes"][0]["primitives"][0]["attributes"].items():
        accessor = document["accessors"][index]
        view = document["bufferViews"][accessor["bufferView"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        assert accessor["componentType"] == 5126 and view["byteLength"] == 4 * width * accessor["count"]
        found[name] = np.frombuffer(data, "<f4", width * accessor["count"], 28 + length + view["byteOffset"])
        found[name] = found[name].reshape(-1, width)
    return document, found


def json_reads_glb(data: bytes) -> Read:
    _, found = glb_parts(data)
    prefix = "KHR_gaussian_splatting:"
    quats = found[f"{prefix}ROTATION"][:, [3, 0, 1, 2]]
    sh1 = np.stack([found[f"{prefix}SH_DEGREE_1_COEF_{i}"][:, 0] for i in range(3)], axis=1)
    rgb = 0.5 + SH_C0 * found[f"{prefix}SH_DEGREE_0_COEF_0"]
    return Read(found["POSITION"], rgb, covariance(quats, found[f"{prefix}SCALE"]), sh1)


def trimesh_reads_glb(data: bytes) -> Read:
    """A reader without the extension: a coloured point cloud."""
    (cloud,) = trimesh.load_scene(io.BytesIO(data), file_type="glb").geometry.values()
    assert isinstance(cloud, trimesh.PointCloud)
    colours = np.asarray(cloud.colors, dtype=np.float64)
    linear = colours[:, :3] / (255 if colours.max() > 1 else 1)
    return Read(
        np.asarray(cloud.vertices), np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    )


def openusd_reads(form: str):
    def read(data: bytes) -> Read:
        Usd = pytest.importorskip("pxr.Usd")
        from pathlib import Path

        from pxr import UsdGeom

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"head.{form}"
            path.write_bytes(data)
            stage = Usd.Stage.Open(str(path))
            assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
            prim = next(p for p in stage.Traverse() if p.GetTypeName() == "ParticleField3DGaussianSplat")
            value = {n: prim.GetAttribute(n).Get() for n in ("positions", "orientations", "scales")}
            sh = np.array(prim.GetAttribute("radiance:sphericalHarmonicsCoefficients").Get()).reshape(-1, 4, 3)
            quats = np.array([[q.GetReal(), *q.GetImaginary()] for q in value["orientations"]])
        covariances = covariance(quats, np.array(value["scales"]))
        return Read(np.array(value["positions"]), 0.5 + SH_C0 * sh[:, 0], covariances, sh[:, 1:, 0])

    return read


def gsply_reads(function: str, suffix: str):
    def read(data: bytes) -> Read:
        gsply = pytest.importorskip("gsply")
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"head{suffix}"
            path.write_bytes(data)
            found = getattr(gsply, function)(str(path))
        means, scales, quats, sh0, rest = (
            np.array(getattr(found, n)) for n in ("means", "scales", "quats", "sh0", "shN")
        )
        return Read(means, 0.5 + SH_C0 * sh0, covariance(quats, np.exp(scales)), rest[:, :, 0])

    return read


class _Html(HTMLParser):
    """The text of the element with a given id."""

    def __init__(self, wanted: str) -> None:
        super().__init__()
        self.wanted, self.inside, self.text = wanted, False, ""

    def handle_starttag(self, tag, attrs):
        self.inside = dict(attrs).get("id") == self.wanted

    def handle_data(self, data):
        self.text += data if self.inside else ""


def html_parser_reads_html(data: bytes) -> Read:
    """The page holds a .sog, which its viewer turns half a turn about z, as it does with every .sog."""
    page = _Html("head")
    page.feed(data.decode())
    read = pillow_reads_sog(base64.b64decode(page.text))
    return Read(read.position * [-1, -1, 1], read.rgb)


@dataclass
class MeshRead:
    """What another reader finds in a mesh: metres, triangles, and colours of the vertices where the format has them."""

    vertices: np.ndarray
    faces: np.ndarray
    rgb: np.ndarray | None


def texture_at(picture: Image.Image, uv_from_bottom: np.ndarray) -> np.ndarray:
    """Colours of a texture in [0, 1], nearest texel."""
    texels = np.asarray(picture.convert("RGB")) / 255
    height, width, _ = texels.shape
    column = np.clip(uv_from_bottom[:, 0] * width, 0, width - 1).astype(int)
    row = np.clip((1 - uv_from_bottom[:, 1]) * height, 0, height - 1).astype(int)
    return texels[row, column]


def trimesh_reads_glb_mesh(data: bytes) -> MeshRead:
    (mesh,) = trimesh.load_scene(io.BytesIO(data), file_type="glb").geometry.values()
    return MeshRead(mesh.vertices, mesh.faces, texture_at(mesh.visual.material.baseColorTexture, mesh.visual.uv))


def trimesh_reads_obj(folder: Path) -> MeshRead:
    mesh = trimesh.load_mesh(folder / "head.obj", process=False)
    assert isinstance(mesh.visual, TextureVisuals) and isinstance(mesh.visual.material, SimpleMaterial)
    assert mesh.visual.material.image is not None and mesh.visual.uv is not None
    return MeshRead(mesh.vertices, mesh.faces, texture_at(mesh.visual.material.image, mesh.visual.uv))


def open3d_reads(name: str):
    def read(folder: Path) -> MeshRead:
        open3d = pytest.importorskip("open3d")
        mesh = open3d.io.read_triangle_mesh(str(folder / name))
        rgb = np.asarray(mesh.vertex_colors) if mesh.has_vertex_colors() else None
        return MeshRead(np.asarray(mesh.vertices), np.asarray(mesh.triangles), rgb)

    return read


def trimesh_reads_stl(data: bytes) -> MeshRead:
    mesh = trimesh.load_mesh(io.BytesIO(data), file_type="stl")
    return MeshRead(mesh.vertices, mesh.faces, None)


def plyfile_reads_mesh(data: bytes) -> MeshRead:
    ply = plyfile.PlyData.read(io.BytesIO(data))
    vertex = ply["vertex"]
    rgb = np.stack([vertex[n] for n in ("red", "green", "blue")], axis=1) / 255
    faces = np.stack(list(ply["face"].data["vertex_indices"]))
    return MeshRead(np.stack([vertex[n] for n in "xyz"], axis=1), faces, rgb)


def openusd_reads_mesh(folder: Path) -> MeshRead:
    Usd = pytest.importorskip("pxr.Usd")
    from pxr import UsdGeom

    stage = Usd.Stage.Open(str(folder / "head.usdz"))
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    prim = next(p for p in stage.Traverse() if p.GetTypeName() == "Mesh")
    mesh = UsdGeom.Mesh(prim)
    np.testing.assert_array_equal(UsdGeom.Xformable(prim).ComputeLocalToWorldTransform(0), np.eye(4))
    points = np.array(mesh.GetPointsAttr().Get())
    faces = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    uv = UsdGeom.PrimvarsAPI(prim).GetPrimvar("st").ComputeFlattened()
    archive = zipfile.ZipFile(folder / "head.usdz")
    picture = next(n for n in archive.namelist() if n.endswith((".png", ".jpg")))
    at_uv = texture_at(Image.open(io.BytesIO(archive.read(picture))), np.array(uv))
    if len(at_uv) == len(points):
        return MeshRead(points, faces, at_uv)
    rgb = np.empty_like(points)
    rgb[faces.reshape(-1)] = at_uv  # one coordinate per corner
    return MeshRead(points, faces, rgb)


def pillow_reads_film(data: bytes) -> list[np.ndarray]:
    film = Image.open(io.BytesIO(data))
    pictures = []
    for i in range(film.n_frames):
        film.seek(i)
        pictures.append(np.asarray(film.convert("RGB")))
    return pictures


def opencv_reads_film(folder: Path) -> list[np.ndarray]:
    cv2 = pytest.importorskip("cv2")
    film, pictures = cv2.VideoCapture(str(folder / "head.mp4")), []
    while (found := film.read())[0]:
        pictures.append(found[1][..., ::-1])
    return pictures


def pillow_reads_sheet(data: bytes) -> list[np.ndarray]:
    """The eight renders in the lower row."""
    sheet = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    columns = np.array_split(sheet[len(sheet) // 2 :, -8 * (224 + round(224 * 0.045)) :], 8, axis=1)
    return list(columns)


BYTES, FOLDER = "bytes", "folder"
"""What a reader wants: the file's content, or the folder where it lies with its companions as head.EXTENSION."""
READERS = [
    (".ply", "splats", BYTES, plyfile_reads_ply),
    (".ply", "splats", BYTES, gsply_reads("plyread", ".ply")),
    (".compressed.ply", "splats", BYTES, plyfile_reads_compressed_ply),
    (".compressed.ply", "splats", BYTES, gsply_reads("plyread", ".compressed.ply")),
    (".splat", "splats", BYTES, numpy_reads_splat),
    (".spz", "splats", BYTES, gzip_reads_spz),
    (".spz", "splats", BYTES, gsply_reads("read_spz", ".spz")),
    (".sog", "splats", BYTES, pillow_reads_sog),
    (".glb", "splats", BYTES, json_reads_glb),
    (".glb", "splats", BYTES, trimesh_reads_glb),
    *((f".{form}", "splats", BYTES, openusd_reads(form)) for form in ("usdc", "usd", "usda", "usdz")),
    (".html", "splats", BYTES, html_parser_reads_html),
    (".glb", "mesh", BYTES, trimesh_reads_glb_mesh),
    (".obj", "mesh", FOLDER, trimesh_reads_obj),
    (".obj", "mesh", FOLDER, open3d_reads("head.obj")),
    (".ply", "mesh", BYTES, plyfile_reads_mesh),
    (".ply", "mesh", FOLDER, open3d_reads("head.ply")),
    (".stl", "mesh", BYTES, trimesh_reads_stl),
    (".stl", "mesh", FOLDER, open3d_reads("head.stl")),
    (".usdz", "mesh", FOLDER, openusd_reads_mesh),
    (".gif", "turntable", BYTES, pillow_reads_film),
    (".webp", "turntable", BYTES, pillow_reads_film),
    (".mp4", "turntable", FOLDER, opencv_reads_film),
    (".png", "sheet", BYTES, pillow_reads_sheet),
]


def test_every_format_has_a_reader():
    of_scenes = {
        (f.extension, f.kind) for f in formats.FORMATS if f.kind != "avatar"
    }  # test_avatar_files.py reads those
    assert of_scenes == {(e, k) for e, k, _, _ in READERS}


@pytest.fixture
def marked(marked_head: Splats, marked_mesh: TexturedMesh, views) -> dict:
    """The marked head as what files of each kind are made of."""
    portrait = views.rgba[0, ..., :3]
    return {
        "splats": marked_head,
        "mesh": marked_mesh,
        "turntable": list(splat_pictures(marked_head, orbit(8, size_px=96))),
        "sheet": SheetContent(portrait, views, splat_pictures(marked_head, sheet_cameras(96))),
    }


@pytest.mark.parametrize(("extension", "kind", "wants", "reader"), READERS)
def test_ear_lies_at_x_nose_at_z_crown_at_y(marked, provenance, tmp_path, extension, kind, wants, reader):
    if extension.startswith(".usd"):
        pytest.importorskip("pxr.UsdVol")
    files = formats.format_of(extension, kind).files(tmp_path / f"head{extension}", marked[kind], provenance)
    for path, data in files.items():
        path.write_bytes(data)
    read = reader(tmp_path if wants == FOLDER else files[tmp_path / f"head{extension}"])
    {"splats": splats_lie_right, "mesh": mesh_lies_right, "turntable": film_turns_right, "sheet": sheet_is_right}[kind](
        read
    )


def red_blue_green(rgb: np.ndarray) -> list[np.ndarray]:
    """Where the ear's, the nose's and the crown's colours are."""
    rgb = rgb.astype(np.float64) / (255 if rgb.dtype == np.uint8 else 1)
    return [rgb[..., c] - np.delete(rgb, c, axis=-1).max(axis=-1) > 0.3 for c in (0, 2, 1)]


def splats_lie_right(read: Read) -> None:
    red, blue, green = red_blue_green(read.rgb)
    assert red.sum() == blue.sum() == green.sum() == 20
    np.testing.assert_allclose(read.position[red].mean(axis=0), [0.096, 0, 0], atol=2e-3)
    np.testing.assert_allclose(read.position[blue].mean(axis=0), [0, -0.0144, 0.12], atol=2e-3)
    np.testing.assert_allclose(read.position[green].mean(axis=0), [0, 0.12, 0], atol=2e-3)
    if read.covariance is not None:  # the needles: nose along z, ear along (0, 1, 1)
        variance = (0.02 * METRES_PER_UNIT) ** 2
        nose, ear = read.covariance[blue].mean(axis=0) / variance, read.covariance[red].mean(axis=0) / variance
        np.testing.assert_allclose(np.diag(nose), [0.04, 0.04, 1], atol=0.05)
        np.testing.assert_allclose(np.diag(ear), [0.04, 0.52, 0.52], atol=0.05)
        assert ear[1, 2] > 0.4
    if read.sh1 is not None:  # brighter from the left: the coefficient of -x
        np.testing.assert_allclose(read.sh1.mean(axis=0), [0, 0, 0.1], atol=0.02)


def mesh_lies_right(read: MeshRead) -> None:
    """The shape is marked, too: only the left ear, the nose and the crown stick out."""
    low, high = read.vertices.min(axis=0), read.vertices.max(axis=0)
    np.testing.assert_allclose(high, [0.115, 0.14, 0.14], atol=0.006)
    np.testing.assert_allclose(low, [-0.09, -0.12, -0.1], atol=0.004)
    tips = read.vertices[read.vertices.argmax(axis=0)]
    assert (np.abs(tips - np.diag(np.diag(tips))) < 0.01).all()
    a, b, c = (read.vertices[read.faces[:, i]] for i in range(3))
    assert (a * np.cross(b, c)).sum() / 6 > 0.004  # cubic metres: faces look outwards
    if read.rgb is not None:
        for axis, found in zip((0, 2, 1), red_blue_green(read.rgb)):
            middle = read.vertices[found].mean(axis=0)
            assert found.sum() > 10 and middle[axis] > 0.09 and np.abs(np.delete(middle, axis)).max() < 0.02


def film_turns_right(pictures: list[np.ndarray]) -> None:
    """Eight frames; the camera goes from the front towards the head's left."""
    assert len(pictures) == 8
    shows_front_then_left(pictures)


def sheet_is_right(pictures: list[np.ndarray]) -> None:
    """Columns for 0, 45, 90 ... degrees."""
    shows_front_then_left(pictures)


def shows_front_then_left(pictures: list[np.ndarray]) -> None:
    """Eight pictures, 45 degrees apart: the nose in the middle of the first, the ear in the middle of the third."""
    amounts = [[found.sum() for found in red_blue_green(picture)] for picture in pictures]
    assert max(range(8), key=lambda i: amounts[i][0]) == 2 and amounts[6][0] == 0
    assert amounts[0][1] > 0 and amounts[4][1] == 0 and all(a[2] > 0 for a in amounts)
    front, left = pictures[0], pictures[2]
    middle = front.shape[1] / 2

    def place(found: np.ndarray) -> np.ndarray:
        return np.argwhere(found).mean(axis=0)

    ear, nose, crown = (place(found) for found in red_blue_green(front))
    assert abs(nose[1] - middle) < 0.1 * middle and ear[1] > 1.25 * middle  # the head's left is our right
    assert crown[0] < nose[0] and abs(crown[1] - middle) < 0.1 * middle
    ear, nose, _ = red_blue_green(left)
    assert abs(place(ear)[1] - middle) < 0.1 * middle and place(nose)[1] < 0.8 * middle


def test_glb_falls_back_to_linear_colours(marked_head, provenance):
    document, found = glb_parts(splat_glb.encode(marked_head, provenance))
    assert document["extensionsUsed"] == ["KHR_gaussian_splatting"] and "extensionsRequired" not in document
    primitive = document["meshes"][0]["primitives"][0]
    assert primitive["mode"] == 0
    assert primitive["extensions"] == {
        "KHR_gaussian_splatting": {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    }
    srgb = np.clip(0.5 + SH_C0 * marked_head.sh0.numpy(), 0, 1)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(found["COLOR_0"][:, :3], linear, atol=1e-6)
    np.testing.assert_array_equal(found["COLOR_0"][:, 3], found["KHR_gaussian_splatting:OPACITY"][:, 0])
    np.testing.assert_allclose(np.linalg.norm(found["KHR_gaussian_splatting:ROTATION"], axis=1), 1, atol=2e-7)
    assert document["asset"]["extras"]["dp360"]["seed"] == 7
    position = document["accessors"][primitive["attributes"]["POSITION"]]
    np.testing.assert_array_equal(position["max"], found["POSITION"].max(axis=0))

"""Every reader of files that people bring, with small files that it reads: what the campaign on files damages."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dp360.exporters import mesh_glb, mesh_obj, mesh_ply, mesh_stl
from dp360.exporters.formats import format_of, read_splat_file
from dp360.exporters.mesh_read import is_mesh_file, read_mesh
from dp360.generation import InputError, OrbitConfig, PointCloud, Provenance, ViewSet, orbit
from dp360.generation.dataset.point_cloud_ply import decode_point_cloud, encode_point_cloud
from dp360.generation.dataset.view_dataset import background_notice, read_confidence, read_dataset, write_dataset
from dp360.generation.mesh import TexturedMesh
from dp360.generation.portrait.image_io import load_image
from dp360.reconstruction.splats import Splats, render_splats, splats_from_point_cloud

from .mutations import GLB, GZIP, JSON, SAFETENSORS, ZIP, Structure

_OPENUSD = 0.2
"""Weight of readers that start a process for every file."""
PROVENANCE = Provenance("prior", "weights", 0, "0" * 64, "0.1.0")


@dataclass(frozen=True)
class Reader:
    """One reader, and what it is tried on."""

    name: str
    """Kind of file, for the table."""
    file_name: str
    """Name under which a damaged file is written; a path for those that lie in a folder of others."""
    files: tuple[bytes, ...]
    """Whole files that are read."""
    read: Callable[[Path, bytes], None]
    """Reads the file that lies there with these bytes; refuses with `InputError`."""
    structure: Structure | None = None
    """How to look into the files."""
    beside: Callable[[Path], None] = field(default=lambda folder: None)
    """Writes the files that belong beside it into a folder."""
    share: float = 1.0
    """Weight of the reader in a campaign."""


def splats(count: int = 12, degree: int = 1, seed: int = 2) -> Splats:
    """Random Gaussians."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    rest = normal(count, (degree + 1) ** 2 - 1, 3)
    return Splats(normal(count, 3), normal(count, 3) - 4, normal(count, 4), normal(count), normal(count, 3), rest)


def views(size_px: int = 16, count: int = 4) -> ViewSet:
    """A ball of noise from a few sides."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(40, 3, generator=generator), dim=-1)
    rgba = torch.randint(0, 256, (count, size_px, size_px, 4), generator=generator, dtype=torch.uint8)
    names = tuple(f"view_{i}" for i in range(count))
    surface = PointCloud(0.2 * normals, normals, 0.5 + 0.4 * normals)
    return ViewSet(rgba, orbit(count, size_px=size_px), torch.ones(count), names, surface, PROVENANCE)


def ball_views(size_px: int = 64) -> tuple[Splats, ViewSet]:
    """A ball of Gaussians, coloured by direction, and pictures of it."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(600, 3, generator=generator), dim=-1)
    surface = PointCloud(0.3 * normals, normals, 0.5 + 0.45 * normals)
    head = splats_from_point_cloud(surface)
    head.opacity_logits[:] = 3.0
    cameras = OrbitConfig(ring_count=8, upper_count=2, lower_count=0).cameras(size_px)
    rgb, alpha = render_splats(head, cameras, background_rgb_unit=(0.0, 0.0, 0.0))
    rgba = torch.cat([(rgb / alpha[..., None].clamp_min(1e-4)).clamp(0, 1), alpha[..., None]], dim=-1)
    pixels = rgba.mul(255).round().to(torch.uint8)
    names = tuple(f"view_{i:03d}" for i in range(len(cameras)))
    return head, ViewSet(pixels, cameras, torch.ones(len(cameras)), names, surface, PROVENANCE)


def mesh() -> TexturedMesh:
    """A tetrahedron with a picture."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32)
    faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]], np.int32)
    uv = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return TexturedMesh(0.1 * corners, corners / np.float32(3**0.5), uv, faces, picture)


def _read_splats(path: Path, data: bytes) -> None:
    file = read_splat_file(path.name, data)
    for values in vars(file.splats).values():
        if isinstance(values, torch.Tensor) and not bool(torch.isfinite(values).all()):
            raise AssertionError("a number that is not finite got through")


def _read_mesh(path: Path, data: bytes) -> None:
    if is_mesh_file(path):
        read_mesh(path)


def _read_cloud(path: Path, data: bytes) -> None:
    decode_point_cloud(data)


def _read_data_set(path: Path, data: bytes) -> None:
    folder = path.parent if path.name == "transforms.json" else path.parent.parent
    if path.name == "sparse_pc.ply":
        folder = path.parent
    found = read_dataset(folder)
    read_confidence(folder)
    background_notice(found)


def _read_picture(path: Path, data: bytes) -> None:
    load_image(path)


def _of_format(extension: str, *encoded: bytes, structure: Structure | None = None, share: float = 1.0) -> Reader:
    form = format_of(f"a{extension}", "splats")
    files = encoded or tuple(
        form.encode(splats(count, degree), PROVENANCE) for count, degree in ((12, 1), (3, 0), (5, 3))
    )
    return Reader(f"splats {extension}", f"file{extension}", files, _read_splats, structure, share=share)


def splat_readers(cases: Path | None) -> list[Reader]:
    """Splats in every form.

    Args:
        cases: a folder with files as people meet them, if there is one.
    """
    some = splats()
    spz = format_of("a.spz").encode
    met = {suffix: _met(cases, suffix) for suffix in (".ply", ".spz", ".splat")}
    version_4 = tuple(data for data in met[".spz"] if data[:4] == b"NGSP")
    readers = [
        _of_format(
            ".ply",
            *(format_of("a.ply").encode(splats(n, d), PROVENANCE) for n, d in ((12, 1), (4, 3))),
            *met[".ply"],
            share=3,
        ),
        _of_format(".compressed.ply", share=2),
        _of_format(".splat", share=1),
        _of_format(".spz", *(spz(some, PROVENANCE, version=v) for v in (2, 3)), structure=GZIP, share=2),
        _of_format(".sog", structure=ZIP, share=2),
        _of_format(".glb", format_of("a.glb", "splats").encode(some, PROVENANCE), structure=GLB, share=3),
        _of_format(".html", format_of("a.html").encode(some, PROVENANCE)),
        _of_format(".usda", share=_OPENUSD),
        _of_format(".usdc", share=_OPENUSD),
        _of_format(".usdz", structure=ZIP, share=_OPENUSD),
    ]
    if version_4:
        readers.append(Reader("splats .spz 4", "file.spz", version_4, _read_splats))
    return readers


def _met(cases: Path | None, suffix: str) -> list[bytes]:
    """Small files of a kind among those that people have met."""
    found = sorted(cases.glob(f"*{suffix}")) if cases is not None and cases.is_dir() else []
    return [data for path in found if len(data := path.read_bytes()) < 300_000]


def mesh_readers() -> list[Reader]:
    """Meshes in every form that is read."""
    surface = mesh()
    obj = mesh_obj.encode(surface, PROVENANCE, stem="file")

    def beside_obj(folder: Path) -> None:
        for name, data in mesh_obj.companions(surface, PROVENANCE, stem="file").items():
            (folder / name).write_bytes(data)

    return [
        Reader("mesh .glb", "file.glb", (mesh_glb.encode(surface, PROVENANCE),), _read_mesh, GLB, share=2),
        Reader("mesh .obj", "file.obj", (obj,), _read_mesh, beside=beside_obj),
        Reader("mesh .ply", "file.ply", (mesh_ply.encode(surface, PROVENANCE),), _read_mesh),
        Reader("mesh .stl", "file.stl", (mesh_stl.encode(surface, PROVENANCE),), _read_mesh),
    ]


def data_set_readers() -> list[Reader]:
    """Parts of a data set, each damaged among whole ones."""
    given = views()
    with tempfile.TemporaryDirectory() as scratch:
        write_dataset(given, Path(scratch, "data"))
        transforms = Path(scratch, "data", "transforms.json").read_bytes()
        picture = Path(scratch, "data", "images", "view_0.png").read_bytes()

    def beside(folder: Path) -> None:
        write_dataset(given, folder)

    cloud = encode_point_cloud(given.surface)
    return [
        Reader("transforms.json", "transforms.json", (transforms,), _read_data_set, JSON, beside, share=3),
        Reader("picture of a data set", "images/view_0.png", (picture,), _read_data_set, None, beside),
        Reader("point cloud .ply", "sparse_pc.ply", (cloud,), _read_cloud),
    ]


def picture_readers() -> list[Reader]:
    """Portraits in the forms that cameras, phones and programs write."""
    rng = np.random.default_rng(1)
    small = np.kron(rng.integers(0, 256, (9, 9, 4), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    rgba = Image.fromarray(small)
    exif = Image.Exif()
    exif[274] = 6

    def saved(kind: str, picture: Image.Image = rgba, **options: Any) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        return buffer.getvalue()

    rgb = rgba.convert("RGB")
    forms = {
        ".png": (saved("PNG"), saved("PNG", rgb.convert("P")), saved("PNG", rgb.convert("I;16"))),
        ".jpg": (
            saved("JPEG", rgb, exif=exif),
            saved("JPEG", rgb.convert("CMYK")),
            saved("JPEG", rgb, progressive=True),
        ),
        ".webp": (saved("WEBP"), saved("WEBP", rgb, lossless=True)),
        ".gif": (saved("GIF", rgb.convert("P")),),
        ".tif": (saved("TIFF"), saved("TIFF", rgb, compression="tiff_lzw"), saved("TIFF", rgb.convert("F"))),
        ".bmp": (saved("BMP", rgb),),
        ".avif": (saved("AVIF", rgb),),
        ".ppm": (saved("PPM", rgb),),
        ".tga": (saved("TGA"),),
    }
    return [Reader(f"picture {suffix}", f"face{suffix}", files, _read_picture) for suffix, files in forms.items()]


def weight_readers() -> list[Reader]:
    """Weights that people name: of the head field, and checkpoints of official releases."""
    from safetensors.torch import save

    from dp360.generation.diffusion.release.checkpoint import CheckpointFile
    from dp360.generation.networks import NetworkFile
    from dp360.generation.prior.field.field_denoiser import FieldDenoiser, FieldDenoiserConfig

    network_file = NetworkFile("field_denoiser", FieldDenoiser, FieldDenoiserConfig)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "net.safetensors")
        small = FieldDenoiserConfig(latents=2, width=16, blocks=1, heads=2, hidden=1)
        network_file.save(path, FieldDenoiser(small), {"seed": "0"})
        network = path.read_bytes()
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(4, dtype=torch.float16)}
    packed = io.BytesIO()
    torch.save({"state_dict": tensors}, packed)

    def read_network(path: Path, data: bytes) -> None:
        network_file.read(path)

    def read_checkpoint(path: Path, data: bytes) -> None:
        CheckpointFile.inspect(path).tensors()

    return [
        Reader("weights .safetensors", "net.safetensors", (network,), read_network, SAFETENSORS),
        Reader("checkpoint .safetensors", "net.safetensors", (save(tensors),), read_checkpoint, SAFETENSORS),
        Reader("checkpoint .pt", "net.pt", (packed.getvalue(),), read_checkpoint, ZIP),
    ]


def all_readers(cases: Path | None = None) -> list[Reader]:
    """All readers.

    Args:
        cases: a folder with files as people meet them, if there is one.
    """
    return [*splat_readers(cases), *mesh_readers(), *data_set_readers(), *picture_readers(), *weight_readers()]


def outcome_of(reader: Reader, path: Path, data: bytes) -> str:
    """Read a file and say how it ended: "read" or "refused".

    Raises:
        Exception: whatever the reader lets through that is no `InputError`, and `AssertionError` for a refusal that is
            no single sentence of at most 500 characters.
    """
    path.write_bytes(data)
    try:
        reader.read(path, data)
    except InputError as error:
        sentence = str(error).replace(str(path.parent), "")
        if "\n" in sentence or len(sentence) > 500:
            raise AssertionError(f"no single sentence: {sentence[:600]!r}") from error
        return "refused"
    return "read"


def prepared(reader: Reader, folder: Path) -> Path:
    """Where a reader's damaged files are to be written, with what belongs beside them."""
    place = folder / reader.name.replace(" ", "_").replace("/", "_")
    os.makedirs(place, exist_ok=True)
    reader.beside(place)
    return place / reader.file_name


def others_of(readers: Iterable[Reader]) -> tuple[bytes, ...]:
    """One file of each kind, to splice with."""
    return tuple(reader.files[0] for reader in readers)

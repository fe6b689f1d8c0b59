"""Meshes out of files, ours and other people's: .glb, .obj, .ply and .stl, all read by trimesh."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dp360.generation import InputError, Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh

from . import ply_tables, splat_glb
from .colour_space import linear_from_srgb, srgb_from_linear
from .gltf_binary import read_glb
from .provenance import provenance_from_json
from .splat_file_frame import reading

if TYPE_CHECKING:
    import trimesh

    from .meshing.unwrap import Unwrapped

EXTENSIONS = (".glb", ".obj", ".ply", ".stl")
_GREY = 190
"""Of 255: colour of a mesh that brings none."""
_VERTEX_COLOUR_TEXTURE_PX = 2048
_UV_SLACK = 1e-3
"""Texture coordinates this far outside of the picture are rounding."""
_MOST_QUOTED = 120
"""Characters of another library's message in a sentence."""
_MOST_REACH = 1e4
"""Times the distance of most vertices: what lies farther out is damage, and takes unwrapping for ever."""
_NOTES = {".obj": rb"^# dp360\.provenance (.*)$", ".ply": rb"^comment dp360\.provenance (.*)$"}


def is_mesh_file(path: Path) -> bool:
    """Whether a file is to be read as a mesh: .obj, .stl, and .glb or .ply that hold no splats.

    Raises:
        InputError: the file cannot be read, or is a damaged .glb or .ply.
    """
    extension = path.suffix.lower()
    if extension == ".glb":
        data = _bytes(path)
        with reading(path):
            return not splat_glb.holds_splats(data)
    if extension == ".ply":
        return bool(re.search(rb"\nelement face \d+\s", _bytes(path)[: ply_tables.HEADER_BYTES_MAX]))
    return extension in EXTENSIONS


def load_trimesh(path: Path) -> trimesh.Trimesh:
    """All triangles of a mesh file as one mesh, in the file's own unit.

    Raises:
        InputError: no such file, another ending, a damaged file, or one without triangles.
    """
    import trimesh
    from trimesh.resolvers import FilePathResolver

    if path.suffix.lower() not in EXTENSIONS:
        raise InputError(f"Cannot read {path} as a mesh: expected a name that ends in one of {', '.join(EXTENSIONS)}")
    data = _bytes(path)
    try:  # a resolver finds the material and the picture beside an .obj
        resolver = FilePathResolver(str(path))
        mesh = trimesh.load(
            io.BytesIO(data), file_type=path.suffix.lower()[1:], resolver=resolver, force="mesh", process=False
        )
    except Exception as error:  # trimesh names damage in many ways
        line = (str(error).splitlines() or [type(error).__name__])[0][:_MOST_QUOTED]
        raise InputError(f"Cannot read {path}: the file is damaged or no mesh ({line}); export it again") from error
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise InputError(f"Cannot read {path}: expected triangles, found none; a point cloud is no mesh")
    if mesh.vertices.shape[1:] != (3,) or mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise InputError(f"Cannot read {path}: its triangles do not fit its vertices; export it again")
    if not np.isfinite(mesh.vertices).all():
        raise InputError(f"Cannot read {path}: positions hold NaN or Inf; export it again")
    with np.errstate(over="ignore"):
        reach = np.abs(mesh.vertices - np.median(mesh.vertices, axis=0)).max(axis=1)
    if reach.max() > _MOST_REACH * np.median(reach) > 0:
        raise InputError(
            f"Cannot read {path}: a vertex lies {reach.max() / np.median(reach):.0g} times as far out as most; "
            "remove it"
        )
    return mesh


def read_mesh(path: Path) -> tuple[TexturedMesh, Provenance | None]:
    """A mesh file as one textured mesh, and its origin where it is one of ours that says so.

    Numbers are taken for metres, +y up, the face to +z. Colours of vertices and faces become a texture; a mesh without
    colours becomes grey. Colours of a .glb are linear but in its pictures, those of other files sRGB.

    Raises:
        InputError: as `load_trimesh`, a texture that repeats, or a damaged note of its origin.
    """
    mesh, is_gltf = load_trimesh(path), path.suffix.lower() == ".glb"
    uv, picture = _texture_of(mesh)
    if uv is None or picture is None:
        return _with_texture(mesh, linear=is_gltf), _provenance(path)
    if uv.min() < -_UV_SLACK or uv.max() > 1 + _UV_SLACK:
        raise InputError(f"Cannot read {path}: its texture repeats; bake it into one picture first")
    from_top_left = np.clip(uv[:, :2] * [1, -1] + [0, 1], 0, 1)
    texture_rgb = np.array(picture.convert("RGB"))
    factor = getattr(getattr(mesh.visual, "material", None), "baseColorFactor", None) if is_gltf else None
    if factor is not None and (np.asarray(factor)[:3] < 255).any():
        light = linear_from_srgb(texture_rgb / np.float32(255)) * (np.asarray(factor)[:3] / 255)
        texture_rgb = np.rint(srgb_from_linear(light) * 255).astype(np.uint8)
    return _textured(mesh, from_top_left, texture_rgb), _provenance(path)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}") from error


def _textured(
    mesh: trimesh.Trimesh, uv_unit: np.ndarray, texture_rgb: np.ndarray, split: Unwrapped | None = None
) -> TexturedMesh:
    """The mesh in world units with a picture; its vertices split along seams, if they are not yet."""
    index = slice(None) if split is None else split.vertex_index
    return TexturedMesh(
        vertices_world=(mesh.vertices[index] / METRES_PER_UNIT).astype(np.float32),
        normals_world=mesh.vertex_normals[index].astype(np.float32),
        uv_unit=uv_unit.astype(np.float32),
        faces=(mesh.faces if split is None else split.faces).astype(np.int32),
        texture_rgb=texture_rgb,
    )


def _texture_of(mesh: trimesh.Trimesh) -> tuple[np.ndarray | None, Image.Image | None]:
    """Texture coordinates from the bottom left, and the base colour's picture."""
    material = getattr(mesh.visual, "material", None)
    named = (getattr(material, name, None) for name in ("baseColorTexture", "image"))
    picture = next((found for found in named if isinstance(found, Image.Image)), None)
    uv = getattr(mesh.visual, "uv", None)
    fits = uv is not None and np.ndim(uv) == 2 and len(uv) == len(mesh.vertices) and np.shape(uv)[1] >= 2
    return uv if fits else None, picture


def _with_texture(mesh: trimesh.Trimesh, *, linear: bool) -> TexturedMesh:
    """The mesh with a texture made from its colours.

    Args:
        linear: whether they are light, as glTF holds all colours but pictures, rather than sRGB.
    """

    def shown(colours: np.ndarray) -> np.ndarray:
        return srgb_from_linear(colours / 255) * 255 if linear else colours

    from trimesh.visual import ColorVisuals

    if not isinstance(mesh.visual, ColorVisuals) or mesh.visual.kind is None:
        colour = getattr(getattr(mesh.visual, "material", None), "main_color", None)
        grey = (
            np.full(3, _GREY, np.uint8) if colour is None else np.rint(shown(np.asarray(colour[:3]))).astype(np.uint8)
        )
        return _textured(mesh, np.full((len(mesh.vertices), 2), 0.5), np.tile(grey, (4, 4, 1)))
    from dp360.generation.mesh_raster import interpolate, rasterize_texture

    from .meshing.baking import continued
    from .meshing.unwrap import unwrap

    unwrapped = unwrap(mesh, texture_px=_VERTEX_COLOUR_TEXTURE_PX)
    side = _VERTEX_COLOUR_TEXTURE_PX
    fragments = rasterize_texture(unwrapped.uv_unit, unwrapped.faces, side, side)
    colours = shown(np.asarray(mesh.visual.vertex_colors)[unwrapped.vertex_index, :3]).astype(np.float32)
    picture = np.rint(interpolate(fragments, colours, unwrapped.faces)).clip(0, 255).astype(np.uint8)
    return _textured(mesh, unwrapped.uv_unit, continued(picture, fragments.hit), unwrapped)


def _provenance(path: Path) -> Provenance | None:
    """The origin that our writers put into a file."""
    data, extension = _bytes(path), path.suffix.lower()
    with reading(path):
        if extension == ".glb":
            return splat_glb.note_of(read_glb(data)[0]).provenance
        pieces = re.findall(_NOTES.get(extension, rb"(?!)"), data[: ply_tables.HEADER_BYTES_MAX], re.MULTILINE)
        return provenance_from_json(b"".join(pieces).decode("ascii", "replace")) if pieces else None

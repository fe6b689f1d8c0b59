"""Gaussian splats as binary glTF (.glb) with `KHR_gaussian_splatting`: lossless, and a point cloud to other readers.

One POINTS primitive with float32 attributes: positions, rotations x, y, z, w of length one, linear scales, opacities in
[0, 1], and every harmonic degree as its own attributes. `COLOR_0` holds the constant colour, decoded from sRGB to
linear, and the opacity: what readers without the extension show. The extension is used, not required. The SPZ
compression on top of it is still a draft and left out.

Frame and unit are glTF's own: metres, +y up, the face to +z. Nothing is turned, hence no harmonics are either.

Own code: trimesh and pygltflib know nothing of the extension.

Source: https://github.com/KhronosGroup/glTF/tree/main/extensions/2.0/Khronos/KHR_gaussian_splatting
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dp360.generation import InputError, Provenance
from dp360.reconstruction.spherical_harmonics import rgb_from_sh0
from dp360.reconstruction.splats import Splats

from .gltf_binary import glb, read_accessor, read_glb, vertex_attributes
from .json_document import item
from .splat_file_frame import FileNote, SplatArrays, file_note, reading, splat_encoder, splats_from_file

EXTENSION = "KHR_gaussian_splatting"

_POINTS = 0
_COLOUR_SPACE = "srgb_rec709_display"


@splat_encoder
def encode(arrays: SplatArrays, note: FileNote) -> bytes:
    """A complete .glb file, the origin in `asset.extras`.

    Raises:
        ValueError: no Gaussians.
    """
    if not len(arrays):
        raise ValueError("splat_glb.encode: expected at least one Gaussian, got none")
    opacity = arrays.opacity[:, None]
    values = {
        "POSITION": arrays.means,
        "COLOR_0": np.concatenate([_linear(np.clip(rgb_from_sh0(arrays.sh0), 0, 1)), opacity], axis=1),
        f"{EXTENSION}:ROTATION": arrays.quats_xyzw,
        f"{EXTENSION}:SCALE": arrays.scales,
        f"{EXTENSION}:OPACITY": opacity,
        **dict(zip(_harmonic_names(arrays.sh_degree), arrays.harmonics.transpose(1, 0, 2))),
    }
    described, buffer = vertex_attributes(values)
    primitive = {
        "attributes": {name: number for number, name in enumerate(values)},
        "mode": _POINTS,
        "extensions": {EXTENSION: {"kernel": "ellipse", "colorSpace": _COLOUR_SPACE}},
    }
    document = {
        "asset": {"version": "2.0", "generator": note.generator, "extras": {"dp360": note.as_json_data()}},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "head", "mesh": 0}],
        "meshes": [{"name": "head", "primitives": [primitive]}],
        **described,
    }
    return glb(document, buffer)


@reading("splats from this .glb")
def decode(data: bytes) -> tuple[Splats, Provenance | None]:
    """Gaussians in world units out of the first primitive with `KHR_gaussian_splatting`, and the file's origin.

    Raises:
        InputError: not a .glb, none such in it, it is moved by its node or has other colours than sRGB (bake that
            first), a part lies outside the file, or a number is not finite or out of range.
    """
    document, buffer = read_glb(data)
    attributes = item(_find_primitive(document), "attributes")
    names = attributes.keys() if isinstance(attributes, dict) else ()

    def read(name: str, components: int) -> Float[np.ndarray, "n c"]:
        return read_accessor(document, buffer, item(attributes, name), components)

    means, quats = read("POSITION", 3), read(f"{EXTENSION}:ROTATION", 4)
    scales, opacity = read(f"{EXTENSION}:SCALE", 3), read(f"{EXTENSION}:OPACITY", 1)[:, 0]
    degree = max(d for d in range(4) if d == 0 or f"{EXTENSION}:SH_DEGREE_{d}_COEF_0" in names)
    harmonics = [read(name, 3) for name in _harmonic_names(degree)]
    lengths = {len(values) for values in (means, quats, scales, opacity, *harmonics)}
    if len(lengths) != 1:
        raise InputError(f"its attributes differ in length: {sorted(lengths)}")
    arrays = SplatArrays.from_linear(means, scales, quats, opacity, np.stack(harmonics, axis=1))
    return splats_from_file(arrays, note_of(document))


def holds_splats(data: bytes) -> bool:
    """Whether a .glb uses the extension.

    Raises:
        InputError: not a .glb.
    """
    used = read_glb(data)[0].get("extensionsUsed")
    return isinstance(used, list) and EXTENSION in used


def _find_primitive(document: dict) -> dict:
    """The first primitive with the extension, checked for what we do not follow."""
    for number, mesh in enumerate(_list(document, "meshes")):
        for primitive in _list(mesh, "primitives"):
            extensions = primitive.get("extensions") if isinstance(primitive, dict) else None
            described = extensions.get(EXTENSION) if isinstance(extensions, dict) else None
            if isinstance(described, dict):
                if described.get("colorSpace") != _COLOUR_SPACE or "extensions" in described:
                    raise InputError(
                        f"expected colours in {_COLOUR_SPACE} without compression, got {str(described)[:80]}; convert "
                        "it first"
                    )
                _refuse_moved(document, number)
                return primitive
    raise InputError(f"it holds no {EXTENSION}; a mesh is no Gaussian splat file")


def _refuse_moved(document: dict, mesh: int) -> None:
    """Refuse a node above the splats with a transform: harmonics would have to turn too."""
    nodes = _list(document, "nodes")
    parents: dict[int, list[int]] = {}
    for number, node in enumerate(nodes):
        for child in _list(node, "children"):
            if isinstance(child, int):
                parents.setdefault(child, []).append(number)
    waiting = [i for i, node in enumerate(nodes) if isinstance(node, dict) and node.get("mesh") == mesh]
    while waiting:
        number = waiting.pop()
        moved = [k for k in ("matrix", "translation", "rotation", "scale") if k in nodes[number]]
        if moved:
            raise InputError(f"a node moves them ({moved[0]}); bake the transform first")
        waiting += parents.pop(number, [])  # asked once, even where nodes go round in a circle


def _list(holder: object, name: str) -> list:
    """A list of the document; empty where there is none."""
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, list) else []


def note_of(document: dict) -> FileNote:
    """Our note in `asset.extras`."""
    extras = document["asset"].get("extras") if isinstance(document.get("asset"), dict) else None
    return file_note(extras.get("dp360") if isinstance(extras, dict) else None)


def _harmonic_names(degree: int) -> list[str]:
    """Attribute names of all harmonics up to a degree: within a degree by order, from -l to l."""
    return [f"{EXTENSION}:SH_DEGREE_{d}_COEF_{n}" for d in range(degree + 1) for n in range(2 * d + 1)]


def _linear(srgb: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """sRGB display values decoded to linear light (IEC 61966-2-1)."""
    high = ((srgb.astype(np.float64) + 0.055) / 1.055) ** 2.4
    return np.where(srgb <= 0.04045, srgb / 12.92, high).astype(np.float32)

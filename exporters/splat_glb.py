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

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from dp360.generation import InputError
from dp360.reconstruction.spherical_harmonics import rgb_from_sh0, sh0_from_rgb

from .colour_space import linear_from_srgb, srgb_from_linear
from .gltf_binary import glb, read_accessor, read_glb, vertex_attributes
from .json_document import item, whole
from .splat_file_frame import FileNote, SplatArrays, file_note, splat_encoder
from .splat_moves import joined, moved, refuse_unless_rigid
from .splat_reading import ParsedSplats, splat_decoder

EXTENSION = "KHR_gaussian_splatting"

_POINTS = 0
_COLOUR_SPACE, _LINEAR_SPACE = "srgb_rec709_display", "lin_rec709_display"
_SLOPE_STEP = 1e-4
"""Of linear colour, over which the slope of the sRGB curve is taken."""
_UNTURNED, _UNMOVED = np.eye(3), np.zeros(3)
_MOST_NODES = 200_000
"""Nodes that are looked at, each as often as it is shown."""


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
        "COLOR_0": np.concatenate([_light(arrays), opacity], axis=1),
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


@splat_decoder("splats from this .glb")
def decode(data: bytes) -> ParsedSplats:
    """All primitives with `KHR_gaussian_splatting` of the scene, moved as their nodes say.

    Primitives of other degrees are filled up with zeros. Linear colours become sRGB as the constant harmonic shows
    them; the others follow by the slope of the curve there. Colours of a space that is not named are taken as sRGB.

    Raises:
        InputError: not a .glb, none such in it, a node moves them by more than a rotation and a shift, colours in
            another space, compression, or a part lies outside the file.
    """
    document, buffer = read_glb(data)
    placed = list(_placed_meshes(document))
    parts, told, others = [], dict[str, None](), 0
    for number, linear, offset in placed:
        for primitive in _list(item(document, "meshes", number), "primitives"):
            described = _description(primitive)
            if described is None:
                others += 1
                continue
            arrays = _read_primitive(document, buffer, primitive)
            arrays, notice = _as_srgb(arrays, described)
            told |= dict.fromkeys(notice)
            parts.append(moved(arrays, linear, offset))
    if not parts:
        raise InputError(f"it holds no {EXTENSION}; a mesh is no Gaussian splat file")
    hidden = sorted(set(range(len(_list(document, "meshes")))) - {number for number, *_ in placed})
    if others:
        told[f"Its {others} primitives that are no Gaussians are left out."] = None
    if any(_description(p) is not None for k in hidden for p in _list(item(document, "meshes", k), "primitives")):
        told["Gaussians that its scene does not show are left out."] = None
    return ParsedSplats(joined(parts), note_of(document), np.eye(3), notices=tuple(told))


def holds_splats(data: bytes) -> bool:
    """Whether a .glb uses the extension.

    Raises:
        InputError: not a .glb.
    """
    used = read_glb(data)[0].get("extensionsUsed")
    return isinstance(used, list) and EXTENSION in used


def _read_primitive(document: dict, buffer: memoryview, primitive: dict) -> SplatArrays:
    """The numbers of one primitive."""
    attributes = item(primitive, "attributes")
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
    return SplatArrays.from_linear(means, scales, quats, opacity, np.stack(harmonics, axis=1))


def _description(primitive: object) -> dict | None:
    """What the extension says about a primitive; None where it is not used."""
    extensions = primitive.get("extensions") if isinstance(primitive, dict) else None
    described = extensions.get(EXTENSION) if isinstance(extensions, dict) else None
    return described if isinstance(described, dict) else None


def _as_srgb(arrays: SplatArrays, described: dict) -> tuple[SplatArrays, tuple[str, ...]]:
    """A primitive with colours in sRGB, and what has to be said about them."""
    space, kernel = described.get("colorSpace"), described.get("kernel", "ellipse")
    if "extensions" in described or space not in (None, _COLOUR_SPACE, _LINEAR_SPACE):
        raise InputError(
            f"expected colours in {_COLOUR_SPACE} or {_LINEAR_SPACE} without compression, got {str(described)[:80]}; "
            "convert it first"
        )
    told = () if kernel == "ellipse" else (f"Its kernel {str(kernel)[:40]} is drawn as an ellipse.",)
    if space is None:
        return arrays, (*told, "It does not name its colour space; colours are taken as sRGB.")
    if space == _COLOUR_SPACE:
        return arrays, told
    rgb = np.clip(rgb_from_sh0(arrays.sh0.astype(np.float64)), 0, None)
    slope = (srgb_from_linear(rgb + _SLOPE_STEP) - srgb_from_linear(rgb)) / _SLOPE_STEP
    srgb = replace(
        arrays,
        sh0=sh0_from_rgb(srgb_from_linear(rgb)).astype(np.float32),
        sh_rest=(arrays.sh_rest * slope[:, None]).astype(np.float32),
    )
    return srgb, (*told, "Its colours are linear and become sRGB; what is translucent looks a little different.")


def _placed_meshes(document: dict) -> Iterator[tuple[int, Float[np.ndarray, "3 3"], Float[np.ndarray, " 3"]]]:
    """Each mesh that the scene shows, with rotation and shift to the scene; a mesh may be shown several times."""
    nodes, scenes = _list(document, "nodes"), _list(document, "scenes")
    children = {child for node in nodes for child in _list(node, "children") if isinstance(child, int)}
    roots: list[Any] = [number for number in range(len(nodes)) if number not in children]
    if scenes:
        shown = document.get("scene", 0)
        if isinstance(shown, int) and 0 <= shown < len(scenes):
            roots = _list(scenes[shown], "nodes") or roots
    waiting = [(number, np.eye(3), np.zeros(3), 0) for number in reversed(roots)]
    visited = 0
    while waiting:
        number, linear, offset, depth = waiting.pop()
        node = item(document, "nodes", whole(number))
        visited += 1
        if visited > _MOST_NODES or depth > len(nodes):
            raise InputError("its nodes go round in a circle, or are too many; the file is damaged")
        R, t = _rigid(node, whole(number))
        if R is not _UNTURNED:
            linear, offset = linear @ R, linear @ t + offset
        mesh = node.get("mesh") if isinstance(node, dict) else None
        if isinstance(mesh, int):
            yield mesh, linear, offset
        waiting += [(child, linear, offset, depth + 1) for child in reversed(_list(node, "children"))]


def _rigid(node: object, number: int) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, " 3"]]:
    """Rotation and shift of a node.

    Raises:
        InputError: it is moved in another way; harmonics and sizes would have to change too.
    """
    holder = node if isinstance(node, dict) else {}
    if not holder.keys() & {"matrix", "translation", "rotation", "scale"}:
        return _UNTURNED, _UNMOVED
    name = f"the node {str(holder.get('name') or number)[:40]!r}"

    def numbers(key: str, default: list[float]) -> Float[np.ndarray, " k"]:
        try:
            values = np.array(holder.get(key, default), dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            values = np.zeros(0)
        if values.shape != (len(default),) or not np.isfinite(values).all():
            raise InputError(f"{name} has a {key} that is not {len(default)} finite numbers; the file is damaged")
        return values

    T = np.eye(4)
    if "matrix" in holder:
        T = numbers("matrix", T.ravel().tolist()).reshape(4, 4).T  # column by column
        refuse_unless_rigid(T[:3, :3], f"{name} moves them by its matrix")
        return T[:3, :3], T[:3, 3]
    scale, quat_xyzw = numbers("scale", [1.0] * 3), numbers("rotation", [0.0, 0.0, 0.0, 1.0])
    refuse_unless_rigid(np.diag(scale), f"{name} moves them by its scale")
    length = float(np.linalg.norm(quat_xyzw))
    if length < 1e-12:
        raise InputError(f"{name} has a rotation of length zero; the file is damaged")
    is_turned = not np.array_equal(quat_xyzw, [0, 0, 0, 1])
    R = Rotation.from_quat(quat_xyzw).as_matrix() if is_turned else np.eye(3)
    return R, numbers("translation", [0.0] * 3)


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


def _light(arrays: SplatArrays) -> Float[np.ndarray, "n 3"]:
    """The constant colours as linear light."""
    return linear_from_srgb(np.clip(rgb_from_sh0(arrays.sh0), 0, 1)).astype(np.float32)

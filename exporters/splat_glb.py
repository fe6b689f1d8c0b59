"""Gaussian splats as binary glTF (.glb) with `KHR_gaussian_splatting`: lossless, and a point cloud to other readers.

One POINTS primitive with float32 attributes: positions, rotations x, y, z, w of length one, linear scales, opacities in
[0, 1], and every harmonic degree as its own attributes. `COLOR_0` holds the constant colour, decoded from sRGB to
linear, and the opacity: what readers without the extension show. The extension is used, not required. The SPZ
compression on top of it is still a draft and left out.

Frame and unit are glTF's own: metres, +y up, the face to +z. Nothing is turned, hence no harmonics are either.

Khronos' validator as released (2.0.0-dev.3.10) does not know prefixed attribute names yet and reports each of them
(https://github.com/KhronosGroup/glTF-Validator/issues/252), and nothing else.

Own code: trimesh and pygltflib write what they are told, but know nothing of the extension.

Source: https://github.com/KhronosGroup/glTF/tree/main/extensions/2.0/Khronos/KHR_gaussian_splatting
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dp360.generation import InputError, Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.reconstruction.splats import Splats

from .gltf_binary import GltfBuffer, glb, item, read_accessor, read_glb
from .splat_file_frame import FileNote, SplatArrays, arrays_for_file, file_note, splats_from_file
from .splat_packing import logits, rgb_from_dc, sigmoid, unit_quats

EXTENSION = "KHR_gaussian_splatting"

_POINTS = 0
_COLOUR_SPACE = "srgb_rec709_display"
_XYZW_TO_WXYZ, _WXYZ_TO_XYZW = [3, 0, 1, 2], [1, 2, 3, 0]
_WHAT = "this .glb"


def encode(splats: Splats, provenance: Provenance, *, metres_per_unit: float = METRES_PER_UNIT) -> bytes:
    """A complete .glb file.

    Args:
        splats: Gaussians in world units, at least one.
        provenance: origin, written to `asset.extras`.
        metres_per_unit: positive factor on lengths.

    Raises:
        ValueError: no Gaussians, a number is not finite, or the factor is not positive.
    """
    arrays = arrays_for_file(splats, metres_per_unit=metres_per_unit, up_axis="+y", writer="splat_glb.encode")
    if not len(arrays):
        raise ValueError("splat_glb.encode: expected at least one Gaussian, got none")
    opacity = sigmoid(arrays.opacity_logits)[:, None]
    colour = np.concatenate([_linear(np.clip(rgb_from_dc(arrays.sh0), 0, 1)), opacity], axis=1)
    buffer = GltfBuffer()
    attributes = {
        "POSITION": buffer.vertex_attribute(arrays.means, bounds=True),
        "COLOR_0": buffer.vertex_attribute(colour),
        f"{EXTENSION}:ROTATION": buffer.vertex_attribute(unit_quats(arrays.quats_wxyz)[:, _WXYZ_TO_XYZW]),
        f"{EXTENSION}:SCALE": buffer.vertex_attribute(_scales(arrays)),
        f"{EXTENSION}:OPACITY": buffer.vertex_attribute(opacity),
    }
    harmonics = np.concatenate([arrays.sh0[:, None], arrays.sh_rest], axis=1)
    for name, basis in _harmonic_names(arrays.sh_degree):
        attributes[name] = buffer.vertex_attribute(harmonics[:, basis])
    document = {
        "asset": {
            "version": "2.0",
            "generator": f"dp360 {provenance.version}",
            "extras": {"dp360": FileNote(provenance, metres_per_unit).as_json_data()},
        },
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "head", "mesh": 0}],
        "meshes": [
            {
                "name": "head",
                "primitives": [
                    {
                        "attributes": attributes,
                        "mode": _POINTS,
                        "extensions": {EXTENSION: {"kernel": "ellipse", "colorSpace": _COLOUR_SPACE}},
                    }
                ],
            }
        ],
        **buffer.described(),
    }
    return glb(document, bytes(buffer.data))


def decode(data: bytes) -> Splats:
    """Gaussians in world units out of the first primitive with `KHR_gaussian_splatting`.

    Raises:
        InputError: not a .glb, none such in it, it is moved by its node or has other colours than sRGB (bake that
            first), a part lies outside the file, or a number is not finite or out of range.
    """
    document, buffer = read_glb(data)
    primitive = _find_primitive(document)
    attributes = item(primitive, "attributes")
    names = attributes.keys() if isinstance(attributes, dict) else ()

    def read(name: str, components: int) -> Float[np.ndarray, "n c"]:
        return read_accessor(document, buffer, item(attributes, name), components)

    means, quats = read("POSITION", 3), read(f"{EXTENSION}:ROTATION", 4)
    scales, opacity = read(f"{EXTENSION}:SCALE", 3), read(f"{EXTENSION}:OPACITY", 1)[:, 0]
    degree = max(d for d in range(4) if d == 0 or f"{EXTENSION}:SH_DEGREE_{d}_COEF_0" in names)
    harmonics = [read(name, 3) for name, _ in _harmonic_names(degree)]
    lengths = {len(values) for values in (means, quats, scales, opacity, *harmonics)}
    if len(lengths) != 1:
        raise InputError(f"Cannot read splats from {_WHAT}: its attributes differ in length: {sorted(lengths)}")
    if not ((scales > 0) & (scales < np.inf)).all() or not ((opacity >= 0) & (opacity <= 1)).all():
        raise InputError(
            f"Cannot read splats from {_WHAT}: expected positive finite scales and opacities in [0, 1]; export it again"
        )
    arrays = SplatArrays(
        means=means,
        log_scales=np.log(scales.astype(np.float64)).astype(np.float32),
        quats_wxyz=quats[:, _XYZW_TO_WXYZ],
        opacity_logits=logits(opacity),
        sh0=harmonics[0],
        sh_rest=np.stack(harmonics[1:], axis=1) if degree else np.zeros((len(means), 0, 3), dtype=np.float32),
    )
    return splats_from_file(arrays, _note(document), what=_WHAT)


def decode_provenance(data: bytes) -> Provenance | None:
    """The origin that `encode` wrote into `asset.extras`, or None in another program's file.

    Raises:
        InputError: not a .glb, or the note is damaged.
    """
    return _note(read_glb(data)[0]).provenance


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
            if isinstance(extensions, dict) and isinstance(extensions.get(EXTENSION), dict):
                described = extensions[EXTENSION]
                if described.get("colorSpace") != _COLOUR_SPACE or "extensions" in described:
                    raise InputError(
                        f"Cannot read splats from {_WHAT}: expected colours in {_COLOUR_SPACE} without compression, "
                        f"got {str(described)[:80]}; convert it first"
                    )
                _refuse_moved(document, number)
                return primitive
    raise InputError(f"Cannot read splats from {_WHAT}: it holds no {EXTENSION}; a mesh is no Gaussian splat file")


def _refuse_moved(document: dict, mesh: int) -> None:
    """Refuse a node above the splats with a transform: harmonics would have to turn too."""
    nodes = _list(document, "nodes")
    parents: dict[int, list[int]] = {}
    for number, node in enumerate(nodes):
        for child in _list(node, "children"):
            if isinstance(child, int):
                parents.setdefault(child, []).append(number)
    waiting = [i for i, node in enumerate(nodes) if isinstance(node, dict) and node.get("mesh") == mesh]
    above: set[int] = set()
    while waiting:
        number = waiting.pop()
        if number not in above:
            above.add(number)
            waiting += parents.get(number, [])
    moved = [k for i in above for k in ("matrix", "translation", "rotation", "scale") if k in nodes[i]]
    if moved:
        raise InputError(f"Cannot read splats from {_WHAT}: a node moves them ({moved[0]}); bake the transform first")


def _list(holder: object, name: str) -> list:
    """A list of the document; empty where there is none."""
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, list) else []


def _note(document: dict) -> FileNote:
    """Our note in `asset.extras`."""
    extras = document["asset"].get("extras") if isinstance(document.get("asset"), dict) else None
    return file_note(extras.get("dp360") if isinstance(extras, dict) else None)


def _harmonic_names(degree: int) -> list[tuple[str, int]]:
    """Attribute name and index of every harmonic up to a degree: within a degree by order, from -l to l."""
    return [(f"{EXTENSION}:SH_DEGREE_{d}_COEF_{n}", d * d + n) for d in range(degree + 1) for n in range(2 * d + 1)]


def _scales(arrays: SplatArrays) -> Float[np.ndarray, "n 3"]:
    """Linear scales, within what float32 holds."""
    return np.exp(np.clip(arrays.log_scales.astype(np.float64), -80, 80)).astype(np.float32)


def _linear(srgb: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """sRGB display values decoded to linear light (IEC 61966-2-1)."""
    high = ((srgb.astype(np.float64) + 0.055) / 1.055) ** 2.4
    return np.where(srgb <= 0.04045, srgb / 12.92, high).astype(np.float32)

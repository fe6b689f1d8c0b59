"""A head that moves as binary glTF 2.0 (.glb): blend shapes, a skin, materials; engines and three.js play it.

One mesh, a primitive for each kind of surface (skin, mouth, teeth, eyes, hair, cloth, what is worn), all with the 52
targets of ARKit named in `mesh.extras.targetNames`, and `mesh.extras.poses.portrait`, the portrait's own expression.
Targets are sparse accessors: only what moves is stored. Frame and unit are glTF's: metres, +y up, the face to +z. With
all weights at zero the expression is neutral.

Source: glTF 2.0 specification, https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html (sections 3.6.2.3, 3.7.2.2,
3.7.3); names of targets: https://developer.apple.com/documentation/arkit/arfaceanchor/blendshapelocation
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped, UInt8
from PIL import Image

from dp360.generation import Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.prior.texture.atlas import (
    MATERIAL_CLOTH,
    MATERIAL_EYE,
    MATERIAL_GLASSES,
    MATERIAL_HAIR,
    MATERIAL_HEADGEAR,
    MATERIAL_MOUTH,
    MATERIAL_SKIN,
    MATERIAL_TEETH,
)
from dp360.reconstruction.avatar.arkit import ARKIT_NAMES
from dp360.reconstruction.avatar.rig import Rig
from dp360.reconstruction.avatar.skeleton import JOINTS, PARENTS
from dp360.reconstruction.avatar.welded import Welded

from .gltf_binary import glb
from .provenance import provenance_to_json

Look = Literal["pbr", "unlit"]
"""pbr: colour without light, for the light of a scene; unlit: colour in the portrait's light, shown as it is."""
SURFACES: dict[str, tuple[tuple[int, ...], float]] = {
    "skin": ((MATERIAL_SKIN,), 0.6),
    "mouth": ((MATERIAL_MOUTH,), 0.45),
    "teeth": ((MATERIAL_TEETH,), 0.3),
    "eyes": ((MATERIAL_EYE,), 0.15),
    "hair": ((MATERIAL_HAIR,), 0.75),
    "cloth": ((MATERIAL_CLOTH,), 0.95),
    "worn": ((MATERIAL_GLASSES, MATERIAL_HEADGEAR), 0.7),
}
"""Name, materials of the atlas, and roughness of each primitive."""
_UNLIT = "KHR_materials_unlit"
_FLOAT, _UBYTE, _USHORT, _UINT = 5126, 5121, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP = 9729, 9987, 33071
_LEAST_M, _LEAST_NORMAL = 2e-5, 0.02
"""Smaller moves of vertices, metres, and of normals are not stored."""
_JPEG_QUALITY = 92
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


def encode(
    rig: Rig,
    provenance: Provenance,
    *,
    metres_per_unit: float = METRES_PER_UNIT,
    unlit: bool = False,
    target_normals: bool = True,
) -> bytes:
    """A complete .glb file.

    Args:
        rig: the head.
        provenance: origin, written to `asset.extras`.
        metres_per_unit: positive factor on lengths.
        unlit: colours in the portrait's light, shown as they are; otherwise colours without light, for a scene's.
        target_normals: shapes turn normals too; about half of the file.

    Raises:
        ValueError: the factor is not positive, or a number of the rig is not finite.
    """
    if not (math.isfinite(metres_per_unit) and metres_per_unit > 0):
        raise ValueError(f"avatar_glb.encode: expected a positive metres_per_unit, got {metres_per_unit}")
    if not (np.isfinite(rig.vertices_world).all() and np.isfinite(rig.shapes).all()):
        raise ValueError("avatar_glb.encode: the rig holds NaN or Inf; nothing was written")
    look: Look = "unlit" if unlit else "pbr"
    parts = _Parts()
    welded = Welded.of(rig.vertices_world, rig.faces, rig.head_vertex)
    normals = welded.normals(rig.vertices_world)
    shape_normals = None
    if target_normals and not unlit:  # without light nobody asks for normals
        shape_normals = [welded.normals(rig.vertices_world + shape) - normals for shape in rig.shapes]
    primitives, materials = [], []
    for name, (numbers, roughness) in SURFACES.items():
        faces = rig.faces[np.isin(rig.material, numbers)]
        if not len(faces):
            continue
        primitives.append(_primitive(parts, rig, faces, normals, shape_normals, metres_per_unit, len(materials)))
        materials.append(_material(name, roughness, look))
    skin = _skin(parts, rig, metres_per_unit)
    picture = parts.raw(jpeg(rig.albedo_rgb if look == "pbr" else rig.texture_rgb))
    document: dict[str, Any] = {
        "asset": {
            "version": "2.0",
            "generator": f"dp360 {provenance.version}",
            "extras": {"dp360": json.loads(provenance_to_json(provenance))},
        },
        "scene": 0,
        "scenes": [{"name": "head", "nodes": [0, 1]}],
        "nodes": [{"name": "head", "mesh": 0, "skin": 0}, *skin.pop("nodes")],
        "meshes": [
            {
                "name": "head",
                "primitives": primitives,
                "weights": [0.0] * len(ARKIT_NAMES),
                "extras": {"targetNames": list(ARKIT_NAMES), "poses": {"portrait": rig.portrait_pose.named}},
            }
        ],
        "skins": [skin],
        "materials": materials,
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAP_LINEAR, "wrapS": _CLAMP, "wrapT": _CLAMP}],
        "images": [{"name": "head", "mimeType": "image/jpeg", "bufferView": picture}],
        "accessors": parts.accessors,
        "bufferViews": parts.views,
        "buffers": [{"byteLength": len(parts.buffer)}],
    }
    if look == "unlit":
        document["extensionsUsed"] = [_UNLIT]
    return glb(document, bytes(parts.buffer))


@dataclass
class _Parts:
    """The buffer, and what describes it."""

    buffer: bytearray = field(default_factory=bytearray)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)

    def raw(self, data: bytes, target: int | None = None) -> int:
        """A piece of the buffer; its number."""
        self.buffer += b"\0" * (-len(self.buffer) % 4)
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.buffer), "byteLength": len(data)}
        self.views.append(view if target is None else view | {"target": target})
        self.buffer += data
        return len(self.views) - 1

    def accessor(
        self, values: Shaped[np.ndarray, "n k"], component: int, *, target: int | None = _ARRAY_BUFFER,
        bounds: bool = False,
    ) -> int:  # fmt: skip
        """Numbers in rows; the accessor's number."""
        dtype = {_FLOAT: "<f4", _UBYTE: "<u1", _USHORT: "<u2", _UINT: "<u4"}[component]
        data = np.ascontiguousarray(values, dtype=dtype)
        accessor: dict[str, Any] = {
            "bufferView": self.raw(data.tobytes(), target),
            "componentType": component,
            "count": len(data),
            "type": _TYPES[data.shape[1]],
        }
        if bounds:
            accessor |= {"min": data.min(0).tolist(), "max": data.max(0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def sparse(self, moved: Float[np.ndarray, "n 3"], least: float, *, bounds: bool) -> int:
        """Displacements of which most are zero; the accessor's number."""
        rows = np.flatnonzero(np.abs(moved).max(1) >= least)
        accessor: dict[str, Any] = {"componentType": _FLOAT, "count": len(moved), "type": "VEC3"}
        low = high = np.zeros(3, np.float32)
        if len(rows):
            values = np.ascontiguousarray(moved[rows], dtype="<f4")
            low, high = values.min(0), values.max(0)
            if len(rows) < len(moved):
                low, high = np.minimum(low, 0), np.maximum(high, 0)
            wide = _UINT if rows[-1] > 65535 else _USHORT
            index = rows.astype("<u4" if wide == _UINT else "<u2")
            accessor["sparse"] = {
                "count": len(rows),
                "indices": {"bufferView": self.raw(index.tobytes()), "componentType": wide},
                "values": {"bufferView": self.raw(values.tobytes())},
            }
        if bounds:
            accessor |= {"min": low.tolist(), "max": high.tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1


def _primitive(
    parts: _Parts,
    rig: Rig,
    faces: Int[np.ndarray, "f 3"],
    normals: Float[np.ndarray, "v 3"],
    shape_normals: list[Float[np.ndarray, "v 3"]] | None,
    metres_per_unit: float,
    material: int,
) -> dict[str, Any]:
    """The triangles of one material with their own vertices."""
    used, faces = np.unique(faces, return_inverse=True)
    joints, weights = _four_joints(rig.joint_weights[used])
    positions = rig.vertices_world[used].astype(np.float64) * metres_per_unit
    attributes = {
        "POSITION": parts.accessor(positions, _FLOAT, bounds=True),
        "NORMAL": parts.accessor(normals[used], _FLOAT),
        "TEXCOORD_0": parts.accessor(rig.uv_unit[used], _FLOAT),
        "JOINTS_0": parts.accessor(joints, _UBYTE),
        "WEIGHTS_0": parts.accessor(weights, _FLOAT),
    }
    wide = _UINT if len(used) > 65535 else _USHORT
    targets = []
    for k, shape in enumerate(rig.shapes):
        moved = shape[used].astype(np.float64) * metres_per_unit
        target = {"POSITION": parts.sparse(moved, _LEAST_M, bounds=True)}
        if shape_normals is not None:
            moves = np.abs(moved).max(1, keepdims=True) >= _LEAST_M
            target["NORMAL"] = parts.sparse(np.where(moves, shape_normals[k][used], 0.0), _LEAST_NORMAL, bounds=False)
        targets.append(target)
    return {
        "attributes": attributes,
        "indices": parts.accessor(faces.reshape(-1, 1), wide, target=_ELEMENT_BUFFER),
        "material": material,
        "targets": targets,
    }


def _four_joints(
    shares: Float[np.ndarray, "v 5"],
) -> tuple[UInt8[np.ndarray, "v 4"], Float32[np.ndarray, "v 4"]]:
    """The four joints with the largest shares; shares of zero name joint 0, and rows add up to one."""
    order = np.argsort(-shares, axis=1, kind="stable")[:, :4]
    weights = np.take_along_axis(shares, order, 1).astype(np.float32)
    weights[weights < 1e-4] = 0
    weights /= weights.sum(1, keepdims=True)
    return np.where(weights > 0, order, 0).astype(np.uint8), weights


def _skin(parts: _Parts, rig: Rig, metres_per_unit: float) -> dict[str, Any]:
    """The skin, and under `nodes` its joints, which are nodes 1 on."""
    places = rig.skeleton.positions_world * metres_per_unit
    inverse = np.tile(np.eye(4), (len(JOINTS), 1, 1))
    inverse[:, :3, 3] = -places
    nodes: list[dict[str, Any]] = []
    for joint, (name, parent) in enumerate(zip(JOINTS, PARENTS)):
        offset = places[joint] - (places[parent] if parent >= 0 else 0.0)
        children = [1 + other for other, its in enumerate(PARENTS) if its == joint]
        node: dict[str, Any] = {"name": name, "translation": offset.tolist()}
        nodes.append(node | {"children": children} if children else node)
    columns = inverse.transpose(0, 2, 1).reshape(-1, 16)  # glTF stores matrices column by column
    return {
        "name": "skeleton",
        "joints": [1 + joint for joint in range(len(JOINTS))],
        "skeleton": 1,
        "inverseBindMatrices": parts.accessor(columns, _FLOAT, target=None),
        "nodes": nodes,
    }


def _material(name: str, roughness: float, look: Look) -> dict[str, Any]:
    material: dict[str, Any] = {
        "name": name,
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": 0},
            "metallicFactor": 0.0,
            "roughnessFactor": roughness if look == "pbr" else 1.0,
        },
    }
    if name in ("hair", "cloth", "worn"):
        material["doubleSided"] = True
    if look == "unlit":
        material["extensions"] = {_UNLIT: {}}
    return material


def jpeg(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A texture as the file holds it."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return content.getvalue()

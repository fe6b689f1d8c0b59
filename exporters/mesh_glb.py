"""A textured mesh as binary glTF 2.0 (.glb): one mesh, one material, one picture, no external files.

Frame and unit are glTF's own: metres, +y up, and the face to +z, the direction that glTF calls the front of an asset.
The texture holds light as it fell on the portrait, so the material is unlit (`KHR_materials_unlit`); programs without
that extension get a rough non-metal.

Source: glTF 2.0 specification, https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html (sections 3.4, 3.6, 4.4), and
https://github.com/KhronosGroup/glTF/tree/main/extensions/2.0/Khronos/KHR_materials_unlit
"""

from __future__ import annotations

import io
import json
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from typing_extensions import assert_never

from dp360.generation import Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.mesh import TexturedMesh

from .gltf_binary import GltfBuffer, glb
from .provenance import provenance_to_json

TextureFormat = Literal["png", "jpeg"]

_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071
_TRIANGLES = 4


def encode(
    mesh: TexturedMesh,
    provenance: Provenance,
    *,
    metres_per_unit: float = METRES_PER_UNIT,
    texture_format: TextureFormat = "png",
) -> bytes:
    """A complete .glb file.

    Args:
        mesh: vertices in world units, counter-clockwise faces, texture origin at the top left (glTF's conventions).
        provenance: origin, written to `asset.extras`.
        metres_per_unit: positive factor on positions.
        texture_format: "png" keeps every texel, "jpeg" is several times smaller.

    Raises:
        ValueError: no vertices or faces, a number is not finite, or a face names a vertex that does not exist.
    """
    _check(mesh)
    positions = np.ascontiguousarray(mesh.vertices_world * metres_per_unit, dtype="<f4")
    buffer = GltfBuffer()
    attributes = {
        "POSITION": buffer.vertex_attribute(positions, bounds=True),
        "NORMAL": buffer.vertex_attribute(_unit_normals(mesh.normals_world)),
        "TEXCOORD_0": buffer.vertex_attribute(np.ascontiguousarray(mesh.uv_unit, dtype="<f4")),
    }
    indices = buffer.indices(np.ascontiguousarray(mesh.faces, dtype="<u4"))
    picture_view = buffer.view(_encode_texture(mesh.texture_rgb, texture_format))
    document = {
        "asset": {
            "version": "2.0",
            "generator": f"dp360 {provenance.version}",
            "extras": {"dp360": json.loads(provenance_to_json(provenance))},
        },
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "head", "mesh": 0}],
        "meshes": [
            {
                "name": "head",
                "primitives": [{"attributes": attributes, "indices": indices, "material": 0, "mode": _TRIANGLES}],
            }
        ],
        "materials": [
            {
                "name": "head",
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": 0.0,
                    "roughnessFactor": 1.0,
                },
                "extensions": {"KHR_materials_unlit": {}},
            }
        ],
        "textures": [{"sampler": 0, "source": 0}],
        "samplers": [
            {
                "magFilter": _LINEAR,
                "minFilter": _LINEAR_MIPMAP_LINEAR,
                "wrapS": _CLAMP_TO_EDGE,
                "wrapT": _CLAMP_TO_EDGE,
            }
        ],
        "images": [{"name": "base_colour", "mimeType": f"image/{texture_format}", "bufferView": picture_view}],
        **buffer.described(),
    }
    return glb(document, bytes(buffer.data))


def _check(mesh: TexturedMesh) -> None:
    """Refuse a mesh that would make an invalid file."""
    count = len(mesh.vertices_world)
    if not count or not len(mesh.faces):
        raise ValueError(f"mesh_glb.encode: expected vertices and faces, got {count} and {len(mesh.faces)}")
    if mesh.faces.min() < 0 or mesh.faces.max() >= count:
        raise ValueError(f"mesh_glb.encode: faces name vertices {mesh.faces.min()}..{mesh.faces.max()} of {count}")
    for name in ("vertices_world", "normals_world", "uv_unit"):
        if not np.isfinite(getattr(mesh, name)).all():
            raise ValueError(f"mesh_glb.encode: {name} hold NaN or Inf; nothing was written")


def _unit_normals(normals: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
    """Normals of length one in float32, as validators insist; a vertex without a normal gets +y."""
    length = np.linalg.norm(normals.astype(np.float64), axis=1, keepdims=True)
    unit = np.where(length > 1e-12, normals / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])
    return np.ascontiguousarray(unit, dtype="<f4")


def _encode_texture(rgb: UInt8[np.ndarray, "h w 3"], texture_format: TextureFormat) -> bytes:
    """The picture as the bytes of an image file."""
    buffer = io.BytesIO()
    picture = Image.fromarray(rgb)
    if texture_format == "png":
        picture.save(buffer, "PNG", optimize=False)
    elif texture_format == "jpeg":
        picture.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        assert_never(texture_format)
    return buffer.getvalue()

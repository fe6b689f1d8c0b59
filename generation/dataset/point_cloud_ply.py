"""Coloured, oriented points as a `.ply`: the `sparse_pc.ply` beside a nerfstudio data set. trimesh reads what we write.

Writing is our own: trimesh's writer stores float64 positions and has no normals for points without faces.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import InputError
from ..views import PointCloud

_PROPERTIES = [*((name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz"))]
_PROPERTIES += [(name, "u1") for name in ("red", "green", "blue")]
_AXES = ("axis_x", "axis_y", "axis_z")
"""Half axes of thin samples; written only where a cloud has them."""
_PLY_NAMES = {"<f4": "float", "u1": "uchar"}


def encode_point_cloud(cloud: PointCloud) -> bytes:
    """Binary little-endian PLY: positions, normals and half axes (where there are any) as float32, colours as 8 bits.

    Args:
        cloud: p points; colours outside [0, 1] are clipped.

    Returns:
        The file's bytes, the same for the same points.

    Source: https://paulbourke.net/dataformats/ply/
    """
    rgb = (cloud.rgb_unit.clamp(0, 1) * 255).round().to(torch.uint8)
    kinds, columns = [*_PROPERTIES], [torch.cat([cloud.points_world, cloud.normals_world], dim=-1).T, rgb.T]
    if cloud.half_axes_world is not None:
        kinds += [(name, "<f4") for name in _AXES]
        columns.append(cloud.half_axes_world.T)
    vertices = np.empty(len(cloud.points_world), kinds)
    for (name, _), column in zip(kinds, (column for table in columns for column in table.cpu().numpy())):
        vertices[name] = column
    properties = "".join(f"property {_PLY_NAMES[kind]} {name}\n" for name, kind in kinds)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n{properties}end_header\n"
    return header.encode("ascii") + vertices.tobytes()


def decode_point_cloud(data: bytes, *, name: str = "the point cloud") -> PointCloud:
    """Points of a PLY file; missing normals become zero, missing colours grey, missing half axes None.

    Args:
        name: what to call the file in messages.

    Raises:
        InputError: not a PLY, damaged or cut off, without x, y and z, or with numbers that are not finite.
    """
    from trimesh.exchange.ply import load_ply

    try:
        vertex: dict[str, Any] = load_ply(io.BytesIO(data), skip_materials=True)["metadata"]["_ply_raw"]["vertex"]
        count, kinds, table = vertex["length"], vertex["properties"], vertex["data"]
        columns = {key: np.asarray(table[key], np.float32).reshape(-1) for key in kinds}
    except Exception as error:  # trimesh names damage in many ways
        why = " ".join(str(error).split())
        raise InputError(
            f"{name} is not a readable PLY file of points ({why}); write it again or remove it from transforms.json"
        ) from error
    if any(column.shape != (count,) for column in columns.values()):
        raise InputError(f"{name}: the header promises {count} points, the file is shorter; write it again")

    def triples(wanted: tuple[str, str, str], default: float) -> Float[Tensor, "p 3"]:
        if not set(wanted) <= set(columns):
            return torch.full((count, 3), default)
        return torch.from_numpy(np.stack([columns[key] for key in wanted], axis=-1))

    rgb_unit = triples(("red", "green", "blue"), 0.5)
    if "u1" in kinds.get("red", ""):
        rgb_unit = rgb_unit / 255
    axes = triples(_AXES, 0.0) if set(_AXES) <= set(columns) else None
    cloud = PointCloud(triples(("x", "y", "z"), 0.0), triples(("nx", "ny", "nz"), 0.0), rgb_unit.clamp(0, 1), axes)
    numbers = (cloud.points_world, cloud.normals_world, *(() if axes is None else (axes,)))
    if not all(bool(torch.isfinite(tensor).all()) for tensor in numbers):
        raise InputError(f"{name} holds NaN or infinite coordinates; remove them or make it again")
    return cloud

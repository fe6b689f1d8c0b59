"""Coloured, oriented points as a `.ply`: the `sparse_pc.ply` beside a nerfstudio data set."""

from __future__ import annotations

import numpy as np
import torch

from dp360.generation import InputError, PointCloud

_DTYPE = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")] + [(name, "u1") for name in ("red", "green", "blue")]
)
_PLY_TYPES = {
    **{name: "f4" for name in ("float", "float32")},
    **{name: "f8" for name in ("double", "float64")},
    **{name: "u1" for name in ("uchar", "uint8")},
    **{name: "i1" for name in ("char", "int8")},
    **{name: "u2" for name in ("ushort", "uint16")},
    **{name: "i2" for name in ("short", "int16")},
    **{name: "u4" for name in ("uint", "uint32")},
    **{name: "i4" for name in ("int", "int32")},
}
_MAX_HEADER_BYTES = 1 << 16
_HEADER_END = b"end_header\n"


def encode_point_cloud(cloud: PointCloud) -> bytes:
    """Binary little-endian PLY: positions and normals as float32, colours as 8 bits.

    Args:
        cloud: p points; colours outside [0, 1] are clipped.

    Returns:
        The file's bytes, the same for the same points.

    Source: https://paulbourke.net/dataformats/ply/
    """
    vertices = np.empty(len(cloud.points_world), _DTYPE)
    for names, values in (("xyz", cloud.points_world), (("nx", "ny", "nz"), cloud.normals_world)):
        for axis, name in enumerate(names):
            vertices[name] = values[:, axis].cpu().numpy()
    rgb = (cloud.rgb_unit.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    for axis, name in enumerate(("red", "green", "blue")):
        vertices[name] = rgb[:, axis]
    properties = "".join(
        f"property {'uchar' if _DTYPE[name] == np.uint8 else 'float'} {name}\n" for name in _DTYPE.names or ()
    )
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n{properties}end_header\n"
    return header.encode("ascii") + vertices.tobytes()


def decode_point_cloud(data: bytes, *, name: str = "the point cloud") -> PointCloud:
    """Points of a PLY file, binary little-endian or ASCII; missing normals become zero, missing colours grey.

    Args:
        data: the file's bytes.
        name: what to call the file in messages.

    Raises:
        InputError: not a PLY, an unsupported layout, fewer bytes than the header promises, or numbers that are
            not finite.
    """
    end = data.find(_HEADER_END, 0, _MAX_HEADER_BYTES)
    if not data.startswith(b"ply") or end < 0:
        raise InputError(f"{name} is not a PLY file (no header); write it again or remove it from transforms.json")
    header = [line.split() for line in data[:end].decode("ascii", "replace").splitlines()]
    body = data[end + len(_HEADER_END) :]
    layout = next((words[1] for words in header if words[:1] == ["format"] and len(words) > 1), "")
    elements = [i for i, words in enumerate(header) if words[:1] == ["element"]]
    if not elements or len(header[elements[0]]) != 3 or header[elements[0]][1] != "vertex":
        raise InputError(f"{name}: expected the vertices as the first element of the PLY file")
    count_text = header[elements[0]][2]
    stop = elements[1] if len(elements) > 1 else len(header)
    properties = [words for words in header[elements[0] + 1 : stop] if words[:1] == ["property"]]
    if not count_text.isdigit() or any(len(words) != 3 or words[1] not in _PLY_TYPES for words in properties):
        raise InputError(f"{name}: expected a vertex count and plain number properties in the PLY header")
    dtype = np.dtype([(words[2], "<" + _PLY_TYPES[words[1]]) for words in properties])
    names = set(dtype.names or ())
    if not {"x", "y", "z"} <= names:
        raise InputError(f"{name}: the PLY file has no x, y, z properties")
    count = int(count_text)
    # A count is bounded by the bytes that are there, before anything of that size is allocated.
    if layout == "binary_little_endian":
        if count * dtype.itemsize > len(body):
            raise InputError(f"{name}: the header promises {count} points, the file is shorter; write it again")
        vertices = np.frombuffer(body, dtype, count)
    elif layout == "ascii":
        rows = [row for row in body.decode("ascii", "replace").splitlines() if row.strip()][:count]
        try:
            vertices = np.array([tuple(map(float, row.split())) for row in rows], dtype)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name}: a line of the PLY file does not hold {len(names)} numbers") from error
        if len(vertices) != count:
            raise InputError(f"{name}: the header promises {count} points, the file is shorter; write it again")
    else:
        raise InputError(f"{name}: expected an ASCII or binary little-endian PLY file, got {layout or 'no format'}")

    def columns(wanted: tuple[str, str, str], default: float) -> torch.Tensor:
        if not set(wanted) <= names:
            return torch.full((count, 3), default)
        return torch.from_numpy(np.stack([vertices[column].astype(np.float32) for column in wanted], axis=-1))

    rgb = columns(("red", "green", "blue"), 127.5)
    if {"red"} <= names and dtype["red"].kind == "f":
        rgb = rgb * 255
    cloud = PointCloud(columns(("x", "y", "z"), 0.0), columns(("nx", "ny", "nz"), 0.0), (rgb / 255).clamp(0, 1))
    if not bool(torch.isfinite(cloud.points_world).all() and torch.isfinite(cloud.normals_world).all()):
        raise InputError(f"{name} holds NaN or infinite coordinates; remove them or make it again")
    return cloud

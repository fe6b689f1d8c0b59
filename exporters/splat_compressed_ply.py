"""Gaussian splats as PlayCanvas' compressed .ply: about a fifth of a 3DGS .ply, read by SuperSplat and PlayCanvas.

Layout: element `chunk` with one row of float32 bounds (positions, log-scales, colours) per 256 Gaussians; element
`vertex` with four uint32 per Gaussian: position 11-10-11 bits and log-scale 11-10-11 bits between the bounds of its
chunk, rotation 2-10-10-10 (largest component of w, x, y, z left out), colour 8-8-8 between the bounds and opacity 8;
optionally element `sh` with one uint8 per harmonic above the constant one, from -4 to 4, channel by channel.
Gaussians are ordered along a curve, so that a chunk is small and its steps are fine.

Own code: gsply and gsplat write the same layout, but to files, without comments, and cut harmonics and levels down
where this module rounds to the nearest; gsply is the second reader in the tests.

Source: https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/ply/#compressed-ply and the reader in
https://github.com/playcanvas/splat-transform (src/lib/readers/decompress-ply.ts).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dp360.generation import InputError
from dp360.reconstruction.spherical_harmonics import rgb_from_sh0, sh0_from_rgb

from .ply_tables import PlyElement, our_comments, ply_bytes, read_header
from .splat_file_frame import FileNote, SplatArrays, reading, splat_encoder
from .splat_packing import (
    ROTATION_BITS,
    logits_from_bytes,
    morton_order,
    nearest_level,
    opacity_bytes,
    pack_fields,
    quats_from_smallest_three,
    smallest_three,
    to_bytes,
    unpack_fields,
)
from .splat_ply import REST_PROPERTIES
from .splat_reading import ParsedSplats, splat_decoder

_CHUNK = 256
_LOG_SCALE_LIMIT = 20.0
_SH_RANGE = 8.0
"""Harmonics reach from minus half of this to plus half of it."""
_SH_VALUES = np.concatenate([[-0.5], (np.arange(1, 255) + 0.5) / 256 - 0.5, [0.5]]) * _SH_RANGE
"""What readers make of each byte: the two ends stand for the limits, the others for the middle of their step."""
_CHUNK_NAMES = tuple(
    f"{bound}_{name}"
    for group in (("x", "y", "z"), ("scale_x", "scale_y", "scale_z"), ("r", "g", "b"))
    for bound in ("min", "max")
    for name in group
)
_PLACE_BITS, _COLOUR_BITS = (11, 10, 11), (8, 8, 8, 8)
_PLACE_LEVELS = np.array([2047, 1023, 2047], dtype=np.float32)
_VERTEX_NAMES = ("packed_position", "packed_rotation", "packed_scale", "packed_color")


@splat_encoder
def encode(arrays: SplatArrays, note: FileNote) -> bytes:
    """A complete .compressed.ply file, the origin in comments."""
    arrays = arrays.reordered(morton_order(arrays.means))
    n = len(arrays)
    chunk_of = np.arange(n) // _CHUNK
    chunks, steps = [], []
    for values in (
        arrays.means,
        np.clip(arrays.log_scales, -_LOG_SCALE_LIMIT, _LOG_SCALE_LIMIT),
        rgb_from_sh0(arrays.sh0),
    ):
        low, high = _bounds(values)
        chunks += [low, high]
        steps.append((values - low[chunk_of]) / np.maximum(high - low, 1e-12)[chunk_of])
    vertices = np.empty((n, 4), dtype="<u4")
    for column, unit in ((0, steps[0]), (2, steps[1])):
        vertices[:, column] = pack_fields(np.rint(np.clip(unit, 0, 1) * _PLACE_LEVELS).astype(np.int64), _PLACE_BITS)
    largest, three = smallest_three(arrays.quats_wxyz)
    rotation = np.rint((three * 0.5 + 0.5) * 1023).astype(np.int64)
    vertices[:, 1] = pack_fields(np.column_stack([largest, rotation]), ROTATION_BITS)
    rgba = np.column_stack([to_bytes(steps[2]), opacity_bytes(arrays.opacity_logits)])
    vertices[:, 3] = pack_fields(rgba, _COLOUR_BITS)
    tables = [
        ("chunk", _CHUNK_NAMES, np.concatenate(chunks, axis=1).astype("<f4")),
        ("vertex", _VERTEX_NAMES, vertices),
    ]
    rest = nearest_level(arrays.rest_by_channel, _SH_VALUES)
    if rest.shape[1]:
        tables.append(("sh", tuple(f"f_rest_{i}" for i in range(rest.shape[1])), rest))
    return ply_bytes(our_comments(note), tables)


@splat_decoder("splats from this compressed .ply")
def decode(data: bytes) -> ParsedSplats:
    """A compressed .ply; the order is the file's.

    Raises:
        InputError: not such a file, an element or property is missing, or the size does not fit the header.
    """
    header = read_header(data)
    tables = {element.name: element for element in header.elements}
    vertices = _element(tables, "vertex", _VERTEX_NAMES, "<u4")
    chunk = _element(tables, "chunk", _CHUNK_NAMES[:12], "<f4")
    n = vertices.count
    if chunk.count != -(-n // _CHUNK):
        raise InputError(f"expected {-(-n // _CHUNK)} chunks for {n} Gaussians, got {chunk.count}; the file is damaged")
    packed, bounds = vertices.rows(data), chunk.rows(data)
    chunk_of = np.arange(n) // _CHUNK

    def between(names: tuple[str, ...], unit: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        low, high = (np.stack([bounds[name] for name in part], axis=1)[chunk_of] for part in (names[:3], names[3:]))
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and Inf are told later
            return (low * (1 - unit) + high * unit).astype(np.float32)

    rgba = unpack_fields(packed["packed_color"], _COLOUR_BITS)
    rotation = unpack_fields(packed["packed_rotation"], ROTATION_BITS)
    place, size = (
        (unpack_fields(packed[name], _PLACE_BITS) / _PLACE_LEVELS).astype(np.float32)
        for name in ("packed_position", "packed_scale")
    )
    rgb = rgba[:, :3].astype(np.float32) / 255
    if set(_CHUNK_NAMES[12:]) <= set(chunk.names):  # early files have colours between 0 and 1
        rgb = between(_CHUNK_NAMES[12:], rgb)
    arrays = SplatArrays(
        means=between(_CHUNK_NAMES[:6], place),
        log_scales=between(_CHUNK_NAMES[6:12], size),
        quats_wxyz=quats_from_smallest_three(rotation[:, 0], rotation[:, 1:].astype(np.float32) / 1023 * 2 - 1),
        opacity_logits=logits_from_bytes(rgba[:, 3].astype(np.uint8)),
        sh0=sh0_from_rgb(rgb),
        sh_rest=_read_rest(tables.get("sh"), n, data),
    )
    return ParsedSplats(arrays, header.note)


@reading("this .ply")
def is_compressed(data: bytes) -> bool:
    """Whether a .ply is of this kind rather than a plain 3DGS one, told by its header.

    Raises:
        InputError: not a .ply file.
    """
    return any(element.name == "chunk" for element in read_header(data).elements)


def _element(tables: dict[str, PlyElement], name: str, properties: tuple[str, ...], kind: str) -> PlyElement:
    """An element that has the properties, each of numpy type `kind`."""
    element = tables.get(name)
    missing = [p for p in properties if element is None or (p, kind) not in element.properties]
    if element is None or missing:
        raise InputError(
            f"its element {name} lacks {', '.join(missing)}; a point cloud or mesh is no Gaussian splat file"
        )
    return element


def _bounds(values: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "c 3"], Float[np.ndarray, "c 3"]]:
    """Least and greatest values of each chunk."""
    starts = np.arange(0, len(values), _CHUNK)
    if not len(starts):
        return values, values
    return np.minimum.reduceat(values, starts, axis=0), np.maximum.reduceat(values, starts, axis=0)


def _read_rest(element: PlyElement | None, count: int, data: bytes) -> Float[np.ndarray, "n k 3"]:
    """Harmonics above the constant one; none where the element is missing."""
    if element is None:
        return np.zeros((count, 0, 3), dtype=np.float32)
    size = len(element.names)
    if (
        element.count != count
        or size not in REST_PROPERTIES[1:]
        or set(element.properties) != {(f"f_rest_{i}", "<u1") for i in range(size)}
    ):
        raise InputError(
            f"expected {count} rows of 9, 24 or 45 bytes f_rest_0.. in element sh, got {element.count} of {size} "
            "properties"
        )
    rows = element.rows(data)
    table = np.stack([rows[f"f_rest_{i}"] for i in range(size)], axis=1).reshape(count, 3, size // 3)
    return _SH_VALUES.astype(np.float32)[table.transpose(0, 2, 1)]

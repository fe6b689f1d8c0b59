"""Gaussian splats as the .ply of 3D Gaussian Splatting, which viewers, game engines and gsplat read.

Layout: binary little endian, one `vertex` element of float32 properties `x y z nx ny nz f_dc_0..2 f_rest_0..(3K-1)
opacity scale_0..2 rot_0..3`, K = 0, 3, 8 or 15. `f_dc`/`f_rest` are spherical harmonics (`f_rest` channel by channel:
all of red, then green, then blue), `opacity` a logit, `scale` a natural logarithm, `rot` a quaternion w, x, y, z. The
normals are zeros, kept because some readers insist on them.

Factor and axis stand in the header as comments, and `decode` takes both back. A turn, or a factor of 1, keeps every
bit; another factor costs a rounding of float32.

Source: Kerbl et al. 2023, "3D Gaussian Splatting for Real-Time Radiance Field Rendering", and the files that
https://github.com/graphdeco-inria/gaussian-splatting writes.
"""

from __future__ import annotations

import math
import re

import numpy as np
from jaxtyping import Float

from dp360.generation import InputError
from dp360.reconstruction.spherical_harmonics import sh0_from_rgb

from .ply_tables import PlyHeader, our_comments, ply_bytes, read_header
from .splat_file_frame import FileNote, SplatArrays, splat_encoder
from .splat_moves import InputUpAxis
from .splat_reading import ParsedSplats, named, splat_decoder
from .splat_repair import LOG_FLATNESS

_NORMALS, _DC, _RGB = ("nx", "ny", "nz"), ("f_dc_0", "f_dc_1", "f_dc_2"), ("red", "green", "blue")
_SCALES, _ROTATION = ("scale_0", "scale_1", "scale_2"), ("rot_0", "rot_1", "rot_2", "rot_3")
_BEFORE_REST, _AFTER_REST = ("x", "y", "z", *_NORMALS, *_DC), ("opacity", *_SCALES, *_ROTATION)
REST_PROPERTIES = (0, 9, 24, 45)
"""How many harmonics above the constant one a Gaussian of degree 0 to 3 has, all channels together."""
_MORE_REST, _MOST_HARMONICS = (72, 105), 15
"""The same of degree 4 and 5, which some programs write; and how many of each channel are kept."""
_MOST_UNIT_COLOUR = 2.0
"""Colours with larger numbers than this are meant from 0 to 255; brighter than white is rare below it."""


@splat_encoder
def encode(arrays: SplatArrays, note: FileNote) -> bytes:
    """A complete .ply file, the origin in comments. A factor of 1 keeps world units, bit for bit."""
    rest, normals = arrays.rest_by_channel, np.zeros_like(arrays.means)
    columns = (arrays.means, normals, arrays.sh0, rest, arrays.opacity_logits[:, None], arrays.log_scales)
    table = np.concatenate([*columns, arrays.quats_wxyz], axis=1)
    names = (*_BEFORE_REST, *(f"f_rest_{i}" for i in range(rest.shape[1])), *_AFTER_REST)
    return ply_bytes(our_comments(note), [("vertex", names, table.astype("<f4"))])


@splat_decoder("splats from this .ply")
def decode(data: bytes) -> ParsedSplats:
    """A 3DGS .ply, ours or any other program's.

    Elements and properties may come in any order and type, normals may be missing. Colours may be red, green, blue in
    place of constant harmonics; Gaussians may have two scales (flat ones) or one (balls, which need no rotation).
    Harmonics above degree 3 are left out. Lengths are divided by the factor in the header and the up axis is turned
    back; a file that says neither is taken as it is.

    Raises:
        InputError: not such a file, a property is missing, the size does not fit the header, or most numbers are not
            finite.
    """
    header = read_header(data)
    vertices = next((e for e in header.elements if e.name == "vertex"), None)
    if vertices is None or not vertices.properties:
        raise InputError("it declares no vertices with properties")
    names = vertices.names
    scales = [name for name in _SCALES if name in names]
    given_rgb = not any(name in names for name in _DC) and all(name in names for name in _RGB)
    turns = () if len(scales) == 1 and not any(name in names for name in _ROTATION) else _ROTATION
    wanted = ("x", "y", "z", *(_RGB if given_rgb else _DC), "opacity", *(scales or _SCALES), *turns)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InputError(f"its vertices lack {', '.join(missing)}; a point cloud or mesh is no Gaussian splat file")
    if scales != list(_SCALES[: len(scales)]):
        raise InputError(f"expected scale_0, scale_1 and scale_2, got {', '.join(scales)}; export it again")
    rest = sorted((n for n in names if re.fullmatch(r"f_rest_[0-9]{1,4}", n)), key=lambda n: int(n[7:]))
    if len(rest) not in (*REST_PROPERTIES, *_MORE_REST) or rest != [f"f_rest_{i}" for i in range(len(rest))]:
        raise InputError(f"expected f_rest_0.. to count 0, 9, 24 or 45 without gaps, got {len(rest)} up to {rest[-1]}")
    rows = vertices.rows(data)

    def columns(*chosen: str) -> Float[np.ndarray, "n c"]:
        out = np.empty((vertices.count, len(chosen)), dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # doubles beyond float32 become Inf, told later
            for i, name in enumerate(chosen):
                out[:, i] = rows[name]
        return out

    log_scales = columns(*scales)
    if len(scales) == 2:
        log_scales = np.concatenate([log_scales, log_scales.min(axis=1, keepdims=True) + np.float32(LOG_FLATNESS)], 1)
    elif len(scales) == 1:
        log_scales = np.repeat(log_scales, 3, axis=1)
    per_channel = len(rest) // 3
    arrays = SplatArrays(
        means=columns("x", "y", "z"),
        log_scales=log_scales,
        quats_wxyz=columns(*turns) if turns else np.tile(np.array([1, 0, 0, 0], np.float32), (vertices.count, 1)),
        opacity_logits=columns("opacity")[:, 0],
        sh0=sh0_from_rgb(_rgb_unit(columns(*_RGB), dict(vertices.properties)["red"])) if given_rgb else columns(*_DC),
        sh_rest=columns(*rest).reshape(vertices.count, 3, per_channel).transpose(0, 2, 1)[:, :_MOST_HARMONICS],
    )
    notices = []
    if per_channel > _MOST_HARMONICS:
        notices.append(
            f"Its harmonics reach degree {math.isqrt(per_channel + 1) - 1}; those above degree 3 are left out."
        )
    unread = [name for name in names if name not in {*wanted, *rest, *_NORMALS, *_RGB, "alpha"}]
    if unread:
        notices.append(
            f"Its properties {named(unread)} are not read; where they change the picture, it looks different here."
        )
    if given_rgb and rest:
        notices.append("It has harmonics beside red, green and blue; both are read.")
    if _says_linear(header, data):
        notices.append("It says that its colours are linear; they are taken as sRGB, and may look dark.")
    return ParsedSplats(arrays, header.note, hinted_up_axis=_hinted_up_axis(header), notices=tuple(notices))


def _rgb_unit(rgb: Float[np.ndarray, "n 3"], kind: str) -> Float[np.ndarray, "n 3"]:
    """Colours in [0, 1] of a property of numpy type `kind`: whole numbers are parts of the most that it holds."""
    dtype = np.dtype(kind)
    if dtype.kind in "iu":
        return rgb / np.float32(np.iinfo(dtype).max if dtype.itemsize < 4 else 255)
    return rgb / np.float32(255) if rgb.max(initial=0.0) > _MOST_UNIT_COLOUR else rgb


def _hinted_up_axis(header: PlyHeader) -> InputUpAxis | None:
    """The up axis in a remark such as Brush's "Vertical axis: -y"; a plain y is said of files that hold y down, too."""
    for comment in header.comments:
        found = re.fullmatch(r"vertical axis: *(-y|-z|z)", comment.lower())
        if found:
            return {"-y": "-y", "-z": "-z", "z": "z"}[found[1]]  # pyright: ignore[reportReturnType]
    return None


def _says_linear(header: PlyHeader, data: bytes) -> bool:
    """Whether an element `color_space`, as SHARP writes it, holds 1, its number of linear colours."""
    found = next((e for e in header.elements if e.name == "color_space" and e.names == ["color_space"]), None)
    return found is not None and found.count == 1 and int(found.rows(data)["color_space"][0]) == 1

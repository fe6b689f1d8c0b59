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

import re

import numpy as np
from jaxtyping import Float

from dp360.generation import InputError, Provenance
from dp360.reconstruction.splats import Splats

from .ply_tables import our_comments, ply_bytes, read_header
from .splat_file_frame import FileNote, SplatArrays, reading, splat_encoder, splats_from_file

_BEFORE_REST = ("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2")
_AFTER_REST = ("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")
REST_PROPERTIES = (0, 9, 24, 45)
"""How many harmonics above the constant one a Gaussian of degree 0 to 3 has, all channels together."""


@splat_encoder
def encode(arrays: SplatArrays, note: FileNote) -> bytes:
    """A complete .ply file, the origin in comments. A factor of 1 keeps world units, bit for bit."""
    rest, normals = arrays.rest_by_channel, np.zeros_like(arrays.means)
    columns = (arrays.means, normals, arrays.sh0, rest, arrays.opacity_logits[:, None], arrays.log_scales)
    table = np.concatenate([*columns, arrays.quats_wxyz], axis=1)
    names = (*_BEFORE_REST, *(f"f_rest_{i}" for i in range(rest.shape[1])), *_AFTER_REST)
    return ply_bytes(our_comments(note), [("vertex", names, table.astype("<f4"))])


@reading("splats from this .ply")
def decode(data: bytes) -> tuple[Splats, Provenance | None]:
    """Gaussians in world units out of a 3DGS .ply, and its origin if it is ours.

    Properties may come in any order and type, others than the known ones are ignored, normals may be missing. Lengths
    are divided by the factor in the header and the up axis is turned back; a file that says neither is taken as it is.

    Raises:
        InputError: not such a file, a property is missing, the size does not fit the header, or a number is not finite.
    """
    header = read_header(data)
    if not header.elements or header.elements[0].name != "vertex" or not header.elements[0].properties:
        raise InputError("it declares no vertices with properties as its first element")
    vertices = header.elements[0]
    names = vertices.names
    missing = [n for n in (*_BEFORE_REST, *_AFTER_REST) if n not in names and n not in ("nx", "ny", "nz")]
    if missing:
        raise InputError(f"its vertices lack {', '.join(missing)}; a point cloud or mesh is no Gaussian splat file")
    rest = sorted((n for n in names if re.fullmatch(r"f_rest_\d+", n)), key=lambda n: int(n[7:]))
    if len(rest) not in REST_PROPERTIES or rest != [f"f_rest_{i}" for i in range(len(rest))]:
        raise InputError(f"expected f_rest_0.. to count 0, 9, 24 or 45 without gaps, got {len(rest)} up to {rest[-1]}")
    rows = vertices.rows(data)

    def columns(*wanted: str) -> Float[np.ndarray, "n c"]:
        out = np.empty((vertices.count, len(wanted)), dtype=np.float32)
        with np.errstate(over="ignore"):  # doubles beyond float32 become Inf, refused later
            for i, name in enumerate(wanted):
                out[:, i] = rows[name]
        return out

    arrays = SplatArrays(
        means=columns("x", "y", "z"),
        log_scales=columns("scale_0", "scale_1", "scale_2"),
        quats_wxyz=columns("rot_0", "rot_1", "rot_2", "rot_3"),
        opacity_logits=columns("opacity")[:, 0],
        sh0=columns("f_dc_0", "f_dc_1", "f_dc_2"),
        sh_rest=columns(*rest).reshape(vertices.count, 3, len(rest) // 3).transpose(0, 2, 1),
    )
    return splats_from_file(arrays, header.note)

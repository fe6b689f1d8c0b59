"""Gaussian splats as the .ply of 3D Gaussian Splatting, which viewers, game engines and gsplat read.

Layout: binary little endian, one `vertex` element of float32 properties `x y z nx ny nz f_dc_0..2 f_rest_0..(3K-1)
opacity scale_0..2 rot_0..3`, K = 0, 3, 8 or 15. `f_dc`/`f_rest` are spherical harmonics (`f_rest` channel by channel:
all of red, then green, then blue), `opacity` a logit, `scale` a natural logarithm, `rot` a quaternion w, x, y, z. The
normals are zeros, kept because some readers insist on them.

Frame: as in the package, +y up and the face to +z, so that a head stands upright and looks at the viewer wherever y is
up (glTF, three.js, open3d). Programs made for photogrammetry take -y for up: for them there is `up_axis="-y"`, a half
turn about z that moves positions, rotations and harmonics together.

Lengths: metres (`METRES_PER_UNIT`), the unit of glTF, viewers and game engines: positions are multiplied and the
logarithm is added to the scales; nothing else changes under a uniform scale.

Factor and axis stand in the header as comments, and `decode` takes both back. A turn, or a factor of 1, keeps every
bit; another factor costs a rounding of float32.

Source: Kerbl et al. 2023, "3D Gaussian Splatting for Real-Time Radiance Field Rendering", and the files that
https://github.com/graphdeco-inria/gaussian-splatting writes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from typing_extensions import assert_never

from dp360.generation import InputError, Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.reconstruction.splats import Splats

from .provenance import provenance_from_json, provenance_to_json
from .splat_frames import half_turn_about_z

UpAxis = Literal["+y", "-y"]

_COMMENT_CHARACTERS = 160
"""Longest piece of provenance per comment: the reader inside open3d refuses lines of 1024 characters."""
_HEADER_BYTES_MAX = 1 << 18
"""Headers end within this many bytes; a file without an end is refused before it is searched through."""
_NUMPY_TYPES = {
    **dict.fromkeys(("char", "int8"), "<i1"),
    **dict.fromkeys(("uchar", "uint8"), "<u1"),
    **dict.fromkeys(("short", "int16"), "<i2"),
    **dict.fromkeys(("ushort", "uint16"), "<u2"),
    **dict.fromkeys(("int", "int32"), "<i4"),
    **dict.fromkeys(("uint", "uint32"), "<u4"),
    **dict.fromkeys(("float", "float32"), "<f4"),
    **dict.fromkeys(("double", "float64"), "<f8"),
}
_BEFORE_REST = ("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2")
_AFTER_REST = ("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")
_REST_COEFFICIENTS = (0, 3, 8, 15)
"""Coefficients per channel beyond the constant one, for degrees 0 to 3."""


def encode(
    splats: Splats,
    provenance: Provenance,
    *,
    metres_per_unit: float = METRES_PER_UNIT,
    up_axis: UpAxis = "+y",
) -> bytes:
    """A complete .ply file.

    Args:
        splats: Gaussians in world units.
        provenance: origin, written as comments.
        metres_per_unit: positive factor on lengths; 1 keeps world units, bit for bit.
        up_axis: which way the crown points in the file; the face looks to +z either way.

    Raises:
        ValueError: a number is not finite, or the factor is not positive.
    """
    if not (math.isfinite(metres_per_unit) and metres_per_unit > 0):
        raise ValueError(f"splat_ply.encode: expected a positive factor metres_per_unit, got {metres_per_unit}")
    if up_axis == "-y":
        splats = half_turn_about_z(splats)
    elif up_axis != "+y":
        assert_never(up_axis)
    means, log_scales = _array(splats.means_world), _array(splats.log_scales)
    if metres_per_unit != 1.0:  # adding log 1 = 0 would turn -0 into 0
        with np.errstate(over="ignore"):  # Inf is refused below
            means = (means.astype(np.float64) * metres_per_unit).astype(np.float32)
        log_scales = (log_scales.astype(np.float64) + math.log(metres_per_unit)).astype(np.float32)
    rest = _array(splats.sh_rest).transpose(0, 2, 1).reshape(len(means), 3 * splats.sh_rest.shape[1])  # channel-major
    table = np.concatenate(
        [
            means,
            np.zeros_like(means),
            _array(splats.sh0),
            rest,
            _array(splats.opacity_logits)[:, None],
            log_scales,
            _array(splats.quats_wxyz),
        ],
        axis=1,
    )
    if not np.isfinite(table).all():
        broken = int((~np.isfinite(table)).any(axis=1).sum())
        raise ValueError(f"splat_ply.encode: {broken} of {len(table)} Gaussians hold NaN or Inf; nothing was written")
    names = (*_BEFORE_REST, *(f"f_rest_{i}" for i in range(rest.shape[1])), *_AFTER_REST)
    text = provenance_to_json(provenance)
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {_one_line(provenance.statement)}",
        f"comment dp360.metres_per_unit {metres_per_unit!r}",
        f"comment dp360.up_axis {up_axis}",
        *(
            f"comment dp360.provenance {text[i : i + _COMMENT_CHARACTERS]}"
            for i in range(0, len(text), _COMMENT_CHARACTERS)
        ),
        f"element vertex {len(table)}",
        *(f"property float {name}" for name in names),
        "end_header",
    ]
    return ("\n".join(header) + "\n").encode("ascii") + table.astype("<f4").tobytes()


def decode(data: bytes) -> Splats:
    """Gaussians in world units out of a 3DGS .ply, ours or another program's.

    Properties may come in any order and type, others than the known ones are ignored, normals may be missing. Lengths
    are divided by the factor in the header and the up axis is turned back; a file that says neither is taken as it is.

    Raises:
        InputError: not such a file, a property is missing, the size does not fit the header, or a number is not finite.
    """
    header = _read_header(data)
    names = [name for name, _ in header.properties]
    missing = [n for n in (*_BEFORE_REST, *_AFTER_REST) if n not in names and n not in ("nx", "ny", "nz")]
    if missing:
        raise InputError(
            f"Cannot read splats from this .ply: its vertices lack {', '.join(missing)}; a point cloud or mesh is no "
            "Gaussian splat file"
        )
    rest = sorted((n for n in names if re.fullmatch(r"f_rest_\d+", n)), key=lambda n: int(n[7:]))
    if len(rest) % 3 or len(rest) // 3 not in _REST_COEFFICIENTS or rest != [f"f_rest_{i}" for i in range(len(rest))]:
        raise InputError(
            f"Cannot read splats from this .ply: expected f_rest_0.. to count 0, 9, 24 or 45 without gaps, "
            f"got {len(rest)} up to {rest[-1]}"
        )
    rows = np.frombuffer(data, dtype=np.dtype(header.properties), count=header.count, offset=header.size)

    def columns(*wanted: str) -> Float[np.ndarray, "n c"]:
        out = np.empty((header.count, len(wanted)), dtype=np.float32)
        with np.errstate(over="ignore"):  # doubles beyond float32 become Inf, refused below
            for i, name in enumerate(wanted):
                out[:, i] = rows[name]
        if not np.isfinite(out).all():
            raise InputError(f"Cannot read splats from this .ply: {', '.join(wanted)} hold NaN or Inf; export it again")
        return out

    means, log_scales = columns("x", "y", "z"), columns("scale_0", "scale_1", "scale_2")
    if header.metres_per_unit != 1.0:
        means = (means.astype(np.float64) / header.metres_per_unit).astype(np.float32)
        log_scales = (log_scales.astype(np.float64) - math.log(header.metres_per_unit)).astype(np.float32)
    quats_wxyz = columns("rot_0", "rot_1", "rot_2", "rot_3")
    if not quats_wxyz.any(axis=1).all():
        raise InputError("Cannot read splats from this .ply: some rotations are zero quaternions; export it again")
    sh_rest = columns(*rest).reshape(header.count, 3, len(rest) // 3).transpose(0, 2, 1)
    splats = Splats(
        means_world=torch.from_numpy(means),
        log_scales=torch.from_numpy(log_scales),
        quats_wxyz=torch.from_numpy(quats_wxyz),
        opacity_logits=torch.from_numpy(columns("opacity")[:, 0].copy()),
        sh0=torch.from_numpy(columns("f_dc_0", "f_dc_1", "f_dc_2")),
        sh_rest=torch.from_numpy(np.ascontiguousarray(sh_rest)),
    )
    return half_turn_about_z(splats, inverse=True) if header.up_axis == "-y" else splats


def decode_provenance(data: bytes) -> Provenance | None:
    """The origin that `encode` wrote into the comments, or None in another program's file.

    Raises:
        InputError: not a .ply file, or its comments are damaged.
    """
    text = _read_header(data).provenance
    return provenance_from_json(text) if text else None


@dataclass(frozen=True)
class _Header:
    """What the text before the numbers says."""

    size: int
    """Bytes of the header, end line included."""
    count: int
    """Number of vertices, checked against the size of the file."""
    properties: list[tuple[str, str]]
    """Name and numpy type of each property, in the order of the file."""
    metres_per_unit: float
    """The factor on lengths, 1 where none is written."""
    up_axis: UpAxis
    """Which way the crown points, +y where nothing is written."""
    provenance: str
    """JSON text, empty where none is written."""


def _read_header(data: bytes) -> _Header:
    """Parse and check the header; nothing is allocated from its numbers before they fit the size of the file."""
    if data[:4] not in (b"ply\n", b"ply\r"):
        raise InputError(f"Cannot read splats: expected a .ply file (first line 'ply'), got {data[:16]!r}")
    end = re.compile(rb"\nend_header\r?\n").search(data, 0, _HEADER_BYTES_MAX)
    if end is None:
        raise InputError("Cannot read splats: this .ply has no line 'end_header'; the file is cut off or damaged")
    lines = data[: end.start()].decode("ascii", errors="replace").splitlines()[1:]
    if "format binary_little_endian 1.0" not in lines:
        raise InputError(
            "Cannot read splats: expected a .ply with 'format binary_little_endian 1.0'; convert text or big endian "
            "files first"
        )
    count: int | None = None
    other_element = False
    properties: list[tuple[str, str]] = []
    metres_per_unit, provenance = 1.0, ""
    up_axis: UpAxis = "+y"
    for line in lines:
        match line.split():
            case ["element", "vertex", number] if number.isdigit() and count is None and not other_element:
                count = int(number)
            case ["element", "vertex", *_]:
                raise InputError(
                    f"Cannot read splats: expected one 'element vertex COUNT', the first, got {line[:60]!r}"
                )
            case ["element", *_]:
                other_element = True
            case ["property", kind, name] if count is not None and not other_element:
                if kind not in _NUMPY_TYPES or name in dict(properties):
                    raise InputError(f"Cannot read splats: expected one number per property, got {line[:80]!r}")
                properties.append((name, _NUMPY_TYPES[kind]))
            case ["property", *_] if not other_element:
                raise InputError(f"Cannot read splats: expected one number per property, got {line[:80]!r}")
            case ["comment", "dp360.metres_per_unit", number]:
                metres_per_unit = _positive(number)
            case ["comment", "dp360.up_axis", "-y"]:
                up_axis = "-y"
            case ["comment", "dp360.provenance", *_]:
                provenance += line.removeprefix("comment dp360.provenance ")
    if count is None or not properties:
        raise InputError("Cannot read splats: this .ply declares no vertices with properties")
    expected, got = count * np.dtype(properties).itemsize, len(data) - end.end()
    if got < expected or (got > expected and not other_element):
        raise InputError(
            f"Cannot read splats: the header of this .ply promises {count} vertices ({expected} bytes), but "
            f"{got} bytes follow; the file is cut off or damaged"
        )
    return _Header(end.end(), count, properties, metres_per_unit, up_axis, provenance)


def _positive(number: str) -> float:
    """The factor of a header comment as a number."""
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"Cannot read splats: expected a positive dp360.metres_per_unit, got {number!r}")
    return value


def _array(tensor: torch.Tensor) -> Float[np.ndarray, "*shape"]:
    """A float32 array on the CPU, without its graph."""
    return tensor.detach().to("cpu", torch.float32).numpy()


def _one_line(text: str) -> str:
    """Printable ASCII without line breaks, short enough for every reader."""
    return " ".join(text.split()).encode("ascii", errors="replace").decode("ascii")[:_COMMENT_CHARACTERS]

"""Gaussian splats as `.splat`: 32 bytes each, no header, what the first viewers on the web read.

Layout per Gaussian: 3 float32 position, 3 float32 linear scale, RGBA in 4 bytes, quaternion w, x, y, z in 4 bytes as
128 + 128 q; the most important Gaussians come first, so that a viewer may show a file that is still arriving.

What the format leaves behind: harmonics above the constant one, and everything about the file itself: there is no
place for provenance, unit or axes. Keep the .ply beside it.

Own code: the format is one array. gsplat's `export_splats` writes it too, but neither checks nor scales its input.

Source: https://github.com/antimatter15/splat (convert.py of the viewer by Kevin Kwok, 2023).
"""

from __future__ import annotations

import numpy as np

from dp360.generation import InputError
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.reconstruction.spherical_harmonics import rgb_from_sh0, sh0_from_rgb

from .splat_file_frame import FileNote, SplatArrays, UpAxis, splat_encoder
from .splat_packing import logits_from_bytes, to_bytes, unit_quats
from .splat_reading import ParsedSplats, splat_decoder

_ROW = np.dtype([("position", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])
_LEAST_PLAUSIBLE = 0.5
"""Share of rows with sizes that can be: in a file of another kind, most have none."""


@splat_encoder
def encode(arrays: SplatArrays, note: FileNote) -> bytes:
    """A complete .splat file; the format has no place for the origin."""
    del note
    opacity, scale = arrays.opacity, np.exp(arrays.log_scales.astype(np.float64))
    rows = np.empty(len(arrays), dtype=_ROW)
    rows["position"] = arrays.means
    rows["scale"] = np.clip(scale, 1e-30, 1e30)
    rows["rgba"] = to_bytes(np.concatenate([rgb_from_sh0(arrays.sh0), opacity[:, None]], axis=1))
    rows["quat"] = np.clip(np.rint(unit_quats(arrays.quats_wxyz) * 128 + 128), 0, 255)
    importance = opacity * scale.prod(axis=1)
    return rows[np.argsort(-importance, kind="stable")].tobytes()


@splat_decoder("splats from this .splat")
def decode(data: bytes, *, metres_per_unit: float = METRES_PER_UNIT, up_axis: UpAxis = "+y") -> ParsedSplats:
    """A .splat, whose origin is never known; harmonics of degree 0.

    Args:
        metres_per_unit: factor on lengths to take back, which the file itself cannot name; 1 takes them as they are.
        up_axis: which way the crown points in the file, if it was written with `up_axis`.

    Raises:
        InputError: empty, or not a multiple of 32 bytes.
    """
    if not data or len(data) % _ROW.itemsize:
        raise InputError(
            f"expected {_ROW.itemsize} bytes per Gaussian, got {len(data)} bytes; the file is empty, cut off or of "
            "another kind"
        )
    rows = np.frombuffer(data, dtype=_ROW)
    scale = rows["scale"].astype(np.float64)
    if not (np.isfinite(scale) & (scale >= 0)).all(axis=1).mean() > _LEAST_PLAUSIBLE:
        raise InputError("expected positive finite scales; the file is damaged or of another kind")
    with np.errstate(divide="ignore"):  # no size is told later
        log_scales = np.log(np.abs(scale)).astype(np.float32)
    arrays = SplatArrays(
        means=rows["position"].astype(np.float32),
        log_scales=log_scales,
        quats_wxyz=(rows["quat"].astype(np.float32) - 128) / 128,
        opacity_logits=logits_from_bytes(rows["rgba"][:, 3]),
        sh0=sh0_from_rgb(rows["rgba"][:, :3].astype(np.float32) / 255),
        sh_rest=np.zeros((len(rows), 0, 3), dtype=np.float32),
    )
    return ParsedSplats(arrays, FileNote(None, metres_per_unit, up_axis))

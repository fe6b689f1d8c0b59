"""Gaussians of other programs that hold numbers without a meaning: mended where the meaning is clear, else left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from dp360.generation import InputError

from .splat_file_frame import SplatArrays

LOG_FLATNESS = float(np.log(1e-2))
"""Logarithm of the thickness of a flat Gaussian, in its smallest other extent."""
_OPAQUE_LOGIT, _INVISIBLE_LOGIT = 17.0, -17.0
"""Logits of the opacities 1 and 0, as near as float32 tells them from their neighbours."""
_MOST_LEFT_OUT = 0.5
"""Share of Gaussians without a meaning above which a file is damaged as a whole."""


def mended(arrays: SplatArrays) -> tuple[SplatArrays, tuple[str, ...]]:
    """Gaussians that can be drawn, and at most one sentence about those that could not.

    Infinite opacities are opaque or invisible; an axis without length makes a flat Gaussian; a zero quaternion turns
    nothing; harmonics that are not finite count as none. What has no place, no size, no colour, or NaN is left out.

    Raises:
        InputError: more than half of the Gaussians would be left out.
    """
    left_out: dict[str, Bool[np.ndarray, " n"]] = {}
    changed: dict[str, Bool[np.ndarray, " n"]] = {}
    count = len(arrays)

    with np.errstate(invalid="ignore"):
        sizes, logits = arrays.log_scales, arrays.opacity_logits
        left_out["are at no finite place"] = ~np.isfinite(arrays.means).all(axis=1)
        left_out["have no size"] = (sizes == -np.inf).all(axis=1)
        left_out["have no finite size"] = (np.isnan(sizes) | (sizes == np.inf)).any(axis=1)
        left_out["have no finite rotation"] = ~np.isfinite(arrays.quats_wxyz).all(axis=1)
        left_out["have no finite colour"] = ~np.isfinite(arrays.sh0).all(axis=1)
        left_out["have an opacity that is no number"] = np.isnan(logits)

        changed["are infinitely opaque and become opaque"] = logits == np.inf
        changed["are infinitely transparent and become invisible"] = logits == -np.inf
        changed["have no thickness and become flat"] = (sizes == -np.inf).any(axis=1)
        no_turn = ~(np.abs(arrays.quats_wxyz).max(axis=1, initial=0.0) > 1e-18)
        changed["have no rotation and are not turned"] = no_turn
        bad_rest = ~np.isfinite(arrays.sh_rest).all(axis=(1, 2))
        changed["have no finite harmonics and look alike from all sides"] = bad_rest

    out = np.zeros(count, dtype=bool)
    for where in left_out.values():
        where &= ~out  # each is told by its first reason, in place
        out |= where
    changed = {what: where & ~out for what, where in changed.items()}
    touched = out | np.logical_or.reduce([np.zeros(count, bool), *changed.values()])
    if not touched.any():
        return arrays, ()
    if out.sum() > _MOST_LEFT_OUT * count:
        raise InputError(
            f"{int(out.sum())} of {count} Gaussians cannot be drawn ({_listed(left_out)}); the file is damaged, export "
            "it again"
        )
    floor = np.where(np.isfinite(sizes), sizes, np.inf).min(axis=1, keepdims=True) + np.float32(LOG_FLATNESS)
    quats = arrays.quats_wxyz.copy()
    quats[no_turn] = (1.0, 0.0, 0.0, 0.0)
    rest = arrays.sh_rest.copy()
    rest[bad_rest] = 0.0
    whole = replace(
        arrays,
        log_scales=np.where(sizes == -np.inf, floor, sizes).astype(np.float32),
        quats_wxyz=quats,
        opacity_logits=np.where(np.isinf(logits), np.where(logits > 0, _OPAQUE_LOGIT, _INVISIBLE_LOGIT), logits).astype(
            np.float32
        ),
        sh_rest=rest,
    )
    parts = [f"{_listed(kinds)}{end}" for kinds, end in ((left_out, ": left out"), (changed, "")) if _listed(kinds)]
    sentence = f"{int(touched.sum())} of {count} Gaussians are damaged ({'; '.join(parts)})."
    return whole.reordered(~out) if out.any() else whole, (sentence,)


def _listed(kinds: dict[str, Bool[np.ndarray, " n"]]) -> str:
    """How many Gaussians are of each kind, in words."""
    return ", ".join(f"{int(where.sum())} {what}" for what, where in kinds.items() if where.any())

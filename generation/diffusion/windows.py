"""Which views are denoised together: clips along each ring of cameras, so that the circle closes and no seam stays.

V looks at one clip of neighbours at a time. The release cuts 32 views into four clips that never meet; here clips
follow the ring round, and either overlap (`stride` smaller than the clip: predictions are averaged, arXiv 2302.08113)
or start elsewhere in every step, which costs nothing.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..cameras import Cameras

ClipRows = Int[Tensor, " _"]
"""Numbers of the views that form a clip."""

_SAME_ELEVATION_RAD = math.radians(2.0)
_LARGEST_GAP = 1.6


def rings_of(cameras: Cameras) -> list[tuple[Int[Tensor, " n"], bool]]:
    """Views of equal elevation in the order of increasing azimuth, and whether they go all the way round.

    A ring is closed if it has at least three views and no gap much wider than the others.
    """
    azimuth = torch.remainder(cameras.azimuth_rad + 1e-6, 2 * math.pi)
    order = torch.argsort(cameras.elevation_rad, stable=True)
    levels = cameras.elevation_rad[order]
    cuts = (torch.nonzero(levels.diff() > _SAME_ELEVATION_RAD).flatten() + 1).tolist()
    rings = []
    for members in torch.tensor_split(order, cuts):
        members = members[torch.argsort(azimuth[members], stable=True)]
        gaps = torch.remainder(azimuth[members].roll(-1) - azimuth[members], 2 * math.pi)
        closed = len(members) >= 3 and bool(gaps.max() <= _LARGEST_GAP * gaps.median())
        if not closed:  # begin after the widest gap, so that an arc across the front stays in one piece
            members = members.roll(-(int(gaps.argmax()) + 1))
        rings.append((members, closed))
    return rings


def ring_clips(cameras: Cameras, clip_length: int, stride: int, shift: int = 0) -> list[ClipRows]:
    """Clips of neighbouring views that together hold every view at least once.

    Args:
        cameras: of all views.
        clip_length: views per clip; a ring with fewer views is one shorter clip.
        stride: views between the starts of two clips, at most `clip_length`; smaller means overlap.
        shift: where on its ring the first clip starts.

    Returns:
        Row numbers per clip. Where the views are no multiple of the stride, clips of a closed ring overlap where it
        closes, and the last clip of an open one is moved back to stay inside.

    Raises:
        ValueError: a clip of no views, or a stride that is not from 1 to `clip_length`.
    """
    if not 1 <= stride <= clip_length:
        raise ValueError(f"ring_clips: expected a stride from 1 to the clip length {clip_length}, got {stride}")
    clips: list[ClipRows] = []
    for members, closed in rings_of(cameras):
        count = len(members)
        length = min(clip_length, count)
        if length == count:
            starts = [shift % count if closed else 0]
        elif closed:
            starts = [(shift + k) % count for k in range(0, count, stride)]
        else:
            last = count - length
            starts = sorted({0, last, *range(shift % stride, last, stride)})
        clips += [members[(start + torch.arange(length)) % count] for start in starts]
    return clips


def release_clips(count: int, clip_length: int) -> list[ClipRows]:
    """The release's clips: consecutive views in the order given.

    The release drops what is left over; here the last clip is moved back so that every view is made.
    """
    length = min(clip_length, count)
    starts = sorted({*range(0, count - length + 1, length), count - length})
    return [start + torch.arange(length) for start in starts]


def batches_of(clips: list[ClipRows], clips_per_batch: int) -> list[list[ClipRows]]:
    """Clips of equal length in groups of at most `clips_per_batch`."""
    groups: list[list[ClipRows]] = []
    for clip in clips:
        if groups and len(groups[-1]) < clips_per_batch and len(groups[-1][0]) == len(clip):
            groups[-1].append(clip)
        else:
            groups.append([clip])
    return groups


class ViewAverage:
    """Sum of predictions per view that ends as their mean."""

    def __init__(self, like: Float[Tensor, "n c h w"]) -> None:
        """Nothing summed yet, for predictions of the shape of `like`."""
        self._sum = torch.zeros_like(like)
        self._count = torch.zeros(len(like), 1, 1, 1, dtype=like.dtype, device=like.device)

    def add(self, rows: Int[Tensor, " b"], predictions: Float[Tensor, "b c h w"]) -> None:
        """Add predictions for some views; a view may occur in several calls, and several times in one."""
        rows = rows.to(self._sum.device)
        self._sum.index_add_(0, rows, predictions.to(self._sum.dtype))
        self._count.index_add_(0, rows, self._count.new_ones(len(rows), 1, 1, 1))

    @property
    def mean(self) -> Float[Tensor, "n c h w"]:
        """Mean per view."""
        return self._sum / self._count

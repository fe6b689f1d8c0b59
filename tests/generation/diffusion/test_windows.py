"""Clips round the ring: every view, neighbours only, and a circle that closes."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dp360.generation import OrbitConfig, look_at_origin, orbit
from dp360.generation.diffusion.sampling import Sampling
from dp360.generation.diffusion.windows import ViewAverage, batches_of, release_clips, ring_clips, rings_of


def test_release_clips_are_the_release_s() -> None:
    assert [clip.tolist() for clip in release_clips(32, 8)] == [list(range(k, k + 8)) for k in (0, 8, 16, 24)]


def test_release_clips_keep_what_the_release_drops() -> None:
    assert [clip.tolist() for clip in release_clips(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]
    assert [clip.tolist() for clip in release_clips(3, 4)] == [[0, 1, 2]]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40),
    length=st.integers(1, 12),
    data=st.data(),
    shift=st.integers(0, 50),
    start=st.floats(-4, 4),
)
def test_every_view_is_in_a_clip_of_neighbours(count: int, length: int, data, shift: int, start: float) -> None:
    stride = data.draw(st.integers(1, length))
    cameras = orbit(count, start_azimuth_rad=start, size_px=64)
    clips = ring_clips(cameras, length, stride, shift)
    assert set(torch.cat(clips).tolist()) == set(range(count))
    step = 2 * math.pi / count
    for clip in clips:
        assert len(clip) == min(length, count) and len(set(clip.tolist())) == len(clip)
        turn = torch.remainder(cameras.azimuth_rad[clip].diff(), 2 * math.pi)
        assert torch.allclose(turn, torch.full_like(turn, step), atol=1e-5), "increasing azimuth, no view left out"


def test_moving_clips_part_every_pair_of_neighbours_equally_often() -> None:
    cameras = orbit(32, size_px=64)
    together = Counter(
        (int(a), int(b))
        for step in range(8)
        for clip in Sampling().clips(cameras, 8, step)
        for a, b in itertools.pairwise(clip)
    )
    assert together == {(k, (k + 1) % 32): 7 for k in range(32)}, "parted in one step of eight, 31 and 0 as well"
    clips = Sampling().clips(cameras, 8, 5)
    assert sum(map(len, clips)) == 32, "no view is computed twice"


def test_rings_of_other_elevations_are_apart_and_an_arc_is_open() -> None:
    cameras = OrbitConfig(16, 6, lower_count=4).cameras(64)
    rings = rings_of(cameras)
    assert sorted(len(members) for members, _ in rings) == [4, 6, 16] and all(closed for _, closed in rings)
    arc = look_at_origin(torch.linspace(-1.0, 1.0, 9).roll(3), torch.zeros(9), size_px=64)
    ((members, closed),) = rings_of(arc)
    assert not closed and bool((arc.azimuth_rad[members].diff() > 0).all()), "begins behind the gap"
    clips = ring_clips(arc, 4, 4, shift=2)
    assert all(bool((arc.azimuth_rad[clip].diff() > 0).all()) for clip in clips), "no clip reaches over the gap"
    assert set(torch.cat(clips).tolist()) == set(range(9))


@pytest.mark.parametrize("stride", [0, 5])
def test_strides_that_leave_views_out_are_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f"stride from 1 to the clip length 4, got {stride}"):
        ring_clips(orbit(8, size_px=64), 4, stride)


def test_batches_hold_clips_of_one_length_in_order() -> None:
    clips = [torch.arange(4), torch.arange(4), torch.arange(4), torch.arange(3)]
    assert [[len(clip) for clip in batch] for batch in batches_of(clips, 2)] == [[4, 4], [4], [3]]


def test_average_of_views_in_several_clips() -> None:
    average = ViewAverage(torch.zeros(3, 1, 1, 1))
    average.add(torch.tensor([0, 1]), torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1))
    average.add(torch.tensor([1, 2, 1]), torch.tensor([4.0, 5.0, 6.0]).reshape(3, 1, 1, 1))
    assert average.mean.flatten().tolist() == [1.0, 4.0, 5.0]


def test_more_rows_than_views_in_one_call_are_averaged() -> None:
    """Two overlapping clips of a short ring, computed at once."""
    average, rows = ViewAverage(torch.zeros(3, 1, 1, 1)), torch.tensor([0, 1, 2, 0])
    average.add(rows, torch.tensor([1.0, 2.0, 3.0, 5.0]).reshape(4, 1, 1, 1))
    assert average.mean.flatten().tolist() == [3.0, 2.0, 3.0]

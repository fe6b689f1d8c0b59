"""Made up skin varies as much as what was measured, in every octave, on every side, and nowhere is it stretched."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from dp360.generation.cameras import UNITS_PER_MM
from dp360.generation.portrait import Portrait
from dp360.generation.prior import HeadPrior
from dp360.generation.prior.texture import skin_detail
from dp360.generation.prior.texture.skin_detail import OCTAVES_MM, SkinDetail, laid_over

STEP_MM = 0.3
REDDISH = SkinDetail(np.stack([s * np.diag([1.0, 0.8, 0.7]) for s in (0.01, 0.02, 0.03, 0.01)]))


def plane(axis: int, count: int = 700) -> tuple[np.ndarray, np.ndarray]:
    """Points of a flat piece of skin that faces an axis, and their normals."""
    grid = np.stack(np.meshgrid(np.arange(count), np.arange(count)), axis=-1).reshape(-1, 2)
    points = np.insert(grid * (STEP_MM * UNITS_PER_MM), axis, 0.1, axis=1)
    return points, np.tile(np.eye(3)[axis], (len(points), 1))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_octaves_are_as_strong_as_measured(axis: int) -> None:
    image = laid_over(REDDISH.tile(0), *plane(axis)).reshape(700, 700, 3)
    blurs = [cv2.GaussianBlur(image, (0, 0), sigma / STEP_MM) for sigma in OCTAVES_MM]
    found = [(a - b).std(axis=(0, 1)) for a, b in itertools.pairwise(blurs)]
    wanted = [gain * np.diag(root) for gain, root in zip(skin_detail._STRONGER, REDDISH.roots)]
    for band, expected in zip(found[1:3], wanted[1:3]):  # blurring twice thins out the first and the last
        np.testing.assert_allclose(band / expected, 1, atol=0.45)
        np.testing.assert_allclose(band / band[0], expected / expected[0], rtol=0.1)


def test_slanted_skin_varies_as_much_as_skin_that_faces_an_axis() -> None:
    points, straight = plane(2)
    slanted = np.tile([0.577, 0.577, 0.577], (len(points), 1))
    facing, between = (laid_over(REDDISH.tile(0), points, normals).std() for normals in (straight, slanted))
    assert abs(between / facing - 1) < 0.15


def test_the_seed_decides() -> None:
    points, normals = plane(0, 64)
    first, again, other = (laid_over(REDDISH.tile(seed), points, normals) for seed in (0, 0, 1))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_a_face_is_calm_and_varies_in_brightness_above_all(portrait: Portrait, prior: HeadPrior) -> None:
    found = SkinDetail.of(portrait, prior.portrait_labels)
    assert found is not None
    for root in found.roots:
        variances, axes = np.linalg.eigh(root)
        assert 0.001 < variances[-1] < 0.08
        assert (np.abs(axes[:, -1]) > 0.3).all()  # all channels together

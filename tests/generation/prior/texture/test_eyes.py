"""Eyes: every texel belongs to one surface, and the white that is not seen is that of the portrait's eyes."""

from __future__ import annotations

import numpy as np
import pytest

from dp360.generation.prior import HeadPrior
from dp360.generation.prior.texture.atlas import ATLAS_HEIGHT, ATLAS_WIDTH, MATERIAL_EYE, atlas_texels
from dp360.generation.prior.texture.portrait_lookup import SeenPoints
from dp360.generation.prior.texture.prior_texture import _eye_white

SKIN = np.array([0.75, 0.5, 0.4])


def test_neighbouring_texels_of_an_eye_are_neighbours_on_it(prior: HeadPrior) -> None:
    texels = atlas_texels(prior.mesh)
    eye = texels.material == MATERIAL_EYE
    points = np.full((ATLAS_HEIGHT, ATLAS_WIDTH, 3), np.nan, np.float32)
    points[texels.rows[eye], texels.columns[eye]] = texels.points_world[eye]
    steps = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    steps = steps[np.isfinite(steps)]
    assert len(steps) > 50_000
    assert (steps > 0.003).mean() < 0.002  # seams alone; the two shells of an eye on the same texels give 0.06


@pytest.mark.parametrize("white", [(0.7, 0.68, 0.66), (0.5, 0.6, 0.4)])
def test_the_white_is_the_pale_part_of_what_is_seen_of_the_eyes(white: tuple[float, float, float]) -> None:
    iris, lids = np.tile([0.2, 0.15, 0.1], (400, 1)), np.tile(0.8 * SKIN, (700, 1))
    colour = np.concatenate([iris, lids, np.tile(white, (900, 1)), np.full((20, 3), 1.0)]).astype(np.float32)
    seen = SeenPoints(colour, np.ones(len(colour), np.float32), np.zeros((len(colour), 3), np.float32))
    np.testing.assert_allclose(_eye_white(seen, SKIN), white, atol=1e-6)


def test_without_eyes_to_be_seen_the_white_goes_with_the_skin() -> None:
    nothing = SeenPoints(np.zeros((0, 3), np.float32), np.zeros(0, np.float32), np.zeros((0, 3), np.float32))
    light, dark = (_eye_white(nothing, factor * SKIN) for factor in (1.0, 0.4))
    assert np.ptp(light) < 0.05 and (dark < light).all() and (dark > 0.2).all()

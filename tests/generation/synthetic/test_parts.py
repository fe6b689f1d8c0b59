"""Parts of composed heads: their scale, their colours, their names."""

import numpy as np
import pytest

from dp360.generation.synthetic.parts import CROWN_TO_CHIN, EYES_WORLD, dyed, tinted, world_from_asset


def test_scale_and_shift_bring_eyes_and_height_to_the_standard() -> None:
    """A head cut from boxes: crown at 30 cm, chin at 7 cm, eyes at 18 cm, neck recessed by 8 cm."""
    y = np.linspace(0, 0.30, 601)
    z = np.where(y >= 0.07, 0.10, 0.02)
    profile = np.stack([np.zeros_like(y), y, z], axis=1)
    eyes = np.array([0.0, 0.18, 0.08])
    scale, shift = world_from_asset(profile, eyes, 1.0)
    np.testing.assert_allclose(scale * eyes + shift, EYES_WORLD, atol=1e-9)
    assert scale * 0.23 == pytest.approx(CROWN_TO_CHIN, rel=0.05)


def test_a_tint_has_the_wanted_mean_where_the_texture_is_seen_and_keeps_its_opacity() -> None:
    rng = np.random.default_rng(0)
    texture = rng.uniform(0.4, 0.6, (16, 16, 4)).astype(np.float32)
    texture[:, :8, 3] = 0
    texture[:, :8, :3] *= 0.1  # unseen texels do not count
    shade = tinted(texture, (0.6, 0.3, 0.1))
    alpha = texture[..., 3:]
    np.testing.assert_allclose((shade[..., :3] * alpha).sum((0, 1)) / alpha.sum(), [0.6, 0.3, 0.1], rtol=1e-3)
    np.testing.assert_array_equal(shade[..., 3], texture[..., 3])
    own_hue = dyed(texture, (0.5, 0.5, 0.5))[..., :3] - dyed(texture[..., [2, 1, 0, 3]], (0.5, 0.5, 0.5))[..., :3]
    np.testing.assert_allclose(own_hue, 0.2 * (texture[..., :3] - texture[..., 2::-1]), atol=1e-6)

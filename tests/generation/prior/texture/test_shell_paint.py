"""What the shell keeps of the portrait at the hairline."""

from __future__ import annotations

import numpy as np

from dp360.generation.prior.labels.portrait_labels import HAIR, SKIN
from dp360.generation.prior.texture.portrait_lookup import SeenPoints
from dp360.generation.prior.texture.shell_paint import without_glare_on_skin


def test_glare_on_skin_takes_the_skins_colour_and_all_else_stays() -> None:
    skin = np.broadcast_to(np.array([0.6, 0.42, 0.35], np.float32), (32, 96, 3)).copy()
    colour = np.where((np.arange(96) < 32)[None, :, None], np.float32(0.95), 1.05 * skin).astype(np.float32)
    colour[:, 64:] = 0.9
    classes = np.zeros((32, 96, 3), np.float32)
    classes[:, :64, SKIN], classes[:, 64:, HAIR] = 1, 1
    after = without_glare_on_skin(SeenPoints(colour, np.ones((32, 96), np.float32), classes), skin).colour
    np.testing.assert_allclose(after[:, 4:28], skin[:, 4:28], atol=1e-6)
    np.testing.assert_array_equal(after[:, 36:60], colour[:, 36:60])
    np.testing.assert_array_equal(after[:, 64:], colour[:, 64:])

"""What the shell keeps of the portrait at the hairline."""

from __future__ import annotations

import numpy as np

from dp360.generation.prior.labels.portrait_labels import HAIR, SKIN
from dp360.generation.prior.texture.portrait_lookup import SeenPoints
from dp360.generation.prior.texture.shell_paint import without_glare_on_skin


def test_glare_on_skin_takes_the_skins_colour_and_all_else_stays() -> None:
    skin, shade = np.array([0.6, 0.42, 0.35], np.float32), np.array([0.9, 0.8, 0.7], np.float32)
    colours = {
        "glare": (np.full(3, 0.95) / shade, SKIN),
        "skin": (1.05 * skin / shade, SKIN),
        "bright skin": (1.5 * skin / shade, SKIN),
        "pale skin in the shade": (np.full(3, 0.5) / shade, SKIN),
        "white hair": (np.full(3, 0.95) / shade, HAIR),
    }
    colour = np.stack([rgb for rgb, _ in colours.values()]).astype(np.float32)
    classes = np.eye(3, dtype=np.float32)[[{SKIN: 0, HAIR: 1}[of] for _, of in colours.values()]]
    assert (SKIN, HAIR) == (0, 1)
    seen = SeenPoints(colour, np.ones(5, np.float32), classes)
    bare = skin / shade
    shades = np.broadcast_to(shade, (5, 3)).copy()
    after = without_glare_on_skin(seen, shades, skin.astype(np.float64), lambda some: np.tile(bare, (len(some), 1)))
    np.testing.assert_allclose(after.colour[0], bare, atol=1e-5)
    np.testing.assert_array_equal(after.colour[1:], colour[1:])

"""Sideburns are narrower than what labels are averaged over, and stay hair."""

from __future__ import annotations

import numpy as np

from dp360.generation.prior.labels.portrait_labels import _thin_hair
from dp360.generation.prior.labels.segmenter import CLASS_NAMES, FACE, HAIR, HEADGEAR

SIZE = 64


def test_strips_that_go_on_from_the_hair_are_hair() -> None:
    classes = np.zeros((SIZE, SIZE, len(CLASS_NAMES)), np.float32)
    classes[..., FACE] = 1
    hair, strip, alone, background = (np.zeros((SIZE, SIZE), bool) for _ in range(4))
    hair[5:20, 10:50] = True
    strip[20:35, 10:13] = True
    alone[40:44, 30:34] = True
    background[20:30, 48:50] = True
    for piece, kind in ((hair, HAIR), (strip, HAIR), (alone, HAIR), (background, HEADGEAR)):
        classes[piece] = 0
        classes[piece, kind] = 0.8
    np.testing.assert_array_equal(_thin_hair(hair, ~background, classes), hair | strip)
    assert not _thin_hair(np.zeros_like(hair), ~background, classes).any()

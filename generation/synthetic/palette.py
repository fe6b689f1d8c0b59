"""Colours of hair, cloth and skin as they occur, drawn at random."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

RGB = tuple[float, float, float]
NATURAL_HAIR: Mapping[str, tuple[RGB, float]] = {
    "black": ((0.055, 0.048, 0.046), 0.2),
    "soft_black": ((0.1, 0.08, 0.07), 0.12),
    "dark_brown": ((0.17, 0.11, 0.075), 0.16),
    "brown": ((0.28, 0.18, 0.115), 0.14),
    "light_brown": ((0.42, 0.29, 0.18), 0.08),
    "dark_blond": ((0.52, 0.39, 0.24), 0.08),
    "blond": ((0.72, 0.57, 0.36), 0.08),
    "platinum": ((0.86, 0.79, 0.66), 0.03),
    "auburn": ((0.34, 0.15, 0.08), 0.05),
    "red": ((0.53, 0.21, 0.08), 0.06),
}
"""Mean sRGB colour and how often it is drawn."""
DYED_HAIR: tuple[RGB, ...] = (
    (0.75, 0.15, 0.35), (0.2, 0.3, 0.75), (0.1, 0.55, 0.45), (0.5, 0.2, 0.65), (0.9, 0.5, 0.65), (0.65, 0.05, 0.08),
    (0.35, 0.7, 0.85), (0.9, 0.45, 0.1),
)  # fmt: skip
CLOTHS: tuple[RGB, ...] = (
    (0.93, 0.92, 0.9), (0.75, 0.2, 0.18), (0.25, 0.4, 0.7), (0.3, 0.5, 0.3), (0.85, 0.7, 0.3), (0.6, 0.6, 0.62),
    (0.75, 0.65, 0.55), (0.55, 0.3, 0.5), (0.85, 0.55, 0.45), (0.4, 0.65, 0.7), (0.5, 0.35, 0.22),
)  # fmt: skip
DARK_CLOTHS: tuple[RGB, ...] = (
    (0.05, 0.05, 0.055), (0.09, 0.09, 0.1), (0.07, 0.08, 0.15), (0.16, 0.1, 0.07), (0.1, 0.14, 0.1), (0.2, 0.07, 0.08),
    (0.2, 0.2, 0.22), (0.14, 0.12, 0.11),
)  # fmt: skip


def _rgb(values: np.ndarray) -> RGB:
    red, green, blue = np.clip(values, 0.015, 0.95)
    return float(red), float(green), float(blue)


def draw_hair_colour(rng: np.random.Generator, age: float) -> tuple[RGB, RGB, float]:
    """Colour, colour of the tips, share of grey hairs; the old are more often grey or white."""
    colours, shares = zip(*NATURAL_HAIR.values())
    natural = np.array(colours[rng.choice(len(colours), p=np.array(shares) / sum(shares))])
    natural = natural * np.exp(rng.normal(0, 0.12)) * (1 + rng.normal(0, 0.04, 3))
    grey = 0.0
    if rng.random() < np.clip((age - 0.45) * 1.6, 0.03, 0.85):
        grey = float(rng.uniform(0.15, 1.0))
        silver = np.full(3, rng.uniform(0.4, 0.82)) * [1.0, 0.99, 0.96]
        natural = natural * (1 - grey) + silver * grey
    if rng.random() < 0.06:
        natural = np.array(DYED_HAIR[rng.integers(len(DYED_HAIR))]) * np.exp(rng.normal(0, 0.15))
    tip = natural * np.exp(rng.normal(0.08, 0.12))
    if rng.random() < 0.08:
        tip = np.array([0.7, 0.55, 0.35]) * rng.uniform(0.8, 1.1)
    return _rgb(natural), _rgb(tip), grey


def cloth_rgb(rng: np.random.Generator, *, dark: float) -> RGB:
    """Colour of a cloth; with probability `dark` a dark one, as clothes at portraits often are."""
    table = DARK_CLOTHS if rng.random() < dark else CLOTHS
    return _rgb(np.array(table[rng.integers(len(table))]) * np.exp(rng.normal(0, 0.15)) * (1 + rng.normal(0, 0.06, 3)))

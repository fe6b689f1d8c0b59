"""Backgrounds of portraits: real ones out of panoramas, as out of focus as a lens leaves them, and made-up ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float32

from ..assets import Split, asset_index
from ..rendering.lighting import read_hdri
from ..rendering.renderer import srgb_from_linear

Colour = Float[np.ndarray, " 3"]
SquareRgb = Float32[np.ndarray, "s s 3"]


@dataclass(frozen=True)
class Backgrounds:
    """Where backgrounds are cut from."""

    panoramas: tuple[Float32[np.ndarray, "h w 3"], ...]
    """Linear light, latitude and longitude, top row up; empty: only made-up backgrounds."""

    @staticmethod
    def of_split(data: Path, split: Split) -> Backgrounds:
        """The panoramas of a split.

        Args:
            data: folder of the head assets, with `hdri` inside.
        """
        names = asset_index().of("hdri", split)
        return Backgrounds(tuple(read_hdri(data / "hdri" / f"{name}.exr") for name in names))

    def draw(self, rng: np.random.Generator, size_px: int, like_rgb: Sequence[Colour] = ()) -> SquareRgb:
        """One background, sRGB in [0, 1].

        Args:
            like_rgb: colours of the person; some backgrounds take one of them, so that colour alone cannot tell.
        """
        kind = rng.random()
        if self.panoramas and kind < 0.42:
            return _out_of_panorama(self.panoramas[rng.integers(len(self.panoramas))], rng, size_px)
        colours = _colours(rng, like_rgb)
        if kind < 0.6:
            return _one_colour(rng, size_px, colours)
        if kind < 0.8:
            return _brushed(rng, size_px, colours)
        if kind < 0.88:
            return _curtain(rng, size_px, colours)
        return dead_leaves(rng, size_px, colours)


def random_rgb(rng: np.random.Generator) -> Colour:
    """An sRGB colour: lightness evenly drawn, mostly little saturation."""
    level, saturation = rng.uniform(0.03, 0.97), rng.beta(1.2, 2.2)
    chroma = rng.uniform(-1, 1, 3)
    return np.clip(level * (1 + saturation * (chroma - chroma.mean())), 0, 1)


def dark_rgb(rng: np.random.Generator) -> Colour:
    """A colour near black, as clothes and old paintings' backgrounds have it."""
    return np.clip(rng.uniform(0.01, 0.2) * (1 + 0.4 * rng.uniform(-1, 1, 3)), 0, 1)


def unit_grid(size_px: int) -> tuple[Float32[np.ndarray, "s s"], Float32[np.ndarray, "s s"]]:
    """Column and row of every pixel, from 0 to 1."""
    steps = np.linspace(0, 1, size_px, dtype=np.float32)
    x, y = np.meshgrid(steps, steps)
    return x, y


def smooth_noise(rng: np.random.Generator, size_px: int, cells: float) -> Float32[np.ndarray, "s s"]:
    """Noise in about [-1, 1] with that many bumps along each side."""
    n = max(2, round(cells) + 3)
    small = rng.standard_normal((n, n)).astype(np.float32) * 0.6
    return cv2.resize(small, (size_px, size_px), interpolation=cv2.INTER_CUBIC)


def stroke_noise(rng: np.random.Generator, size_px: int, length_px: float) -> SquareRgb:
    """Coloured noise drawn out along directions that turn slowly over the picture: the traces of a brush.

    Source: a cheap stand-in for line integral convolution (Cabral and Leedom 1993): four directions, blended.
    """
    full_px, size_px, length_px = size_px, (size_px + 1) // 2, length_px / 2  # strokes are wider than a pixel
    grains = rng.standard_normal((size_px, size_px, 3), dtype=np.float32)
    grains = 0.75 * grains.mean(-1, keepdims=True) * 1.7 + 0.5 * grains
    grains = cv2.GaussianBlur(grains, (0, 0), rng.uniform(0.4, 0.8))
    angle = rng.uniform(0, np.pi) + 1.5 * smooth_noise(rng, size_px, rng.uniform(1, 5))
    length = max(3, int(length_px) | 1)
    out = np.zeros_like(grains)
    total = np.zeros((size_px, size_px, 1), np.float32)
    for k in range(4):
        kernel = np.zeros((length, length), np.float32)
        centre = length // 2
        reach = np.array([np.cos(k * np.pi / 4), np.sin(k * np.pi / 4)]) * centre
        start, end = (centre - reach).round().astype(int), (centre + reach).round().astype(int)
        cv2.line(kernel, (int(start[0]), int(start[1])), (int(end[0]), int(end[1])), (1.0,))
        weight = np.maximum(0, np.cos(2 * (angle - k * np.pi / 4)))[..., None] ** 2
        out += weight * cv2.filter2D(grains, -1, kernel / kernel.sum())
        total += weight
    out /= total * max(float((out / total).std()), 1e-6)
    return cv2.resize(out, (full_px, full_px), interpolation=cv2.INTER_CUBIC)


def dead_leaves(rng: np.random.Generator, size_px: int, colours: Sequence[Colour]) -> SquareRgb:
    """Overlapping flat shapes of all sizes.

    Source: Lee, Mumford, Huang, "Occlusion Models for Natural Images", 2001.
    """
    picture = np.empty((size_px, size_px, 3), np.float32)
    picture[:] = colours[0]
    for _ in range(int(rng.integers(8, 50))):
        radius = size_px * 0.03 / (1 - rng.random() * 0.92)
        x, y = (int(v) for v in rng.uniform(0, size_px, 2))
        base = colours[rng.integers(len(colours))] if rng.random() < 0.6 else random_rgb(rng)
        colour = tuple(float(c) for c in np.clip(base * rng.uniform(0.7, 1.3), 0, 1))
        shape = rng.random()
        if shape < 0.4:
            axes = (max(1, int(radius)), max(1, int(radius * rng.uniform(0.2, 1))))
            cv2.ellipse(picture, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
        elif shape < 0.75:
            corners = cv2.boxPoints(((x, y), (2 * radius, 2 * radius * rng.uniform(0.1, 1)), float(rng.uniform(0, 90))))
            cv2.fillConvexPoly(picture, corners.astype(np.int32), colour)
        else:
            corners = rng.normal([x, y], radius, (5, 2)).astype(np.int32)
            cv2.fillPoly(picture, [corners], colour)
    blur = rng.choice([0.0, 0.0, 0.005, 0.02, 0.05]) * size_px
    return cv2.GaussianBlur(picture, (0, 0), blur) if blur > 0 else picture


def _colours(rng: np.random.Generator, like_rgb: Sequence[Colour]) -> list[Colour]:
    def one() -> Colour:
        draw = rng.random()
        if like_rgb and draw < 0.3:
            return np.clip(like_rgb[rng.integers(len(like_rgb))] * rng.uniform(0.75, 1.25), 0, 1)
        if draw < 0.5:
            return dark_rgb(rng)
        if draw < 0.62:
            return np.full(3, rng.uniform(0.8, 1.0))
        return random_rgb(rng)

    return [one() for _ in range(3)]


def _out_of_panorama(panorama: Float32[np.ndarray, "h w 3"], rng: np.random.Generator, size_px: int) -> SquareRgb:
    """A window round the horizon, exposed for the window's middle tones, blurred by a disc as an open lens does."""
    height, width = panorama.shape[:2]
    span = rng.uniform(0.2, 0.55) * height
    top = int(np.clip(height * 0.5 - span * rng.uniform(0.3, 0.75), 0, height - span))
    columns = (np.arange(int(span)) + rng.integers(width)) % width
    window = panorama[top : top + int(span)][:, columns]
    window = cv2.resize(window, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        window = window[:, ::-1]
    middle = max(float(np.median(window)), 1e-4)
    window = np.minimum(window * (rng.uniform(0.05, 0.6) / middle), 4.0)
    if rng.random() < 0.75:
        radius = int(size_px * rng.uniform(0.004, 0.06)) + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2).astype(np.float32)
        window = cv2.filter2D(window, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT)
    return srgb_from_linear(np.ascontiguousarray(window))


def _one_colour(rng: np.random.Generator, size_px: int, colours: Sequence[Colour]) -> SquareRgb:
    """One colour, or a gradient between two, with a spot of light."""
    x, y = unit_grid(size_px)
    angle = rng.uniform(0, 2 * np.pi)
    share = np.clip((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.5, 0, 1)[..., None]
    share = share * rng.choice([0.0, 0.3, 1.0])
    picture = colours[0] * (1 - share) + colours[1] * share
    if rng.random() < 0.4:
        cx, cy = rng.uniform(0.2, 0.8, 2)
        spot = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / rng.uniform(0.05, 0.4))[..., None]
        picture = picture * (1 + rng.uniform(-0.3, 0.5) * spot)
    return np.clip(picture, 0, 1).astype(np.float32)


def _brushed(rng: np.random.Generator, size_px: int, colours: Sequence[Colour]) -> SquareRgb:
    """Clouds of three colours with the traces of a brush."""
    clouds = smooth_noise(rng, size_px, rng.uniform(1, 4)) + 0.5 * smooth_noise(rng, size_px, rng.uniform(4, 14))
    share = np.clip(0.5 + rng.uniform(0.1, 0.6) * clouds, 0, 1)[..., None]
    second = np.clip(0.5 + 0.6 * smooth_noise(rng, size_px, rng.uniform(2, 8)), 0, 1)[..., None]
    picture = colours[0] * (1 - share) + (colours[1] * (1 - second) + colours[2] * second) * share
    picture = picture + rng.uniform(0, 0.09) * stroke_noise(rng, size_px, size_px * rng.uniform(0.02, 0.12))
    return np.clip(picture, 0, 1).astype(np.float32)


def _curtain(rng: np.random.Generator, size_px: int, colours: Sequence[Colour]) -> SquareRgb:
    """Folds, panels or stripes, mostly upright."""
    x, y = unit_grid(size_px)
    angle = rng.normal(0, 0.15) + (np.pi / 2 if rng.random() < 0.2 else 0)
    along = x * np.cos(angle) + y * np.sin(angle)
    bends = 0.15 * smooth_noise(rng, size_px, 2.0)
    phase = 2 * np.pi * (rng.uniform(2, 14) * (along + bends) + rng.random())
    folds = np.sin(phase) + 0.5 * np.sin(2.3 * phase + 1)
    if rng.random() < 0.35:
        folds = np.sign(folds)
    picture = colours[0] * (1 + rng.uniform(0.1, 0.5) * folds[..., None])
    edge = rng.uniform(0.1, 0.9)
    picture = np.where((along > edge)[..., None], picture, colours[1]) if rng.random() < 0.5 else picture
    return np.clip(cv2.GaussianBlur(picture.astype(np.float32), (0, 0), rng.uniform(0.5, 4)), 0, 1)

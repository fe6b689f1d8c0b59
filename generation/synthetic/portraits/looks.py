"""How pictures come to look: other colours for clothes and hair, painters' and draughtsmen's hands, bad cameras.

All functions take sRGB in [0, 1] and a random generator; labels are `parts.Label`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from ..parts import SKIN_LABELS, Label
from .backgrounds import Colour, SquareRgb, dark_rgb, dead_leaves, random_rgb, smooth_noise, stroke_noise, unit_grid

Labels = UInt8[np.ndarray, "s s"]
Mask = Bool[np.ndarray, "s s"]
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Look:
    """How pictures are made of shots; shares are probabilities."""

    mirrored: float = 0.5
    """Share of mirrored pictures."""
    suited: float = 0.3
    """Share with a jacket open over a shirt, most with a tie, in colours of their own."""
    recoloured: float = 0.75
    """Share with other colours of clothes, hair and skin."""
    painted: float = 0.3
    """Share of painted pictures."""
    drawn: float = 0.06
    """Share of flat drawings."""
    random_convolution: float = 0.08
    """Share with a random palette and texture."""
    shaded: float = 0.3
    """Share with a shadow across the person: a dark half, or a cast one with soft edges."""
    photographed: float = 0.9
    """Share with a camera's faults."""


def person_colours(rgb: SquareRgb, labels: Labels) -> list[Colour]:
    """Mean colours of hair, clothes and face, of those that are seen."""
    means = (mean_rgb(rgb, labels == label) for label in (Label.HAIR, Label.CLOTH, Label.FACE))
    return [mean for mean in means if mean is not None]


def by_hand(
    rgb: SquareRgb, alpha: Float32[np.ndarray, "s s"], labels: Labels, background: SquareRgb, look: Look,
    rng: np.random.Generator,
) -> SquareRgb:  # fmt: skip
    """The person, perhaps in other colours, before the background; perhaps drawn, painted or given another texture."""
    if rng.random() < look.recoloured:
        behind = background[: len(background) // 2].mean((0, 1)).astype(np.float64)
        rgb = recoloured(np.clip(rgb, 0, 1), labels, behind, rng)
    if look.suited > 0 and rng.random() < look.suited:
        rgb = suited(np.clip(rgb, 0, 1), labels, rng)
    if look.shaded > 0 and rng.random() < look.shaded:  # other pictures keep their random numbers
        rgb = shaded(rgb, rng)
    rgb = rgb * alpha[..., None] + background * (1 - alpha[..., None])
    draw = rng.random()
    if draw < look.drawn:
        return drawn(rgb, labels, rng)
    if draw < look.drawn + look.painted:
        return painted(rgb, rng)
    if draw < look.drawn + look.painted + look.random_convolution:
        return random_convolution(rgb, rng)
    return rgb


def suited(rgb: SquareRgb, labels: Labels, rng: np.random.Generator) -> SquareRgb:
    """The clothes as a jacket open in a V over a shirt, white more often than not, with or without a tie.

    The assets' garments have no white collar against skin, most portraits of men do.
    """
    size, cloth = len(rgb), labels == Label.CLOTH
    rows, columns = np.nonzero(np.isin(labels, (Label.NECK, Label.FACE)))
    touching = cloth[1:] & np.isin(labels[:-1], (Label.NECK, Label.BEARD))
    if len(rows) < 20 or not touching.any():
        return rgb
    low = rows > np.quantile(rows, 0.9)
    middle, half = float(np.median(columns[low])), max(float(np.ptp(columns[low])) / 2, 0.04 * size)
    top = float(np.quantile(np.nonzero(touching)[0], 0.2))
    y, x = np.mgrid[:size, :size].astype(np.float32)
    down = (y - top) / size
    across = x - middle - rng.normal(0, 0.12) * (y - top) + 0.01 * size * smooth_noise(rng, size, 4.0)
    opening = half * rng.uniform(1.0, 1.6) * np.clip(1 - down / rng.uniform(0.15, 0.6), 0, 1)
    shirt = cloth & (np.abs(across) < opening)
    tie = shirt & (np.abs(across) < size * rng.uniform(0.02, 0.045)) & (y > rows.max() - 0.02 * size)
    out = rgb.copy()
    white = rng.random() < 0.65
    pale = np.clip(rng.uniform(0.75, 1.0) + rng.normal(0, 0.03, 3), 0, 1)
    _dye(out, cloth & ~shirt, dark_rgb(rng) if rng.random() < 0.6 else random_rgb(rng), rng)
    _dye(out, shirt, pale if white else random_rgb(rng), rng)
    if rng.random() < 0.6:
        _dye(out, tie, random_rgb(rng), rng)
        if rng.random() < 0.5:
            _pattern(out, tie, rng)
    return out


def shaded(rgb: SquareRgb, rng: np.random.Generator) -> SquareRgb:
    """The picture with a shadow whose border runs anywhere, from hard to very soft."""
    x, y = unit_grid(len(rgb))
    angle, width = rng.uniform(0, 2 * np.pi), 10 ** rng.uniform(-2.3, -0.5)
    across = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) - rng.uniform(-0.25, 0.25)
    border = across + rng.uniform(0, 0.12) * smooth_noise(rng, len(rgb), rng.uniform(1, 6))
    dark = 1 - rng.uniform(0.3, 0.85) / (1 + np.exp(-np.clip(border / width, -30, 30)))
    return (np.clip(rgb, 0, 1) * dark[..., None] ** np.array([1.0, 1.03, 1.06])).astype(np.float32)


def mean_rgb(rgb: SquareRgb, where: Mask) -> Colour | None:
    """Mean colour of a region, or None if it has fewer than 20 pixels."""
    return rgb[where].mean(0).astype(np.float64) if int(where.sum()) >= 20 else None


def recoloured(rgb: SquareRgb, labels: Labels, background_rgb: Colour, rng: np.random.Generator) -> SquareRgb:
    """The person with other colours of cloth, hair, hat and skin, often such that neighbours look alike."""
    out = rgb.copy()
    hair = mean_rgb(rgb, labels == Label.HAIR)
    skin = mean_rgb(rgb, labels == Label.FACE)
    if rng.random() < 0.4:
        target = _target(rng, [background_rgb] + ([skin] if skin is not None and rng.random() < 0.3 else []))
        _dye(out, np.isin(labels, (Label.HAIR, Label.BEARD)), target, rng)
        hair = mean_rgb(out, labels == Label.HAIR)
    known = [c for c in (hair, hair, background_rgb) if c is not None]
    if rng.random() < 0.6:
        cloth = labels == Label.CLOTH
        _dye(out, cloth, _target(rng, known + ([skin] if skin is not None and rng.random() < 0.2 else [])), rng)
        if rng.random() < 0.3:
            _pattern(out, cloth, rng)
    if rng.random() < 0.5:
        hat = labels == Label.HEADGEAR
        _dye(out, hat, _target(rng, known), rng)
        if rng.random() < 0.3:
            _pattern(out, hat, rng)
    if rng.random() < 0.35:
        body = np.isin(labels, SKIN_LABELS)
        strength = 0.3 if rng.random() < 0.2 else 0.1
        out[body] = np.clip(out[body] * np.exp(rng.normal(0, strength, 3)), 0, 1)
    return out


def _target(rng: np.random.Generator, known: Sequence[Colour]) -> Colour:
    draw = rng.random()
    if known and draw < 0.4:
        return np.clip(known[rng.integers(len(known))] * np.exp(rng.normal(0, 0.15, 3)), 0.01, 1)
    return dark_rgb(rng) if draw < 0.65 else random_rgb(rng)


def _dye(rgb: SquareRgb, where: Mask, target: Colour, rng: np.random.Generator) -> None:
    """Give a region a mean colour, in place; its light and shade stay."""
    if not where.any():
        return
    shade = rgb[where] @ _LUMA
    shade = ((shade + 0.02) / (float(shade.mean()) + 0.02)) ** rng.uniform(0.6, 1.1)
    rgb[where] = np.clip(shade[:, None] * target, 0, 1)


def _pattern(rgb: SquareRgb, where: Mask, rng: np.random.Generator) -> None:
    """Print stripes, checks, folds or shapes on a region, in place."""
    size = len(rgb)
    draw = rng.random()
    if draw < 0.45:
        x, y = unit_grid(size)
        angle = rng.uniform(0, np.pi)
        waves = rng.uniform(6, 40)
        bend = 0.1 * smooth_noise(rng, size, 3.0)
        wave = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle) + bend))
        if draw < 0.2:
            wave = np.maximum(wave, np.sin(2 * np.pi * waves * (y * np.cos(angle) - x * np.sin(angle) + bend)))
        share = np.clip(rng.uniform(1, 4) * wave, 0, 1)[..., None]
        print_rgb = random_rgb(rng) * np.ones((size, size, 3))
    elif draw < 0.7:
        share = np.clip(smooth_noise(rng, size, rng.uniform(6, 30)) * 3, 0, 1)[..., None]
        print_rgb = random_rgb(rng) * np.ones((size, size, 3))
    else:
        share = np.full((size, size, 1), rng.uniform(0.3, 1))
        print_rgb = dead_leaves(rng, size, [random_rgb(rng), random_rgb(rng)])
    shade = (rgb @ _LUMA)[..., None] / max(float((rgb[where] @ _LUMA).mean()) if where.any() else 1.0, 0.05)
    mixed = rgb * (1 - share) + print_rgb * np.clip(shade, 0.3, 1.6) * share
    rgb[where] = np.clip(mixed[where], 0, 1)


def drawn(rgb: SquareRgb, labels: Labels, rng: np.random.Generator) -> SquareRgb:
    """A flat drawing: few tones per region, outlines."""
    size = len(rgb)
    out = cv2.bilateralFilter(rgb, 0, 0.12, size / 60)
    steps = rng.integers(1, 4)
    for label in np.unique(labels):
        where = labels == label
        if label == Label.BACKGROUND and rng.random() < 0.5:
            continue
        base = out[where].mean(0)
        if rng.random() < 0.25:
            base = np.full(3, 1.0 if rng.random() < 0.6 and label in (Label.FACE, Label.NECK) else rng.uniform(0, 1))
        tone = (out[where] @ _LUMA) / max(float((out[where] @ _LUMA).mean()), 0.03)
        tone = np.round(np.clip(tone, 0.4, 1.6) * steps) / steps if steps > 1 else np.where(tone < 0.45, 0.3, 1.0)
        out[where] = np.clip(base * tone[:, None], 0, 1)
    if rng.random() < 0.75:
        light = cv2.GaussianBlur(rgb @ _LUMA, (0, 0), size / 180)
        edges = cv2.morphologyEx(light, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > rng.uniform(0.06, 0.15)
        borders = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        ink = (edges | borders).astype(np.float32)
        width = int(rng.integers(1, 4))
        ink = cv2.GaussianBlur(cv2.dilate(ink, np.ones((width, width), np.uint8)), (0, 0), 0.6)[..., None]
        out = out * (1 - ink) + ink * np.float32(dark_rgb(rng))
    return np.clip(out, 0, 1).astype(np.float32)


def painted(rgb: SquareRgb, rng: np.random.Generator) -> SquareRgb:
    """A painting: smoothed or blotched, traces of the brush, an artist's palette, varnish, canvas."""
    size = len(rgb)
    draw = rng.random()
    if draw < 0.35:
        rgb = _patched(rgb, max(1, round(size * rng.uniform(0.006, 0.02))))
    elif draw < 0.6:
        rgb = cv2.bilateralFilter(rgb, 0, rng.uniform(0.06, 0.2), size / 80)
    if rng.random() < 0.55:  # the brush leaves the lines
        reach = size * rng.uniform(0.003, 0.014)
        cells = rng.uniform(12, 50)
        grid = np.arange(size, dtype=np.float32)
        x, y = np.meshgrid(grid, grid)
        rgb = cv2.remap(
            rgb, x + reach * smooth_noise(rng, size, cells), y + reach * smooth_noise(rng, size, cells),
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
    if rng.random() < 0.75:
        strokes = stroke_noise(rng, size, size * rng.uniform(0.02, 0.1))
        rgb = rgb + (0.02 + 0.12 * rng.random() ** 2) * strokes * (0.25 + rgb.mean(-1, keepdims=True))
    if rng.random() < 0.5:  # varnish: everything towards one warm or cool tone
        tone = np.array([1.0, rng.uniform(0.75, 1.0), rng.uniform(0.45, 1.0)])
        tone = tone if rng.random() < 0.75 else tone[::-1]
        share = rng.uniform(0.1, 0.6)
        rgb = rgb * (1 - share) + share * (rgb @ _LUMA)[..., None] * tone.astype(np.float32) * 1.1
    if rng.random() < 0.25:  # the painter's own colours
        mixing = np.eye(3) + rng.normal(0, 0.2, (3, 3))
        rgb = rgb @ (mixing / mixing.sum(1, keepdims=True)).T.astype(np.float32)
    if rng.random() < 0.3:
        weave = rng.standard_normal((size, size)).astype(np.float32)
        weave = cv2.GaussianBlur(weave, (0, 0), 0.7)
        rgb = rgb + rng.uniform(0.01, 0.05) * weave[..., None]
    return np.clip(rgb, 0, 1).astype(np.float32)


def _patched(rgb: SquareRgb, radius: int) -> SquareRgb:
    """Each pixel takes the mean of the calmest of four squares that touch it.

    Source: Kuwahara et al. 1976.
    """
    side = radius + 1
    anchors = [(0, 0), (radius, 0), (0, radius), (radius, radius)]
    light = rgb @ _LUMA
    means = [cv2.blur(rgb, (side, side), anchor=a) for a in anchors]
    spread = [cv2.blur(light * light, (side, side), anchor=a) - (m @ _LUMA) ** 2 for a, m in zip(anchors, means)]
    return calmest(means, spread)


def calmest(
    means: Sequence[Float32[np.ndarray, "h w 3"]], spread: Sequence[Float32[np.ndarray, "h w"]]
) -> Float32[np.ndarray, "h w 3"]:
    """Of several windows at each pixel the mean of the one whose colours spread least; of equal ones the first."""
    best = np.argmin(np.stack(spread), axis=0)
    return np.take_along_axis(np.stack(means), best[None, ..., None], axis=0)[0]


def random_convolution(rgb: SquareRgb, rng: np.random.Generator) -> SquareRgb:
    """Another texture and palette, the same shapes: a random filter across space and channels, mixed in.

    Source: Xu et al., "Robust and Generalizable Visual Representation Learning via Random Convolutions", ICLR 2021.
    """
    side = int(rng.choice([1, 3, 5]))
    out = np.zeros_like(rgb)
    for target in range(3):
        for source in range(3):
            kernel = rng.normal(0, 1 / np.sqrt(3 * side * side), (side, side)).astype(np.float32)
            out[..., target] += cv2.filter2D(rgb[..., source], -1, kernel, borderType=cv2.BORDER_REFLECT)
    low, high = np.percentile(out, (1, 99))
    out = (out - low) / max(float(high - low), 1e-3)
    share = rng.uniform(0.1, 0.55)
    return np.clip((1 - share) * rgb + share * out, 0, 1).astype(np.float32)


def photographed(rgb: SquareRgb, rng: np.random.Generator, colour_faults: float = 1.0) -> SquareRgb:
    """What lens, sensor, white balance, development and file format do to a picture.

    Args:
        rgb: the picture, [0, 1].
        colour_faults: factor on what happens to white balance, exposure, contrast and saturation; below 1 no picture
            is black and white.
    """
    size, faults = len(rgb), colour_faults
    if rng.random() < 0.5:
        rgb = rgb * np.exp(faults * rng.normal(0, 0.07, 3)).astype(np.float32)
    if rng.random() < 0.6:
        power, gain = (np.float32(np.exp(faults * rng.normal(0, sigma))) for sigma in (0.22, 0.16))
        rgb = np.clip(rgb, 0, None) ** power * gain
    if rng.random() < 0.4:
        middle = np.float32(rng.uniform(0.3, 0.6))
        rgb = middle + (rgb - middle) * np.float32(np.exp(faults * rng.normal(0, 0.25)))
    if rng.random() < 0.35:
        grey = (rgb @ _LUMA)[..., None]
        rgb = grey + (rgb - grey) * np.float32(1 + faults * (rng.uniform(0.3, 1.5) - 1))
    tone = rng.random()
    if tone < 0.1 and faults >= 1:
        grey = (rgb @ _LUMA)[..., None]
        sepia = rng.uniform(0.5, 1) * np.array([0.07, 0, -0.1]) if tone < 0.035 else np.zeros(3)
        rgb = grey * (1 + sepia).astype(np.float32) + np.float32(rng.uniform(0, 0.08))
    if rng.random() < 0.25:
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        radius = (ramp[:, None] ** 2 + ramp[None] ** 2)[..., None]
        rgb = rgb * (1 - np.float32(rng.uniform(0.05, 0.35)) * radius)
    if rng.random() < 0.25:  # light falls off to one side
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.5)
        slope = ramp[None, :] * np.cos(angle) + ramp[:, None] * np.sin(angle)
        rgb = rgb * (1 + np.float32(strength) * slope[..., None].astype(np.float32))
    rgb = np.clip(rgb, 0, 1).astype(np.float32)
    softness = rng.random()
    if softness < 0.3:
        small = max(24, int(size / rng.uniform(1.2, 4)))
        rgb = cv2.resize(cv2.resize(rgb, (small, small), interpolation=cv2.INTER_AREA), (size, size))
    elif softness < 0.5:
        rgb = cv2.GaussianBlur(rgb, (0, 0), size / 256 * rng.uniform(0.3, 1.8))
    elif softness < 0.6:
        rgb = np.clip(rgb + rng.uniform(0.3, 1.2) * (rgb - cv2.GaussianBlur(rgb, (0, 0), 1.2)), 0, 1)
    if rng.random() < 0.5:
        noise = rng.standard_normal(rgb.shape, dtype=np.float32)
        if rng.random() < 0.4:
            noise = cv2.GaussianBlur(noise, (0, 0), 0.8) * 1.6
        strength = 0.004 + 0.05 * rng.random() ** 2
        rgb = np.clip(rgb + strength * noise * np.sqrt(0.2 + rgb), 0, 1)
    if rng.random() < 0.5:
        picture = np.ascontiguousarray((rgb * 255 + 0.5).astype(np.uint8)[..., ::-1])
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(22, 95))])
        rgb = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255
    return np.ascontiguousarray(rgb)

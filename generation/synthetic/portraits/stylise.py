"""Heads that are not photographs: other proportions, simpler textures, toon light, outlines, brush strokes.

Proportions and textures change on the head itself, so that all views agree; outlines and brush strokes are drawn per
picture from the truth beside it. Coverage, depth, normals and labels stay those of the drawn surface.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage

from ...cameras import Cameras
from ...head_model.anatomy import centimetres, ramp, world_units
from ..parts import Label, Part, SyntheticHead, unit
from ..rendering.lighting import Lighting
from ..rendering.renderer import HeadScene, HeadViews, Shading
from .looks import calmest


@dataclass(frozen=True)
class Style:
    """How a head is drawn."""

    shading: Shading
    """Its answer to light."""
    outline: float = 0.0
    """Darkness of outlines in [0, 1]."""
    colours: int = 0
    """Steps per channel that textures are reduced to; 0 keeps them."""
    smooth: int = 0
    """Radius of the filter that takes detail out of textures, texels at a side of 1024."""
    saturation: float = 1.0
    """Factor on the textures' saturation."""
    brush: float = 0.0
    """Radius of brush strokes relative to the picture's width."""


STYLES: Mapping[str, Style] = {
    "photo": Style(Shading()),
    "toon": Style(Shading(steps=3, specular=0.5), outline=0.9, colours=9, smooth=9, saturation=1.25),
    "flat": Style(Shading(flatness=0.92, specular=0.0), outline=0.0, colours=6, smooth=12, saturation=1.15),
    "painterly": Style(Shading(specular=1.3), smooth=4, saturation=1.1, brush=0.011),
    "anime": Style(Shading(steps=2, flatness=0.35, specular=1.0), outline=0.8, colours=10, smooth=14, saturation=1.35),
    "pastel": Style(Shading(flatness=0.6, specular=0.0), outline=0.35, smooth=6, saturation=0.65, brush=0.006),
    "ink": Style(Shading(steps=4, specular=0.6), outline=1.0, colours=4, smooth=6, saturation=0.05),
}
"""All ways of drawing by name."""


def stylised_head(head: SyntheticHead, exaggeration: float) -> SyntheticHead:
    """The head with a recipe's proportions and its style's textures."""
    parts = head.parts
    if exaggeration:
        parts = tuple(_exaggerated(part, exaggeration) for part in parts)
    style = STYLES[head.style]
    if style.colours or style.smooth or style.saturation != 1:
        done: dict[int, Float32[np.ndarray, "h w 4"]] = {}
        for part in parts:
            if id(part.texture) not in done:
                done[id(part.texture)] = _simplified(part.texture, style)
        parts = tuple(replace(part, texture=done[id(part.texture)]) for part in parts)
    return replace(head, parts=parts)


def draw_views(
    scene: HeadScene, style: str, cameras: Cameras, lighting: Lighting | None = None, *, supersample: int = 2
) -> HeadViews:
    """Views of a head in one of `STYLES`.

    Args:
        style: usually `SyntheticHead.style`.
        cameras: of one picture size.
        lighting: light that stays with the head.
        supersample: samples per pixel along each axis.
    """
    look = STYLES[style]
    views = scene.render(cameras, lighting, shading=look.shading, supersample=supersample)
    rgb = views.rgb_linear
    if look.brush:
        radius = max(1, round(look.brush * cameras.width))
        rgb = np.stack([_brushed(picture, alpha, radius) for picture, alpha in zip(rgb, views.alpha_unit)])
    if look.outline:
        truth = zip(views.depth, views.normals_world, views.labels)
        lines = np.stack([_surface_edges(*each, cameras.width) for each in truth])
        rgb = rgb * (1 - look.outline * lines[..., None]) + 0.01 * lines[..., None]
    return replace(views, rgb_linear=rgb.astype(np.float32))


def _exaggerated(part: Part, amount: float) -> Part:
    """The part moved by a smooth warp of space that all parts share."""
    step = 1e-3
    moved = exaggerated_points(part.vertices_world, amount)
    # normals follow the warp's derivative along two tangents
    helper = np.where(np.abs(part.normals_world[:, 1:2]) < 0.8, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
    first = np.cross(helper, part.normals_world)
    second = np.cross(part.normals_world, first)
    along_first = exaggerated_points(part.vertices_world + step * first, amount) - moved
    along_second = exaggerated_points(part.vertices_world + step * second, amount) - moved
    normals = unit(np.cross(along_first, along_second), 1e-12)
    return replace(part, vertices_world=moved, normals_world=normals)


def exaggerated_points(points: Float[np.ndarray, "n 3"], amount: float) -> Float[np.ndarray, "n 3"]:
    """Points of space moved as an exaggeration of that amount moves every part of a head."""
    p = centimetres(points).astype(np.float64)

    def local(centre: tuple[float, float, float], radius: float, scale: float) -> None:
        nonlocal p
        away = p - np.array(centre)
        near = np.exp(-((away / radius) ** 2).sum(1, keepdims=True))
        p = p + scale * near * away

    strength = abs(amount)
    below_eyes, below_mouth = ramp(-p[:, 1], -3.6, 6.0), ramp(-p[:, 1], 0.0, 8.0) * ramp(p[:, 1], -14.0, -10.0)
    above = np.maximum(p[:, 1] - 3.6, 0)
    if amount > 0:
        for side in (-1, 1):
            local((side * 3.2, 3.4, 8.5), 3.0, 0.42 * strength)
        local((0.0, 0.0, 11.0), 2.2, -0.3 * strength)
        p[:, 0] *= 1 - 0.2 * strength * below_mouth
        p[:, 1] += 0.14 * strength * above
        p[:, 0] *= 1 + 0.1 * strength * ramp(p[:, 1], 0.0, 9.0)
    else:
        local((0.0, 0.2, 10.5), 2.6, 0.45 * strength)
        for side in (-1, 1):
            local((side * 8.0, 1.0, -0.5), 3.0, 0.35 * strength)
        p[:, 1] -= 0.22 * strength * below_eyes * ramp(p[:, 1], -30.0, -9.0) * np.clip(3.6 - p[:, 1], 0, 12)
        p[:, 0] *= 1 + 0.14 * strength * below_mouth
    return world_units(p)


def _simplified(texture: Float32[np.ndarray, "h w 4"], style: Style) -> Float32[np.ndarray, "h w 4"]:
    rgb = np.clip(texture[..., :3] * 255, 0, 255).astype(np.uint8)
    radius = round(style.smooth * len(texture) / 1024)
    if radius >= 1 and min(rgb.shape[:2]) > 8:
        rgb = cv2.medianBlur(rgb, 2 * radius + 1)
    value = rgb.astype(np.float32) / 255
    grey = value.mean(-1, keepdims=True)
    value = np.clip(grey + (value - grey) * style.saturation, 0, 1)
    if style.colours:
        level = value.max(-1, keepdims=True)
        stepped = (np.floor(level * style.colours) + 0.6) / style.colours
        value = np.clip(value * stepped / np.maximum(level, 1e-3), 0, 1)
    return np.concatenate([value, texture[..., 3:]], axis=-1).astype(np.float32)


def _surface_edges(
    depth: Float32[np.ndarray, "h w"], normals: Float32[np.ndarray, "h w 3"], labels: np.ndarray, width: int
) -> Float32[np.ndarray, "h w"]:
    """Where the label changes, the depth jumps or the surface folds; half a pixel wide at 256, wider with size."""
    far = np.where(np.isfinite(depth), depth, 9.0)
    line = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        jump = np.abs(np.diff(far, axis=axis)) > 0.022
        other = np.diff(labels.astype(int), axis=axis) != 0
        fold = (normals * np.roll(normals, -1, axis)).sum(-1) < 0.35
        fold = np.take(fold, range(depth.shape[axis] - 1), axis) & ~jump
        hair = np.isin(labels, (Label.HAIR, Label.BEARD))
        fold &= ~np.take(hair, range(depth.shape[axis] - 1), axis)
        pad = [(0, 1) if k == axis else (0, 0) for k in (0, 1)]
        line |= np.pad(jump | other | fold, pad)
    grown = ndimage.binary_dilation(line, iterations=max(1, width // 384)) if width >= 384 else line
    return ndimage.gaussian_filter(grown.astype(np.float32), 0.5).clip(0, 1) * (labels > 0)


def _brushed(
    rgb: Float32[np.ndarray, "h w 3"], alpha: Float32[np.ndarray, "h w"], radius: int
) -> Float32[np.ndarray, "h w 3"]:
    """Each pixel becomes the mean of the most even of four windows around it; edges stay.

    Source: Kuwahara et al., "Processing of RI-angiocardiographic images", 1976; means weighted by coverage.
    """
    weight = alpha + 1e-3
    grey = rgb.mean(-1)
    side = (2 * radius + 1, 2 * radius + 1)
    total = cv2.blur(weight, side)
    variance = cv2.blur(grey * grey * weight, side) / total - (cv2.blur(grey * weight, side) / total) ** 2
    variance = np.where(alpha > 0.3, variance, np.inf)
    mean = cv2.blur(rgb * weight[..., None], side) / total[..., None]
    shifts = [(dy, dx) for dy in (-radius, radius) for dx in (-radius, radius)]
    spread = [np.roll(variance, shift, (0, 1)) for shift in shifts]
    result = calmest([np.roll(mean, shift, (0, 1)) for shift in shifts], spread)
    return np.where(np.isinf(spread).all(0)[..., None], rgb, result).astype(np.float32)

"""Strands as ribbons: narrow strips whose texture shows a lock of single hairs that thin out towards the tip.

A ribbon lies along its strand and faces away from the head, with a random twist; it does not depend on any camera.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float, Float32

from ..bodies.head_surface import DistanceField
from ..parts import Label, Part, uniform_labels
from ..recipe import HairRecipe
from .strands import Strands

VARIANTS = 8
"""Locks in the texture, side by side."""
_WIDE, _TALL = 24, 96


@functools.lru_cache(maxsize=4)
def lock_opacity(
    density: float = 1.0, taper: float = 0.6
) -> tuple[Float32[np.ndarray, "v t w"], Float32[np.ndarray, "v t w"]]:
    """Opacity and brightness of `VARIANTS` locks, root at the top.

    Args:
        density: share of a lock's width that hairs cover at the root.
        taper: how much shorter than the lock its hairs may be.
    """
    rng = np.random.default_rng(7)
    x = (np.arange(_WIDE) + 0.5) / _WIDE
    t = (np.arange(_TALL) + 0.5)[:, None] / _TALL
    opacity = np.zeros((VARIANTS, _TALL, _WIDE))
    brightness = np.ones((VARIANTS, _TALL, _WIDE))
    for variant in range(VARIANTS):
        total, weight = np.zeros((_TALL, _WIDE)), np.full((_TALL, _WIDE), 1e-3)
        clear = np.ones((_TALL, _WIDE))
        for _ in range(round(15 * density)):
            centre = (
                rng.beta(1.6, 1.6)
                + rng.normal(0, 0.06) * t
                + 0.03 * np.sin(2 * np.pi * (t * rng.uniform(0.5, 1.5) + rng.random()))
            )
            end = 1 - taper * rng.random() ** 1.6
            width = rng.uniform(0.03, 0.07) * np.clip((end - t) / 0.35, 0.15, 1)
            line = np.exp(-(((x[None] - centre) / width) ** 2)) * (t < end)
            clear *= 1 - 0.9 * line
            shade = rng.normal(1.0, 0.16)
            total += line * shade
            weight += line
        edge = np.clip(np.minimum(x, 1 - x) / 0.08, 0, 1)[None]
        opacity[variant] = (1 - clear) * edge
        brightness[variant] = np.clip((total + 1e-3) / weight, 0.5, 1.5) * rng.normal(1, 0.06)
    return opacity.astype(np.float32), brightness.astype(np.float32)


def hair_texture(
    hair: HairRecipe, rng: np.random.Generator, *, density: float = 1.0, taper: float = 0.6
) -> Float32[np.ndarray, "h w 4"]:
    """Locks side by side in the hair's colours: root darker, tips as told, some of them grey."""
    opacity, brightness = lock_opacity(density, taper)
    t = ((np.arange(_TALL) + 0.5) / _TALL)[:, None, None]
    root, tip = np.array(hair.rgb), np.array(hair.tip_rgb)
    lock = []
    for variant in range(VARIANTS):
        base = root * (0.82 + 0.18 * np.clip(t * 4, 0, 1)) * (1 - t**1.5) + tip * t**1.5
        base = base * np.exp(rng.normal(0, 0.075))
        if 0.05 < hair.grey < 0.8 and rng.random() < hair.grey:
            base = 0.35 * base + 0.65 * rng.uniform(0.5, 0.75) * np.array([1, 0.99, 0.97])
        colour = base * brightness[variant][..., None] * (1 - 0.5 * hair.wet)
        lock.append(np.concatenate([np.clip(colour, 0, 1), opacity[variant][..., None]], axis=-1))
    return np.ascontiguousarray(np.concatenate(lock, axis=1), dtype=np.float32)


def ribbons(
    name: str, strands: Strands, field: DistanceField, texture: Float32[np.ndarray, "h w 4"], rng: np.random.Generator,
    *, label: Label = Label.HAIR, specular: float = 0.12, taper: float = 0.35,
) -> Part:  # fmt: skip
    """One part with a strip of triangles per strand.

    Args:
        name: of the part.
        strands: hairs with their widths.
        field: distance to the skin, for the way the strips face.
        texture: as `hair_texture` makes it.
        rng: twists and choice of locks.
        label: of the strips.
        specular: strength of the highlight.
        taper: width at the tip relative to the middle.
    """
    points = strands.points
    n, p, _ = points.shape
    tangent = np.gradient(points, axis=1)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=2, keepdims=True), 1e-9)
    _, outward = field(points.reshape(-1, 3))
    outward = outward.reshape(n, p, 3).astype(np.float64)
    facing = _across(outward, tangent)
    sideways = np.cross(tangent, facing)
    twist = rng.uniform(-0.9, 0.9, n)[:, None, None]
    across = np.cos(twist) * sideways + np.sin(twist) * facing
    t = np.linspace(0, 1, p)[None, :, None]
    half = (
        0.5
        * strands.widths[:, None, None]
        * np.where(t < 0.15, 0.6 + 2.7 * t, 1 - (1 - taper) * np.clip(t - 0.5, 0, 1) * 2)
    )
    left, right = points - half * across, points + half * across
    vertices = np.stack([left, right], axis=2).reshape(-1, 3)  # strand, point, side
    # light comes as on the hair's whole mass, with the strand's own roundness towards its two edges
    round_normal = np.stack([facing - 0.5 * sideways, facing + 0.5 * sideways], axis=2)
    normals = (0.75 * round_normal + 0.6 * outward[:, :, None]).reshape(-1, 3)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    variant = rng.integers(0, VARIANTS, n)[:, None, None]
    column = np.stack([variant + 0.04, variant + 0.96], axis=-1) / VARIANTS
    uv = np.stack(
        [np.broadcast_to(column.reshape(n, 1, 2), (n, p, 2)), np.broadcast_to(0.005 + 0.99 * t, (n, p, 2))], axis=-1
    ).reshape(-1, 2)
    first = (np.arange(n)[:, None] * p + np.arange(p - 1)[None]).reshape(-1) * 2
    faces = np.concatenate([np.stack([first, first + 1, first + 2], 1), np.stack([first + 1, first + 3, first + 2], 1)])
    return Part(
        name, vertices, normals, faces, uv, faces, texture, True, specular, uniform_labels(label),
        np.repeat(tangent.reshape(-1, 3), 2, axis=0),
    )  # fmt: skip


def _across(vectors: Float[np.ndarray, "n p 3"], along: Float[np.ndarray, "n p 3"]) -> Float[np.ndarray, "n p 3"]:
    """The share of vectors across a direction, as unit vectors."""
    rest = vectors - along * (vectors * along).sum(2, keepdims=True)
    length = np.linalg.norm(rest, axis=2, keepdims=True)
    spare = np.cross(along, np.array([0.31, 0.17, 0.93]))
    spare /= np.maximum(np.linalg.norm(spare, axis=2, keepdims=True), 1e-9)
    return np.where(length > 0.05, rest / np.maximum(length, 1e-9), spare)

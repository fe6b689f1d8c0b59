"""Simple surfaces as parts: sheets, tubes, balls; and textures of cloth."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage

from ...mesh import vertex_normals
from ..parts import RGB, Part, unit


def plain_texture(rgb: RGB | Float[np.ndarray, " 3"], alpha: float = 1.0) -> Float32[np.ndarray, "2 2 4"]:
    """One colour."""
    return np.broadcast_to(np.array([*rgb, alpha], np.float32), (2, 2, 4)).copy()


def cloth_texture(
    rgb: RGB | Float[np.ndarray, " 3"], rng: np.random.Generator, *, pattern: str = "weave"
) -> Float32[np.ndarray, "s s 4"]:
    """A cloth that repeats: `weave`, `knit`, `stripes`, `plaid`, `dots` or `felt`."""
    size = 128
    y, x = np.meshgrid(np.arange(size) / size, np.arange(size) / size, indexing="ij")
    noise = ndimage.gaussian_filter(rng.normal(size=(size, size)), 1.2, mode="wrap")
    level = 1 + 0.12 * noise / noise.std() * 0.5
    second = np.clip(np.array(rgb) * rng.uniform(0.3, 1.8) + rng.uniform(-0.1, 0.35, 3), 0.02, 0.95)
    share = np.zeros((size, size))
    match pattern:
        case "knit":
            level = level * (0.72 + 0.4 * np.abs(np.sin(np.pi * 16 * x + 0.9 * np.sin(2 * np.pi * 24 * y))))
        case "stripes":
            share = (np.sin(2 * np.pi * rng.integers(2, 6) * y) > 0.2).astype(float)
        case "plaid":
            share = 0.5 * (np.sin(2 * np.pi * 3 * y) > 0.4) + 0.5 * (np.sin(2 * np.pi * 3 * x) > 0.4)
        case "dots":
            share = (((x * 6 % 1) - 0.5) ** 2 + ((y * 6 % 1) - 0.5) ** 2 < 0.06).astype(float)
        case "weave" | "felt":
            level = level * (1 + (0.05 * np.sin(2 * np.pi * 40 * (x + y)) if pattern == "weave" else 0))
        case _:
            raise AssertionError(f"unknown pattern {pattern!r}")
    colour = (np.array(rgb) * (1 - share[..., None]) + second * share[..., None]) * level[..., None]
    return np.concatenate([np.clip(colour, 0, 1), np.ones((size, size, 1))], axis=-1).astype(np.float32)


def sheet(
    name: str, points: Float[np.ndarray, "m n 3"], texture: Float32[np.ndarray, "h w 4"], *,
    repeat: tuple[float, float] = (1.0, 1.0), specular: float = 0.03, alpha: bool = False, closed: bool = False,
    outward_from: Float[np.ndarray, "*v 3"] | None = None,
) -> Part:  # fmt: skip
    """A grid of points as a surface.

    Args:
        points: rows and columns, world units.
        repeat: how often the texture repeats down and across.
        alpha: the texture's opacity counts.
        closed: the last column joins the first.
        outward_from: the point, or one for each vertex, that the surface turns its back to; the grid's own middle if
            not given.
    """
    m, n = points.shape[:2]
    columns = n if closed else n - 1
    row, column = np.meshgrid(np.arange(m - 1), np.arange(columns), indexing="ij")

    def triangles(width: int, wrap: bool) -> np.ndarray:
        right = (column + 1) % width if wrap else column + 1
        a, b = row * width + column, row * width + right
        c, d = (row + 1) * width + column, (row + 1) * width + right
        return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])

    faces, faces_uv = triangles(n, closed), triangles(columns + 1, False)
    u, v = np.meshgrid(np.linspace(0, repeat[1], columns + 1), np.linspace(0, repeat[0], m))
    vertices = points.reshape(-1, 3)
    normals = vertex_normals(vertices, faces)
    centre = vertices.mean(0) if outward_from is None else outward_from
    if ((vertices - centre) * normals).sum() < 0:
        normals, faces, faces_uv = -normals, faces[:, ::-1], faces_uv[:, ::-1]
    uv = np.stack([u, v], axis=-1).reshape(-1, 2)
    return Part(name, vertices, normals, faces, uv, faces_uv, texture, alpha, specular)


def tube(
    name: str, path: Float[np.ndarray, "p 3"], radius: float | Float[np.ndarray, " p"],
    texture: Float32[np.ndarray, "h w 4"], *, closed: bool = False, specular: float = 0.3, sides: int = 7,
) -> Part:  # fmt: skip
    """A round wire along a path."""
    step = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    along = unit(step)
    first = unit(np.cross(along, np.array([0.21, 0.87, 0.43])))
    second = np.cross(along, first)
    angle = np.arange(sides) * 2 * np.pi / sides
    size = np.broadcast_to(radius, (len(path),))[:, None, None]
    ring = np.cos(angle)[None, :, None] * first[:, None] + np.sin(angle)[None, :, None] * second[:, None]
    points = path[:, None] + size * ring
    if closed:
        points = np.concatenate([points, points[:1]])
    # the middle of a bent wire says nothing about outside: take the wire's own axis
    axis = np.repeat(np.concatenate([path, path[:1]]) if closed else path, sides, axis=0)
    return sheet(name, points, texture, closed=True, specular=specular, outward_from=axis)


def ball(
    name: str, centre: Float[np.ndarray, " 3"], radius: float, texture: Float32[np.ndarray, "h w 4"], *,
    specular: float = 0.3, rows: int = 12,
) -> Part:  # fmt: skip
    """A sphere."""
    polar = np.linspace(1e-3, np.pi - 1e-3, rows)[:, None]
    azimuth = np.arange(2 * rows)[None] * np.pi / rows
    points = centre + radius * upright(*np.broadcast_arrays(polar, azimuth))
    return sheet(name, points, texture, closed=True, specular=specular, repeat=(2.0, 4.0))


def upright(polar: Float[np.ndarray, "*g"], azimuth: Float[np.ndarray, "*g"]) -> Float[np.ndarray, "*g 3"]:
    """Unit vectors at an angle from straight up, turned from the face (+z) towards the head's left."""
    return np.stack([np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], axis=-1)

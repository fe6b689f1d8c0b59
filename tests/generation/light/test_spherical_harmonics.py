"""Light as nine numbers: what they say of even and distant light, turns and mirror images, and of shadows."""

from __future__ import annotations

import math

import numpy as np
import trimesh

from dp360.generation.light.spherical_harmonics import (
    LUMINANCE,
    Light,
    harmonics,
    open_transfer,
    shadowed_transfer,
)


def directions(count: int = 4000) -> np.ndarray:
    found = np.random.default_rng(0).normal(size=(count, 3))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def a_light() -> Light:
    return Light(np.random.default_rng(1).normal(0, 0.3, (9, 3)))


def test_harmonics_are_orthonormal() -> None:
    values = harmonics(directions(200_000))
    np.testing.assert_allclose(4 * math.pi * values.T @ values / len(values), np.eye(9), atol=0.03)


def test_transfer_is_the_cosine_integral() -> None:
    """The plain sum over sources of the cosine times their radiance, for radiance that order 2 holds."""
    light, sources = a_light(), directions(200_000)
    radiance = harmonics(sources) @ light.coefficients
    for normal in directions(5):
        plain = 4 * np.mean(np.maximum(sources @ normal, 0)[:, None] * radiance, axis=0)
        np.testing.assert_allclose(open_transfer(normal[None])[0] @ light.coefficients, plain, atol=0.02)


def test_even_light_makes_every_white_wall_equally_bright() -> None:
    np.testing.assert_allclose(open_transfer(directions(50)) @ Light.even(0.7).coefficients, 0.7, atol=1e-5)


def test_a_source_is_where_the_light_says() -> None:
    towards = np.array([[0.6, 0.0, 0.8]])
    light = Light.of_directions(towards, np.ones((1, 3)), math.pi)
    assert abs(light.azimuth_rad - math.atan2(0.6, 0.8)) < 1e-6
    assert abs(light.turned(0.4).azimuth_rad - math.atan2(0.6, 0.8) - 0.4) < 1e-6
    facing, away = open_transfer(np.concatenate([towards, -towards])) @ light.coefficients @ LUMINANCE
    assert abs(facing - 1) < 0.1 and abs(away) < 0.1


def test_turning_light_and_head_together_changes_nothing() -> None:
    light, normals, angle = a_light(), directions(50), 0.7
    c, s = math.cos(angle), math.sin(angle)
    R = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    before = open_transfer(normals) @ light.coefficients
    np.testing.assert_allclose(open_transfer(normals @ R.T) @ light.turned(angle).coefficients, before, atol=1e-4)
    np.testing.assert_allclose(open_transfer(normals @ R.T) @ light.rotated(R).coefficients, before, atol=1e-4)


def test_mirrored_light_on_the_mirrored_surface() -> None:
    light, normals = a_light(), directions(50)
    before = open_transfer(normals) @ light.coefficients
    np.testing.assert_allclose(open_transfer(normals * [-1, 1, 1]) @ light.mirrored().coefficients, before, atol=1e-6)


def test_a_ball_alone_shades_nothing_and_a_lid_does() -> None:
    ball = trimesh.creation.icosphere(4, 0.1)
    alone = shadowed_transfer(ball.vertices, ball.vertex_normals, ball.faces)
    np.testing.assert_allclose(alone, open_transfer(ball.vertex_normals), atol=0.06)
    lid = trimesh.creation.box((0.6, 0.02, 0.6), trimesh.transformations.translation_matrix((0, 0.15, 0)))
    lid = lid.subdivide().subdivide()
    below = shadowed_transfer(
        np.concatenate([ball.vertices, lid.vertices]),
        np.concatenate([ball.vertex_normals, lid.vertex_normals]),
        np.concatenate([ball.faces, lid.faces + len(ball.vertices)]),
    )[: len(ball.vertices)]
    top = ball.vertices[:, 1] > 0.09
    even = Light.even().coefficients[:, 0]
    assert (below[top] @ even).max() < 0.45 < (alone[top] @ even).min()

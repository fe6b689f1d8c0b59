"""A head of one colour under a known light: the light is found, and dividing by it leaves one colour."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dp360.generation.head_model import load_head_model
from dp360.generation.light.exposure import GAMMA
from dp360.generation.light.named_lights import light_of_panorama
from dp360.generation.light.spherical_harmonics import Light, shadowed_transfer
from dp360.generation.mesh_raster import interpolate, rasterize_mesh
from dp360.generation.portrait import Portrait
from dp360.generation.prior import HeadPrior
from dp360.generation.prior.light.head_light import HeadLight, light_of_portrait
from dp360.generation.prior.light.light_prior import load_light_prior
from dp360.generation.prior.light.shade_network import SHADE, shade_of_picture
from dp360.generation.prior.texture.atlas import MATERIAL_SKIN, AtlasMesh
from dp360.generation.prior.texture.portrait_lookup import picture_of_portrait

TONE = np.array([0.45, 0.28, 0.2])


@pytest.fixture(scope="module")
def transfer(prior: HeadPrior) -> np.ndarray:
    mesh = prior.mesh
    return shadowed_transfer(mesh.vertices_world, mesh.normals_world, mesh.faces)


def lit(portrait: Portrait, mesh: AtlasMesh, transfer: np.ndarray, light: Light) -> tuple[Portrait, np.ndarray]:
    """The portrait's mesh in one colour under a light, in place of the portrait, and the logarithm of the light."""
    fragments = rasterize_mesh(mesh.vertices_world, mesh.faces, portrait.head.camera)
    reached = interpolate(fragments, np.maximum(transfer @ light.coefficients, 0.01), mesh.faces)
    rgb = np.clip(TONE * reached, 0, 0.97) ** (1 / GAMMA)
    told = np.log(np.maximum(reached, 0.01)) / GAMMA
    return dataclasses.replace(portrait, foreground_unit=rgb.astype(np.float32)), told.astype(np.float32)


def told_of(portrait: Portrait) -> np.ndarray:
    """The logarithm of the light of a photograph."""
    return shade_of_picture(portrait.rgb, portrait.head.camera, SHADE.load())


def found_in(portrait: Portrait, prior: HeadPrior, told: np.ndarray) -> HeadLight:
    labels, mesh = prior.portrait_labels, prior.mesh
    picture = picture_of_portrait(portrait, labels, mesh)
    return light_of_portrait(portrait, labels, load_head_model(), mesh, picture, told, Light.even())


@pytest.mark.parametrize("azimuth_deg", [-65, 55])
def test_dividing_by_the_light_leaves_one_colour(
    portrait: Portrait, prior: HeadPrior, transfer: np.ndarray, azimuth_deg: float
) -> None:
    light = Light(load_light_prior().turned(np.radians(azimuth_deg)).mean.reshape(9, 3))
    picture, told = lit(portrait, prior.mesh, transfer, light)
    found = found_in(picture, prior, told)
    assert found.light is not None
    assert abs(np.degrees(found.light.azimuth_rad) - azimuth_deg) < 25
    mesh = prior.mesh
    of_skin = np.zeros(len(mesh.vertices_world), bool)
    of_skin[mesh.faces[mesh.material == MATERIAL_SKIN].ravel()] = True
    seen = picture_of_portrait(picture, prior.portrait_labels, mesh).look_up(mesh.vertices_world, mesh.normals_world)
    plain = of_skin & (seen.trust > 0.8)
    assert plain.sum() > 500
    before, after = (
        np.log(np.maximum(c[plain].mean(1), 0.02)).std() for c in (seen.colour, seen.divided_by(found.shade).colour)
    )
    assert after < 0.3 * before
    np.testing.assert_allclose(np.median(found.shade[plain], axis=0), 1, atol=0.25)


def test_light_stays_within_limits_and_is_the_mirrored_one_on_the_other_side(
    portrait: Portrait, prior: HeadPrior
) -> None:
    found = found_in(portrait, prior, told_of(portrait))
    assert np.isfinite(found.shade).all() and 0.2 < found.shade.min() and found.shade.max() < 2.2
    mesh = prior.mesh
    middle = np.abs(mesh.vertices_world[:, 0]) < 0.002
    difference = np.abs(found.mirrored_shade - found.shade)[middle]
    assert np.median(difference) < 0.02  # the middle plane is its own mirror image
    left, right = (found.wanted_shade[side * mesh.vertices_world[:, 0] > 0.02].mean(0) for side in (1, -1))
    np.testing.assert_allclose(left, right, atol=0.04)


def test_a_wanted_light_falls_from_where_it_comes_whatever_the_portraits_own(
    portrait: Portrait, prior: HeadPrior
) -> None:
    mesh, labels = prior.mesh, prior.portrait_labels
    picture = picture_of_portrait(portrait, labels, mesh)
    told = told_of(portrait)
    surroundings = np.full((32, 64, 3), 0.1, np.float32)
    surroundings[8:24, 28:36] = 10.0  # to the head's left
    wanted = light_of_panorama(surroundings)
    found = light_of_portrait(portrait, labels, load_head_model(), mesh, picture, told, wanted)
    left, right = (found.wanted_shade[side * mesh.vertices_world[:, 0] > 0.15].mean() for side in (1, -1))
    assert left > 1.4 * right
    own = light_of_portrait(portrait, labels, load_head_model(), mesh, picture, told)
    np.testing.assert_array_equal(own.wanted_shade, own.shade)
    np.testing.assert_array_equal(own.shade, found.shade)

"""Light on heads that move: as a plain version says, from the side that it comes from, and staying where it is."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dp360.generation.light.exposure import Exposure
from dp360.generation.light.spherical_harmonics import Light, open_transfer
from dp360.generation.prior.texture.atlas import MATERIAL_SKIN
from dp360.reconstruction.avatar.binding import Binding, animate
from dp360.reconstruction.avatar.carrying import Motion
from dp360.reconstruction.avatar.lighting import Lighting, SurfaceLight, lighting_of, turned_transfer
from dp360.reconstruction.avatar.poses import Pose, pose_from_text
from dp360.reconstruction.avatar.surface import Surface
from dp360.reconstruction.spherical_harmonics import rgb_from_sh0, sh0_from_rgb
from dp360.reconstruction.splats import Splats

GREY = 0.5


def side_light(towards: tuple[float, float, float], rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Light:
    """A lamp and half as much light from everywhere."""
    direction = np.array([towards]) / np.linalg.norm(towards)
    return Light(Light.of_directions(direction, np.array([rgb]), 2.0).coefficients + Light.even(0.5).coefficients)


def rotations(count: int) -> np.ndarray:
    return Rotation.from_quat(np.random.default_rng(4).standard_normal((count, 4))).as_matrix()


def colours(splats: Splats) -> np.ndarray:
    return rgb_from_sh0(splats.sh0).numpy()


def points_of(rig, seed: int = 0, count: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of the skin and weights of their corners."""
    generator = np.random.default_rng(seed)
    rows = np.flatnonzero(rig.material == MATERIAL_SKIN)
    return generator.choice(rows, count), generator.dirichlet([1, 1, 1], count).astype(np.float32)


@pytest.fixture(scope="module")
def bound(rig) -> tuple[Splats, Binding]:
    """Grey Gaussians on the skin of a rig, painted in even light."""
    triangle, weights = points_of(rig)
    at = np.einsum("nk,nkc->nc", weights, rig.portrait_vertices_world[rig.faces[triangle]])
    n = len(at)
    splats = Splats(
        torch.from_numpy(at.astype(np.float32)), torch.full((n, 3), -5.0), torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        torch.zeros(n), sh0_from_rgb(torch.full((n, 3), GREY)), torch.zeros(n, 3, 3),
    )  # fmt: skip
    surface = Surface(rig.vertices_world, rig.faces, rig.shapes, rig.skeleton, rig.joint_weights)
    light = SurfaceLight.of(rig, Light.even())
    return splats, Binding(triangle, weights, rig.portrait_vertices_world, surface, light)


def test_transfers_turn_as_light_does():
    transfer = open_transfer(np.random.default_rng(0).standard_normal((20, 3)))
    light = side_light((1, 2, 3), (1.0, 0.6, 0.2))
    turned = turned_transfer(transfer, rotations(20))
    for row, before, R in zip(turned, transfer, rotations(20)):
        np.testing.assert_allclose(row @ light.coefficients, before @ light.rotated(R.T).coefficients, atol=1e-5)


def test_the_kernel_agrees_with_the_plain_version():
    generator, n, faces = np.random.default_rng(1), 50, 12
    transfer = generator.standard_normal((n, 9)).astype(np.float32) * 0.3
    transfer[:, 0] += 0.5
    before = generator.uniform(0.4, 1.5, (n, 3)).astype(np.float32)
    light, white = side_light((2, 1, 0), (1.0, 0.5, 0.3)), np.array([1.0, 0.9, 1.2])
    lighting = Lighting(light, Exposure(0.9, 1.4, white), transfer, before)
    triangle = generator.integers(0, faces - 2, n)
    splats = Splats(*(torch.from_numpy(generator.standard_normal(s).astype(np.float32))
                      for s in ((n, 3), (n, 3), (n, 4), n, (n, 3), (n, 3, 3))))  # fmt: skip
    got = lighting.on(splats, triangle, np.unique(triangle), rotations(faces))
    for i in range(n):
        seen = light.rotated(rotations(faces)[triangle[i]].T).coefficients
        factor = lighting.exposure.shade(transfer[i : i + 1].astype(np.float64) @ seen)[0] / before[i]
        np.testing.assert_allclose(colours(got)[i], factor * colours(splats)[i], rtol=2e-4, atol=1e-5)
        np.testing.assert_allclose(got.sh_rest[i], factor * splats.sh_rest[i].numpy(), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(("towards", "brighter"), [((1, 0.2, 0.3), 1), ((-1, 0.2, 0.3), -1)])
def test_light_from_one_side_brightens_that_side(bound, towards, brighter):
    splats, binding = bound
    lit = animate(splats, binding, Pose.neutral(), binding.lighting(side_light(towards)))
    x, z = lit.means_world[:, 0].numpy(), lit.means_world[:, 2].numpy()
    cheeks = (np.abs(x) > 0.08) & (z > 0.1)
    left, right = colours(lit)[cheeks & (x > 0)].mean(), colours(lit)[cheeks & (x < 0)].mean()
    assert brighter * (left - right) > 0.08


def test_turning_the_head_under_a_light_that_stays_changes_its_shading(bound):
    splats, binding = bound
    lighting = binding.lighting(side_light((1, 0.1, 0)))
    x, z = splats.means_world[:, 0].numpy(), splats.means_world[:, 2].numpy()
    front = (z > np.quantile(z, 0.7)) & (np.abs(x) < 0.1)
    shades = [colours(animate(splats, binding, pose_from_text(f"headYaw={yaw}"), lighting))[front].mean()
              for yaw in (-40, 0, 40)]  # fmt: skip
    assert shades[0] + 0.02 < shades[1] < shades[2] - 0.02  # its left is +x: it turns to the lamp
    still = animate(splats, binding, pose_from_text("headYaw=40"))
    assert np.abs(colours(still) - GREY).max() < 1e-5  # without a light colours stay


def test_head_and_light_turned_together_look_the_same(bound):
    splats, binding = bound
    light, Q = side_light((1, 1, 0.5), (1.0, 0.8, 0.5)), Rotation.from_euler("yx", [0.7, -0.4]).as_matrix()
    faces, rest = binding.surface.faces, binding.rest_vertices_world.astype(np.float64)

    def lit(light: Light, turn: np.ndarray) -> np.ndarray:
        motion = Motion.of(binding.bearing, faces, rest, rest @ turn.T)
        lighting = binding.lighting(light)
        assert lighting is not None
        # the exposure is that of the first light: turned, it shines on other skin
        lighting = replace(lighting, exposure=Exposure(0.7, 1.2, np.ones(3)))
        return colours(lighting.on(splats, binding.triangle, binding.bearing, motion.turn))

    first = lit(light, np.eye(3))
    np.testing.assert_allclose(lit(light.rotated(Q), Q), first, atol=1e-4)
    assert np.abs(lit(light, Q) - first).max() > 0.05


def test_even_light_is_albedo_where_nothing_is_in_the_way(bound, rig):
    splats, binding = bound
    normals = np.random.default_rng(2).standard_normal((len(rig.vertices_world), 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    shade = np.full((len(normals), 3), 0.8, np.float32)
    free = SurfaceLight(open_transfer(normals).astype(np.float32), shade, np.ones(len(normals), np.float32), None)
    lighting = lighting_of(free, rig.faces[binding.triangle], binding.barycentric, Light.even())
    lit = animate(splats, binding, pose_from_text("laugh+headYaw=30"), lighting)
    np.testing.assert_allclose(colours(lit), GREY / 0.8, atol=2e-3)
    # the head itself keeps some of it from under the chin, and little from the cheeks
    own = colours(animate(splats, binding, Pose.neutral(), binding.lighting(Light.even())))
    assert np.quantile(own, 0.02) < 0.45 and abs(np.median(own) - GREY) < 0.05 and own.max() < 0.6


def test_the_light_it_was_painted_in_changes_nothing_at_rest(bound, rig):
    splats, binding = bound
    painted = replace(binding, light=replace(binding.light, own_light=side_light((1, 0, 1), (1.0, 0.7, 0.4))))
    lighting = painted.lighting(None)
    assert lighting is not None
    rest = Motion(np.tile(np.eye(3), (len(rig.faces), 1, 1)), np.tile(np.eye(3), (len(rig.faces), 1, 1)))
    same = lighting.on(splats, binding.triangle, binding.bearing, rest.turn)
    np.testing.assert_allclose(colours(same), GREY, atol=1e-4)
    turned = animate(splats, painted, pose_from_text("headYaw=-40"), lighting)
    assert np.abs(colours(turned) - GREY).max() > 0.05


def test_without_a_known_light_or_seen_skin_there_is_none(bound):
    light = bound[1].light
    triangle, weights = bound[1].surface.faces[bound[1].triangle], bound[1].barycentric
    assert lighting_of(replace(light, own_light=None), triangle, weights, None) is None
    unseen = replace(light, seen=np.zeros_like(light.seen))
    assert lighting_of(unseen, triangle, weights, Light.even()) is None


def test_the_texture_says_where_its_light_was_and_the_skin_how_bright(rig):
    left = rig.uv_unit[rig.vertices_world[:, 0] > 0]
    rows, columns = (left[:, ::-1] * rig.texture_rgb.shape[:2]).astype(int).T
    where = np.zeros(rig.texture_rgb.shape[:2], np.uint8)
    where[rows.clip(0, len(where) - 1), columns.clip(0, where.shape[1] - 1)] = 1
    where = cv2.dilate(where, np.ones((25, 25), np.uint8)).astype(bool)
    for gain in (1.0, 0.6):  # how dark the albedo is does not matter
        texture = np.where(where[..., None], 0.5 * rig.albedo_rgb, rig.albedo_rgb).astype(np.uint8)
        light = SurfaceLight.of(replace(rig, texture_rgb=texture, albedo_rgb=(gain * rig.albedo_rgb).astype(np.uint8)),
                                None)  # fmt: skip
        skin = np.zeros(len(rig.vertices_world), bool)
        skin[rig.faces[rig.material == MATERIAL_SKIN]] = True
        x = rig.vertices_world[:, 0]
        dark, bright = (np.median(light.own_shade[skin & side]) for side in (x > 0.05, x < -0.05))
        assert 0.47 < dark / bright < 0.56
        assert abs(np.median(light.own_shade[light.seen > 0.5].mean(1)) - 1) < 0.02
    again = SurfaceLight.decoded(light.encoded())
    np.testing.assert_allclose(again.transfer, light.transfer, atol=2e-3)
    np.testing.assert_allclose(again.own_shade, light.own_shade, atol=2e-3)
    assert again.own_light is None
    with pytest.raises(ValueError, match="does not fit"):
        SurfaceLight.decoded(light.encoded() | {"own_light": np.zeros((2, 3))})

"""The renderer against ray casting, and against scenes whose answer is known."""

import dataclasses

import numpy as np
import pytest

from dp360.generation.cameras import look_at_origin
from dp360.generation.synthetic.parts import Label, Part, SyntheticHead, uniform_labels, vertex_normals
from dp360.generation.synthetic.rendering.lighting import DIRECTION_COUNT, Lighting, irradiance, sky_directions
from dp360.generation.synthetic.rendering.renderer import HeadScene, Shading, linear_from_srgb, render_views
from dp360.generation.synthetic.worn.solids import ball, plain_texture, sheet

EVEN = Lighting(np.ones((DIRECTION_COUNT, 3)))
FLAT = Shading(flatness=1.0, specular=0.0)


def card(opacity: float, z: float, rgb: tuple[float, float, float], label: Label, *, alpha: bool = True) -> Part:
    """A square that faces +z."""
    corners = np.array([[-0.2, -0.2, z], [0.2, -0.2, z], [0.2, 0.2, z], [-0.2, 0.2, z]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    uv = np.array([[0.1, 0.9], [0.9, 0.9], [0.9, 0.1], [0.1, 0.1]])
    labels = uniform_labels(label)
    return Part(
        "card",
        corners,
        vertex_normals(corners, faces),
        faces,
        uv,
        faces,
        plain_texture(rgb, opacity),
        alpha,
        0.0,
        labels,
    )


def test_half_clear_layers_mix_front_to_back_whatever_their_order() -> None:
    camera = look_at_origin([0.0], [0.0], size_px=32)
    layers = [
        card(0.5, 0.10, (1.0, 0.0, 0.0), Label.HAIR),
        card(0.5, 0.05, (0.0, 1.0, 0.0), Label.CLOTH),
        card(1.0, 0.00, (0.0, 0.0, 1.0), Label.FACE, alpha=False),
    ]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        views = render_views(SyntheticHead("x", tuple(layers[k] for k in order), ()), camera, EVEN, shading=FLAT)
        np.testing.assert_allclose(views.rgb_linear[0, 16, 16], [0.5, 0.25, 0.25], atol=1e-3)
        assert views.alpha_unit[0, 16, 16] == 1
        assert views.labels[0, 16, 16] == Label.HAIR  # the largest share
        assert views.depth[0, 16, 16] == pytest.approx(2.7 - 0.10, abs=1e-4)


def test_alpha_is_soft_and_colour_is_straight() -> None:
    camera = look_at_origin([0.0], [0.0], size_px=32)
    head = SyntheticHead("x", (card(0.4, 0.0, (0.2, 0.5, 0.8), Label.HAIR),), ())
    views = render_views(head, camera, EVEN, shading=FLAT)
    assert views.alpha_unit[0, 16, 16] == pytest.approx(0.4, abs=1e-5)
    np.testing.assert_allclose(views.rgb_linear[0, 16, 16], linear_from_srgb(np.array([0.2, 0.5, 0.8])), atol=1e-4)
    assert views.labels[0, 16, 16] == Label.BACKGROUND  # less than half is there
    assert np.isinf(views.depth[0, 16, 16])


def test_even_light_on_a_white_ball_is_its_irradiance() -> None:
    part = ball("accessory", np.zeros(3), 0.15, plain_texture((1.0, 1.0, 1.0)), specular=0.0, rows=40)
    views = render_views(SyntheticHead("ball", (part,), ()), look_at_origin([0.3], [0.2], size_px=64), EVEN)
    inner = views.rgb_linear[0, 24:40, 24:40]
    np.testing.assert_allclose(irradiance(EVEN.sky_rgb, np.array([0.0, 0.0, 1.0])), 1.0, atol=0.05)
    np.testing.assert_allclose(inner, 1.0, atol=0.08)
    assert (views.labels[0, 24:40, 24:40] == Label.ACCESSORY).all()


def test_a_body_between_light_and_surface_casts_a_shadow() -> None:
    towards = np.array([0.0, 0.0, 1.0])
    sun = Lighting(np.zeros((DIRECTION_COUNT, 3)), towards, np.ones(3))
    fine = np.linspace(-0.2, 0.2, 41)
    grid = np.stack([*np.meshgrid(fine, fine), np.full((41, 41), -0.1)], axis=-1)
    floor = sheet("clothes", grid, plain_texture((1.0, 1.0, 1.0)), outward_from=np.array([0, 0, -1.0]), specular=0.0)
    blocker = ball("accessory", np.array([0.0, 0.0, 0.15]), 0.05, plain_texture((1.0, 1.0, 1.0)))
    camera = look_at_origin([0.0], [1.0], size_px=64)
    views = render_views(SyntheticHead("x", (floor, blocker), ()), camera, sun)
    on_floor = views.labels[0] == Label.CLOTH
    light = views.rgb_linear[0, ..., 0][on_floor]
    assert light.min() < 0.05 and np.median(light) > 0.8
    assert 0.02 < (light < 0.3).mean() < 0.15  # the ball's disc on the floor: about 5 %


def test_sky_directions_are_even() -> None:
    directions = sky_directions()
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(directions.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(directions.T @ directions / DIRECTION_COUNT, np.eye(3) / 3, atol=0.02)


def test_same_scene_same_bytes_and_views_do_not_depend_on_each_other() -> None:
    part = ball("hair", np.zeros(3), 0.15, plain_texture((0.3, 0.2, 0.1)), rows=20)
    head = SyntheticHead("ball", (part, card(0.5, 0.2, (0.9, 0.1, 0.1), Label.HAIR)), ())
    cameras = look_at_origin([0.0, 1.0, 2.0], [0.0, 0.1, 0.2], size_px=48)
    together, again = HeadScene(head).render(cameras), HeadScene(head).render(cameras)
    alone = HeadScene(head).render(cameras[1])
    for name in ("rgb_linear", "alpha_unit", "depth", "normals_world", "labels"):
        assert getattr(together, name).tobytes() == getattr(again, name).tobytes()
        assert getattr(together, name)[1].tobytes() == getattr(alone, name)[0].tobytes()


def test_odd_supersampling_is_refused() -> None:
    head = SyntheticHead("x", (card(1.0, 0.0, (1.0, 1.0, 1.0), Label.FACE),), ())
    with pytest.raises(ValueError, match="supersample"):
        render_views(head, look_at_origin([0.0], [0.0], size_px=32), supersample=3)


def crowd() -> SyntheticHead:
    """Balls, half-clear cards and cards of soft texture, near and far, in front of and through each other."""
    rng = np.random.default_rng(3)
    fade = np.ones((16, 16, 4), np.float32)
    fade[..., :3] = rng.random((16, 16, 3))
    fade[..., 3] = np.linspace(0, 1, 16)[None]
    parts = [
        ball("ball", np.zeros(3), 0.12, plain_texture((0.8, 0.5, 0.4), 1.0)),
        *(
            card(rng.uniform(0.05, 0.3), z, tuple(rng.random(3).tolist()), Label.HAIR)
            for z in (-0.1, 0.05, 0.13, 0.14, 0.2)
        ),
        dataclasses.replace(card(1.0, 0.02, (1.0, 1.0, 1.0), Label.CLOTH), texture=fade, specular=0.2),
        dataclasses.replace(card(1.0, 0.16, (1.0, 1.0, 1.0), Label.BEARD), texture=fade),
    ]
    fibres = dataclasses.replace(parts[2], tangents_world=np.tile([[0.0, 1.0, 0.0]], (4, 1)))
    return SyntheticHead("crowd", (*parts, fibres), ())


@pytest.mark.parametrize("shading", [Shading(), Shading(steps=3, specular=2.0), FLAT])
def test_plain_torch_draws_the_same_pictures(shading: Shading) -> None:
    scene = HeadScene(crowd())
    cameras = look_at_origin([0.2, 1.1, -2.4], [0.1, -0.3, 0.5], size_px=48)
    fast = scene.render(cameras, shading=shading)
    plain = scene.render(cameras, shading=shading, device="cpu")
    # the loops leave out what lies behind layers that let less than 4 % through, the lists do not
    difference = np.abs(plain.alpha_unit - fast.alpha_unit)
    assert difference.max() < 0.04
    same = difference < 1e-5
    assert same.mean() > 0.96 and (plain.labels == fast.labels)[same].mean() > 0.999
    same &= plain.labels == fast.labels
    for name in ("rgb_linear", "depth", "normals_world"):
        np.testing.assert_allclose(getattr(plain, name)[same], getattr(fast, name)[same], atol=2e-4)
    assert fast.alpha_unit.max() == 1 and 0.2 < (fast.alpha_unit > 0).mean() < 0.9


def test_plain_torch_leaves_out_what_is_behind_the_camera() -> None:
    camera = look_at_origin([0.0], [0.0], size_px=16)
    behind = card(1.0, 3.0, (1.0, 0.0, 0.0), Label.FACE, alpha=False)
    views = HeadScene(SyntheticHead("x", (behind,), ())).render(camera, EVEN, device="cpu")
    assert (views.alpha_unit == 0).all() and np.isinf(views.depth).all()

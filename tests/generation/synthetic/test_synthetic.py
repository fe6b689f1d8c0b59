"""Composed heads: cards let through what their texture does, assets arrive in the world frame."""

from pathlib import Path

import numpy as np
import pytest

from dp360.generation.cameras import look_at_origin
from dp360.generation.mesh_raster import box_downsample, rasterize_mesh
from dp360.generation.synthetic.bodies.makehuman import MakeHumanRecipe, compose_makehuman
from dp360.generation.synthetic.bodies.valid_busts import compose_valid, valid_names
from dp360.generation.synthetic.compose import (
    CROWN_TO_CHIN,
    EYES_WORLD,
    Lights,
    Part,
    SyntheticHead,
    render,
    vertex_normals,
    world_from_asset,
)

HEADS = Path(__file__).resolve().parents[4] / "shared" / "data" / "heads"
needs_assets = pytest.mark.skipif(
    not (HEADS / "makehuman").is_dir(), reason="needs the head assets beside the checkout"
)
FLAT = Lights(np.array([[0.0, 0.0, 1.0]]), np.zeros(1), ambient=1.0)


def card(opacity: float, z: float, rgb: tuple[float, float, float], alpha_tested: bool = True) -> Part:
    """A square that faces +z."""
    corners = np.array([[-0.2, -0.2, z], [0.2, -0.2, z], [0.2, 0.2, z], [-0.2, 0.2, z]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    uv = np.array([[0.1, 0.9], [0.9, 0.9], [0.9, 0.1], [0.1, 0.1]])
    texture = np.broadcast_to(np.array([*rgb, opacity], dtype=np.float32), (8, 8, 4)).copy()
    return Part("card", corners, vertex_normals(corners, faces), faces, uv, faces, texture, alpha_tested, 0.0)


def test_opaque_parts_cover_what_the_rasteriser_covers() -> None:
    camera = look_at_origin([0.5], [0.2], size_px=64)
    part = card(1.0, 0.0, (0.2, 0.4, 0.6))
    _, alpha = render(SyntheticHead("card", (part,), ()), camera, supersample=2)
    hit = rasterize_mesh(part.vertices_world, part.faces, camera, supersample=2).hit
    np.testing.assert_allclose(alpha[0], box_downsample(hit.astype(np.float32), 2), atol=0.26)
    assert abs(alpha[0].mean() - hit.mean()) < 2e-3


@pytest.mark.parametrize("opacity", [0.25, 0.5, 0.75])
def test_a_card_lets_through_the_share_its_texture_says(opacity: float) -> None:
    camera = look_at_origin([0.0], [0.0], size_px=96)
    head = SyntheticHead("card", (card(opacity, 0.0, (1.0, 0.0, 0.0)),), ())
    _, alpha = render(head, camera, supersample=3)
    _, solid = render(SyntheticHead("solid", (card(1.0, 0.0, (1.0, 0.0, 0.0)),), ()), camera, supersample=3)
    inner = solid[0] == 1
    # the threshold is stretched a little, so that nearly clear and nearly solid texels become clear and solid
    assert alpha[0][inner].mean() == pytest.approx((1.15 * opacity - 0.08) / 0.84, abs=0.02)


def test_behind_a_half_clear_card_the_next_surface_is_seen() -> None:
    camera = look_at_origin([0.0], [0.0], size_px=64)
    parts = (card(0.5, 0.05, (1.0, 0.0, 0.0)), card(1.0, 0.0, (0.0, 1.0, 0.0), alpha_tested=False))
    rgb, alpha = render(SyntheticHead("two", parts, ()), camera, lights=FLAT, supersample=4)
    middle = rgb[0, 28:36, 28:36].reshape(-1, 3).mean(0)
    assert alpha[0, 28:36, 28:36].min() == 1
    np.testing.assert_allclose(middle[:2].sum(), 0.75, atol=0.02)  # ambient light on an upright surface
    assert middle[0] / middle[:2].sum() == pytest.approx((1.15 * 0.5 - 0.08) / 0.84, abs=0.03)


def test_scale_and_shift_bring_eyes_and_height_to_the_standard() -> None:
    """A head cut from boxes: crown at 30 cm, chin at 7 cm, eyes at 18 cm, neck recessed by 8 cm."""
    y = np.linspace(0, 0.30, 601)
    z = np.where(y >= 0.07, 0.10, 0.02)
    profile = np.stack([np.zeros_like(y), y, z], axis=1)
    eyes = np.array([0.0, 0.18, 0.08])
    scale, shift = world_from_asset(profile, eyes, 1.0)
    np.testing.assert_allclose(scale * eyes + shift, EYES_WORLD, atol=1e-9)
    assert scale * 0.23 == pytest.approx(CROWN_TO_CHIN, rel=0.05)


@needs_assets
def test_makehuman_heads_stand_in_the_world_frame_and_repeat() -> None:
    recipe = MakeHumanRecipe(5, (0.2, 0.2, 0.6), hair="short02", clothes=("male_casualsuit02",))
    first, second = compose_makehuman(HEADS, recipe), compose_makehuman(HEADS, recipe)
    for a, b in zip(first.parts, second.parts):
        assert a.vertices_world.tobytes() == b.vertices_world.tobytes()
    eyes = first.part("eyes").vertices_world
    np.testing.assert_allclose((eyes.min(0) + eyes.max(0)) / 2, EYES_WORLD, atol=0.012)
    skin = first.part("skin")
    assert 0.17 < skin.vertices_world[skin.faces].max(axis=(0, 1))[1] < 0.25
    front, back = look_at_origin([0.0], [0.0], size_px=64), look_at_origin([np.pi], [0.0], size_px=64)
    (front_rgb,), (front_alpha,) = render(first, front)
    (back_rgb,), (back_alpha,) = render(first, back)
    assert (front_alpha > 0.5).mean() > 0.2
    face = slice(24, 40), slice(26, 38)
    assert front_rgb[face].mean() > back_rgb[face].mean() + 0.1  # skin in front, brown hair behind
    assert {a.split("/")[0] for a in first.assets} == {"makehuman"}


@needs_assets
def test_unknown_expressions_and_parts_are_named() -> None:
    with pytest.raises(ValueError, match="unknown morph target 'grin'"):
        compose_makehuman(HEADS, MakeHumanRecipe(1, expression={"grin": 1.0}))
    bald = compose_makehuman(HEADS, MakeHumanRecipe(1))
    with pytest.raises(KeyError, match="no part 'hair'"):
        bald.part("hair")


@needs_assets
def test_valid_busts_stand_in_the_world_frame_with_arms_down() -> None:
    assert len(valid_names(HEADS)) == 48
    bust = compose_valid(HEADS, "MENA_M_1_Casual")
    skin = bust.part("skin").vertices_world
    assert np.abs(skin[:, 0]).max() < 0.75
    assert 0.17 < skin[:, 1].max() < 0.26
    nose = skin[np.abs(skin[:, 0]) < 0.02]
    assert abs(nose[:, 2].max() - 0.2) < 0.04

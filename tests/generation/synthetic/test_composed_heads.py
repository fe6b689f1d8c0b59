"""Composed heads: determinism, sound geometry, and the renderer's truth against ray casting."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from dp360.generation.cameras import look_at_origin
from dp360.generation.synthetic.assets import asset_index
from dp360.generation.synthetic.bodies.compose_bust import load_bust
from dp360.generation.synthetic.compose import compose
from dp360.generation.synthetic.composed_recipe import (
    BeardRecipe,
    ComposedRecipe,
    HairRecipe,
    WearRecipe,
    sample_recipe,
)
from dp360.generation.synthetic.parts import EYES_WORLD, Label, SyntheticHead
from dp360.generation.synthetic.portraits.stylise import STYLES, draw_views
from dp360.generation.synthetic.rendering.renderer import HeadScene

HEADS = Path(__file__).resolve().parents[4] / "shared" / "data" / "heads"
pytestmark = pytest.mark.skipif(not (HEADS / "makehuman").is_dir(), reason="needs the head assets beside the checkout")


def shape_recipe(**changes: Any) -> ComposedRecipe:
    """A training head with the wanted fields."""
    seed = next(s for s in range(100) if sample_recipe(s, asset_index(), "train").base == "shape")
    recipe = sample_recipe(seed, asset_index(), "train")
    plain = replace(recipe, style="photo", exaggeration=0.0, beard=BeardRecipe(), wear=WearRecipe("male_casualsuit02"))
    return replace(plain, **changes)


def test_depth_normals_and_labels_agree_with_ray_casting() -> None:
    o3d: Any = pytest.importorskip("open3d")
    head = compose(shape_recipe(hair=HairRecipe("bald"), wear=WearRecipe("male_casualsuit02", headgear="cap")), HEADS)
    solid = SyntheticHead("solid", tuple(replace(p, alpha_tested=False) for p in head.parts if not p.alpha_tested), ())
    scene = HeadScene(solid)
    caster = o3d.t.geometry.RaycastingScene()
    caster.add_triangles(
        o3d.core.Tensor(scene.vertices.astype(np.float32)), o3d.core.Tensor(scene.faces.astype(np.uint32))
    )
    size = 128
    for azimuth, elevation in ((0.0, 0.1), (0.8, -0.1), (3.0, 0.3)):
        camera = look_at_origin([azimuth], [elevation], size_px=size)
        views = scene.render(camera, supersample=1)
        T = camera.T_world_camera[0].numpy()
        x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
        focal, principal = camera.focal_px[0].numpy(), camera.principal_px[0].numpy()
        in_camera = np.stack([(x - principal[0]) / focal[0], (y - principal[1]) / focal[1], np.ones_like(x)], axis=-1)
        rays = np.concatenate([np.broadcast_to(T[:3, 3], in_camera.shape), in_camera @ T[:3, :3].T], axis=-1)
        cast = caster.cast_rays(o3d.core.Tensor(rays.astype(np.float32)))
        depth = cast["t_hit"].numpy()  # rays have camera z of 1: their length is the depth
        face = cast["primitive_ids"].numpy().astype(np.int64)
        hit = np.isfinite(depth)
        assert (hit != (views.labels[0] > 0)).mean() < 0.002
        face = np.where(hit, face, 0)
        uv = cast["primitive_uvs"].numpy()
        weights = np.stack([1 - uv.sum(-1), uv[..., 0], uv[..., 1]], axis=-1)
        normal = np.einsum("hwk,hwkc->hwc", weights, scene.normals[scene.faces[face]])
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
        texture_uv = np.einsum("hwk,hwkc->hwc", weights, scene.uv[scene.faces_uv[face]])
        layout = scene.layout[scene.face_part[face]]
        column = np.minimum(((texture_uv[..., 0] % 1) * layout[..., 6]).astype(int), layout[..., 6] - 1)
        row = np.minimum(((texture_uv[..., 1] % 1) * layout[..., 5]).astype(int), layout[..., 5] - 1)
        labels = np.where(hit, scene.label_texels[layout[..., 4] + row * layout[..., 6] + column], 0)
        edge = ndimage.maximum_filter(labels, 3) != ndimage.minimum_filter(labels, 3)
        inner = hit & ~edge & (views.labels[0] > 0)
        assert np.percentile(np.abs(depth - views.depth[0])[inner], 99) <= 1e-3
        cosine = np.abs((normal * views.normals_world[0]).sum(-1))[inner].clip(0, 1)
        assert np.degrees(np.arccos(np.median(cosine))) <= 1
        assert (labels == views.labels[0])[~edge].mean() >= 0.995


@pytest.mark.parametrize("seed", [0, 3, 5, 7])
def test_same_seed_same_pixels_and_sound_parts(seed: int) -> None:
    recipe = sample_recipe(seed, asset_index(), "train")
    head = compose(recipe, HEADS)
    for part in head.parts:
        assert np.isfinite(part.vertices_world).all() and np.isfinite(part.normals_world).all(), part.name
        used = np.unique(part.faces)
        np.testing.assert_allclose(np.linalg.norm(part.normals_world[used], axis=1), 1, atol=0.02)
        assert 0 <= part.faces.min() and part.faces.max() < len(part.vertices_world)
        assert 0 <= part.faces_uv.min() and part.faces_uv.max() < len(part.uv_unit)
        assert np.abs(part.vertices_world[used]).max() < 1.0
        assert part.texture.min() >= 0 and part.texture.max() <= 1
    camera = look_at_origin([0.4], [0.0], size_px=48)
    first = draw_views(HeadScene(head), head.style, camera)
    second = draw_views(HeadScene(compose(recipe, HEADS)), head.style, camera)
    assert first.rgb_linear.tobytes() == second.rgb_linear.tobytes()
    assert first.labels.tobytes() == second.labels.tobytes()
    assert 0.1 < first.alpha_unit.mean() < 0.95
    assert np.isfinite(first.rgb_linear).all()


@pytest.mark.parametrize(
    ("cut", "longest", "shortest"), [("buzz", 0.03, -0.3), ("long_straight", 0.7, 0.2), ("bob", 0.5, 0.1)]
)
def test_hair_grows_to_its_length_and_stays_out_of_the_head(cut: str, longest: float, shortest: float) -> None:
    head = compose(shape_recipe(hair=HairRecipe("cut", cut, messy=0.1)), HEADS)
    hair, skin = head.part("hair"), head.part("skin")
    crown = skin.vertices_world[:, 1].max()
    hangs = crown - np.quantile(hair.vertices_world[:, 1], 0.02)
    assert max(shortest, 0) < hangs < max(longest, 0.45)
    # seen from the front the face stays free
    views = HeadScene(head).render(look_at_origin([0.0], [0.0], size_px=96))
    middle = views.labels[0, 44:62, 44:52]
    assert (middle == Label.FACE).mean() > 0.9


def test_a_hat_hides_the_hair_under_it() -> None:
    recipe = shape_recipe(hair=HairRecipe("cut", "curly"))
    camera = look_at_origin([0.0, 1.5, 3.0], [1.2, 1.2, 1.2], size_px=64)
    from_above = HeadScene(compose(recipe, HEADS)).render(camera).labels
    hatted = replace(recipe, wear=WearRecipe("male_casualsuit02", headgear="beanie"))
    covered = HeadScene(compose(hatted, HEADS)).render(camera).labels
    assert (from_above == Label.HAIR).mean() > 0.1
    assert (covered == Label.HAIR).sum() < 0.25 * (from_above == Label.HAIR).sum()
    assert (covered == Label.HEADGEAR).mean() > 0.1


@pytest.mark.parametrize("name", ["MENA_M_1_Casual", "White_F_3_Casual"])
def test_busts_know_their_parts(name: str) -> None:
    head = compose(ComposedRecipe(1, "train", "bust", name, hair=HairRecipe("own", "", (-1.0, -1.0, -1.0))), HEADS)
    front, back = HeadScene(head).render(look_at_origin([0.0, np.pi], [0.0, 0.0], size_px=96)).labels
    assert (front[44:56, 44:52] == Label.FACE).mean() > 0.95
    assert (back[25:45, 42:54] == Label.HAIR).mean() > 0.95
    assert (front[90:, 20:76] == Label.CLOTH).mean() > 0.7


@pytest.mark.parametrize("skin", ["young_darkskinned_male_diffuse", "old_lightskinned_female_diffuse"])
def test_a_bald_scalp_has_the_foreheads_colour(skin: str) -> None:
    part = compose(shape_recipe(skin=skin, hair=HairRecipe("bald")), HEADS).part("skin")
    corners, corners_uv = part.vertices_world[part.faces].reshape(-1, 3), part.uv_unit[part.faces_uv].reshape(-1, 2)
    side = len(part.texture)
    column, row = (np.minimum(corners_uv % 1 * side, side - 1)).astype(int).T
    rgb = part.texture[row, column, :3]
    x, y, z = (corners - EYES_WORLD).T
    front, crown = (y > 0.045) & (y < 0.07) & (z > 0.0), y > y.max() - 0.02
    forehead, scalp = np.median(rgb[front], axis=0), np.median(rgb[crown & (np.abs(x) < 0.05)], axis=0)
    np.testing.assert_allclose(scalp, forehead, rtol=0.15)


def test_a_full_beard_is_labelled_to_its_roots() -> None:
    recipe = shape_recipe(hair=HairRecipe("bald"), beard=BeardRecipe("full", (0.5, 0.5, 0.5), 0.4))
    labels = HeadScene(compose(recipe, HEADS)).render(look_at_origin([0.0], [0.0], size_px=96)).labels[0]
    chin = labels[:, 44:52]
    rows = np.flatnonzero((chin == Label.BEARD).any(1))
    assert (chin[rows.min() : rows.max()] == Label.BEARD).mean() > 0.6


def test_hair_over_ears_is_hair_and_a_dark_jaw_is_no_beard() -> None:
    def side_of(name: str) -> np.ndarray:
        recipe = ComposedRecipe(1, "train", "bust", name, hair=HairRecipe("own", "", (-1.0, -1.0, -1.0)))
        return HeadScene(compose(recipe, HEADS)).render(look_at_origin([1.2], [0.0], size_px=96)).labels[0]

    bob = side_of("X_MENA_F_1_Casual")
    assert 0 < (bob == Label.EAR).sum() < 0.08 * (bob == Label.HAIR).sum()
    assert not (side_of("Black_F_2_Casual") == Label.BEARD).any()
    assert (side_of("MENA_M_3_Casual") == Label.BEARD).mean() > 0.005


def test_black_hair_of_a_toon_is_hair_and_its_eyes_are_face() -> None:
    recipe = replace(sample_recipe(0, asset_index(), "validation", base="toon"), identity="Mage", seed=1)
    mage = compose(recipe, HEADS)
    bare = replace(mage, parts=tuple(p for p in mage.parts if p.name != "headgear"))
    labels = HeadScene(bare).render(look_at_origin([0.0, np.pi], [0.0, 0.0], size_px=96)).labels
    assert (labels[0] == Label.HAIR).mean() > 0.1 and (labels[0] == Label.BROW).any()
    assert not (labels == Label.BEARD).any() and (labels[1][20:50, 40:56] == Label.HAIR).mean() > 0.95
    assert (labels[0][47:49, 30:66] == Label.FACE).all()  # eyes have the hair's black


@pytest.mark.parametrize("style", sorted(STYLES))
def test_styles_change_colour_and_keep_the_truth(style: str) -> None:
    camera = look_at_origin([0.5], [0.0], size_px=64)
    plain = HeadScene(compose(shape_recipe(hair=HairRecipe("bald")), HEADS))
    views = draw_views(plain, style, camera)
    truth = plain.render(camera)
    np.testing.assert_array_equal(views.labels, truth.labels)
    np.testing.assert_array_equal(views.alpha_unit, truth.alpha_unit)
    assert (style == "photo") == bool(np.array_equal(views.rgb_linear, truth.rgb_linear))


def test_shapes_stand_in_the_world_frame() -> None:
    head = compose(shape_recipe(hair=HairRecipe("card", "short02", (0.25, 0.15, 0.09))), HEADS)
    eyes = head.part("eyes").vertices_world
    np.testing.assert_allclose((eyes.min(0) + eyes.max(0)) / 2, EYES_WORLD, atol=0.012)
    skin = head.part("skin")
    assert 0.17 < skin.vertices_world[skin.faces].max(axis=(0, 1))[1] < 0.25
    front, back = HeadScene(head).render(look_at_origin([0.0, np.pi], [0.0, 0.0], size_px=64)).labels
    face = slice(24, 40), slice(26, 38)
    assert (front[face] == Label.FACE).mean() > 0.9 and (back[face] == Label.HAIR).mean() > 0.8


def test_busts_stand_in_the_world_frame_with_arms_down() -> None:
    skin = load_bust(HEADS, "MENA_M_1_Casual", largest_side=16).part("skin").vertices_world
    assert np.abs(skin[:, 0]).max() < 0.75
    assert 0.17 < skin[:, 1].max() < 0.26
    nose = skin[np.abs(skin[:, 0]) < 0.02]
    assert abs(nose[:, 2].max() - 0.2) < 0.04

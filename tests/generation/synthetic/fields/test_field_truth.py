"""The truth of fields on balls whose answer is known, and on composed heads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dp360.generation.prior import capsule
from dp360.generation.prior.field.chart import MIRRORED, cell_frames
from dp360.generation.prior.field.head_field import CLOTH, HAIR, HEADGEAR, SKIN
from dp360.generation.synthetic.assets import Split, asset_index
from dp360.generation.synthetic.composed_recipe import ComposedRecipe
from dp360.generation.synthetic.fields.field_recipes import HEADS_PER_PERSON, PlainHead, field_recipe, plain_heads
from dp360.generation.synthetic.fields.field_truth import field_of_parts, hair_tokens, true_field
from dp360.generation.synthetic.hair.haircuts import haircut_split
from dp360.generation.synthetic.parts import Part
from dp360.generation.synthetic.worn.solids import ball, plain_texture

HEADS = Path(__file__).parents[5] / "shared" / "data" / "heads"
needs_heads = pytest.mark.skipif(not HEADS.is_dir(), reason="needs the head assets")
SKULL = np.full((56, 64), 0.12, np.float32)
UPPER = slice(0, 26)  # rows of the half sphere, where a ball about the chart's centre has one radius
MIDDLE = np.array([0.0, capsule.CENTRE_Y, 0.0])
WHITE = (1.0, 1.0, 1.0)
UNKNOWN = np.full(4, np.nan, np.float32)


def sphere(name: str, radius: float, rgb: tuple[float, float, float], alpha: float = 1.0) -> Part:
    made = ball(name, MIDDLE, radius, plain_texture(rgb, alpha), specular=0.0, rows=48)
    # turned, so that no ray runs along an edge, where it would meet two triangles or none
    points = (made.vertices_world - MIDDLE) @ Rotation.from_rotvec([0.31, 0.17, 0.53]).as_matrix().T + MIDDLE
    return replace(made, vertices_world=points, alpha_tested=alpha < 1)


def combed_back(part: Part, length: float) -> Part:
    """The ball as hair that all runs backwards."""
    n = len(part.vertices_world)
    return replace(part, tangents_world=np.tile([0.0, 0.0, -1.0], (n, 1)), fibre_lengths=np.full(n, length))


def test_a_ball_of_hair_is_as_thick_as_it_is_and_runs_as_it_is_combed() -> None:
    skin, hair = sphere("skin", 0.1, (0.8, 0.6, 0.5)), combed_back(sphere("hair", 0.15, (0.3, 0.2, 0.1)), 0.4)
    field = field_of_parts((skin, hair), SKULL, UNKNOWN)
    np.testing.assert_allclose(field.thickness[UPPER], 0.03, atol=6e-4)
    assert (field.material[HAIR, UPPER] == 1).all() and (field.flow_certainty[UPPER] == 1).all()
    np.testing.assert_allclose(field.flow_world()[UPPER], np.broadcast_to([0, 0, -1.0], (26, 64, 3)), atol=1e-5)
    np.testing.assert_allclose(field.strand_length, 0.4, atol=1e-6)
    np.testing.assert_allclose(field.disorder, 0, atol=1e-3)
    for albedo, rgb in ((field.cover_albedo, (0.3, 0.2, 0.1)), (field.skin_albedo, (0.8, 0.6, 0.5))):
        np.testing.assert_allclose(albedo, np.broadcast_to(np.array(rgb)[:, None, None], albedo.shape), atol=3e-3)
    np.testing.assert_allclose(field.cloth_albedo, 0.5)  # there is none
    assert field.tokens[3] == pytest.approx(0, abs=1e-3)


def test_light_that_passes_does_not_count() -> None:
    skin, thin = sphere("skin", 0.12, (0.8, 0.6, 0.5)), sphere("hair", 0.2, (0.3, 0.2, 0.1), 0.3)
    assert not field_of_parts((skin, thin), SKULL, UNKNOWN).presence[UPPER].any()
    hat, dense = sphere("headgear", 0.16, (0.9, 0.1, 0.1)), sphere("hair", 0.2, (0.3, 0.2, 0.1), 0.6)
    field = field_of_parts((skin, thin, hat), SKULL, UNKNOWN)
    assert (field.material[HEADGEAR, UPPER] == 1).all()
    np.testing.assert_allclose(field.cover_albedo[:, 5, 5], (0.9, 0.1, 0.1), atol=3e-3)
    assert (field_of_parts((skin, dense, hat), SKULL, UNKNOWN).material[HAIR, UPPER] == 1).all()
    assert (
        field_of_parts((skin, sphere("clothes", 0.2, (0.0, 0.0, 1.0))), SKULL, UNKNOWN).material[CLOTH, UPPER] == 1
    ).all()


def test_hair_that_runs_both_ways_has_no_direction() -> None:
    hair = sphere("hair", 0.15, (0.3, 0.2, 0.1), 0.5)
    there, back = combed_back(hair, 0.1), combed_back(sphere("hair", 0.151, (0.3, 0.2, 0.1), 0.34), 0.1)
    assert there.tangents_world is not None
    there = replace(there, tangents_world=-there.tangents_world)
    field = field_of_parts((sphere("skin", 0.1, WHITE), there, back), SKULL, UNKNOWN)
    assert field.disorder[5, 5] > 0.8 or field.flow_certainty[5, 5] == 0


def test_the_seam_and_the_crown_are_like_any_other_place() -> None:
    """A ball that touches the head over the seam, or over the crown, gives what it gives elsewhere."""
    skin, r = sphere("skin", 0.12, WHITE), 0.03
    frames = cell_frames()

    def bump(at: np.ndarray) -> np.ndarray:
        made = ball("hair", at, r, plain_texture((0.3, 0.2, 0.1)), specular=0.0, rows=32)
        return field_of_parts((skin, made), SKULL, UNKNOWN).presence

    side, seam = (bump((frames.origins_world + 0.12 * frames.outward)[27, column]) for column in (16, 0))
    np.testing.assert_allclose(np.roll(side, -16, axis=1), seam, atol=1e-6)
    crown = bump(np.add(MIDDLE, [0, 0.12, 0]))
    assert crown[:4].mean() > 0.95 and np.ptp(crown[0]) == 0 and not crown[12:].any()
    np.testing.assert_allclose(crown[:, 3], crown[:, 35], atol=0.12)  # a ray


@needs_heads
def test_a_mirrored_head_gives_the_mirrored_field() -> None:
    for head in plain_heads([0, 1], HEADS, "train", 0):
        mirror = np.array([-1.0, 1, 1])
        parts = [
            replace(
                part,
                vertices_world=part.vertices_world * mirror,
                tangents_world=None if part.tangents_world is None else part.tangents_world * mirror,
            )
            for part in head.parts
        ]
        there = true_field(head).mirrored()
        back = field_of_parts(parts, head.skull_radius[:, MIRRORED], hair_tokens(head.recipe.hair))
        assert (np.abs(there.thickness - back.thickness) > 1e-5).mean() < 2e-3
        assert (np.abs(there.flow - back.flow).max(0) > 1e-4).mean() < 2e-3
        assert (np.abs(there.material - back.material).max(0) > 1e-4).mean() < 2e-3
        assert np.abs(there.cover_albedo - back.cover_albedo).mean() < 1e-4


@needs_heads
def test_bald_heads_are_bald_and_people_share_their_skull() -> None:
    numbers = range(HEADS_PER_PERSON)
    heads = list(plain_heads(numbers, HEADS, "validation", 3))
    assert all(np.array_equal(head.skull_radius, heads[0].skull_radius) for head in heads)
    recipe = replace(heads[0].recipe, hair=replace(heads[0].recipe.hair, kind="bald", name=""))
    skin = next(part for part in heads[0].parts if part.name == "skin")
    bald = true_field(PlainHead(recipe, (replace(skin, labels=np.full((1, 1), 1, np.uint8)),), heads[0].skull_radius))
    assert not bald.presence.any() and (bald.material[SKIN] == 1).all() and np.isnan(bald.tokens).all()
    forehead, crown = bald.skin_albedo[:, 18, 0], bald.skin_albedo[:, 2, 30]
    assert np.abs(forehead - crown).max() < 0.25


def test_recipes_respect_the_split_and_follow_from_number_and_seed() -> None:
    splits: tuple[Split, ...] = ("train", "validation", "held_out")
    people: dict[Split, list[ComposedRecipe]] = {s: [field_recipe(n, s, 0) for n in range(30)] for s in splits}
    for split, recipes in people.items():
        named = asset_index().of("cut", split)
        cuts = [r.hair.name for r in recipes if r.hair.kind == "cut"]
        assert all(name in named or haircut_split(name) == split for name in cuts)
        assert 0.02 < np.mean([name in named for name in cuts]) < 0.5
        assert len({r.identity for r in recipes}) >= 9 and {r.style for r in recipes} == {"photo"}
    identities = [{r.identity for r in recipes} for recipes in people.values()]
    assert not identities[0] & identities[1] and not identities[0] & identities[2]
    assert field_recipe(7, "train", 0) == people["train"][7] != field_recipe(7, "train", 1)
    assert people["train"][6].identity == people["train"][8].identity != people["train"][9].identity
    assert people["train"][6].hair != people["train"][8].hair

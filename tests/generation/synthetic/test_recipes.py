"""Recipes and their split: names only, so thousands of them cost seconds."""

from dataclasses import replace
from itertools import pairwise
from typing import cast

import pytest

from dp360.generation.synthetic.assets import SPLITS, AssetIndex, Kind, asset_index, choose
from dp360.generation.synthetic.composed_recipe import ComposedRecipe, sample_recipe
from dp360.generation.synthetic.hair.cuts import CUTS

SHARED = ("iris",)
"""Kinds whose assets all splits may draw: an iris is neither a person nor hair."""


@pytest.fixture(scope="module")
def recipes() -> dict[str, list[ComposedRecipe]]:
    return {split: [sample_recipe(seed, asset_index(), split) for seed in range(800)] for split in SPLITS}


def test_no_asset_is_in_two_splits() -> None:
    for kind, by_split in asset_index().names.items():
        names = [name for split in SPLITS for name in by_split[split]]
        assert kind in SHARED or len(names) == len(set(names)), kind
    ranges = sorted(asset_index().shape_identity_ranges.values())
    assert all(first[1] <= second[0] for first, second in pairwise(ranges))


def test_people_skins_and_hair_of_one_split_never_appear_in_another(recipes: dict[str, list[ComposedRecipe]]) -> None:
    drawn = {split: {a for r in recipes[split] for a in r.assets} for split in SPLITS}
    for first in SPLITS:
        for second in SPLITS:
            assert first == second or not drawn[first] & drawn[second]
    kinds = {a.split("/")[0] for a in drawn["train"]}
    assert {"identity", "bust", "toon", "skin", "card_hair", "strand_hair", "cut", "garment", "headgear"} <= kinds


def test_what_a_split_draws_is_what_the_file_allows(recipes: dict[str, list[ComposedRecipe]]) -> None:
    index = asset_index()
    for split in SPLITS:
        low, high = index.shape_identity_ranges[split]
        for recipe in recipes[split]:
            for kind, name in (asset.split("/", 1) for asset in recipe.assets):
                allowed = low <= int(name) < high if kind == "identity" else name in index.of(cast(Kind, kind), split)
                assert allowed, (split, kind, name)


def test_every_training_asset_of_people_and_hair_is_drawn(recipes: dict[str, list[ComposedRecipe]]) -> None:
    drawn = {a for r in recipes["train"] for a in r.assets}
    for kind in ("bust", "skin", "card_hair", "strand_hair", "cut", "headgear", "glasses", "garment"):
        assert {f"{kind}/{name}" for name in asset_index().of(kind, "train")} <= drawn


def test_all_cuts_of_the_split_exist() -> None:
    listed = {name for split in SPLITS for name in asset_index().of("cut", split)}
    assert listed == set(CUTS)


def test_every_skin_comes_with_dark_and_light_hair(recipes: dict[str, list[ComposedRecipe]]) -> None:
    brightness = {}
    for recipe in recipes["train"]:
        if recipe.skin:
            brightness.setdefault(recipe.skin, []).append(sum(recipe.hair.rgb) / 3)
    for skin, values in brightness.items():
        assert min(values) < 0.15 and max(values) > 0.5, skin


def test_recipes_repeat_and_differ(recipes: dict[str, list[ComposedRecipe]]) -> None:
    assert [sample_recipe(s, asset_index(), "train") for s in range(40)] == recipes["train"][:40]
    assert len(set(recipes["train"])) == len(recipes["train"])


def test_a_new_asset_changes_only_the_heads_that_draw_it(recipes: dict[str, list[ComposedRecipe]]) -> None:
    index = asset_index()
    cuts = {**index.names["cut"], "train": (*index.names["cut"]["train"], "new_cut")}
    larger = replace(index, names={**index.names, "cut": cuts})
    assert isinstance(larger, AssetIndex)
    changed = 0
    for seed, before in enumerate(recipes["train"][:400]):
        after = sample_recipe(seed, larger, "train")
        if after != before:
            changed += 1
            assert after.hair.name == "new_cut"
            assert replace(after, hair=replace(after.hair, name=before.hair.name)) == before
    assert 3 < changed < 40


def test_names_are_drawn_by_weight() -> None:
    drawn = [choose(seed, "test", ("a", "b", "never"), {"a": 3.0, "never": 0.0}) for seed in range(2000)]
    assert drawn.count("never") == 0
    assert drawn.count("a") / len(drawn) == pytest.approx(0.75, abs=0.04)

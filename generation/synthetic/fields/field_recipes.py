"""Heads whose fields are learned from: people as everywhere, in other haircuts and hats than `composed_recipe` draws.

`HEADS_PER_PERSON` neighbouring numbers are one person in one garment with different hair and headgear: the body, which
costs most, is made once.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from ...prior import capsule
from ...prior.field.chart import of_capsule
from ..assets import Split, asset_index, choose, field_rng, sub_seed
from ..bodies.compose_shape import dressed_body, plain_head
from ..composed_recipe import ComposedRecipe, HairRecipe, draw_hair_colour, draw_wear, sample_recipe
from ..hair.haircuts import choose_haircut
from ..parts import Part

HEADS_PER_PERSON = 3
_BALD_MEN, _BALD_WOMEN, _CARDS, _ASSET_STRANDS, _COMPOSED = 0.05, 0.015, 0.055, 0.045, 0.15
"""How often heads have no hair, hair as cards, strands of an asset, and hair as `composed_recipe` draws it; all others
wear a drawn haircut."""
_HEADGEAR = 0.27
_HEADGEAR_WEIGHTS = {"wizard_hat": 0.4, "crown": 0.4, "fedora": 0.8}


@dataclass(frozen=True)
class PlainHead:
    """A composed head without face and light."""

    recipe: ComposedRecipe
    """What it was made from."""
    parts: tuple[Part, ...]
    """What covers it, and its skin."""
    skull_radius: Float32[np.ndarray, "56 64"]
    """Of the head without ears and nose, on the chart of fields."""


def field_recipe(number: int, split: Split, seed: int) -> ComposedRecipe:
    """The recipe of a head.

    Args:
        number: at least 0; numbers of one person differ in hair and headgear only.
        split: whose people, haircuts and things.
        seed: other seeds give other people.
    """
    person, variant = divmod(number, HEADS_PER_PERSON)
    assets = asset_index()
    recipe = _person(person, split, seed)
    own = sub_seed(recipe.seed, f"variant {variant}")
    hair = _hair(own, split, recipe.male, recipe.age)
    hatted = field_rng(own, "field/headgear").random() < _HEADGEAR
    names = assets.of("headgear", split)
    change = field_rng(own, "field/headgear_change").normal(0, (3.0, 4.0, 4.0, 0.5))
    front, side, back, puff = np.clip(change, (-6, -8, -8, -0.3), (4, 8, 8, 1.2))
    wear = replace(
        recipe.wear,
        headgear=choose(own, "headgear", names, _HEADGEAR_WEIGHTS) if hatted else "",
        headgear_rgb=draw_wear(own, assets, split, recipe.male).headgear_rgb,
        headgear_change=(float(front), float(side), float(back), float(puff)),
    )
    return replace(recipe, seed=own, hair=hair, wear=wear)


def drawn_recipe(number: int, split: Split, seed: int) -> ComposedRecipe:
    """The recipe of a head that portraits are drawn of: every other one is of `composed_recipe`.

    Even numbers wear drawn haircuts; odd ones are of all kinds, sculpted busts, toons, beards and drawings as well.

    Args:
        number, split, seed: as of `field_recipe`.
    """
    if number % 2 == 0:
        return field_recipe(number, split, seed)
    return sample_recipe(sub_seed(seed, f"drawn {number}"), asset_index(), split)


@functools.lru_cache(maxsize=4)
def _person(person: int, split: Split, seed: int) -> ComposedRecipe:
    drawn = sample_recipe(sub_seed(seed, f"field person {person}"), asset_index(), split, base="shape")
    return replace(drawn, style="photo", exaggeration=0.0)


def _hair(seed: int, split: Split, male: float, age: float) -> HairRecipe:
    kind = field_rng(seed, "field/hair_kind").random()
    bald = _BALD_MEN * male + _BALD_WOMEN * (1 - male)
    if kind < bald:
        return HairRecipe("bald")
    if field_rng(seed, "field/hair_composed").random() < _COMPOSED:
        return sample_recipe(seed, asset_index(), split, base="shape").hair
    numbers = field_rng(seed, "field/hair_numbers")
    rgb, tip, grey = draw_hair_colour(field_rng(seed, "hair_colour"), age)
    hair = HairRecipe(
        "cut", "", rgb, tip, grey, length=float(np.exp(numbers.normal(0, 0.08))),
        volume=float(np.exp(numbers.normal(0, 0.12))), parting_x=float(numbers.uniform(-0.06, 0.06)),
        wet=float(numbers.uniform(0.3, 1.0)) if numbers.random() < 0.05 else 0.0,
        messy=float(numbers.uniform(0.05, 0.75)),
    )  # fmt: skip
    if kind < bald + _CARDS:
        return replace(hair, kind="card", name=choose(seed, "card", asset_index().of("card_hair", split)))
    if kind < bald + _CARDS + _ASSET_STRANDS:
        return replace(hair, kind="strand", name=choose(seed, "strand", asset_index().of("strand_hair", split)))
    return replace(hair, name=choose_haircut(seed, split, male))


def plain_heads(numbers: Sequence[int], data: Path, split: Split, seed: int) -> Iterator[PlainHead]:
    """The heads of numbers in turn; neighbours share their body.

    Args:
        numbers: of heads, at least 0.
        data: folder of the head assets.
        split, seed: as of `field_recipe`.
    """
    for person, group in itertools.groupby(numbers, lambda number: number // HEADS_PER_PERSON):
        body = dressed_body(_person(person, split, seed), data)
        skull = of_capsule(capsule.opened_skull_radius(*body.bald)).astype(np.float32)
        for number in group:
            recipe = field_recipe(number, split, seed)
            parts = plain_head(recipe, body)
            yield PlainHead(recipe, tuple(part for part in parts if len(part.faces)), skull)

"""Composed heads: from a recipe to parts in the world frame."""

from __future__ import annotations

from pathlib import Path

from .bodies.compose_bust import compose_bust
from .bodies.compose_shape import compose_shape
from .bodies.compose_toon import compose_toon
from .composed_recipe import ComposedRecipe
from .parts import SyntheticHead
from .portraits.stylise import stylised_head

_BUILDERS = {"shape": compose_shape, "bust": compose_bust, "toon": compose_toon}


def compose(recipe: ComposedRecipe, data: Path) -> SyntheticHead:
    """The head of a recipe.

    Args:
        recipe: as `recipe.sample_recipe` draws it.
        data: folder of the head assets, with `makehuman`, `valid` ... inside.

    Returns:
        Parts in world units; the same recipe gives the same bytes.
    """
    parts = tuple(part for part in _BUILDERS[recipe.base](recipe, data) if len(part.faces))
    return stylised_head(SyntheticHead(recipe.name, parts, recipe.assets, recipe.style), recipe.exaggeration)

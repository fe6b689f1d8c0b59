"""Composed heads: from a recipe to parts in the world frame."""

from __future__ import annotations

from pathlib import Path

from .parts import (
    CROWN_TO_CHIN,
    EYES_WORLD,
    Part,
    SyntheticHead,
    read_texture,
    vertex_normals,
    world_from_asset,
)
from .recipe import HeadRecipe
from .rendering.simple_render import Lights, render, studio_lights

__all__ = [
    "CROWN_TO_CHIN",
    "EYES_WORLD",
    "Lights",
    "Part",
    "SyntheticHead",
    "compose",
    "read_texture",
    "render",
    "studio_lights",
    "vertex_normals",
    "world_from_asset",
]


def compose(recipe: HeadRecipe, data: Path) -> SyntheticHead:
    """The head of a recipe.

    Args:
        recipe: as `recipe.sample_recipe` draws it.
        data: folder of the head assets, with `makehuman`, `valid` ... inside.

    Returns:
        Parts in world units; the same recipe gives the same bytes.
    """
    from .bodies.compose_bust import compose_bust
    from .bodies.compose_shape import compose_shape
    from .bodies.compose_toon import compose_toon
    from .portraits.stylise import stylised_head

    builders = {"shape": compose_shape, "bust": compose_bust, "toon": compose_toon}
    return stylised_head(builders[recipe.base](recipe, data), recipe)

"""Composed heads: from a recipe to parts in the world frame."""

from __future__ import annotations

from pathlib import Path

from .parts import CROWN_TO_CHIN as CROWN_TO_CHIN
from .parts import EYES_WORLD as EYES_WORLD
from .parts import Part as Part
from .parts import SyntheticHead as SyntheticHead
from .parts import read_texture as read_texture
from .parts import vertex_normals as vertex_normals
from .parts import world_from_asset as world_from_asset
from .recipe import HeadRecipe
from .simple_render import Lights as Lights
from .simple_render import render as render
from .simple_render import studio_lights as studio_lights


def compose(recipe: HeadRecipe, data: Path) -> SyntheticHead:
    """The head of a recipe.

    Args:
        recipe: as `recipe.sample_recipe` draws it.
        data: folder of the head assets, with `makehuman`, `valid` ... inside.

    Returns:
        Parts in world units; the same recipe gives the same bytes.
    """
    from .compose_bust import compose_bust
    from .compose_shape import compose_shape
    from .compose_toon import compose_toon
    from .stylise import stylised_head

    builders = {"shape": compose_shape, "bust": compose_bust, "toon": compose_toon}
    return stylised_head(builders[recipe.base](recipe, data), recipe)

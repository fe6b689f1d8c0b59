"""Composed heads: from a recipe to parts in the world frame."""

from __future__ import annotations

from .parts import CROWN_TO_CHIN as CROWN_TO_CHIN
from .parts import EYES_WORLD as EYES_WORLD
from .parts import Part as Part
from .parts import SyntheticHead as SyntheticHead
from .parts import read_texture as read_texture
from .parts import vertex_normals as vertex_normals
from .parts import world_from_asset as world_from_asset
from .simple_render import Lights as Lights
from .simple_render import render as render
from .simple_render import studio_lights as studio_lights

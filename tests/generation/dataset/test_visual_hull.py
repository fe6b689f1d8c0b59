"""The visual hull: what it carves, and what it says nothing about."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dp360.generation import ViewSet
from dp360.generation.dataset.visual_hull import OUTSIDE_SHARE, hull_points, outside_votes


def outside(places: Float[Tensor, "p 3"], views: ViewSet, **options: object) -> list[bool]:
    """Where more views show nothing than may be wrong."""
    against, seen = outside_votes(places, solid(views), views.cameras, **options)  # pyright: ignore[reportArgumentType]
    return (against > OUTSIDE_SHARE * seen).tolist()


def solid(views: ViewSet) -> Bool[Tensor, "n h w"]:
    return views.rgba[..., 3] >= 128


def test_the_hull_of_a_sphere_is_the_sphere(make_sphere_views):
    """Pictures twice as wide as the sphere: every cell is in every frame, and the surface is found to a cell."""
    views = make_sphere_views(ring_count=16, size_px=96)
    wide = replace(views.cameras, focal_px=views.cameras.focal_px / 2)
    rgba = torch.zeros_like(views.rgba)
    rgba[:, 24:72, 24:72] = views.rgba[:, ::2, ::2]
    points = hull_points(rgba, wide, reach=0.6)
    radius = points.points_world.norm(dim=-1)
    equator = points.points_world[:, 1].abs() < 0.15
    assert len(radius) > 3000 and 0.27 < float(radius.min()) and float(radius[equator].max()) < 0.33
    outward = torch.nn.functional.normalize(points.points_world, dim=-1)
    assert float((outward * points.normals_world).sum(dim=-1).median()) > 0.95


def test_places_out_of_every_frame_are_not_outside(make_sphere_views):
    views = make_sphere_views()
    places = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.31, 0.0], [0.0, 5.0, 0.0]])
    level = views.select(range(8))
    assert outside(places, level) == [False, True, False]
    assert outside(places, level, margin_px=3) == [False, False, False]


def test_views_that_are_not_trusted_have_no_vote(make_sphere_views):
    views = make_sphere_views()
    views.rgba[2] = 0  # shows nothing at all
    trust = torch.ones(len(views))
    middle = torch.zeros(1, 3)
    assert outside(middle, views, trust=trust) == [True]
    trust[2] = 0
    assert outside(middle, views, trust=trust) == [False]

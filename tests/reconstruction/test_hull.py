"""The visual hull: what it carves, what it says nothing about, and what it drops from a fit."""

from __future__ import annotations

from dataclasses import replace

import torch

from dp360.generation import OrbitConfig
from dp360.reconstruction.densify import DensifyConfig, keep_only
from dp360.reconstruction.fit import LearningRates, make_optimizers, parameters_from_splats
from dp360.reconstruction.hull import Silhouettes, hull_points, outside_hull, share_outside_hull
from dp360.reconstruction.splats import Splats, splats_from_point_cloud


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
    level = replace(views, rgba=views.rgba[:8], cameras=views.cameras[:8], confidence=views.confidence[:8],
                    names=views.names[:8])  # fmt: skip
    assert outside_hull(places, level.alpha_unit, level.cameras).tolist() == [False, True, False]
    assert outside_hull(places, level.alpha_unit, level.cameras, margin_px=3).tolist() == [False, False, False]


def test_views_that_are_not_trusted_have_no_vote(make_sphere_views):
    views = make_sphere_views()
    alpha = views.alpha_unit.clone()
    alpha[2] = 0  # shows nothing at all
    trust = torch.ones(len(views))
    middle = torch.zeros(1, 3)
    assert bool(outside_hull(middle, alpha, views.cameras, trust=trust))
    trust[2] = 0
    assert not bool(outside_hull(middle, alpha, views.cameras, trust=trust))


def test_floaters_and_needles_are_counted_and_floaters_dropped(make_sphere_views):
    views = make_sphere_views(ring_count=8, size_px=96, points=600)
    small = replace(views.surface, points_world=0.8 * views.surface.points_world)
    splats = splats_from_point_cloud(small)
    splats = replace(splats, log_scales=splats.log_scales.clamp_max(-4.6))
    assert share_outside_hull(splats, views.rgba, views.cameras) == 0
    cameras = OrbitConfig(8, upper_count=2, lower_count=0).cameras(96)
    means, scales = splats.means_world.clone(), splats.log_scales.clone()
    means[:60] = torch.tensor([0.28, 0.28, 0.0])
    scales[60] = torch.tensor([-4.6, -4.6, 0.0])
    bad = Splats(means, scales, splats.quats_wxyz, splats.opacity_logits, splats.sh0, splats.sh_rest)
    share = share_outside_hull(bad, views.rgba, cameras)
    assert share > 0.05
    params = parameters_from_splats(bad)
    optimizers = make_optimizers(params, LearningRates())
    for name, param in params.items():
        param.grad = torch.ones_like(param)
        optimizers[name].step()
    outside = Silhouettes(views.alpha_unit, cameras).outside(bad.means_world, DensifyConfig(), torch.ones(len(views)))
    keep_only(params, optimizers, ~outside)
    assert outside[:60].all() and not outside[60:].any() and len(params["means"]) == 540
    assert optimizers["means"].state[params["means"]]["exp_avg"].shape == (540, 3)
    never = replace(DensifyConfig(), hull_margin=-1.0)
    assert not Silhouettes(views.alpha_unit, cameras).outside(bad.means_world, never, torch.ones(10)).any()

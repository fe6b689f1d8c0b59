"""Laws of the hair's flow: it follows what is seen, points from root to tip, and knows neither seam nor side."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from dp360.generation import Cameras, look_at_origin
from dp360.generation.head_model import load_head_model
from dp360.generation.portrait import Portrait
from dp360.generation.prior import HeadPrior, capsule
from dp360.generation.prior.field.head_field import HAIR, HeadField
from dp360.generation.prior.field.portrait_observation import field_of_portrait
from dp360.generation.prior.hair import flow_field
from dp360.generation.prior.hair.flow_field import (
    FlowSolver,
    HairFlow,
    fit_hair_flow,
    grid_normals,
    way_from_source,
)
from dp360.generation.prior.hair.hair_shell import HairShell, fit_hair_shell
from dp360.generation.prior.hair.orientation import SeenOrientation
from dp360.generation.prior.labels.portrait_labels import PortraitLabels

BACKWARDS = (-np.arange(capsule.COLUMNS)) % capsule.COLUMNS
MIRROR = np.array([-1.0, 1.0, 1.0])
SIZE = 256


def stripes(angle_rad: float, size: int = SIZE) -> np.ndarray:
    """A picture of stripes that run at this angle, x to the right and y down."""
    y, x = np.mgrid[:size, :size]
    wave = 0.5 + 0.3 * np.sin((x * math.sin(angle_rad) - y * math.cos(angle_rad)) * (2 * math.pi / 6))
    return np.repeat(wave[..., None], 3, axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def skull() -> np.ndarray:
    model = load_head_model()
    return capsule.opened_skull_radius(model.neutral, model.skin_faces)


@pytest.fixture(scope="module")
def cap(skull: np.ndarray) -> HairShell:
    """Hair of one thickness above the brows in front and above the nape behind."""
    _, y, z = np.moveaxis(capsule.surface_points(skull), -1, 0)
    thickness = np.where(y > np.where(z > 0, 0.08, -0.1), 0.02, -0.02)
    return HairShell(thickness, skull + thickness)


@pytest.fixture(scope="module")
def field(portrait: Portrait, prior: HeadPrior) -> HeadField:
    return field_of_portrait(portrait, prior.portrait_labels, load_head_model())[0]


@pytest.fixture(scope="module")
def shell(portrait: Portrait, prior: HeadPrior, field: HeadField) -> HairShell:
    return fit_hair_shell(portrait, prior.portrait_labels, load_head_model(), field)


@pytest.fixture(scope="module")
def flow(portrait: Portrait, prior: HeadPrior, shell: HairShell, field: HeadField) -> HairFlow:
    return fit_hair_flow(portrait, prior.portrait_labels, shell, field)


def running(field: HeadField, down: float, around: float) -> HeadField:
    """Hair all over that runs one way on the chart."""
    material = np.zeros_like(field.material)
    material[HAIR] = 1
    everywhere = np.ones_like(field.thickness)
    flow = np.stack([down * everywhere, around * everywhere, 0 * everywhere])
    return dataclasses.replace(field, material=material, flow=flow, flow_certainty=everywhere)


def combed(portrait: Portrait, labels: PortraitLabels, angle_rad: float) -> tuple[Portrait, PortraitLabels]:
    """The portrait as hair all over that runs at one angle, seen from the front."""
    size = portrait.size_px
    full, none = np.ones((size, size), bool), np.zeros((size, size), bool)
    head = dataclasses.replace(portrait.head, camera=look_at_origin([0.0], [0.0], size_px=size))
    picture = dataclasses.replace(
        portrait, foreground_unit=stripes(angle_rad, size), alpha_unit=full.astype(np.float32), inside=full, head=head
    )
    return picture, dataclasses.replace(labels, hair=full, skin=none, cloth=none)


@pytest.mark.parametrize("angle_deg", [0, 20, 45, 90, 130, 170])
def test_orientation_of_stripes_is_theirs(angle_deg: int) -> None:
    seen = SeenOrientation.of_picture(stripes(math.radians(angle_deg)), np.ones((SIZE, SIZE), bool))
    inner = seen.doubled[40:-40, 40:-40]
    angle = 0.5 * np.arctan2(inner[..., 1], inner[..., 0])
    difference = (angle - math.radians(angle_deg) + math.pi / 2) % math.pi - math.pi / 2
    assert np.abs(difference).max() < math.radians(2)
    assert seen.weight[40:-40, 40:-40].min() > 0.8


def test_nothing_is_read_where_no_hair_is() -> None:
    hair = np.zeros((SIZE, SIZE), bool)
    hair[:, 128:] = True
    seen = SeenOrientation.of_picture(stripes(1.0), hair)
    assert (seen.weight[:, :128] == 0).all() and seen.weight[:, 140:-12].mean() > 0.5


@pytest.mark.parametrize("angle_deg", [30, 90, 150])
def test_lifted_tangents_project_onto_the_stripes(angle_deg: int) -> None:
    angle = math.radians(angle_deg)
    seen = SeenOrientation.of_picture(stripes(angle), np.ones((SIZE, SIZE), bool))
    camera = look_at_origin([0.4], [0.2], size_px=SIZE)
    rng = np.random.default_rng(0)
    normals = rng.standard_normal((400, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    points = 0.2 * normals
    tangents, weight = seen.on_surface(camera, points, normals)
    to_camera = camera.position_world[0].numpy() - points
    cosine = (normals * to_camera).sum(-1) / np.linalg.norm(to_camera, axis=-1)
    assert (weight[cosine < 0.2] == 0).all()
    plain = weight > 0.5
    assert plain.sum() > 60
    np.testing.assert_allclose((tangents * normals).sum(-1)[plain], 0, atol=1e-9)
    ends = [camera.project(torch.from_numpy(points + step * tangents))[0, :, :2].numpy() for step in (-1e-4, 1e-4)]
    moved = (ends[1] - ends[0])[plain]
    along = np.abs(moved @ np.array([math.cos(angle), math.sin(angle)])) / np.linalg.norm(moved, axis=1)
    assert along.min() > math.cos(math.radians(3))


@pytest.mark.parametrize("angle_deg", [60, 90, 120])
def test_a_comb_is_followed_from_root_to_tip(
    portrait: Portrait, prior: HeadPrior, cap: HairShell, field: HeadField, angle_deg: int
) -> None:
    picture, labels = combed(portrait, prior.portrait_labels, math.radians(angle_deg))
    flow = fit_hair_flow(picture, labels, cap, field)
    plainly = (flow.seen > 0.8) & (flow.points_world[..., 1] < 0.1) & (flow.points_world[..., 2] > 0)
    assert plainly.sum() > 30
    direction = flow.direction_world[plainly]
    in_picture = np.stack([direction[:, 0], -direction[:, 1]], axis=1)  # the camera stands in front
    in_picture /= np.linalg.norm(in_picture, axis=1, keepdims=True)
    comb = np.array([math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))])  # downwards
    assert np.median(in_picture @ comb) > math.cos(math.radians(8))
    assert (in_picture @ comb > 0).mean() > 0.98


def test_the_flow_lies_in_the_surface_and_falls_at_the_back(flow: HairFlow) -> None:
    np.testing.assert_allclose(np.linalg.norm(flow.direction_world, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose((flow.direction_world * flow.normals_world).sum(-1), 0, atol=1e-6)
    x, y, z = np.moveaxis(flow.points_world, -1, 0)
    back = (z < -0.08) & (y < 0.02) & (y > -0.08) & (np.abs(x) < 0.05)
    assert flow.direction_world[back][:, 1].max() < -0.7
    assert (flow.seen[back] < 0.05).all() and flow.seen.max() > 0.3


def test_the_field_knows_no_seam(skull: np.ndarray) -> None:
    turned = 37
    points = capsule.surface_points(skull)
    normals = grid_normals(points)
    observed = np.cross(normals, np.array([0.3, 1.0, 0.2]))
    observed /= np.linalg.norm(observed, axis=-1, keepdims=True)
    weight = np.zeros(skull.shape)
    weight[30:50, 5:25], weight[40:60, -12:] = 1.0, 0.7
    usual = 0.01 * np.cross(normals, np.array([0.1, 0.3, 1.0]))
    angle = turned * 2 * math.pi / capsule.COLUMNS
    turn = np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])

    def rolled(vectors: np.ndarray) -> np.ndarray:
        return np.roll(vectors, turned, axis=1) @ turn.T

    straight = FlowSolver(points, normals, usual).solve(observed, weight)
    there = FlowSolver(rolled(points), rolled(normals), rolled(usual)).solve(
        rolled(observed), np.roll(weight, turned, 1)
    )
    np.testing.assert_allclose(there, rolled(straight), atol=1e-6)


def test_the_pole_is_one_place(flow: HairFlow) -> None:
    def turn_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1)))

    direction = flow.direction_world
    assert turn_deg(direction[:1], direction[:1, :1]).max() < 0.1
    assert turn_deg(direction[1:4], np.roll(direction[1:4], 1, axis=1)).max() < 30


def test_a_mirrored_portrait_gets_the_mirrored_flow(
    portrait: Portrait, prior: HeadPrior, shell: HairShell, flow: HairFlow, field: HeadField
) -> None:
    camera = portrait.head.camera
    T = camera.T_world_camera.clone()
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=T.dtype))
    principal = camera.principal_px.clone()
    principal[:, 0] = camera.width - principal[:, 0]
    mirrored_camera = Cameras(flip @ T @ flip, camera.focal_px, principal, camera.width, camera.height)

    def flipped(image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(image[:, ::-1])

    mirrored = dataclasses.replace(
        portrait,
        foreground_unit=flipped(portrait.foreground_unit),
        alpha_unit=flipped(portrait.alpha_unit),
        inside=flipped(portrait.inside),
        head=dataclasses.replace(portrait.head, camera=mirrored_camera),
    )
    labels = prior.portrait_labels
    labels = dataclasses.replace(labels, **{name: flipped(getattr(labels, name)) for name in ("hair", "skin", "cloth")})
    turned = HairShell(shell.thickness[:, BACKWARDS], shell.radius[:, BACKWARDS])
    there = fit_hair_flow(mirrored, labels, turned, field.mirrored())
    assert there.hanging == flow.hanging
    expected = flow.direction_world[:, BACKWARDS] * MIRROR
    cosine = (there.direction_world * expected).sum(-1)
    assert np.quantile(cosine, 0.03) > math.cos(math.radians(5))  # at whorls the solve may end another way
    unmirrored = (flow.direction_world[:, BACKWARDS] * expected).sum(-1)
    assert np.quantile(unmirrored, 0.01) < 0.5


@pytest.mark.parametrize(("down", "around"), [(1.0, 0.0), (0.6, 0.8), (0.6, -0.8)])
def test_where_nothing_is_seen_hair_runs_as_the_field_says(
    portrait: Portrait, prior: HeadPrior, cap: HairShell, field: HeadField, down: float, around: float
) -> None:
    nothing = dataclasses.replace(prior.portrait_labels, hair=np.zeros_like(prior.portrait_labels.hair))
    flow = fit_hair_flow(portrait, nothing, cap, running(field, down, around))
    assert flow.look is None and not flow.hanging and not flow.seen.any()
    middle = flow.direction_world[40:70]
    round_axis = np.cross(np.array([0.0, 1.0, 0.0]), flow.points_world[40:70] * np.array([1.0, 0, 1]))
    round_axis /= np.linalg.norm(round_axis, axis=-1, keepdims=True)
    assert np.median((middle * round_axis).sum(-1)) == pytest.approx(around, abs=0.12)
    assert np.median(middle[..., 1]) < -0.5


def test_hair_is_followed_back_to_where_it_begins() -> None:
    points = capsule.surface_points(np.full((capsule.ROWS, capsule.COLUMNS), 0.15))
    normals = grid_normals(points)
    down = np.array([0.0, -1.0, 0.0]) - normals * -normals[..., 1:2]
    down /= np.maximum(np.linalg.norm(down, axis=-1, keepdims=True), 1e-9)
    everywhere = np.ones(points.shape[:2])
    way = way_from_source(points, down, everywhere)
    arc = 0.15 * np.pi / 2 * np.arange(capsule.ROWS) / capsule.SPHERE_ROWS  # from the crown
    np.testing.assert_allclose(way[8:50].mean(1), arc[8:50], atol=0.012)
    headband = everywhere.copy()
    headband[30:34] = 0
    below = way_from_source(points, down, headband)
    np.testing.assert_allclose(below[40:50].mean(1), arc[40:50] - arc[33], atol=0.012)


def test_small_spots_of_hair_on_bare_skin_are_left_out() -> None:
    presence = np.zeros((capsule.ROWS, capsule.COLUMNS))
    presence[10:30, :20] = presence[10:30, -20:] = 0.9  # one piece across the seam
    wreath = presence.copy()
    presence[60:63, 80:83] = 0.8
    np.testing.assert_array_equal(flow_field._without_islands(presence), wreath)
    np.testing.assert_array_equal(flow_field._without_islands(np.zeros_like(presence)), 0)

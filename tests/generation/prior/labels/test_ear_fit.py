"""Ears are put where they are labelled, and stay where nothing is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dp360.generation.cameras import UNITS_PER_CM, look_at_origin
from dp360.generation.head_model import HeadModel, load_head_model
from dp360.generation.mesh_raster import rasterize_mesh
from dp360.generation.portrait import Portrait
from dp360.generation.prior.labels.ear_fit import EarPlacement, find_ears, moved_ears, with_placed_ears
from dp360.generation.prior.labels.portrait_labels import PortraitLabels, ear_vertices
from dp360.generation.prior.labels.segmenter import CLASS_NAMES, EAR, FACE


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head_model()


def seen_from(portrait: Portrait, yaw_deg: float) -> Portrait:
    camera = look_at_origin([np.deg2rad(yaw_deg)], [0.0], size_px=portrait.size_px)
    inside = np.ones_like(portrait.inside)
    return replace(portrait, head=replace(portrait.head, camera=camera), inside=inside)


def labelled(portrait: Portrait, model: HeadModel, placement: EarPlacement, hidden: bool = False) -> PortraitLabels:
    """Classes of a head whose ears are placed so; `hidden` by hair."""
    vertices = moved_ears(portrait.head.vertices_world, model, placement)
    fragments = rasterize_mesh(vertices, model.skin_faces, portrait.head.camera)
    ear = np.append(ear_vertices(model)[model.skin_faces].all(1), False)[fragments.triangle_index]
    classes = np.zeros((*ear.shape, len(CLASS_NAMES)), np.float32)
    classes[..., FACE] = 1
    if not hidden:
        classes[ear] = np.eye(len(CLASS_NAMES), dtype=np.float32)[EAR]
    nothing = np.zeros(ear.shape, bool)
    return PortraitLabels(np.zeros((*ear.shape, 3)), nothing, nothing, nothing, nothing.astype(np.float32), classes)


@pytest.mark.parametrize("yaw_deg", [0.0, 35.0, -60.0])
def test_ears_are_found_where_they_are_labelled(portrait: Portrait, model: HeadModel, yaw_deg: float) -> None:
    turned = seen_from(portrait, yaw_deg)
    true = EarPlacement(np.array([0.0, -0.8, -0.6]) * UNITS_PER_CM, 1.1)
    found = find_ears(turned, labelled(turned, model, true), model)
    camera = turned.head.camera
    direction = camera.position_world[0].numpy()
    off = (found.shift_world - true.shift_world) / UNITS_PER_CM
    off[2] *= abs(direction[0]) / np.linalg.norm(direction)  # from the front nobody sees how far back an ear is
    assert np.abs(off[1:]).max() < 0.25
    assert found.scale == pytest.approx(true.scale, abs=0.06)


def test_ears_that_lie_right_stay(portrait: Portrait, model: HeadModel) -> None:
    turned = seen_from(portrait, 40.0)
    right = EarPlacement(np.zeros(3), 1.0)
    found = find_ears(turned, labelled(turned, model, right), model)
    assert np.abs(found.shift_world).max() < 0.05 * UNITS_PER_CM and found.scale == pytest.approx(1, abs=0.02)


def test_hidden_ears_change_nothing(portrait: Portrait, model: HeadModel) -> None:
    turned = seen_from(portrait, 40.0)
    labels = labelled(turned, model, EarPlacement(np.array([0.0, -0.01, 0.0]), 1.0), hidden=True)
    assert find_ears(turned, labels, model).is_none
    assert with_placed_ears(turned, labels, model) is turned


def test_only_ears_and_the_skin_about_them_move(portrait: Portrait, model: HeadModel) -> None:
    before = portrait.head.vertices_world
    after = moved_ears(before, model, EarPlacement(np.array([0.0, -0.01, 0.005]), 1.15))
    moved = np.linalg.norm(after - before, axis=1)
    assert moved[ear_vertices(model)].min() > 0.004
    distance = np.abs(before[:, None] - before[ear_vertices(model)][None, ::10]).max(-1).min(1)
    assert moved[distance > 3 * UNITS_PER_CM].max() == 0
    sides = [np.sign(model.neutral[:, 0]) == side for side in (-1, 1)]
    shift = [(after - before)[ear_vertices(model) & side].mean(0) for side in sides]
    np.testing.assert_allclose(shift[0][1:], shift[1][1:], atol=2e-3)

"""The parametric head as a function: linear in its coefficients, landmarks fixed to the skin."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dp360.generation.head_model import load_head_model, mean_head_fit
from dp360.generation.head_model.model import PART_CRANIUM_NECK, PART_EYEBALL_LEFT, PART_EYEBALL_RIGHT, PART_FACE
from dp360.generation.portrait.resample import CropFrame

seeds = st.integers(0, 2**32 - 1)


def coefficients(seed: int) -> tuple[np.ndarray, np.ndarray]:
    head = load_head_model()
    rng = np.random.default_rng(seed)
    return rng.normal(size=len(head.identity_basis)), rng.uniform(size=len(head.expression_basis))


def test_no_coefficients_give_the_mean_head() -> None:
    head = load_head_model()
    nothing = np.zeros(len(head.identity_basis)), np.zeros(len(head.expression_basis))
    np.testing.assert_array_equal(head.vertices(*nothing), head.neutral.astype(np.float64))


def test_one_coefficient_gives_its_mode() -> None:
    head = load_head_model()
    identity, expression = np.zeros(len(head.identity_basis)), np.zeros(len(head.expression_basis))
    identity[3] = -2.0
    np.testing.assert_allclose(
        head.vertices(identity, expression), head.neutral - 2 * head.identity_basis[3].astype(np.float64), atol=1e-7
    )
    blink = head.expression_names.index("eyeBlink_L")
    expression[blink], identity[3] = 1.0, 0.0
    closed = head.vertices(identity, expression)
    np.testing.assert_allclose(closed, head.neutral + head.expression_basis[blink], atol=1e-7)
    moved = np.linalg.norm(closed - head.neutral, axis=1)
    assert (head.neutral[moved > 0.5 * moved.max()][:, 0] > 0).all()  # the head's left is +x


@given(seeds, seeds, st.floats(-2, 2), st.floats(-2, 2))
@settings(max_examples=10, deadline=None)
def test_displacements_are_linear(seed_a: int, seed_b: int, s: float, t: float) -> None:
    head = load_head_model()
    (id_a, ex_a), (id_b, ex_b) = coefficients(seed_a), coefficients(seed_b)
    mixed = head.vertices(s * id_a + t * id_b, s * ex_a + t * ex_b) - head.neutral
    apart = s * (head.vertices(id_a, ex_a) - head.neutral) + t * (head.vertices(id_b, ex_b) - head.neutral)
    np.testing.assert_allclose(mixed, apart, atol=1e-9)


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_landmarks_follow_every_affine_motion_of_the_vertices(seed: int) -> None:
    head = load_head_model()
    vertices = head.vertices(*coefficients(seed))
    rng = np.random.default_rng(seed)
    A, t = rng.normal(size=(3, 3)), rng.normal(size=3)
    np.testing.assert_allclose(head.landmarks(vertices @ A.T + t), head.landmarks(vertices) @ A.T + t, atol=1e-5)


def test_landmarks_lie_in_their_triangles() -> None:
    head = load_head_model()
    points = head.landmarks(head.neutral.astype(np.float64))
    corners = head.neutral[head.landmark_vertices]
    assert points.shape == (478, 3)
    assert head.landmark_weights.min() >= -1e-6
    assert (points >= corners.min(1) - 1e-6).all() and (points <= corners.max(1) + 1e-6).all()


def test_triangles_of_parts() -> None:
    head = load_head_model()
    everything = np.unique(head.part)
    np.testing.assert_array_equal(head.faces_of(*everything.tolist()), head.faces)
    eyes = head.faces_of(PART_EYEBALL_LEFT), head.faces_of(PART_EYEBALL_RIGHT)
    assert len(eyes[0]) == len(eyes[1]) > 0
    assert head.neutral[eyes[0].ravel(), 0].min() > 0 > head.neutral[eyes[1].ravel(), 0].max()
    skin = head.faces_of(PART_FACE, PART_CRANIUM_NECK)
    assert set(np.unique(head.part[skin])) == {PART_FACE, PART_CRANIUM_NECK}


def test_the_model_is_read_once_and_names_its_file() -> None:
    head = load_head_model()
    assert head is load_head_model()
    assert head.weights_name == f"head_model-{head.version} (sha256 {head.sha256[:16]})"


def test_a_crop_moves_the_heads_picture_with_its_pixels() -> None:
    head = load_head_model()
    fit = mean_head_fit(head, 900.0, (300.0, 250.0), 640, 480)
    fit = dataclasses.replace(fit, residual_px=np.linspace(0, 4, 478))
    cropped = CropFrame((356 / 1.5, 336 / 1.5), 512 / 1.5, 512).head(fit)
    points = torch.from_numpy(head.landmarks(fit.vertices_world))
    before, after = fit.camera.project(points)[0], cropped.camera.project(points)[0]
    shift = torch.tensor([-100.0, -80.0], dtype=torch.float64)
    torch.testing.assert_close(after[:, :2], 1.5 * before[:, :2] + shift)
    torch.testing.assert_close(after[:, 2], before[:, 2])
    np.testing.assert_allclose(cropped.residual_px, 1.5 * fit.residual_px)
    assert (cropped.camera.width, cropped.camera.height) == (512, 512)

"""Fills over pictures and meshes, and which colours are skin."""

from __future__ import annotations

import numpy as np

from dp360.generation.prior.labels.skin_tone import SkinTone, chroma_of
from dp360.generation.prior.texture.atlas import fill_uncovered
from dp360.generation.prior.texture.fills import diffuse_over_mesh, push_pull, without_patches, wrapped_blur


def test_collars_are_not_skin() -> None:
    rng = np.random.default_rng(0)
    face = np.array([0.8, 0.6, 0.5]) * rng.uniform(0.5, 1.1, (500, 1)) + rng.normal(0, 0.01, (500, 3))
    tone = SkinTone.of(face, np.array([0.8, 0.6, 0.5]))
    assert np.median(tone.belief(face)) > 0.8
    assert tone.belief(np.array([[0.15, 0.2, 0.45], [0.1, 0.5, 0.2]])).max() < 0.05


def test_patches_apart_from_what_is_seen_are_dropped_and_the_seam_is_none() -> None:
    trust = np.zeros((200, 400), np.float32)
    trust[40:160, :80] = trust[40:160, -80:] = 0.9  # one piece, over the seam
    whole = trust.copy()
    trust[60:66, 200:230] = 1.0
    trust[100:120, 85:105] = 0.8
    trust[110:115, 80:85] = 0.6  # a bridge too narrow to join them
    np.testing.assert_array_equal(without_patches(trust)[:, 90:300], 0)
    np.testing.assert_array_equal(without_patches(trust)[:, :80], whole[:, :80])
    np.testing.assert_array_equal(without_patches(whole), whole)
    np.testing.assert_array_equal(without_patches(np.zeros_like(trust)), 0)


def test_push_pull_keeps_what_is_known_and_closes_the_seam() -> None:
    rng = np.random.default_rng(0)
    colour = rng.random((64, 128, 3)).astype(np.float32)
    weight = (rng.random((64, 128)) < 0.02).astype(np.float32)
    filled = push_pull(colour, weight)
    np.testing.assert_allclose(filled[weight > 0], colour[weight > 0], atol=1e-5)
    turned = push_pull(np.roll(colour, 32, 1), np.roll(weight, 32, 1))
    seam = np.abs(filled[:, 0] - filled[:, -1])[(weight[:, 0] + weight[:, -1]) == 0]
    assert seam.max() < 0.5 and np.abs(turned[:, 32] - filled[:, 0]).mean() < 0.1


def test_a_wrapped_blur_commutes_with_turning() -> None:
    image = np.random.default_rng(0).random((20, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(
        np.roll(wrapped_blur(image, 2.0, 5.0), 17, 1), wrapped_blur(np.roll(image, 17, 1), 2.0, 5.0), atol=1e-5
    )


def test_fills_over_a_mesh_stay_between_what_is_held() -> None:
    faces = np.array([[i, i + 1, i + 2] for i in range(48)])
    weight = np.zeros(50)
    weight[[0, 49]] = 1.0
    values = np.linspace(0, 1, 50)[:, None] * weight[:, None]
    filled = diffuse_over_mesh(values, weight, faces, np.array([0.5]), pull=1e-9)[:, 0]
    assert (np.diff(filled) > 0).all() and 0 <= filled[0] < 0.2 and 0.8 < filled[-1] <= 1


def test_belief_in_a_tone_is_that_of_the_distance_between_chromas() -> None:
    colours = np.random.default_rng(0).random((500, 3)).astype(np.float32)
    tone = SkinTone.of(colours[:100], colours[0])
    away = np.linalg.norm(chroma_of(colours.astype(np.float64)) - tone.chroma, axis=1)
    np.testing.assert_allclose(tone.belief(colours), np.exp(-((away / tone.spread) ** 4)), atol=2e-5)


def test_covered_texels_grow_by_a_ring_a_step() -> None:
    texture, covered = np.zeros((9, 12, 3), np.float32), np.zeros((9, 12), bool)
    covered[3:5, 3:6] = True
    texture[covered] = [0.2, 0.4, 0.8]
    grown = fill_uncovered(texture, covered, steps=2)
    np.testing.assert_allclose(
        grown[1:7, 1:8], np.broadcast_to(np.array([0.2, 0.4, 0.8], np.float32), (6, 7, 3)), rtol=1e-6
    )
    assert not grown[0].any() and not grown[7:].any() and not grown[:, 8:].any()
    texture[4, 4] = 1.0
    mean = (texture[4, 3:6].sum(0)) / 3
    np.testing.assert_allclose(fill_uncovered(texture, covered, steps=1)[5, 4], mean, rtol=1e-6)

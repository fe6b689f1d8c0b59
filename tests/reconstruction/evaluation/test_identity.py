"""Identity: a picture is itself, changes of light and side stay near, strangers are far, and no row goes missing."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from dp360.generation import InputError, PointCloud, Provenance, ViewSet, look_at_origin
from dp360.generation.portrait import load_image
from dp360.generation.portrait.resample import square_crop
from dp360.reconstruction.evaluation import identity
from dp360.reconstruction.evaluation.compare import picture_over_white
from dp360.reconstruction.evaluation.identity import (
    SAME_PERSON_DISTANCE,
    STRANGER_COSINE,
    FaceEmbedder,
    FaceEmbedding,
    identity_cosine,
    identity_distance,
    identity_score,
    measure_identity,
)

PORTRAITS = Path(__file__).parents[4] / "shared" / "data" / "portraits"


@pytest.fixture(scope="module")
def embedder() -> FaceEmbedder:
    pytest.importorskip("dlib")
    if importlib.util.find_spec("face_recognition_models") is None:
        pytest.skip("needs the package face-recognition-models")
    return FaceEmbedder()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


def embedding(*head: float) -> FaceEmbedding:
    vector = np.zeros(128)
    vector[: len(head)] = head
    return FaceEmbedding(vector, "dlib", np.zeros((5, 2)))


def views_of(
    pictures: list[np.ndarray], azimuths_deg: list[float], elevations_deg: list[float] | None = None
) -> ViewSet:
    """Opaque pictures from given directions, named after their places in the list."""
    size, n = pictures[0].shape[0], len(pictures)
    elevations = elevations_deg or [0.0] * n
    cameras = look_at_origin(np.radians(azimuths_deg).tolist(), np.radians(elevations).tolist(), size_px=size)
    rgba = np.concatenate([np.stack(pictures), np.full((n, size, size, 1), 255, np.uint8)], axis=-1)
    surface = PointCloud(torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1, 3))
    names = tuple(f"view_{k:03d}" for k in range(n))
    return ViewSet(
        torch.from_numpy(rgba), cameras, torch.ones(n), names, surface, Provenance("test", "none", 0, "00", "0")
    )


def test_cosine_and_distance_of_known_vectors():
    a, b, c = embedding(1.4), embedding(0.0, 1.4), embedding(2.8)
    assert identity_distance(a, a) == 0 and identity_cosine(a, a) == 1 and identity_score(a, a) == 1
    assert identity_distance(a, b) == pytest.approx(1.4 * math.sqrt(2)) and identity_cosine(a, b) == pytest.approx(0)
    assert identity_score(a, b) == 0, "farther than a stranger is no worse than a stranger"
    assert identity_cosine(a, c) == pytest.approx(1) and identity_distance(a, c) == pytest.approx(1.4)
    stranger = embedding(1.4 * STRANGER_COSINE, 1.4 * math.sqrt(1 - STRANGER_COSINE**2))
    assert identity_score(a, stranger) == pytest.approx(0, abs=1e-9)


def test_the_same_picture_is_the_same_person_to_the_last_bit(embedder: FaceEmbedder, astronaut: np.ndarray):
    first, second = embedder.embed(astronaut), embedder.embed(astronaut)
    assert first is not None and second is not None
    assert identity_distance(first, second) == 0 and identity_score(first, second) == 1
    assert 1.0 < float(np.linalg.norm(first.vector)) < 2.0


def test_points_are_eye_corners_and_nose_in_their_order(embedder: FaceEmbedder, astronaut: np.ndarray):
    face = embedder.embed(astronaut)
    assert face is not None and face.detector == "dlib"
    left_outer, left_inner, right_outer, right_inner, nose = face.points_px
    assert left_outer[0] > left_inner[0] > nose[0] > right_inner[0] > right_outer[0], (
        "the person's left is at the right"
    )
    assert nose[1] > max(p[1] for p in (left_outer, left_inner, right_outer, right_inner)) + 10


def test_light_side_and_size_keep_the_person(embedder: FaceEmbedder, astronaut: np.ndarray):
    face = embedder.embed(astronaut)
    assert face is not None
    changed = {
        "mirrored": astronaut[:, ::-1],
        "brighter": np.clip(1.15 * astronaut + 8.0, 0, 255).astype(np.uint8),
        "larger": square_crop(astronaut, (226.0, 120.0), 230.0, 512),
    }
    for name, picture in changed.items():
        other = embedder.embed(np.ascontiguousarray(picture))
        assert other is not None, name
        assert identity_distance(face, other) < 0.3, name
        assert identity_score(face, other) > 0.8, name


def test_mediapipe_steps_in_and_cuts_the_same_chip(
    embedder: FaceEmbedder, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    by_dlib = embedder.embed(astronaut)
    monkeypatch.setattr(FaceEmbedder, "_points_by_dlib", lambda self, rgb: None)
    by_mediapipe = embedder.embed(astronaut)
    assert by_dlib is not None and by_mediapipe is not None
    assert (by_dlib.detector, by_mediapipe.detector) == ("dlib", "mediapipe")
    assert np.abs(by_dlib.points_px - by_mediapipe.points_px).max() < 4
    assert identity_distance(by_dlib, by_mediapipe) < 0.2


def test_a_picture_without_a_face_has_no_embedding(embedder: FaceEmbedder):
    ramp = np.tile(np.linspace(30, 220, 256).astype(np.uint8)[None, :, None], (256, 1, 3))
    assert embedder.embed(ramp) is None


def test_every_azimuth_has_its_row_and_the_nearest_level_view(embedder: FaceEmbedder, astronaut: np.ndarray):
    """Face at 2 and 31 degrees, nothing at -60, a raised view and the portrait itself that must not be taken."""
    astronaut = np.ascontiguousarray(astronaut[:256, 98:354])
    empty = np.full_like(astronaut, 200)
    views = views_of(
        [astronaut, astronaut, empty, astronaut, astronaut], [0.0, 2.0, -60.0, 31.0, 60.0], [0.0, 0.0, 0.0, 0.0, 35.0]
    )
    views = replace(views, names=("portrait", "front", "nothing", "right", "raised"))
    rows = measure_identity(astronaut, views, embedder, (0.0, -60.0, 30.0, 60.0))
    assert [row.azimuth_deg for row in rows] == [0.0, -60.0, 30.0, 60.0]
    assert [row.view for row in rows] == ["front", "nothing", "right", None]
    assert [row.detector for row in rows] == ["dlib", None, "dlib", None]
    assert rows[0].distance == 0 and rows[0].score == 1 and rows[2].view_azimuth_deg == pytest.approx(31.0)
    for row in (rows[1], rows[3]):
        assert math.isnan(row.distance) and math.isnan(row.cosine) and math.isnan(row.score)
    assert all(row.portrait_detector == "dlib" for row in rows)
    turned = views.select([4, 2, 0, 3, 1])
    assert [(r.view, r.detector) for r in measure_identity(astronaut, turned, embedder, (0.0, -60.0, 30.0, 60.0))] == [
        (r.view, r.detector) for r in rows
    ]


def test_a_portrait_without_a_face_gives_rows_without_numbers(embedder: FaceEmbedder, astronaut: np.ndarray):
    astronaut = np.ascontiguousarray(astronaut[:256, 98:354])
    (row,) = measure_identity(np.full_like(astronaut, 90), views_of([astronaut], [0.0]), embedder, (0.0,))
    assert row.portrait_detector is None and row.detector == "dlib" and math.isnan(row.score)


def test_views_are_shown_over_white():
    views = views_of([np.full((8, 8, 3), 100, np.uint8)], [0.0])
    views.rgba[0, 0, 0, 3] = 0
    views.rgba[0, 0, 1, 3] = 128
    picture = picture_over_white(views, 0)
    assert picture[0, 0].tolist() == [255] * 3 and picture[4, 4].tolist() == [100] * 3
    assert picture[0, 1].tolist() == [round(100 * 128 / 255 + 127)] * 3


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(InputError, match=r'pip install "dp360\[eval\]"'):
        identity._dlib_and_models()


@pytest.mark.skipif(not PORTRAITS.is_dir(), reason="needs the shared test portraits")
def test_strangers_are_far_and_ones_own_picture_is_near(embedder: FaceEmbedder):
    """Each portrait against itself darkened and turned by five degrees, and against everybody else."""
    import cv2

    names = ("astronaut.png", "obama_2012.jpg", "renoir_jeanne_samary.jpg", "sofonisba_anguissola.jpg")
    portraits, again = [], []
    for name in names:
        rgb = load_image(PORTRAITS / name).rgb
        height, width = rgb.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), 5.0, 1.0)
        turned = cv2.warpAffine(rgb, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        portraits.append(embedder.embed(rgb))
        again.append(embedder.embed((0.8 * turned).astype(np.uint8)))
    own = [identity_distance(a, b) for a, b in zip(portraits, again)]
    others = [identity_distance(a, b) for k, a in enumerate(portraits) for b in again[:k] + again[k + 1 :]]
    assert max(own) < 0.3 < SAME_PERSON_DISTANCE < float(np.mean(others))
    assert max(own) < min(others)
    cosine = np.mean([identity_cosine(a, b) for k, a in enumerate(portraits) for b in portraits[:k]])
    assert abs(cosine - STRANGER_COSINE) < 0.05

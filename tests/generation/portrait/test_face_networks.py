"""The ported networks for faces and people: what mediapipe itself answered, and laws of what stands round them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from dp360.generation.portrait import load_image
from dp360.generation.portrait.face_networks import (
    FACE_MESH,
    FAR,
    FAR_DETECTOR,
    NEAR,
    NEAR_DETECTOR,
    DetectorConfig,
    FaceDetector,
    FaceMesh,
    _averaged,
)
from dp360.generation.portrait.person_networks import SQUARE_SEGMENTER, WIDE_SEGMENTER, PersonNetworks
from dp360.generation.portrait.resample import square_crop

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
PORTRAITS = sorted((DATA / "portraits").glob("*.??g"))
PHOTOS = sorted((DATA / "photos").glob("*.jpg"))[:60]
NETWORKS = (NEAR_DETECTOR, FAR_DETECTOR, FACE_MESH, SQUARE_SEGMENTER, WIDE_SEGMENTER)
ASKED_SCORE = 0.2  # its detectors take no less than their own 0.5 and 0.6 whatever is asked; its mesh does

# What mediapipe 0.10.9 answers on skimage's astronaut, 512 x 512 pixels.
ASTRONAUT_BOXES = {
    "near": (0.921739, (177.5654, 82.8712, 272.9095, 178.2154)),
    "far": (0.912058, (173.659, 67.7763, 277.5879, 171.7023)),
}
ASTRONAUT_POINTS = {
    1: (223.448, 130.016, -22.877),
    10: (226.26, 71.687, -10.589),
    33: (195.213, 100.923, 4.531),
    61: (201.809, 139.216, 7.533),
    152: (221.266, 177.445, 7.536),
    234: (179.371, 109.955, 41.327),
    263: (255.758, 104.283, 3.99),
    454: (270.22, 115.459, 40.253),
    468: (203.478, 101.1, 0.91),
    473: (246.585, 103.47, 0.518),
}
ASTRONAUT_PERSON = (0.54184765, 0.5565011)
"""Means of both maps."""


@pytest.fixture(scope="module")
def mesh() -> FaceMesh:
    return FaceMesh()


@pytest.fixture(scope="module")
def people() -> PersonNetworks:
    return PersonNetworks()


def squared(rgb: np.ndarray) -> np.ndarray:
    """A picture in the middle of a square of 512 pixels."""
    height, width = rgb.shape[:2]
    return square_crop(rgb, (width / 2, height / 2), float(max(height, width)), 512)


@pytest.mark.parametrize(("config", "name"), [(NEAR, "near"), (FAR, "far")])
def test_the_astronaut_is_boxed_as_mediapipe_boxes_her(config: DetectorConfig, name: str) -> None:
    (face,) = FaceDetector(config).boxes(skimage.data.astronaut())
    score, box = ASTRONAUT_BOXES[name]
    assert face.score == pytest.approx(score, abs=1e-5)
    np.testing.assert_allclose(512 * np.concatenate([face.low, face.high]), box, atol=0.01)


def test_the_astronaut_has_the_landmarks_that_mediapipe_finds(mesh: FaceMesh) -> None:
    (points,) = mesh.landmarks(skimage.data.astronaut())
    assert points.shape == (478, 3)
    np.testing.assert_allclose(points[list(ASTRONAUT_POINTS)], list(ASTRONAUT_POINTS.values()), atol=0.05)


def test_the_astronaut_is_the_person_that_mediapipe_sees(people: PersonNetworks) -> None:
    maps = people.maps(skimage.data.astronaut())
    assert [m.shape for m in maps] == [(512, 512)] * 2
    assert [float(m.mean()) for m in maps] == pytest.approx(ASTRONAUT_PERSON, abs=1e-4)
    assert all(m[300, 224] > 0.99 and m[10, 10] < 0.01 for m in maps)


def test_a_turned_picture_has_turned_landmarks(mesh: FaceMesh) -> None:
    """The crop is upright between the eyes: a tilted face is as good as an upright one."""
    import cv2

    upright = square_crop(skimage.data.astronaut(), (224.0, 120.0), 220.0, 512)
    turn = cv2.getRotationMatrix2D((255.5, 255.5), 25.0, 1.0)
    turned = cv2.warpAffine(upright, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    (before,), (after,) = mesh.landmarks(upright), mesh.landmarks(turned)
    expected = (before[:, :2] - 0.5) @ turn[:, :2].T + turn[:, 2] + 0.5
    off = np.linalg.norm(after[:, :2] - expected, axis=1)
    assert np.median(off) < 0.01 * np.ptp(before[:, 1]) and np.abs(after[:, 2] - before[:, 2]).mean() < 8


def test_two_faces_are_found_together_as_each_alone(mesh: FaceMesh) -> None:
    face = square_crop(skimage.data.astronaut(), (224.0, 120.0), 220.0, 256)
    pair = np.full((512, 512, 3), 128, np.uint8)
    pair[128:384, :256] = face
    (alone,) = mesh.landmarks(pair)
    pair[128:384, 256:] = face
    both = sorted(mesh.landmarks(pair), key=lambda points: points[:, 0].mean())
    assert len(both) == 2
    assert np.median(np.linalg.norm((both[0] - alone)[:, :2], axis=1)) < 1
    assert np.median(np.linalg.norm((both[1] - alone)[:, :2] - [256, 0], axis=1)) < 2


def test_answers_to_one_face_are_averaged_by_their_scores() -> None:
    boxes = np.array([[0, 0, 4, 4], [1, 0, 5, 4], [10, 10, 12, 12], [7, 7, 7, 7]], np.float32)
    points = np.repeat(boxes[:, None, :2], 6, axis=1)
    first, point, other = _averaged(boxes, points, np.array([0.6, 0.9, 0.7, 0.8], np.float32))
    np.testing.assert_allclose(np.concatenate([first.low, first.high]), [0.6, 0, 4.6, 4], rtol=1e-6)
    np.testing.assert_allclose(first.key_points, np.tile([0.6, 0.0], (6, 1)), rtol=1e-6)
    assert first.score == pytest.approx(0.9)  # the surest one's, not the mean
    assert point.low.tolist() == [7, 7] and other.high.tolist() == [12, 12]


def test_grey_holds_nobody(mesh: FaceMesh) -> None:
    grey = np.full((512, 512, 3), 128, np.uint8)
    assert mesh.landmarks(grey) == [] and FaceDetector(NEAR).boxes(grey) == [] == FaceDetector(FAR).boxes(grey)


def check_against_mediapipe(pictures: list[Path], mesh: FaceMesh, people: PersonNetworks) -> int:
    """Boxes, landmarks and maps of pictures beside mediapipe's own; how many faces there were."""
    solutions = pytest.importorskip("mediapipe").solutions
    theirs = [
        solutions.face_detection.FaceDetection(model_selection=k, min_detection_confidence=ASKED_SCORE) for k in (0, 1)
    ]
    their_mesh = solutions.face_mesh.FaceMesh(
        static_image_mode=True, max_num_faces=4, refine_landmarks=True, min_detection_confidence=ASKED_SCORE
    )
    their_people = [solutions.selfie_segmentation.SelfieSegmentation(model_selection=k) for k in (0, 1)]
    ours, faces = (FaceDetector(NEAR), FaceDetector(FAR)), 0
    for path in pictures:
        rgb = load_image(path).rgb
        square = squared(rgb)
        for detector, their_detector in zip(ours, theirs):
            found = [d.location_data for d in their_detector.process(square).detections or []]
            expected = [b.relative_bounding_box for b in found]
            boxes = detector.boxes(square)
            assert len(boxes) == len(expected), path.name
            for box, b in zip(boxes, expected):
                np.testing.assert_allclose(512 * box.low, (512 * b.xmin, 512 * b.ymin), atol=0.01)
                np.testing.assert_allclose(512 * (box.high - box.low), (512 * b.width, 512 * b.height), atol=0.01)
        answer = their_mesh.process(square).multi_face_landmarks or []
        landmarks = mesh.landmarks(square)
        assert len(landmarks) == len(answer), path.name
        for points, theirs_of_face in zip(landmarks, answer):
            expected_points = 512 * np.array([[p.x, p.y, p.z] for p in theirs_of_face.landmark])
            # mediapipe rounds as the processor does: below .05 px on one, .058 on another
            np.testing.assert_allclose(points, expected_points, atol=0.15, err_msg=path.name)
        for person, network in zip(people.maps(rgb), their_people):
            np.testing.assert_allclose(person, network.process(rgb).segmentation_mask, atol=1e-3, err_msg=path.name)
        faces += len(landmarks)
    return faces


@pytest.mark.skipif(not PORTRAITS, reason="the shared test portraits are not here")
def test_portraits_are_seen_as_mediapipe_sees_them(mesh: FaceMesh, people: PersonNetworks) -> None:
    assert check_against_mediapipe(PORTRAITS, mesh, people) >= 5


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOS, reason="the shared test photographs are not here")
def test_photographs_are_seen_as_mediapipe_sees_them(mesh: FaceMesh, people: PersonNetworks) -> None:
    assert check_against_mediapipe(PHOTOS, mesh, people) >= 40


def test_the_weights_are_those_of_mediapipes_wheel(tmp_path: Path) -> None:
    pytest.importorskip("tflite")
    folder = Path(pytest.importorskip("mediapipe").__file__).parent
    words = [sys.executable, str(ROOT / "scripts" / "port_face_networks.py"), "--mediapipe", str(folder)]
    subprocess.run([*words, "--output", str(tmp_path)], check=True, capture_output=True, timeout=300)
    for network in NETWORKS:
        made, kept = network.read(tmp_path / network.file_name).network, network.load().network
        assert made.config == kept.config, network.name
        assert all(tensor.equal(kept.state_dict()[name]) for name, tensor in made.state_dict().items()), network.name

"""The mean skull has the size of people's, and nothing else of the head has changed with it."""

import numpy as np

from dp360.generation.head_model import load_head_model
from dp360.generation.head_model.anatomy import EAR, centimetres, world_units
from dp360.generation.head_model.skull import with_average_skull
from dp360.generation.weights import shipped_file


def source_neutral() -> np.ndarray:
    with np.load(shipped_file("head_model.npz"), allow_pickle=False) as data:
        return data["neutral"].astype(np.float32)


def test_skull_of_the_mean_head_is_as_broad_as_peoples() -> None:
    model = load_head_model()
    skin = centimetres(model.neutral.astype(np.float64))[np.unique(model.skin_faces)]
    above_ears = skin[(skin[:, 1] > 5.2) & (skin[:, 1] < 8)]
    breadth_cm, length_cm = np.ptp(above_ears[:, 0]), np.ptp(above_ears[:, 2])
    assert 15.1 < breadth_cm < 15.5 and 19.3 < length_cm < 19.7, (breadth_cm, length_cm)


def test_face_throat_and_shoulders_stay_and_both_sides_stay_alike() -> None:
    source = source_neutral()
    at_cm = centimetres(source.astype(np.float64))
    moved_cm = np.abs(centimetres(with_average_skull(source).astype(np.float64)) - at_cm)
    still = (at_cm[:, 2] > 7.5) | (at_cm[:, 1] < -7)
    assert still.sum() > 5000 and moved_cm[still].max() < 1e-3
    assert 0.2 < moved_cm[:, 0].max() < 0.4 and moved_cm[:, 1:].max() < 1e-3
    mirrored = with_average_skull(source * np.array([-1, 1, 1], np.float32)) * [-1, 1, 1]
    np.testing.assert_allclose(mirrored, with_average_skull(source), atol=1e-7)


def test_correction_is_smooth_and_ears_keep_their_form() -> None:
    source, faces = source_neutral(), load_head_model().skin_faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])

    def lengths(vertices: np.ndarray) -> np.ndarray:
        return np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)

    stretch = lengths(with_average_skull(source)) / np.maximum(lengths(source), 1e-6)
    assert 0.93 < stretch.min() and stretch.max() < 1.06, (stretch.min(), stretch.max())
    in_ear = EAR.holds(centimetres(source.astype(np.float64)))[edges].all(1)
    assert in_ear.sum() > 1000 and np.abs(stretch[in_ear] - 1).max() < 0.04


def test_head_without_width_is_left_alone() -> None:
    middle = world_units(np.array([[0.0, 5.0, 10.0], [0.0, -12.0, 0.0]]))
    np.testing.assert_allclose(with_average_skull(middle), middle, atol=1e-9)

"""What ships in `generation/weights/head_model.npz`: size, landmarks on the face, sizes of the modes."""

import numpy as np

from dp360.generation.cameras import UNITS_PER_CM
from dp360.generation.head_model import load_head_model
from dp360.generation.head_model.anatomy import CHIN_LANDMARK, FOREHEAD_LANDMARK
from dp360.generation.head_model.model import modes_of, steps_of
from dp360.generation.weights import shipped_file

FILE = "head_model.npz"


def test_file_is_small_plain_and_carries_its_licence() -> None:
    assert shipped_file(FILE).stat().st_size <= 6e6
    with np.load(shipped_file(FILE), allow_pickle=False) as data:
        assert "MIT License" in str(data["licence"]) and "Institute for Creative Technologies" in str(data["licence"])
        assert list(data["part_names"])[:2] == ["face", "cranium_and_neck"]


def test_modes_come_back_from_their_steps_exactly() -> None:
    modes = np.random.default_rng(0).integers(-32768, 32768, (3, 50, 3)).astype(np.int16)
    np.testing.assert_array_equal(modes_of(steps_of(modes)), modes)


def test_landmarks_are_symmetric_and_where_a_face_has_them() -> None:
    model = load_head_model()
    points = model.landmarks(model.neutral)
    np.testing.assert_allclose(model.landmark_weights.sum(1), 1, atol=1e-5)
    nose_tip, chin, forehead, left_eye, right_eye = points[[1, CHIN_LANDMARK, FOREHEAD_LANDMARK, 263, 33]]
    assert nose_tip[2] == points[:, 2].max() or nose_tip[2] > 0.19
    assert chin[1] < nose_tip[1] < left_eye[1] < forehead[1]
    assert left_eye[0] > 0.05 and right_eye[0] < -0.05  # the person's left is +x
    np.testing.assert_allclose(left_eye, right_eye * [-1, 1, 1], atol=0.002)


def test_modes_move_the_head_by_millimetres_to_centimetres() -> None:
    model = load_head_model()
    largest = np.linalg.norm(model.identity_basis, axis=-1).max(1) / UNITS_PER_CM
    assert 0.5 < largest.max() < 3.0 and largest.min() > 0.005
    assert len(model.expression_names) == len(model.expression_basis) == 47
    jaw = model.expression_basis[model.expression_names.index("jawOpen")]
    assert jaw[:, 1].min() < -0.5 * UNITS_PER_CM

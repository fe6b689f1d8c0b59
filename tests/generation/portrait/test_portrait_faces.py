"""Detection and landmarks: laws under moving, turning and doubling a real photograph; refusals without a face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data

from dp360.generation import InputError
from dp360.generation.portrait import FaceNetworks, find_faces, load_image
from dp360.generation.portrait.face_detection import choose_face, upright_quarter_turns
from dp360.generation.portrait.resample import CropFrame, square_crop

PORTRAITS = Path(__file__).parents[4] / "shared" / "data" / "portraits"


@pytest.fixture(scope="module")
def networks() -> FaceNetworks:
    return FaceNetworks()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


def two_people(astronaut: np.ndarray) -> np.ndarray:
    """The astronaut twice, side by side, the right one at three quarters of the size."""
    small = square_crop(astronaut, (256.0, 256.0), 512.0, 384)
    picture = np.full((512, 900, 3), 128, np.uint8)
    picture[:, :512] = astronaut
    picture[64:448, 514:898] = small
    return picture


def test_a_photograph_has_one_face_where_it_is(networks: FaceNetworks, astronaut: np.ndarray) -> None:
    (face,) = find_faces(astronaut, networks)
    np.testing.assert_allclose(face.center_px, (225, 118), atol=8)
    assert 95 < face.size_px < 120
    assert abs(face.roll_rad) < 0.1
    assert face.found_by == "standard"


def test_landmarks_move_with_the_picture(networks: FaceNetworks, astronaut: np.ndarray) -> None:
    (before,) = find_faces(astronaut, networks)
    (after,) = find_faces(np.pad(astronaut, ((90, 0), (0, 60), (0, 0)), mode="edge"), networks)
    moved = before.landmarks_px + np.array([0.0, 90.0, 0.0])
    assert np.median(np.linalg.norm((after.landmarks_px - moved)[:, :2], axis=1)) < 0.01 * before.size_px


def test_landmarks_scale_with_the_picture_depth_included(networks: FaceNetworks, astronaut: np.ndarray) -> None:
    (before,) = find_faces(astronaut, networks)
    (after,) = find_faces(square_crop(astronaut, (256.0, 256.0), 512.0, 768), networks)
    assert np.median(np.linalg.norm(after.landmarks_px / 1.5 - before.landmarks_px, axis=1)) < 0.02 * before.size_px


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_pictures_on_their_side_are_turned_upright(networks: FaceNetworks, astronaut: np.ndarray, turns: int) -> None:
    turned = np.ascontiguousarray(np.rot90(astronaut, turns))
    assert upright_quarter_turns(turned, networks) == (4 - turns) % 4


def test_the_largest_face_comes_first_and_others_are_mentioned(networks: FaceNetworks, astronaut: np.ndarray) -> None:
    faces = find_faces(two_people(astronaut), networks)
    assert len(faces) == 2
    assert faces[0].size_px > faces[1].size_px
    face, notices = choose_face(faces, None, "two.png")
    assert face is faces[0]
    assert len(notices) == 1 and "2 faces" in notices[0]
    assert choose_face(faces, 1, "two.png") == (faces[1], ())


def test_a_face_index_beyond_the_faces_is_refused(networks: FaceNetworks, astronaut: np.ndarray) -> None:
    faces = find_faces(astronaut, networks)
    with pytest.raises(InputError, match=r"--face-index is 1, but 1 face"):
        choose_face(faces, 1, "one.png")
    with pytest.raises(InputError, match="--face-index"):
        choose_face(faces, -1, "one.png")


@pytest.mark.parametrize("name", ["coffee", "rocket", "blank"])
def test_pictures_without_a_face_have_none(networks: FaceNetworks, name: str) -> None:
    picture = np.full((300, 400, 3), 128, np.uint8) if name == "blank" else getattr(skimage.data, name)()
    faces = find_faces(picture, networks)
    assert faces == ()
    with pytest.raises(InputError, match=r"no face was found.*--no-face"):
        choose_face(faces, None, name)


@pytest.mark.skipif(not PORTRAITS.is_dir(), reason="the shared test portraits are not here")
@pytest.mark.parametrize(
    "name",
    ["obama_2012", "girl_pearl_earring", "van_gogh_1889", "sofonisba_anguissola", "renoir_jeanne_samary"],
)
def test_faces_of_photographs_and_paintings_are_found(networks: FaceNetworks, name: str) -> None:
    picture = load_image(PORTRAITS / f"{name}.jpg").rgb
    faces = find_faces(picture, networks)
    assert len(faces) == 1
    assert 0.2 < faces[0].size_px / min(picture.shape[:2]) < 0.7
    assert abs(faces[0].roll_rad) < 0.3


def test_nothing_is_written_to_standard_error(astronaut: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    find_faces(astronaut, FaceNetworks())
    captured = capfd.readouterr()
    assert captured.err == "" and captured.out == ""


def test_square_crop_of_the_whole_picture_is_the_picture(astronaut: np.ndarray) -> None:
    np.testing.assert_array_equal(square_crop(astronaut, (256.0, 256.0), 512.0, 512), astronaut)
    np.testing.assert_array_equal(square_crop(astronaut, (256.0, 256.0), 512.0, 512, sharp=True), astronaut)


def test_square_crop_puts_positions_where_it_says() -> None:
    ramp = np.tile((np.arange(200) + 0.5)[None, :], (200, 1))  # a pixel's value is its centre's x
    crop = square_crop(ramp.astype(np.uint8), (100.0, 100.0), 80.0, 40)
    corner, scale = 60.0, 2.0
    np.testing.assert_allclose(crop[20], corner + (np.arange(40) + 0.5) * scale - 0.5, atol=1.0)


def test_outside_the_picture_the_edge_is_repeated_and_not_inside() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    crop = square_crop(picture, (0.0, 25.0), 40.0, 40)
    inside = CropFrame((0.0, 25.0), 40.0, 40).inside(picture)
    assert inside[:, 20:].all() and not inside[:, :20].any()
    np.testing.assert_array_equal(crop[:, 20:], picture[5:45, :20])
    np.testing.assert_array_equal(crop[:, :20], np.repeat(picture[5:45, :1], 20, axis=1))

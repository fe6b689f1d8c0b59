"""Preparation end to end on a photograph that scikit-image carries, and on the shared portraits where they exist."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from dp360.generation import InputError
from dp360.generation.cameras import PANOHEAD_FOCAL_NORMALISED, PANOHEAD_RADIUS
from dp360.generation.head_model import load_head_model
from dp360.generation.portrait import Portrait, PortraitConfig, prepare_portrait
from dp360.generation.portrait.portrait import WIDE_FACTOR, place_head_by_matte
from dp360.generation.progress import Item

PORTRAITS = Path(__file__).parents[4] / "shared" / "data" / "portraits"
needs_portraits = pytest.mark.skipif(not PORTRAITS.is_dir(), reason="the shared test portraits are not here")


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("portrait") / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(path)
    return path


@pytest.fixture(scope="module")
def portrait(photograph: Path) -> Portrait:
    return prepare_portrait(photograph)


def reprojected_px(portrait: Portrait) -> np.ndarray:
    """The fitted head's landmarks in the crop, where the detector sees them."""
    camera = portrait.head.camera
    points = portrait.head.detected_landmarks_world(load_head_model())
    T = camera.T_camera_world[0].numpy()
    p = points @ T[:3, :3].T + T[:3, 3]
    return camera.focal_px[0].numpy() * p[:, :2] / p[:, 2:] + camera.principal_px[0].numpy()


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two mattes cut at one half."""
    return float(((a > 0.5) & (b > 0.5)).sum() / ((a > 0.5) | (b > 0.5)).sum())


def halved_rgb(portrait: Portrait) -> np.ndarray:
    """The crop at half its size, float."""
    return portrait.rgb.reshape(256, 2, 256, 2, 3).mean((1, 3))


def halved_alpha(portrait: Portrait) -> np.ndarray:
    """The matte at half its size."""
    return portrait.alpha_unit.reshape(256, 2, 256, 2).mean((1, 3))


def test_a_photograph_becomes_a_portrait(portrait: Portrait, photograph: Path) -> None:
    assert portrait.rgb.shape == (512, 512, 3)
    assert portrait.size_px == 512
    assert portrait.crop == "standard"
    assert portrait.source_name == photograph.name
    assert len(portrait.source_sha256) == 64
    assert portrait.inside.mean() > 0.93  # the astronaut's head is close to the upper edge
    assert portrait.notices == ()


def test_the_camera_is_panoheads(portrait: Portrait) -> None:
    camera = portrait.head.camera
    assert (camera.width, camera.height, len(camera)) == (512, 512, 1)
    np.testing.assert_allclose(camera.focal_px[0], PANOHEAD_FOCAL_NORMALISED * 512, rtol=1e-6)
    np.testing.assert_allclose(camera.principal_px[0], 256.0, atol=1e-4)
    np.testing.assert_allclose(camera.position_world.norm(), PANOHEAD_RADIUS, rtol=1e-9)
    assert abs(float(camera.azimuth_rad[0])) < np.radians(10)  # she looks into the camera


def test_landmarks_of_the_fitted_head_meet_those_of_the_picture(portrait: Portrait) -> None:
    assert portrait.landmarks_px is not None
    distance = np.linalg.norm(reprojected_px(portrait) - portrait.landmarks_px[:, :2], axis=1)
    np.testing.assert_allclose(distance, portrait.head.residual_px, atol=1e-3)
    assert np.median(distance) <= 2.5


def test_face_is_opaque_and_background_is_not(portrait: Portrait) -> None:
    assert portrait.landmarks_px is not None
    inner = portrait.landmarks_px[:, :2].astype(int)
    assert (portrait.alpha_unit[inner[:, 1], inner[:, 0]] > 0.99).mean() > 0.97  # the oval lies on the very edge
    assert portrait.alpha_unit[:100, :60].max() < 0.05
    assert portrait.alpha_unit[:100, -60:].max() < 0.05
    assert 0.3 < portrait.alpha_unit.mean() < 0.6
    assert portrait.alpha_unit[~portrait.inside].max(initial=0.0) == 0.0


def test_colour_is_untouched_where_opaque(portrait: Portrait) -> None:
    opaque = portrait.alpha_unit > 0.995
    difference = np.abs(portrait.foreground_unit - portrait.rgb / np.float32(255))[opaque]
    assert difference.mean() < 0.005


def test_matte_is_found_again_over_another_background(portrait: Portrait, tmp_path: Path) -> None:
    y, x = np.mgrid[:512, :512] / 512
    background = np.stack([0.2 + 0.3 * x, 0.45 - 0.2 * y, 0.35 + 0.3 * y], axis=-1)
    alpha = portrait.alpha_unit[..., None]
    picture = np.round(255 * (portrait.foreground_unit * alpha + background * (1 - alpha))).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "again.png")
    again = prepare_portrait(tmp_path / "again.png", PortraitConfig(crop="standard"))
    assert overlap(again.alpha_unit, portrait.alpha_unit) > 0.95


def test_the_files_own_matte_is_used(portrait: Portrait, tmp_path: Path) -> None:
    alpha = np.round(255 * portrait.alpha_unit).astype(np.uint8)
    Image.fromarray(np.dstack([portrait.rgb, alpha])).save(tmp_path / "cut.png")
    cut = prepare_portrait(tmp_path / "cut.png", PortraitConfig(crop="standard"))
    assert overlap(cut.alpha_unit, portrait.alpha_unit) > 0.97
    opaque = cut.alpha_unit > 0.99
    assert not np.allclose(cut.rgb[0, 0], portrait.rgb[0, 0])
    np.testing.assert_array_equal(cut.rgb[0, 0], [255, 255, 255])
    assert opaque.mean() > 0.3 and cut.notices == ()


def test_a_frame_cut_out_of_a_picture_is_no_matte(photograph: Path, portrait: Portrait, tmp_path: Path) -> None:
    rgb = np.asarray(Image.open(photograph))
    alpha = np.zeros((512, 512), np.uint8)
    alpha[8:-8, 8:-8] = 255
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "rounded.png")
    rounded = prepare_portrait(tmp_path / "rounded.png", PortraitConfig(size_px=256))
    assert any("does not outline the head" in notice for notice in rounded.notices)
    assert overlap(rounded.alpha_unit, halved_alpha(portrait)) > 0.9


def test_wide_crop_shows_more_with_a_shorter_focal_length(photograph: Path, portrait: Portrait) -> None:
    wide = prepare_portrait(photograph, PortraitConfig(crop="wide", size_px=384))
    assert wide.crop == "wide" and wide.size_px == 384
    expected = PANOHEAD_FOCAL_NORMALISED * 384 / WIDE_FACTOR
    np.testing.assert_allclose(wide.head.camera.focal_px[0], expected, rtol=1e-6)
    assert wide.inside.mean() < portrait.inside.mean()
    assert np.median(wide.head.residual_px) <= 2.5 * 384 / 512
    np.testing.assert_allclose(wide.head.camera.T_world_camera, portrait.head.camera.T_world_camera, atol=0.03)


def test_two_runs_give_the_same_bytes(photograph: Path, portrait: Portrait) -> None:
    again = prepare_portrait(photograph)
    for name in ("rgb", "alpha_unit", "foreground_unit", "inside", "landmarks_px"):
        assert getattr(again, name).tobytes() == getattr(portrait, name).tobytes(), name
    assert again.head.vertices_world.tobytes() == portrait.head.vertices_world.tobytes()
    assert again.head.camera.T_world_camera.equal(portrait.head.camera.T_world_camera)


def test_two_people(tmp_path: Path, portrait: Portrait) -> None:
    picture = np.full((512, 900, 3), 128, np.uint8)
    picture[:, :512] = skimage.data.astronaut()
    picture[64:448, 514:898] = np.asarray(Image.fromarray(skimage.data.astronaut()).resize((384, 384)))
    Image.fromarray(picture).save(tmp_path / "two.png")
    first = prepare_portrait(tmp_path / "two.png", PortraitConfig(size_px=256))
    second = prepare_portrait(tmp_path / "two.png", PortraitConfig(size_px=256, face_index=1))
    assert any("2 faces" in notice for notice in first.notices)
    assert not any("2 faces" in notice for notice in second.notices)
    for found in (first, second):  # the same person twice: both crops look alike
        difference = found.rgb.astype(float) - halved_rgb(portrait)
        assert np.abs(difference[50:200, 65:190]).mean() < 12
    with pytest.raises(InputError, match="--face-index is 2, but 2 face"):
        prepare_portrait(tmp_path / "two.png", PortraitConfig(face_index=2))


def test_a_picture_on_its_side_gives_the_same_crop(tmp_path: Path, portrait: Portrait) -> None:
    Image.fromarray(np.rot90(skimage.data.astronaut())).save(tmp_path / "side.png")
    turned = prepare_portrait(tmp_path / "side.png", PortraitConfig(size_px=256))
    assert np.abs(turned.rgb - halved_rgb(portrait)).mean() < 2.5
    assert any("turned upright" in notice for notice in turned.notices)


def test_a_tilted_head_shows_in_the_cameras_roll(tmp_path: Path, portrait: Portrait) -> None:
    tilted = Image.fromarray(skimage.data.astronaut()).rotate(20, resample=Image.Resampling.BICUBIC, center=(226, 118))
    tilted.save(tmp_path / "tilted.png")
    found = prepare_portrait(tmp_path / "tilted.png", PortraitConfig(size_px=256))

    def roll_rad(of: Portrait) -> float:
        up = of.head.camera.T_camera_world[0, :2, 1].numpy()
        return float(np.arctan2(up[0], -up[1]))

    np.testing.assert_allclose(roll_rad(found) - roll_rad(portrait), -np.radians(20), atol=np.radians(2.5))


def test_a_small_head_brings_a_notice(tmp_path: Path) -> None:
    Image.fromarray(skimage.data.astronaut()).resize((192, 192)).save(tmp_path / "small.png")
    small = prepare_portrait(tmp_path / "small.png", PortraitConfig(size_px=256))
    assert any("pixels high" in notice for notice in small.notices)


def test_progress_is_reported_in_four_steps(photograph: Path) -> None:
    seen: list[object] = []

    def track(sequence: Iterable[Item], *, total: float | int | None, description: str) -> Iterable[Item]:
        seen.append((total, description))
        for item in sequence:
            seen.append(item)
            yield item

    prepare_portrait(photograph, PortraitConfig(size_px=128), track=track)
    assert seen == [(4, "Preparing the portrait"), 0, 1, 2, 3]


def test_a_picture_without_a_face_is_refused_with_a_way_out(tmp_path: Path) -> None:
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "coffee.png")
    with pytest.raises(InputError, match=r"coffee.png: no face was found.*--no-face"):
        prepare_portrait(tmp_path / "coffee.png")


def test_nothing_at_all_is_refused_without_a_face_too(tmp_path: Path) -> None:
    Image.new("RGB", (300, 300), (120, 130, 140)).save(tmp_path / "blank.png")
    with pytest.raises(InputError, match="no head is seen"):
        prepare_portrait(tmp_path / "blank.png", PortraitConfig(no_face=True))


def test_no_face_places_the_head_by_its_outline(photograph: Path, portrait: Portrait) -> None:
    blind = prepare_portrait(photograph, PortraitConfig(no_face=True))
    assert blind.landmarks_px is None
    scale = np.median(blind.head.camera.focal_px[0]) / PANOHEAD_FOCAL_NORMALISED / 512
    np.testing.assert_allclose(scale, 1.0 if blind.crop == "standard" else 1 / WIDE_FACTOR, rtol=1e-6)
    assert overlap(blind.alpha_unit, portrait.alpha_unit) > 0.6  # much the same crop, although no landmark was used


def test_placement_finds_the_head_of_a_drawn_figure() -> None:
    y, x = np.mgrid[:600, :400] + 0.5
    head = ((x - 210) / 80) ** 2 + ((y - 180) / 110) ** 2 < 1  # crown at 70, chin at 290
    neck = (abs(x - 210) < 40) & (y > 250) & (y < 360)
    shoulders = ((x - 210) / 170) ** 2 + ((y - 480) / 150) ** 2 < 1
    matte = (head | neck | (shoulders & (y > 330))).astype(np.float32)
    model = load_head_model()
    camera = place_head_by_matte(matte, model, "figure").camera
    units_px = float(camera.focal_px[0, 0]) / PANOHEAD_RADIUS
    crown, chin = model.neutral[:, 1].max(), model.landmarks(model.neutral.astype(np.float64))[152, 1]
    center_x, center_y = camera.principal_px[0].tolist()
    assert abs(center_x - 210) < 4
    assert abs(center_y - crown * units_px - 70) < 25
    assert abs(center_y - chin * units_px - 290) < 45


@needs_portraits
@pytest.mark.parametrize(
    "name",
    ["obama_2012", "girl_pearl_earring", "van_gogh_1889", "sofonisba_anguissola", "renoir_jeanne_samary"],
)
def test_photographs_and_paintings(name: str) -> None:
    found = prepare_portrait(PORTRAITS / f"{name}.jpg")
    assert found.landmarks_px is not None
    assert np.median(found.head.residual_px) <= 3.0  # van Gogh's brush is the loosest of them
    face = found.landmarks_px[:, :2].astype(int)
    assert np.median(found.alpha_unit[face[:, 1], face[:, 0]]) == 1.0
    assert 0.1 < found.alpha_unit.mean() < 0.7
    assert found.alpha_unit[:40].mean() < 0.3  # nothing like a trumpet above the head
    assert not any("outline" in notice for notice in found.notices)


@needs_portraits
def test_a_flat_cartoon_is_placed_by_its_outline() -> None:
    placed = prepare_portrait(PORTRAITS / "cartoon_lorelei.png", PortraitConfig(no_face=True))
    assert placed.landmarks_px is None
    blue = np.abs(placed.rgb.astype(int) - [182, 227, 244]).max(-1) < 12
    assert placed.alpha_unit[blue].mean() < 0.02  # the flat background is gone

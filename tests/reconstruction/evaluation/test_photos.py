"""Measures of portraits without truth, each on a case whose answer is known, and the whole way on two portraits."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dp360.configs import photo_jobs
from dp360.configs.cli import main
from dp360.generation import look_at_origin
from dp360.generation.cameras import UNITS_PER_CM
from dp360.generation.head_model import HeadFit, HeadModel, load_head_model
from dp360.generation.head_model.anatomy import world_units
from dp360.generation.portrait import Portrait
from dp360.generation.prior import PriorRender, capsule
from dp360.generation.prior.bust import sections
from dp360.generation.prior.bust.bust import ROWS, Bust
from dp360.generation.prior.hair.hair_shell import HairShell
from dp360.generation.prior.labels.portrait_labels import PortraitLabels, ear_vertices, project_px
from dp360.generation.prior.labels.segmenter import ACCESSORY, BACKGROUND, CLASS_NAMES, GLASSES
from dp360.generation.prior.texture.atlas import (
    MATERIAL_CLOTH,
    MATERIAL_HAIR,
    MATERIAL_SKIN,
    AtlasMesh,
    build_atlas_mesh,
)
from dp360.reconstruction.evaluation import photos
from dp360.reconstruction.evaluation.head_shapes import SHAPES, head_shape
from dp360.reconstruction.evaluation.photo_measures import (
    PROPORTIONS,
    SeenView,
    ShellOnSkull,
    accessory_areas,
    bare_shares,
    cell_areas_cm2,
    dark_share,
    detail_ratio,
    ear_skin,
    hair_colour,
    hair_coloured_share,
    hair_hangs,
    islands,
    lightness_behind,
    lowest_hair_cm,
    proportions,
    side_difference,
    stretched_share,
    uneven_ears,
)
from dp360.reconstruction.evaluation.photo_reports import photos_result, proportion_lines, shape_lines, summary_of
from dp360.reconstruction.evaluation.photo_sheets import CLASS_RGB, COLUMNS, photo_sheet, photo_strip
from dp360.reconstruction.evaluation.photos import (
    MEASURES,
    PhotoResult,
    photo_cameras,
    read_photo_result,
    write_photo_result,
)

PORTRAITS = Path(__file__).parents[4] / "shared" / "data" / "portraits"
SIZE = 64
SKULL_CM = 9.0


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head_model()


def side_view(lightness: np.ndarray | float = 60.0, validity: np.ndarray | float = 0.0, material: int = 0) -> SeenView:
    """A flat piece of the side before the ear, 12 cm wide, from 8 cm above the table's zero down to -6 cm."""
    y, z = np.meshgrid(np.linspace(8, -6, SIZE), np.linspace(12, 3, SIZE), indexing="ij")
    points = world_units(np.stack([np.full_like(y, 7.0), y, z], axis=-1))
    lab = np.zeros((SIZE, SIZE, 3), np.float32)
    lab[..., 0] = lightness
    valid = np.broadcast_to(np.asarray(validity, np.float32), (SIZE, SIZE)).copy()
    return SeenView(lab, valid, np.full((SIZE, SIZE), material + 1, np.uint8), points)


def shell(thickness: np.ndarray | float) -> ShellOnSkull:
    """A shell over a ball of 9 cm that stands on a cylinder."""
    skull = np.full((capsule.ROWS, capsule.COLUMNS), SKULL_CM * UNITS_PER_CM)
    return ShellOnSkull(np.broadcast_to(np.asarray(thickness, np.float64), skull.shape).copy(), skull)


def face(model: HeadModel, azimuth_rad: float = 0.0) -> Portrait:
    """The mean head in a grey picture from some side."""
    camera = look_at_origin([azimuth_rad], [0.0], size_px=128)
    zeros = (np.zeros(len(model.identity_basis)), np.zeros(len(model.expression_basis)))
    fit = HeadFit(*zeros, model.neutral.astype(np.float64), camera, np.zeros(478))
    grey = np.full((128, 128, 3), 128, np.uint8)
    ones = np.ones((128, 128), np.float32)
    return Portrait(grey, ones, grey.astype(np.float32) / 255, ones > 0, None, fit, "standard", "a.png", "00", ())


def labels_with(hair: np.ndarray, headgear_share: float = 0.0) -> PortraitLabels:
    """Hair and skin, all of it background to the segmenter."""
    classes = np.eye(len(CLASS_NAMES), dtype=np.float32)[np.full(hair.shape, BACKGROUND)]
    probability = np.stack([~hair, hair, np.zeros_like(hair)], axis=-1).astype(np.float64)
    share = np.full(hair.shape, headgear_share, np.float32)
    return PortraitLabels(probability, ~hair, hair, np.zeros_like(hair), share, classes)


def test_a_render_becomes_points_where_its_camera_saw_them() -> None:
    cameras = look_at_origin([0.0, math.pi / 2], [0.0, 0.0], size_px=32)
    depth = np.full((2, 32, 32), 2.7, np.float32)
    depth[:, 0] = np.inf
    full, colour = np.ones((2, 32, 32), np.float32), np.ones((2, 32, 32, 3), np.float32)
    alpha = full.copy()
    alpha[:, 1] = 0.5
    rendered = PriorRender(colour, alpha, full, colour, depth, np.ones((2, 32, 32), np.uint8))
    front, left = SeenView.of(rendered, cameras)
    for view in (front, left):
        assert np.abs(view.points_world[15:17, 15:17].mean((0, 1))).max() < 1e-6, "the middle looks at the origin"
        assert np.isnan(view.points_world[0]).all() and not np.isnan(view.points_world[1:]).any()
        assert view.lab[5, 5, 0] == pytest.approx(100) and not view.labels[1].any() and view.labels[2:].all()
    assert front.points_world[16, 31, 0] > 0.2 and front.points_world[2, 16, 1] > 0.2
    assert left.points_world[16, 31, 2] < -0.2, "from the head's left its back is on the right"
    oblique = look_at_origin([1.0, 1.0], [0.5, 0.5], size_px=32)
    seen = oblique.project(torch.from_numpy(SeenView.of(rendered, oblique)[0].points_world[9, 20:22]))[0].numpy()
    assert seen == pytest.approx(np.array([[20.5, 9.5, 2.7], [21.5, 9.5, 2.7]]), abs=1e-5)


def test_dark_share_counts_what_is_not_seen_and_well_below_the_median() -> None:
    lightness, validity = np.full((SIZE, SIZE), 60.0), np.zeros((SIZE, SIZE))
    lightness[:, :20] = 60 - 14.0
    plain = dark_share(side_view(lightness, validity))
    assert plain == pytest.approx(20 / 64)
    assert dark_share(side_view(lightness + 14 * (lightness < 60) - 13 * (lightness < 60), validity)) == 0
    validity[:, :20] = 1.0
    assert dark_share(side_view(lightness, validity)) == 0, "what the portrait shows is no smear"
    assert math.isnan(dark_share(side_view(lightness, 1.0)))
    below = side_view(lightness)
    ear = replace(below, points_world=below.points_world - world_units(np.array([0.0, 2.0, 13.0])))
    assert math.isnan(dark_share(ear)), "skin at and behind the ears is left out"


def test_hair_coloured_skin_counts_away_from_the_shell_only() -> None:
    hair = np.array([20.0, 0.0, 0.0])
    lightness = np.full((SIZE, SIZE), 60.0)
    lightness[:, :7] = 25.0
    view = side_view(lightness)
    assert hair_coloured_share((view,), hair, shell(-0.02)) == pytest.approx(7 / 64)
    assert hair_coloured_share((view, side_view(60.0)), hair, shell(-0.02)) == pytest.approx(7 / 128)
    assert hair_coloured_share((side_view(np.where(lightness < 60, 41.0, 60.0)),), hair, shell(-0.02)) == 0
    tuft = np.full((capsule.ROWS, capsule.COLUMNS), -0.02)
    row, column, _ = capsule.cell_coordinates(view.points_world[:, :7])
    tuft[np.rint(row).astype(int), np.rint(column).astype(int)] = 0.01
    assert hair_coloured_share((view,), hair, shell(tuft)) == 0, "hair that the shell carries is no fault"
    assert math.isnan(hair_coloured_share((view,), np.array([50.0, 0.0, 0.0]), shell(-0.02)))
    assert math.isnan(hair_coloured_share((view,), np.full(3, math.nan), shell(-0.02)))
    assert math.isnan(hair_coloured_share((side_view(lightness, 1.0),), hair, shell(-0.02)))


def test_colour_of_hair_and_lightness_behind(model: HeadModel) -> None:
    portrait, hair = face(model), np.zeros((128, 128), bool)
    hair[:40] = True
    grey_l = float(hair_colour(portrait, labels_with(hair))[0])
    assert grey_l == pytest.approx(53.6, abs=0.2), "L of sRGB 128"
    assert np.isnan(hair_colour(portrait, labels_with(hair, headgear_share=0.9))).all(), "a hat is no hair"
    assert np.isnan(hair_colour(portrait, labels_with(np.zeros_like(hair)))).all()
    back = side_view(43.0, material=MATERIAL_HAIR)
    assert lightness_behind(back, np.array([53.0, 0, 0])) == pytest.approx(-10)
    assert math.isnan(lightness_behind(side_view(43.0, 0.9, MATERIAL_HAIR), np.array([53.0, 0, 0]))), "seen hair"
    assert math.isnan(lightness_behind(side_view(43.0), np.array([53.0, 0, 0]))), "no hair at all"


def test_difference_of_the_sides_is_that_of_their_median_colours() -> None:
    left, right = side_view(50.0), side_view(53.0)
    right.lab[..., 1] = 4.0
    right.lab[:10, :10] = 99.0
    assert side_difference(left, right) == pytest.approx(5.0)
    assert math.isnan(side_difference(left, side_view(53.0, material=MATERIAL_CLOTH)))


def test_detail_ratio_of_half_the_noise_is_a_half() -> None:
    noise = np.random.default_rng(0).standard_normal((SIZE, SIZE))
    seen = np.zeros((SIZE, SIZE))
    seen[:, 32:] = 1.0
    slope = np.linspace(0, 10, SIZE)[:, None]
    assert detail_ratio(side_view(50 + slope + noise * (1 + seen), seen)) == pytest.approx(0.5, abs=0.05)
    assert detail_ratio(side_view(50 + slope + noise * seen, seen)) < 0.1, "light that changes slowly is no detail"
    assert math.isnan(detail_ratio(side_view(50 + noise, 0.0)))
    featured = side_view(
        50 + slope + noise * (1 + seen + 9 * (np.arange(SIZE) < 16)), np.maximum(seen, np.arange(SIZE) < 16)
    )
    featured.points_world[:, :16, 0] = world_units(np.array([2.0, 0.0, 0.0]))[0]
    assert detail_ratio(featured) == pytest.approx(0.5, abs=0.05), "eyes, nose and mouth are no detail of the skin"


@pytest.mark.parametrize("turned", [False, True])
def test_accessories_at_the_eyes_and_elsewhere(turned: bool) -> None:
    classes = np.zeros((128, 128, len(CLASS_NAMES)), np.float32)
    eyes = np.array([[44.0, 64.0], [84.0, 64.0]])
    classes[60:65, 40:60, GLASSES] = 0.3
    classes[60:65, 40:60, ACCESSORY] = 0.2
    classes[100:104, 60:70, ACCESSORY] = 0.9
    classes[20:30, 60:70, ACCESSORY] = 0.35
    if turned:
        classes, eyes = np.rot90(classes).copy(), np.stack([eyes[:, 1], 128 - eyes[:, 0]], axis=1)
    at_eyes, elsewhere = accessory_areas(classes, eyes)
    assert at_eyes == pytest.approx(100 / 40**2) and elsewhere == pytest.approx(40 / 40**2)


def test_ears_are_even_uneven_or_turned_away(model: HeadModel) -> None:
    portrait = face(model)
    ears = project_px(portrait.head.camera, portrait.head.vertices_world[ear_vertices(model)])
    both, one = np.zeros((128, 128), bool), np.zeros((128, 128), bool)
    for u, v in np.floor(ears).astype(int):
        both[v, u] = True
        one[v, u] = u > 64
    assert ear_skin(portrait, both, model) == (1.0, 1.0)
    assert ear_skin(portrait, one, model) == (0.0, 1.0), "the head's left ear is on the right"
    assert uneven_ears(1.0, 1.0) == uneven_ears(0.1, 0.2) == 0 and uneven_ears(0.0, 1.0) == uneven_ears(0.7, 0.5) == 1
    turned = ear_skin(face(model, math.radians(40)), both, model)
    assert math.isnan(turned[0]) and not math.isnan(turned[1]) and math.isnan(uneven_ears(*turned))


def test_where_hair_ends_behind() -> None:
    view = side_view(material=MATERIAL_SKIN)
    view.points_world[..., 0] = np.linspace(-6, 6, SIZE) * UNITS_PER_CM
    view.labels[: SIZE // 2] = MATERIAL_HAIR + 1
    view.labels[SIZE // 2 :, 5:8] = MATERIAL_HAIR + 1
    middle = 8 - 14 * (SIZE // 2 - 1) / (SIZE - 1)
    assert lowest_hair_cm(view) == pytest.approx(middle, abs=1e-3), "one strand further down does not count"
    view.labels[SIZE // 2 : SIZE // 2 + 9, 20:40] = MATERIAL_HAIR + 1
    assert lowest_hair_cm(view) == pytest.approx(middle - 9 * 14 / (SIZE - 1), abs=1e-3)
    assert math.isnan(lowest_hair_cm(side_view()))


def test_hair_hangs_with_five_square_centimetres_below_the_chin(model: HeadModel) -> None:
    portrait, chin = face(model), np.array([64.0, 80.0])
    px_cm = 2.7 / float(portrait.head.camera.focal_px[0, 0]) / UNITS_PER_CM
    hair = np.ones((128, 128), bool)
    hair[80:] = False
    assert not hair_hangs(portrait, hair, chin)
    columns = math.ceil(5.0 / px_cm**2 / 8)
    hair[85:93, :columns] = True
    assert hair_hangs(portrait, hair, chin)
    hair[85:93, columns - 1 :] = False
    assert not hair_hangs(portrait, hair, chin)


def test_areas_of_cells_sum_to_a_half_ball() -> None:
    areas = cell_areas_cm2(shell(0.0).skull)
    half_ball = areas[: capsule.SPHERE_ROWS].sum() + 0.5 * areas[capsule.SPHERE_ROWS].sum()
    assert half_ball == pytest.approx(2 * math.pi * SKULL_CM**2, rel=0.03)


def test_islands_of_the_shell() -> None:
    thickness = np.full((capsule.ROWS, capsule.COLUMNS), -0.02)
    assert islands(shell(thickness)) == 0
    thickness[:20] = 0.01
    thickness[20:40, -5:], thickness[20:40, :5] = 0.01, 0.01
    assert islands(shell(thickness)) == 0, "a fringe across the seam is one piece with the cap"
    thickness[60:70, 60:70] = 0.01
    assert islands(shell(thickness)) == 1
    thickness[80, 30] = 0.01
    assert islands(shell(thickness)) == 1, "a speck is none"
    thickness[60:70, -4:], thickness[60:70, :4] = 0.01, 0.01
    assert islands(shell(thickness)) == 2, "one island across the seam counts once"
    pole = np.full_like(thickness, -0.02)
    pole[:30, 10:20] = pole[:30, 70:80] = 0.01
    assert islands(shell(pole)) == 0, "they meet at the crown, which is one point"


def test_bare_crown_and_back() -> None:
    assert bare_shares(shell(0.01)) == (0, 0) and bare_shares(shell(-0.01)) == (1, 1)
    thickness = np.full((capsule.ROWS, capsule.COLUMNS), 0.01)
    thickness[:, : capsule.COLUMNS // 2] = 0.001
    crown, back = bare_shares(shell(thickness))
    assert crown == pytest.approx(0.5, abs=0.02) and back == pytest.approx(0.5, abs=0.02)
    _, y, _ = np.moveaxis(capsule.surface_points(shell(0.0).skull) / UNITS_PER_CM + [0, 2, 1], -1, 0)
    assert bare_shares(shell(np.where(y > 9, -0.01, 0.01)))[0] == 1


def test_the_shell_is_found_in_the_mesh_of_a_prior(model: HeadModel) -> None:
    portrait = face(model)
    skull = capsule.opened_skull_radius(portrait.head.vertices_world, model.skin_faces)
    thickness = np.random.default_rng(0).uniform(-0.02, 0.05, skull.shape)
    around, height = np.linspace(0, 2 * math.pi, sections.COLUMNS + 1), np.linspace(-0.5, -0.9, ROWS)[:, None]
    tube = np.stack(np.broadcast_arrays(0.2 * np.sin(around), height, 0.2 * np.cos(around)), axis=-1)
    bust = Bust(tube, np.eye(4), np.zeros(sections.COLUMNS))
    mesh = build_atlas_mesh(model, portrait.head.vertices_world, HairShell(thickness, skull + thickness), bust)
    found = ShellOnSkull.of(mesh, portrait, model)
    assert np.abs(found.thickness - thickness).max() < 1e-9 and np.array_equal(found.skull, skull)


def test_stretched_share_is_the_share_of_grazing_surface() -> None:
    """Three squares of one size before the camera: face on, turned by 70 degrees, and one that is not seen."""
    square = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * 0.05
    angle = math.radians(70)
    turn = np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])
    vertices = np.concatenate([square, square @ turn.T, square])
    faces = np.concatenate([np.array([[0, 1, 2], [0, 2, 3]]) + 4 * k for k in range(3)])
    uv = np.repeat([[4.5, 4.5], [12.5, 4.5], [20.5, 4.5]], 4, axis=0)
    confidence = np.zeros((8, 24), np.float32)
    confidence[:, :16] = 0.9

    def mesh(material: int) -> AtlasMesh:
        materials = np.full(6, material, np.uint8)
        return AtlasMesh(vertices, np.zeros((12, 3)), uv, faces, materials, np.full(12, -1), np.eye(4), np.zeros(1))

    camera = look_at_origin([0.0], [0.0], size_px=64)
    assert stretched_share(mesh(MATERIAL_HAIR), confidence, camera) == pytest.approx(0.5)
    assert stretched_share(mesh(MATERIAL_SKIN), confidence, camera) == 1, "of skin, only what faces sideways"
    assert math.isnan(stretched_share(mesh(MATERIAL_CLOTH), confidence, camera))
    confidence[:, 8:16] = 0.5
    assert stretched_share(mesh(MATERIAL_HAIR), confidence, camera) == 0, "mirrored colours are not stretched"


def test_proportions_are_ratios_in_the_picture() -> None:
    landmarks = np.random.default_rng(0).uniform(0, 100, (478, 3))
    landmarks[[33, 263, 133, 362]] = [[0, 0, 9], [30, 40, 3], [10, 0, 5], [30, 0, 70]]
    found = proportions(landmarks)
    assert set(found) == set(PROPORTIONS) and found["inner / outer eyes"] == pytest.approx(20 / 50)
    assert proportions(3 * landmarks + 7) == pytest.approx(found)


def result(name: str, value: float = 0.0, **changes: Any) -> PhotoResult:
    """A portrait with the same figure everywhere, and proportions of which the fit keeps half."""
    observed = dict.fromkeys(PROPORTIONS, 1.0 + value)
    fitted = dict.fromkeys(PROPORTIONS, 1.2 + 0.5 * value)
    strip = np.full((256, 256 * len(COLUMNS), 3), 200, np.uint8)
    figures, shape = dict.fromkeys(MEASURES, value), dict.fromkeys(SHAPES, 2.0 + value)
    plain = PhotoResult(name, "k", None, False, figures, observed, fitted, shape, "a (1), b (2)", strip)
    return replace(plain, **changes)


def test_summary_counts_what_is_beyond_the_limit_on_its_bad_side() -> None:
    above, below = MEASURES["crown_bare"], MEASURES["detail_ratio"]
    assert above.beyond(0.26) and not above.beyond(0.25) and below.beyond(0.49) and not below.beyond(0.5)
    assert not above.beyond(math.nan) and not below.beyond(math.nan) and not MEASURES["cpu_s"].beyond(1e9)
    found = summary_of(above, [0.1, 0.2, 0.6, math.nan])
    assert found["measured"] == 3 and found["median"] == 0.2 and found["mean"] == pytest.approx(0.3)
    assert found["share_beyond"] == pytest.approx(1 / 3)
    nothing = summary_of(above, [math.nan])
    assert nothing["measured"] == 0 and math.isnan(nothing["median"]) and math.isnan(nothing["share_beyond"])


def test_slope_says_how_much_of_the_difference_between_people_stays() -> None:
    results = [result(str(k), 0.1 * k) for k in range(4)]
    line = proportion_lines([*results, result("x", observed=None, fitted=None)])["mouth / eyes"]
    assert line["count"] == 4 and line["slope"] == pytest.approx(0.5) and line["fitted_mean"] == pytest.approx(1.275)
    assert line["observed_sd"] == pytest.approx(2 * line["fitted_sd"])
    assert math.isnan(proportion_lines(results[:2])["mouth / eyes"]["slope"])
    assert math.isnan(proportion_lines([results[0]] * 5)["mouth / eyes"]["slope"]), "equal faces give no line"


def test_spread_of_shapes_is_one_for_the_models_own_heads_and_nothing_for_one_head() -> None:
    model, rng = load_head_model(), np.random.default_rng(3)
    own = [rng.normal(size=len(model.identity_basis)) for _ in range(150)]
    lines = shape_lines([result(str(k), shape=head_shape(model, identity)) for k, identity in enumerate(own)])
    shrunk = shape_lines([result(str(k), shape=head_shape(model, 0.3 * identity)) for k, identity in enumerate(own)])
    for name in SHAPES:
        assert 0.85 < lines[name]["spread"] < 1.15, name
        assert 0.25 < shrunk[name]["spread"] < 0.35, name
        assert abs(lines[name]["fitted_mean"] - lines[name]["model_mean"]) < 0.3 * lines[name]["model_sd"], name
    assert math.isnan(shape_lines([result("a")])[SHAPES[0]]["spread"])
    assert shape_lines([result("a"), result("b", 0.2)])[SHAPES[0]]["fitted_mean"] == pytest.approx(2.1)


def test_head_shapes_are_those_of_the_mesh_and_do_not_depend_on_its_size() -> None:
    model = load_head_model()
    mean = head_shape(model, np.zeros(len(model.identity_basis)))
    assert 130 < mean["nasofrontal, degrees"] < 165 and 150 < mean["convexity, degrees"] < 175
    assert 1.1 < mean["skull length / breadth"] < 1.4 and 0.1 < mean["nose protrusion / face"] < 0.25
    larger = replace(model, neutral=2 * model.neutral, identity_basis=2 * model.identity_basis)
    identity = np.random.default_rng(1).normal(size=len(model.identity_basis))
    assert head_shape(larger, identity) == pytest.approx(head_shape(model, identity))
    longer = model.neutral * np.array([1, 1, 1.1], np.float32)
    assert (
        head_shape(replace(model, neutral=longer), 0 * identity)["skull length / breadth"]
        > 1.05 * mean["skull length / breadth"]
    )


def test_tables_have_a_row_per_head_and_one_per_refusal() -> None:
    refused = PhotoResult("c|d.png", "k", "too small", False)
    crashed = PhotoResult("e.png", "k", "ValueError in a.py, line 3: no", True)
    found = photos_result([result("a.png", 0.3), result("b.png"), refused, crashed], {"seed": 0}, identity=False)
    text = found.markdown()
    assert "2 heads of 4 portraits" in text and "| a.png | 0.30 * | 0.30 * | 0.3 |" in text
    assert "| c\\|d.png | refused | too small |" in text and "| e.png | crashed |" in text
    assert "| dark side skin | 2 | 0.15 | 0.15 | > 0.05 | 50 |" in text and 'pip install "dp360[eval]"' in text
    assert found.data["refused"]["e.png"] == {"crashed": True, "reason": "ValueError in a.py, line 3: no"}
    assert found.facts["weights"] == "a (1), b (2)" and "Profiles and skulls of 2 fitted heads" in text
    nobody = photos_result([refused], {"seed": 0}, identity=True)
    assert "0 heads of 1" in nobody.markdown() and not nobody.notices


def test_results_come_back_and_what_is_damaged_does_not(tmp_path: Path) -> None:
    written = result("a.png", 0.25, figures=dict.fromkeys(MEASURES, math.nan) | {"dark_share": 0.25})
    write_photo_result(tmp_path, written)
    found = read_photo_result(tmp_path, "a.png")
    assert found is not None and found.figures is not None and written.figures is not None
    assert found.figures["dark_share"] == 0.25 and math.isnan(found.figures["islands"]) and found.strip is None
    assert found.observed == written.observed and found.key == "k"
    (tmp_path / "a.png.png").unlink()
    assert read_photo_result(tmp_path, "a.png") is None, "its pictures are gone"
    write_photo_result(tmp_path, PhotoResult("b.png", "k", "why"))
    assert read_photo_result(tmp_path, "b.png") == PhotoResult("b.png", "k", "why")
    for text in ("", "[]", '{"name": "b.png"}', '{"figures": 3, "observed": null, "fitted": null}'):
        (tmp_path / "b.png.json").write_text(text)
        assert read_photo_result(tmp_path, "b.png") is None
    assert read_photo_result(tmp_path, "c.png") is None


def test_sheets_show_a_row_for_each_portrait(model: HeadModel) -> None:
    cameras, portrait, hair = photo_cameras(), face(model), np.zeros((128, 128), bool)
    n, shape = len(cameras), (len(cameras), 256, 256)
    rendered = PriorRender(
        np.ones((*shape, 3), np.float32), np.ones(shape, np.float32), np.zeros(shape, np.float32),
        np.zeros((*shape, 3), np.float32), np.ones(shape, np.float32), np.ones(shape, np.uint8),
    )  # fmt: skip
    strip = photo_strip(portrait, labels_with(hair), rendered)
    assert strip.shape == (256, 256 * len(COLUMNS), 3) and n == len(COLUMNS) - 3
    assert (strip[:, -256:] == 255).all() and (strip[:, :256] == 128).all(), "crop first, view from above last"
    one, two = (photo_sheet("t", [("a", strip)] * k) for k in (1, 2))
    assert two.shape[0] - one.shape[0] > 256 and two.shape[1] == strip.shape[1]
    assert len(CLASS_RGB) == len(set(CLASS_RGB)) == len(CLASS_NAMES)


@pytest.mark.skipif(not PORTRAITS.is_dir(), reason="the shared test portraits are not here")
def test_a_folder_of_portraits_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "in"
    pictures.mkdir()
    for name in ("obama_2012.jpg", "sofonisba_anguissola.jpg"):
        (pictures / name).write_bytes((PORTRAITS / name).read_bytes())
    Image.new("RGB", (200, 200), (90, 120, 160)).save(pictures / "sky.png")
    (pictures / "notes.txt").write_text("no picture")
    call = ["eval", "photos", "--images", str(pictures), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(photo_jobs, "_has_embedder", lambda: False)
    assert main(call) == 0
    captured = capsys.readouterr()
    assert "2 heads of 3 portraits" in captured.out and "no head from sky.png" in " ".join(captured.err.split())
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["portraits"] == 3 and list(found["refused"]) == ["sky.png"] and "no face" in str(found["refused"])
    for figures in (photo["figures"] for photo in found["photos"].values()):
        assert set(figures) == set(MEASURES) and figures["identity_0"] is None
        assert 0 <= figures["dark_share"] <= 1 and 0 <= figures["stretched_share"] < 0.5 and figures["bald"] == 0
        assert figures["crown_bare"] < 0.5 and figures["cpu_s"] > 0
    with Image.open(tmp_path / "out" / "sheets" / "sheet_001.png") as sheet:
        assert sheet.width == 256 * len(COLUMNS) and sheet.height > 2 * 256

    def never(*_: object) -> None:
        raise AssertionError("what was measured is not measured again")

    table = (tmp_path / "out" / "table.md").read_text()
    monkeypatch.setattr(photos, "_measured", never)
    assert main(call) == 0
    assert (tmp_path / "out" / "table.md").read_text() == table

"""Glasses found in a portrait: a known frame is recovered from its own projection, and becomes a thing of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from dp360.generation import look_at_origin
from dp360.generation.cameras import UNITS_PER_CM
from dp360.generation.head_model import load_head_model
from dp360.generation.head_model.anatomy import centimetres, world_units
from dp360.generation.portrait import Portrait
from dp360.generation.prior import HeadPrior
from dp360.generation.prior.labels.portrait_labels import project_px
from dp360.generation.prior.labels.segmenter import ACCESSORY, FACE, GLASSES
from dp360.generation.prior.texture.atlas import (
    ATLAS_HEIGHT,
    ATLAS_WIDTH,
    BUST_TILE,
    GLASSES_TILE,
    MATERIAL_GLASSES,
    AtlasMesh,
)
from dp360.generation.prior.texture.portrait_lookup import picture_of_portrait
from dp360.generation.prior.worn.arms import arm_paths
from dp360.generation.prior.worn.frame_evidence import EYE_LANDMARKS, find_frame, outlined, sampled
from dp360.generation.prior.worn.frame_shape import FrameShape, WearersFace, frame_curves
from dp360.generation.prior.worn.glasses import Glasses, _Sections, fit_glasses
from dp360.generation.prior.worn.glasses_mesh import LENS, WornPart, glasses_mesh, part_of_texels

HEADS = Path(__file__).resolve().parents[5] / "shared" / "data" / "heads"


def fitted(worn) -> Glasses:
    glasses = fit_glasses(worn.portrait, worn.labels, load_head_model())
    assert glasses is not None
    return glasses


@pytest.fixture(scope="module")
def plain(wearer: Callable, known: FrameShape) -> Glasses:
    return fitted(wearer(known))


@pytest.fixture(scope="module")
def dark(wearer: Callable, known: FrameShape) -> Glasses:
    return fitted(wearer(known, opaque=True))


def rim_error_px(worn, shape: FrameShape, truth: FrameShape) -> float:
    """Mean distance of the true rims' points from the fitted rims."""
    camera = worn.portrait.head.camera
    ours, true = (project_px(camera, world_units(frame_curves(s, worn.face).rims)) for s in (shape, truth))
    return float(np.linalg.norm(ours[:, None] - true[:, :, None], axis=-1).min(-1).mean())


@pytest.mark.parametrize("yaw_deg", [0.0, 25.0, -40.0])
def test_a_known_frame_is_recovered(wearer: Callable, known: FrameShape, yaw_deg: float) -> None:
    worn = wearer(known, yaw_deg=yaw_deg)
    glasses = fitted(worn)
    shape = glasses.shape
    assert rim_error_px(worn, shape, known) < 2.5
    assert shape.half_width_cm == pytest.approx(known.half_width_cm, abs=0.2)
    assert shape.half_height_cm == pytest.approx(known.half_height_cm, abs=0.15)
    assert shape.y_cm == pytest.approx(known.y_cm, abs=0.2)
    assert glasses.rims == "full" and glasses.lens_rgb is None
    assert glasses.rim_cm == pytest.approx((0.3, 0.3), abs=0.13)
    assert np.abs(glasses.frame_rgb - (0.1, 0.15, 0.3)).max() < 0.06


def test_narrow_frames_are_told_from_round_ones(wearer: Callable, known: FrameShape) -> None:
    narrow = replace(known, half_height_cm=1.3, exponent=4.5, half_width_cm=2.7, y_cm=-0.2)
    shape = fitted(wearer(narrow)).shape
    assert shape.half_height_cm == pytest.approx(1.3, abs=0.15) and shape.exponent > 3.2


def test_bare_eyes_wear_nothing(wearer: Callable) -> None:
    worn = wearer(None)
    assert fit_glasses(worn.portrait, worn.labels, load_head_model()) is None


def test_jewellery_at_the_ears_is_no_pair_of_glasses(wearer: Callable) -> None:
    worn = wearer(None)
    classes = worn.labels.classes.copy()
    for ear in project_px(worn.portrait.head.camera, world_units(worn.face.ears_cm - [0, 4, 0])).astype(int):
        classes[ear[1] - 15 : ear[1] + 15, ear[0] - 15 : ear[0] + 15] = np.eye(11, dtype=np.float32)[ACCESSORY]
    assert fit_glasses(worn.portrait, replace(worn.labels, classes=classes), load_head_model()) is None


def test_a_patch_over_one_eye_is_no_pair_of_glasses(wearer: Callable) -> None:
    worn = wearer(None)
    classes = worn.labels.classes.copy()
    x, y = project_px(worn.portrait.head.camera, world_units(worn.face.eyes_cm))[0].astype(int)
    classes[y - 25 : y + 25, x - 25 : x + 25] = np.eye(11, dtype=np.float32)[ACCESSORY]
    assert fit_glasses(worn.portrait, replace(worn.labels, classes=classes), load_head_model()) is None


def test_frames_that_are_taken_for_jewellery_are_found(wearer: Callable, known: FrameShape) -> None:
    assert fitted(wearer(known, label=ACCESSORY)).rims == "full"


def test_the_same_portrait_gives_the_same_glasses(wearer: Callable, known: FrameShape, plain: Glasses) -> None:
    again = fitted(wearer(known))
    assert again.shape == plain.shape and (again.hidden == plain.hidden).all()
    assert (glasses_mesh(again, None).vertices_world == glasses_mesh(plain, None).vertices_world).all()


def test_without_a_lower_rim_there_is_half_a_rim(wearer: Callable, known: FrameShape, plain: Glasses) -> None:
    half = fitted(wearer(known, lower=False))
    assert half.rims == "half" and plain.rims == "full"

    def in_front(glasses: Glasses, below_cm: float) -> int:
        at = centimetres(glasses_mesh(glasses, None).vertices_world)
        middle = frame_curves(glasses.shape, glasses.face).rims.mean((0, 1))
        return int(((at[:, 2] > middle[2] - 1.5) & (at[:, 1] < middle[1] - below_cm)).sum())

    assert in_front(plain, 1.0) > 100 and in_front(half, 1.0) == 0


def test_an_upper_rim_alone_that_is_no_dark_line_is_none(wearer: Callable, known: FrameShape) -> None:
    """Of rimless glasses the segmenter sees upper rims on lids and brows; bridge and arms are all there is."""
    worn = wearer(known, lower=False)
    rims = cv2.dilate(outlined_rims(worn, known), np.ones((9, 9), np.uint8)) > 0
    rgb, classes = worn.portrait.foreground_unit.copy(), worn.labels.classes.copy()
    classes[rims] = 0.6 * classes[rims] + 0.4 * np.eye(11, dtype=np.float32)[FACE]
    unsure = replace(worn, labels=replace(worn.labels, classes=classes))
    assert fitted(unsure).rims == fitted(worn).rims == "half"
    rgb[rims] = rgb[300, 256]
    bare = replace(unsure, portrait=replace(worn.portrait, foreground_unit=rgb))
    assert fitted(bare).rims == "none"


def test_a_lower_rim_that_is_hardly_seen_is_none(wearer: Callable, known: FrameShape, plain: Glasses) -> None:
    worn = wearer(known)
    classes = worn.labels.classes.copy()
    middle = int(project_px(worn.portrait.head.camera, world_units(worn.face.eyes_cm))[:, 1].mean())
    classes[middle + 8 :] = 0.3 * classes[middle + 8 :] + 0.7 * np.eye(11, dtype=np.float32)[FACE]
    faint = replace(worn, labels=replace(worn.labels, classes=classes))
    assert fitted(faint).rims == "half" and plain.rims == "full"


def test_lids_and_brows_are_no_dark_lines(wearer: Callable, known: FrameShape) -> None:
    worn = wearer(known)
    landmarks_px = project_px(worn.portrait.head.camera, load_head_model().landmarks(worn.portrait.head.vertices_world))
    evidence = find_frame(worn.portrait, worn.labels, worn.face, landmarks_px)
    assert evidence is not None
    px = landmarks_px[[159, 145, 105, 334, 50, 280]]  # lids, brows and cheeks
    np.testing.assert_array_equal(sampled(evidence.plain, px) > 0.5, [False, False, False, False, True, True])
    rims = project_px(worn.portrait.head.camera, world_units(frame_curves(known, worn.face).rims))[0]
    assert _Sections.across(rims, evidence, worn.portrait).dark.max() > 0.3
    on_lids = replace(evidence, plain=np.zeros_like(evidence.plain))
    assert _Sections.across(rims, on_lids, worn.portrait).dark.max() == 0


def outlined_rims(worn, shape: FrameShape) -> np.ndarray:
    """Pixels on the middle lines of rims."""
    lines = np.zeros((512, 512), np.uint8)
    for rim in project_px(worn.portrait.head.camera, world_units(frame_curves(shape, worn.face).rims)):
        cv2.polylines(lines, [np.round(rim).astype(np.int32)], True, (1,))
    return lines


def test_an_eye_is_seen_where_the_segmenter_sees_no_wire(wearer: Callable, known: FrameShape) -> None:
    worn = wearer(replace(known, y_cm=-2.2))  # the upper rims run over the eyes
    classes = worn.labels.classes.copy()
    landmarks_px = project_px(worn.portrait.head.camera, load_head_model().landmarks(worn.portrait.head.vertices_world))
    eyes = outlined(landmarks_px, EYE_LANDMARKS, 512) > 0
    classes[eyes] = 0.9 * np.eye(11, dtype=np.float32)[FACE] + 0.1 * np.eye(11, dtype=np.float32)[GLASSES]
    glasses = fitted(replace(worn, labels=replace(worn.labels, classes=classes)))
    assert not glasses.hidden[eyes].any() and glasses.clear[eyes].all()
    assert fitted(worn).hidden[eyes].mean() > 0.1


def test_half_a_frame_among_a_painters_strokes_is_none_and_a_whole_one_is_one(
    wearer: Callable, known: FrameShape
) -> None:
    for lower in (False, True):
        worn = wearer(known, lower=lower)
        rgb = worn.portrait.foreground_unit.copy()
        away = worn.labels.classes[..., GLASSES] < 0.01
        for row in range(0, len(rgb), 6):  # two dark rows of six, all over the face
            rgb[row : row + 2][away[row : row + 2]] *= 0.6
        painted = replace(worn, portrait=replace(worn.portrait, foreground_unit=rgb))
        model = load_head_model()
        assert (fit_glasses(painted.portrait, painted.labels, model) is not None) == lower
        assert fit_glasses(worn.portrait, worn.labels, model) is not None


def test_half_a_frame_without_a_bridge_is_none(wearer: Callable, known: FrameShape) -> None:
    worn, model = wearer(known, lower=False), load_head_model()
    curves = frame_curves(known, worn.face)
    column, row = np.round(project_px(worn.portrait.head.camera, world_units(curves.bridge)).mean(0)).astype(int)
    rgb, classes = worn.portrait.foreground_unit.copy(), worn.labels.classes.copy()
    place = slice(row - 20, row + 20), slice(column - 22, column + 22)
    rgb[place], classes[place] = rgb[5, 5], np.eye(classes.shape[-1], dtype=np.float32)[FACE]
    portrait, labels = replace(worn.portrait, foreground_unit=rgb), replace(worn.labels, classes=classes)
    assert fit_glasses(portrait, labels, model) is None and fitted(worn).rims == "half"


def test_opaque_lenses_become_surfaces_of_their_colour(plain: Glasses, dark: Glasses) -> None:
    assert plain.lens_rgb is None and dark.lens_rgb is not None
    assert np.abs(dark.lens_rgb - (0.2, 0.1, 0.05)).max() < 0.05

    def has_lens(part: WornPart) -> bool:
        column, row = part.uv_px.astype(int).T
        return bool((part_of_texels(row, column) == LENS).any())

    assert has_lens(glasses_mesh(dark, None)) and not has_lens(glasses_mesh(plain, None))


def test_thick_rims_that_run_together_are_clear_where_eyes_are_seen(wearer: Callable, known: FrameShape) -> None:
    worn, model = wearer(known, opaque=True), load_head_model()
    landmarks_px = project_px(worn.portrait.head.camera, model.landmarks(worn.portrait.head.vertices_world))
    eyes = cv2.dilate(outlined(landmarks_px, EYE_LANDMARKS, worn.portrait.size_px), np.ones((5, 5), np.uint8)) > 0
    classes = worn.labels.classes.copy()
    classes[eyes] = np.eye(classes.shape[-1], dtype=np.float32)[FACE]
    glasses = fit_glasses(worn.portrait, replace(worn.labels, classes=classes), model)
    assert glasses is not None and glasses.lens_rgb is None


@pytest.mark.parametrize("name", ["plain", "dark"])
def test_every_surface_is_closed_and_turned_outwards(name: str, request: pytest.FixtureRequest) -> None:
    part = glasses_mesh(request.getfixturevalue(name), None)
    mesh = trimesh.Trimesh(part.vertices_world, part.faces, process=False)
    facing = (mesh.face_normals * part.normals_world[part.faces].mean(1)).sum(1)
    assert (facing > 0).mean() > 0.99
    mesh.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=9)
    pieces = mesh.split(only_watertight=False)
    assert mesh.is_watertight and len(pieces) == (7 if name == "dark" else 5)
    assert all(piece.volume > 0 for piece in pieces)
    assert np.abs(np.linalg.norm(part.normals_world, axis=1) - 1).max() < 1e-9


def test_parts_lie_within_the_tile_and_the_tile_overlaps_no_other(dark: Glasses) -> None:
    uv = glasses_mesh(dark, None).uv_px
    assert (uv >= 2).all() and (uv <= np.array(GLASSES_TILE[2:]) - 2).all()
    x, y, width, height = GLASSES_TILE
    assert x >= 1024 and y >= 768 and x + width <= 1792 and y + height <= BUST_TILE[1]
    assert x + width <= ATLAS_WIDTH and y + height <= ATLAS_HEIGHT


def test_arms_pass_beside_the_head_and_end_behind_the_ears(plain: Glasses) -> None:
    model = load_head_model()
    face = WearersFace.of(model, model.neutral.astype(np.float64))
    paths = arm_paths(plain.shape, face, frame_curves(plain.shape, face), 0.07)
    for path, ear, side in zip(paths, face.ears_cm, (-1, 1)):
        skin = face.skin_cm[side * face.skin_cm[:, 0] > 3]
        away = np.linalg.norm(skin[:, None, 1:] - path[None, :, 1:], axis=-1)
        beside = side * skin[away.argmin(0), 0]
        along = path[:, 2] < 7.5  # the rims stand before the face, not beside it
        assert (side * path[along, 0] > beside[along]).all()
        assert (side * path[along, 0] < beside[along] + 1.5).all()
        at_ear = path[np.abs(path[:, 2] - ear[2]).argmin()]
        assert np.linalg.norm(at_ear - ear) < 1.2
        assert path[-1, 2] < ear[2] - 1.5 and path[-1, 1] < ear[1] - 2


def test_the_frame_stands_before_the_skin(plain: Glasses) -> None:
    rims = frame_curves(plain.shape, plain.face).rims
    skin = plain.face.skin_cm[plain.face.skin_cm[:, 2] > 3]
    nearest = skin[np.linalg.norm(skin[:, None, :2] - rims.reshape(1, -1, 3)[..., :2], axis=-1).argmin(0)]
    ahead = rims.reshape(-1, 3)[:, 2] - nearest[:, 2]
    assert ahead.min() > -0.2 and np.median(ahead) < 3.5


def wall(distance_cm: float) -> AtlasMesh:
    """A square before the face that looks to the camera."""
    corners = np.array(
        [[-12.0, -12, distance_cm], [12, -12, distance_cm], [12, 12, distance_cm], [-12, 12, distance_cm]]
    )
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    normals = np.tile([0.0, 0.0, 1.0], (4, 1))
    material = np.zeros(2, np.uint8)
    return AtlasMesh(
        world_units(corners), normals, np.zeros((4, 2)), faces, material, np.full(4, -1), np.eye(4), np.zeros(1)
    )


@pytest.mark.parametrize("known_to_be_worn", [True, False])
def test_skin_gets_nothing_from_pixels_of_the_frame(
    wearer: Callable, known: FrameShape, plain: Glasses, known_to_be_worn: bool
) -> None:
    worn = wearer(known)
    picture = picture_of_portrait(worn.portrait, worn.labels, wall(9.0), plain if known_to_be_worn else None)
    trust = picture.image[..., -1]
    frame = worn.labels.classes[..., GLASSES] > 0.5
    assert frame.any() and not trust[frame].any()
    eyes = project_px(worn.portrait.head.camera, world_units(worn.face.eyes_cm)).astype(int)
    assert (trust[eyes[:, 1], eyes[:, 0]] == 1).all()
    colours = picture.image[trust > 0][:, :3]
    assert np.abs(colours - (0.8, 0.6, 0.5)).max() < 0.02  # nothing of the frame is left


def test_a_portrait_without_glasses_is_trusted_as_before(wearer: Callable) -> None:
    worn = wearer(None)
    assert (picture_of_portrait(worn.portrait, worn.labels, wall(9.0)).image[8:-8, 8:-8, -1] == 1).all()


def test_eyes_behind_opaque_lenses_are_not_seen(wearer: Callable, known: FrameShape, dark: Glasses) -> None:
    worn = wearer(known, opaque=True)
    trust = picture_of_portrait(worn.portrait, worn.labels, wall(9.0), dark).image[..., -1]
    eyes = project_px(worn.portrait.head.camera, world_units(worn.face.eyes_cm)).astype(int)
    assert (trust[eyes[:, 1], eyes[:, 0]] == 0).all()


def test_readers_wear_their_glasses_low(wearer: Callable, known: FrameShape) -> None:
    low = replace(known, y_cm=-2.0, half_height_cm=1.4)
    worn = wearer(low)
    assert rim_error_px(worn, fitted(worn).shape, low) < 2.5


def test_no_glasses_no_triangles(portrait: Portrait, prior: HeadPrior) -> None:
    assert portrait.source_name == "astronaut.png"
    assert prior.glasses == "none" and not prior.look_settings
    assert MATERIAL_GLASSES not in prior.mesh.material


@pytest.mark.slow
@pytest.mark.skipif(not HEADS.is_dir(), reason="needs the head assets")
def test_a_composed_head_keeps_its_glasses_from_all_sides() -> None:
    import cv2

    from dp360.generation.prior.head_prior import PriorBasis
    from dp360.generation.prior.labels import segmenter
    from dp360.generation.synthetic.assets import asset_index
    from dp360.generation.synthetic.composed_recipe import sample_recipe
    from dp360.generation.synthetic.fitted_composed_head import NumberedHeads
    from dp360.generation.synthetic.parts import Label

    recipes = ((n, sample_recipe(n, asset_index(), "held_out")) for n in range(200))
    number = next(n for n, r in recipes if r.wear.glasses and r.base == "shape" and r.style == "photo")
    made = NumberedHeads(HEADS, "held_out", 0).make(number)
    assert made is not None
    camera = made.fitted.portrait.head.camera
    truth = made.fitted.true_views(camera).labels[0]
    basis = PriorBasis.of(made.fitted.portrait)
    one_hot = np.where((truth == Label.GLASSES)[..., None], np.eye(11, dtype=np.float32)[GLASSES], 0)
    one_hot[..., FACE] = truth != Label.GLASSES
    labels = replace(basis.labels, classes=cv2.GaussianBlur(one_hot, (0, 0), 0.7))
    glasses = fit_glasses(basis.portrait, labels, basis.model)
    assert glasses is not None and segmenter.CLASS_NAMES[GLASSES] == "glasses"
    basis = replace(basis, labels=labels, glasses=glasses)
    on, off = basis.prior(), basis.prior(glasses=False)
    assert (on.glasses, off.glasses) == ("worn", "taken off")
    assert MATERIAL_GLASSES in on.mesh.material and MATERIAL_GLASSES not in off.mesh.material
    assert len(on.textured_mesh().faces) > len(off.textured_mesh().faces)

    from_portrait = on.render(camera).labels[0] == MATERIAL_GLASSES + 1
    near = cv2.dilate((truth == Label.GLASSES).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert (from_portrait & near).sum() > 0.8 * from_portrait.sum() > 200
    side = look_at_origin([-np.pi / 2, np.pi / 2], [0.0, 0.0], size_px=256)
    arms = on.render(side).labels == MATERIAL_GLASSES + 1
    reach_cm = np.ptp(np.nonzero(arms[0])[1]) / (4.2647 * 256 / 2.7 * UNITS_PER_CM)
    assert reach_cm > 7  # from the eyes to the ears, hair permitting

"""What the 52 shapes do to a head: to the right place, on the right side, and back to neutral at zero."""

import io
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from dp360.generation import InputError
from dp360.generation.cameras import UNITS_PER_CM
from dp360.generation.head_model import load_head_model
from dp360.generation.head_model.model import PART_CRANIUM_NECK, PART_EYEBALL_LEFT, PART_EYEBALL_RIGHT, PART_TEETH
from dp360.generation.mesh_raster import rasterize_mesh
from dp360.generation.prior.saved_fit import read_fit
from dp360.generation.prior.texture.atlas import MATERIAL_EYE, MATERIAL_MOUTH, MATERIAL_TEETH
from dp360.reconstruction.avatar.arkit import ARKIT_NAMES, DERIVED, GROUPS, index_of, model_matrix
from dp360.reconstruction.avatar.eyes import eyeballs_of, front_camera
from dp360.reconstruction.avatar.poses import HEAD_NAMES, PRESETS, Pose, pose_from_text
from dp360.reconstruction.avatar.rig import Rig, build_rig
from dp360.reconstruction.avatar.skeleton import HEAD, JOINTS, head_turn


def shown(rig: Rig, pose: Pose, centre: np.ndarray) -> np.ndarray:
    """Material of each pixel of a picture of a part of the face, from in front; 255 where there is nothing."""
    triangle = rasterize_mesh(rig.posed(pose), rig.faces, front_camera(centre)).triangle_index
    return np.where(triangle >= 0, rig.material[np.maximum(triangle, 0)], 255)


def centre_of_eye(rig: Rig, side: int) -> np.ndarray:
    part = (PART_EYEBALL_LEFT, PART_EYEBALL_RIGHT)[side]
    return rig.vertices_world[load_head_model().part[rig.head_vertex] == part].mean(0).astype(np.float64)


def test_there_are_52_names_each_in_one_group():
    assert len(ARKIT_NAMES) == len(set(ARKIT_NAMES)) == 52
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(ARKIT_NAMES)


def test_every_expression_of_the_model_is_in_a_shape_and_every_shape_moves_something(rig):
    matrix = model_matrix(load_head_model())
    assert (matrix.sum(0) > 0).all()
    empty = {name for name, row in zip(ARKIT_NAMES, matrix) if not row.any()}
    assert empty == set(DERIVED)
    assert (np.abs(rig.shapes).max((1, 2)) > 0.1 * UNITS_PER_CM).all()


@pytest.mark.parametrize("side", [0, 1])
def test_a_blink_closes_its_own_eye_alone(rig, side):
    own = Pose.of({f"eyeBlink{('Left', 'Right')[side]}": 1.0})
    for eye in (0, 1):
        centre = centre_of_eye(rig, eye)
        before = (shown(rig, Pose.neutral(), centre) == MATERIAL_EYE).sum()
        after = (shown(rig, own, centre) == MATERIAL_EYE).sum()
        assert before > 1000
        assert after < 10 if eye == side else after == before
    assert centre_of_eye(rig, 0)[0] > 0  # the person's left is +x


def test_lips_are_closed_without_an_expression_and_open_with_the_jaw(rig):
    centre = rig.vertices_world[load_head_model().part[rig.head_vertex] == PART_TEETH].mean(0).astype(np.float64)
    inside = (MATERIAL_MOUTH, MATERIAL_TEETH)
    assert np.isin(shown(rig, Pose.neutral(), centre), inside).sum() < 60
    assert np.isin(shown(rig, Pose.of({"jawOpen": 0.5}), centre), inside).sum() > 2000


def test_jaw_leaves_the_upper_face_and_the_upper_teeth(rig):
    moved = np.linalg.norm(rig.shapes[index_of("jawOpen")], axis=1) / UNITS_PER_CM
    part = load_head_model().part[rig.head_vertex]
    eyes = centre_of_eye(rig, 0)[1]
    assert moved[rig.vertices_world[:, 1] > eyes].max() < 0.2
    assert moved[part == PART_CRANIUM_NECK].max() < 0.5
    teeth = moved[part == PART_TEETH]
    assert ((teeth < 0.01) | (teeth > 1)).all() and (teeth < 0.01).any() and (teeth > 1).any()


@pytest.mark.parametrize(("way", "axis", "sign"), [("Out", 0, 1), ("In", 0, -1), ("Up", 1, 1), ("Down", 1, -1)])
def test_eyes_look_where_the_shape_says_and_stay_round(rig, way, axis, sign):
    model = load_head_model()
    for side, (word, outwards) in enumerate((("Left", 1), ("Right", -1))):
        own = model.part[rig.head_vertex] == (PART_EYEBALL_LEFT, PART_EYEBALL_RIGHT)[side]
        moved = rig.posed(Pose.of({f"eyeLook{way}{word}": 1.0}))[own]
        front = rig.vertices_world[own][:, 2] > np.quantile(rig.vertices_world[own][:, 2], 0.98)
        shift = (moved - rig.vertices_world[own])[front].mean(0)
        assert shift[axis] * sign * (outwards if axis == 0 else 1) > 0.4 * UNITS_PER_CM
        centre = rig.skeleton.positions_world[JOINTS.index(("leftEye", "rightEye")[side])]
        before, after = (np.linalg.norm(v - centre, axis=1) for v in (rig.vertices_world[own], moved))
        assert np.abs(after - before).max() < 1e-4


def test_the_portraits_expression_is_taken_out_and_kept_as_a_pose(rig):
    named = rig.portrait_pose.named
    assert named["mouthSmileLeft"] == pytest.approx(0.6, abs=0.1)
    assert named["mouthSmileRight"] == pytest.approx(0.6, abs=0.1)
    assert named["jawOpen"] == pytest.approx(0.15, abs=0.05)
    again = rig.posed(rig.portrait_pose)
    off = np.linalg.norm(again - rig.portrait_vertices_world, axis=1) / UNITS_PER_CM
    assert np.median(off) < 0.02 and np.quantile(off, 0.99) < 0.35
    assert np.abs(rig.vertices_world - rig.portrait_vertices_world).max() > 0.5 * UNITS_PER_CM


def test_zero_is_the_rig_itself(rig):
    np.testing.assert_array_equal(rig.posed(Pose.neutral()), rig.vertices_world)


def test_shares_of_the_joints_add_up_and_the_head_turns_as_one(rig):
    np.testing.assert_allclose(rig.joint_weights.sum(1), 1)
    assert (rig.joint_weights >= 0).all()
    pose = pose_from_text("headYaw=30")
    turned, crown = rig.posed(pose), rig.vertices_world[:, 1] > 0.1
    assert (rig.joint_weights[crown, HEAD] == 1).all()
    # a rigid turn keeps distances, and turns the face to its left
    before, after = (v[crown] - v[crown].mean(0) for v in (rig.vertices_world.astype(float), turned))
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), np.linalg.norm(before, axis=1), atol=1e-6)
    np.testing.assert_allclose(after, before @ head_turn(pose.head_rad).T, atol=1e-6)
    nose = rig.vertices_world[:, 2].argmax()
    assert turned[nose, 0] > rig.vertices_world[nose, 0] + UNITS_PER_CM


def test_lids_lips_and_eyes_are_painted_anew(rig):
    model = load_head_model()
    eye = eyeballs_of(model, model.neutral)[0]
    assert eye.centre_world[0] > 0
    # a white beside a dark pupil, on a texture that was skin all over
    place = np.clip(rig.uv_unit * rig.texture_rgb.shape[1::-1], 0, None).astype(int)
    own = np.flatnonzero(model.part[rig.head_vertex] == PART_EYEBALL_LEFT)
    colours = rig.texture_rgb[np.minimum(place[own, 1], 1791), np.minimum(place[own, 0], 2047)].astype(int)
    assert colours.min() < 60 and colours.max() > 150


def test_another_head_model_is_refused(mean_fit):
    with pytest.raises(InputError, match=r"was fitted with other-1.*make the head again"):
        build_rig(replace(mean_fit(), head_model="other-1"))


def test_a_fit_survives_its_file_and_damage_is_named(mean_fit, tmp_path):
    fit = mean_fit({"jawOpen": 0.3})
    path = tmp_path / "head_fit.npz"
    path.write_bytes(fit.encode())
    assert path.read_bytes() == fit.encode()
    again = read_fit(path)
    for name in ("identity", "expression", "vertices_world", "faces", "uv_px", "head_vertex", "confidence"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fit, name))
    np.testing.assert_array_equal(again.portrait_rgb, fit.portrait_rgb)
    for name in ("texture_rgb", "albedo_rgb"):
        np.testing.assert_allclose(getattr(again, name).astype(int), getattr(fit, name), atol=3)
    np.testing.assert_allclose(again.camera.T_world_camera, fit.camera.T_world_camera)
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 2])
    with pytest.raises(InputError, match=r"head_fit\.npz: it is damaged"):
        read_fit(path)
    with pytest.raises(InputError, match="which dp360 run and dp360 views write"):
        read_fit(tmp_path / "none.npz")


def test_a_fast_heads_smaller_texture_is_read_at_full_size(mean_fit, tmp_path):
    fit = mean_fit()
    names = ("texture_rgb", "albedo_rgb", "confidence")
    smooth = {name: cv2.GaussianBlur(getattr(fit, name), (0, 0), 4) for name in names}
    path = tmp_path / "head_fit.npz"
    path.write_bytes(replace(fit, **{name: picture[::2, ::2].copy() for name, picture in smooth.items()}).encode())
    again = read_fit(path)
    for name in names:
        assert getattr(again, name).shape == smooth[name].shape
        assert np.abs(getattr(again, name).astype(int) - smooth[name]).mean() < 1.5


def test_a_fit_of_the_first_layout_is_read(mean_fit, tmp_path):
    fit = mean_fit()
    with np.load(io.BytesIO(fit.encode()), allow_pickle=False) as file:
        arrays = {name.replace("_picture", "_png"): file[name] for name in file.files}
    png = io.BytesIO()
    Image.fromarray(fit.texture_rgb).save(png, "PNG")
    arrays["texture_png"] = np.frombuffer(png.getvalue(), np.uint8)
    for layout, message in ((1, None), (3, "expected layout 2 or earlier, got 3")):
        facts = json.loads(arrays["facts"].tobytes()) | {"format": layout}
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        np.savez(tmp_path / "head_fit.npz", **arrays)
        if message is None:
            np.testing.assert_array_equal(read_fit(tmp_path / "head_fit.npz").texture_rgb, fit.texture_rgb)
        else:
            with pytest.raises(InputError, match=message):
                read_fit(tmp_path / "head_fit.npz")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_poses(name):
    assert pose_from_text(name).named == {k: pytest.approx(v) for k, v in PRESETS[name].items()}


def test_poses_out_of_text():
    pose = pose_from_text("smile=0.5 + jawOpen=.7 + headYaw=20")
    assert pose.named["jawOpen"] == 0.7
    assert pose.named["mouthSmileLeft"] == pytest.approx(0.375)
    np.testing.assert_allclose(np.degrees(pose.head_rad), [20, 0, 0])
    assert pose_from_text("jawOpen=3").named == {"jawOpen": 1.0}
    assert pose_from_text("mine", {"mine": pose}).named == pose.named
    for text, message in (("frown", "expected one of neutral"), ("jawOpen=wide", "a number behind jawOpen="),
                          ("jawOpen=nan", "finite number for jawOpen")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            pose_from_text(text)
    assert len(HEAD_NAMES) == 3

"""Readers of captures: small files with the documented structure, in which a known object must come out where it was.

Each capture shows a few coloured dots at known places of our world. They are drawn through the capture's own cameras
(pose, unit, lens distortion, its way of storing them); the reader has them right if every dot lies where the cameras of
the view set say.
"""

import dataclasses
import io
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from PIL import Image, features

from dp360.generation import Cameras, InputError, ViewSet, look_at_origin
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.captures import HeadPlacement, ava256, read_ava256, read_nersemble, read_renderme360
from dp360.generation.captures.capture import (
    HEAD_HALF_EXTENT,
    CaptureCamera,
    CapturePicture,
    capture_provenance,
    capture_views,
    keypoint_surface,
)
from dp360.generation.captures.color_correction import affine_corrected, polynomial_corrected
from dp360.generation.captures.placement import (
    KEYPOINT_ORDERS,
    best_similarity,
    optical_axes_meet,
    placement_from_keypoints,
)
from dp360.generation.head_model import load_head_model
from dp360.generation.progress import silent

DOTS_WORLD = np.array(
    [[-0.04, -0.03, 0.18], [-0.02, 0.21, 0.01], [0.13, 0.05, 0.05], [-0.15, 0.07, -0.03], [0.07, -0.2, 0.13],
     [-0.08, -0.14, 0.0]]
)  # fmt: skip
"""Places without any symmetry, on and near a head, that never hide one another from the cameras below."""
DOTS_RGB = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]], np.uint8)
DISTORTION = np.array([-4.0, 10.0, 0.01, -0.012, 0.3])
"""Strong enough to move dots by several pixels."""


def rotation(seed: int) -> Float[np.ndarray, "3 3"]:
    Q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return Q * np.linalg.det(Q)


def arc(azimuths_deg: list[float], elevations_deg: list[float] | None = None) -> Float[np.ndarray, "n 4 4"]:
    """Poses of cameras that look at the head's middle, our world."""
    azimuth = [math.radians(a) for a in azimuths_deg]
    elevation = [math.radians(e) for e in elevations_deg or [0.0] * len(azimuth)]
    return look_at_origin(azimuth, elevation, radius=1.8).T_world_camera.numpy()


def in_capture(T_world_camera: Float[np.ndarray, "n 4 4"], placement: HeadPlacement) -> Float[np.ndarray, "n 4 4"]:
    """The inverse of `placed_in_head_frame`, written out on its own."""
    T = T_world_camera.copy()
    T[:, :3, :3] = placement.R_world_capture.T @ T[:, :3, :3]
    T[:, :3, 3] = (T[:, :3, 3] - placement.t_world_capture) @ placement.R_world_capture / placement.scale
    return T


def drawn(
    K: Float[np.ndarray, "3 3"],
    D: Float[np.ndarray, " d"],
    T_world_camera: Float[np.ndarray, "4 4"],
    size: tuple[int, int],
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """A distorted picture of the dots on grey, and a mask of discs around them. Metric scale does not matter here."""
    R = T_world_camera[:3, :3].T
    uv, _ = cv2.projectPoints(DOTS_WORLD, cv2.Rodrigues(R)[0], -R @ T_world_camera[:3, 3], K, D)
    rgb, mask = np.full((size[1], size[0], 3), 90, np.uint8), np.zeros((size[1], size[0]), np.uint8)
    for (u, v), colour in zip(uv[:, 0], DOTS_RGB, strict=True):
        centre = (round(u * 16), round(v * 16))
        cv2.circle(mask, centre, 11 * 16, 255, -1, cv2.LINE_AA, 4)
        cv2.circle(rgb, centre, 4 * 16, tuple(int(c) for c in colour), -1, cv2.LINE_AA, 4)
    return rgb, mask


def intrinsics(size: tuple[int, int], focal: float) -> Float[np.ndarray, "3 3"]:
    """A principal point well off the middle."""
    return np.array([[focal, 0, 0.53 * size[0]], [0, 1.02 * focal, 0.46 * size[1]], [0, 0, 1]])


def assert_dots_in_place(views: ViewSet, *, tolerance_px: float = 0.6) -> None:
    """Every dot of every view lies where the view's camera projects it, in its colour, on the mask."""
    uvz = views.cameras.project(torch.from_numpy(DOTS_WORLD)).numpy()
    assert (uvz[..., 2] > 0).all()
    rows, columns = np.mgrid[: views.cameras.height, : views.cameras.width] + 0.5
    for i, name in enumerate(views.names):
        rgba = views.rgba[i].numpy().astype(np.float64)
        assert rgba[..., 3].max() == 255
        for (u, v, _), colour in zip(uvz[i], DOTS_RGB, strict=True):
            likeness = np.clip(1 - np.abs(rgba[..., :3] - colour).max(-1) / 120, 0, None)
            likeness *= np.hypot(columns - u, rows - v) < 9
            assert likeness.sum() > 1, f"no dot {colour} in {name}"
            found = np.array([(likeness * columns).sum(), (likeness * rows).sum()]) / likeness.sum()
            assert np.hypot(*(found - (u, v))) < tolerance_px, f"dot {colour} in {name}"
            assert rgba[int(v), int(u), 3] > 240  # mattes in videos are not exact


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def face_keypoints(order: str, count: int, seed: int | None = None) -> Float[np.ndarray, "k 3"]:
    """Key points of the mean head, or of a random one, in our world; points that are not used lie anywhere."""
    model = load_head_model()
    generator = np.random.default_rng(seed or 0)
    vertices = model.neutral.astype(np.float64)
    if seed is not None:
        identity = generator.normal(size=len(model.identity_basis)) * 0.7
        vertices = model.vertices(identity, np.zeros(len(model.expression_basis)))
    landmarks = model.landmarks(vertices)
    points = generator.uniform(-0.1, 0.1, (count, 3))
    for index, landmark in KEYPOINT_ORDERS[order].items():
        points[index] = landmarks[landmark]
    return points


# --- placement ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_best_similarity_undoes_a_similarity(seed: int) -> None:
    generator = np.random.default_rng(seed)
    points, R, t, scale = generator.normal(size=(7, 3)), rotation(seed), generator.normal(size=3), 0.3 + seed
    found = best_similarity(points, scale * points @ R.T + t)
    np.testing.assert_allclose(found[0], scale)
    np.testing.assert_allclose(found[1], R, atol=1e-9)
    np.testing.assert_allclose(found[2], t, atol=1e-9)


def test_flat_points_are_not_mirrored() -> None:
    points = np.random.default_rng(0).normal(size=(6, 3)) * (1, 1, 0)
    _, R, _ = best_similarity(points, points * (-1, 1, 1))
    assert np.linalg.det(R) == pytest.approx(1)


@pytest.mark.parametrize("order", KEYPOINT_ORDERS)
def test_each_order_of_key_points_puts_the_mean_head_where_it_belongs(order: str) -> None:
    count, R, t, scale = int(order.split(maxsplit=1)[0]), rotation(5), np.array([0.3, -2.0, 1.0]), 0.6
    points_world = face_keypoints(order, count)
    placement = placement_from_keypoints((points_world - t) @ R / scale, "file")
    assert placement.source.startswith(order)
    used = list(KEYPOINT_ORDERS[order])
    np.testing.assert_allclose(
        placement.points_world((points_world[used] - t) @ R / scale), points_world[used], atol=1e-8
    )


@pytest.mark.parametrize("seed", range(3))
def test_other_peoples_key_points_face_z_with_y_up(seed: int) -> None:
    order = "106 points, nose tip 46"
    R = rotation(seed)
    placement = placement_from_keypoints(face_keypoints(order, 106, seed + 1) @ R, "file")
    angle = math.degrees(math.acos(np.clip((np.trace(placement.R_world_capture @ R.T) - 1) / 2, -1, 1)))
    assert angle < 6
    assert 0.85 < placement.scale < 1.15


def test_points_that_form_no_face_are_refused() -> None:
    with pytest.raises(InputError, match=r"do not form a face.*placement=\"rig\""):
        placement_from_keypoints(np.random.default_rng(0).normal(size=(106, 3)), "file")
    with pytest.raises(InputError, match="expected 106 or 68 key points of a face, got 5"):
        placement_from_keypoints(np.zeros((5, 3)), "file")
    with pytest.raises(InputError, match="too few usable key points"):
        placement_from_keypoints(np.full((106, 3), np.nan), "file")


def test_optical_axes_meet_where_all_cameras_look() -> None:
    T = arc([0, 50, -70], [0, 20, -10])
    T[:, :3, 3] += (0.4, -0.5, 0.1)
    np.testing.assert_allclose(optical_axes_meet(T, "rig"), (0.4, -0.5, 0.1), atol=1e-12)
    with pytest.raises(InputError, match="do not look at one point"):
        optical_axes_meet(T[:1], "rig")


# --- pictures -------------------------------------------------------------------------------------------------------


def one_view(
    camera: CaptureCamera, picture: CapturePicture, size_px: int, framing: str, placement: HeadPlacement | None = None
) -> ViewSet:
    placement = placement or HeadPlacement(1.0, np.eye(3), np.zeros(3), "none")
    return capture_views(
        [camera], lambda name: picture, placement, keypoint_surface(np.zeros((0, 3))),
        capture_provenance("Test", b"", "0", {}), size_px=size_px, framing=framing, track=silent,
    )  # fmt: skip


def test_an_uncut_undistorted_picture_comes_out_bit_for_bit_with_the_half_pixel_added() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    camera = CaptureCamera("a", intrinsics((48, 48), 60.0), np.zeros(5), arc([0])[0], (48, 48))
    views = one_view(camera, CapturePicture(rgb, None, "a"), 48, "full")
    np.testing.assert_array_equal(views.rgba[0, ..., :3].numpy(), rgb)
    assert bool((views.rgba[0, ..., 3] == 255).all())
    np.testing.assert_allclose(views.cameras.principal_px[0], camera.K_px[:2, 2] + 0.5)
    np.testing.assert_allclose(views.cameras.focal_px[0], camera.K_px[[0, 1], [0, 1]])


def test_a_shrunk_picture_is_the_mean_of_its_pixels_and_letterboxed_with_alpha_zero() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (32, 64, 3)).astype(np.uint8)
    camera = CaptureCamera("a", intrinsics((64, 32), 60.0), np.zeros(0), arc([0])[0], (64, 32))
    views = one_view(camera, CapturePicture(rgb, None, "a"), 16, "full")
    means = rgb.reshape(8, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(views.rgba[0, 4:12, :, :3].numpy() - means).max() <= 1
    alpha = views.rgba[0, ..., 3]
    assert bool((alpha[4:12] == 255).all()) and int(alpha[:4].sum()) == int(alpha[12:].sum()) == 0


def test_head_framing_shows_what_generated_views_show() -> None:
    """The middle of the head is the middle of the square, and its edge is `HEAD_HALF_EXTENT` away."""
    size = (300, 260)
    T = arc([40], [15])[0]
    T[:3, :3] = T[:3, :3] @ cv2.Rodrigues(np.array([0.05, -0.04, 0.3]))[0]  # aimed beside the head, and rolled
    camera = CaptureCamera("a", intrinsics(size, 700.0), DISTORTION, T, size)
    rgb, mask = drawn(camera.K_px, DISTORTION, T, size)
    views = one_view(camera, CapturePicture(rgb, mask, "a"), 128, "head")
    assert_dots_in_place(views)
    edge = torch.from_numpy(np.stack([np.zeros(3), T[:3, 0] * HEAD_HALF_EXTENT]))
    uvz = views.cameras.project(edge)[0]
    np.testing.assert_allclose(uvz[0, :2], (64, 64), atol=1e-9)
    assert float(uvz[1, 0]) == pytest.approx(128, abs=1.5)


def test_a_picture_of_half_the_calibrated_size_gives_the_same_view() -> None:
    size = (400, 320)
    K, T = intrinsics(size, 800.0), arc([20])[0]
    rgb, mask = drawn(K, np.zeros(5), T, size)
    half = tuple(cv2.resize(a, (200, 160), interpolation=cv2.INTER_AREA) for a in (rgb, mask))
    camera = CaptureCamera("a", K, np.zeros(5), T, size)
    whole = one_view(camera, CapturePicture(rgb, mask, "a"), 96, "head")
    halved = one_view(camera, CapturePicture(*half, "a"), 96, "head")
    torch.testing.assert_close(whole.cameras.K_px, halved.cameras.K_px)
    assert_dots_in_place(halved)
    with pytest.raises(InputError, match=r"160x200 pixels.*calibrated for 400x320"):
        one_view(camera, CapturePicture(np.zeros((200, 160, 3), np.uint8), None, "a"), 96, "head")
    with pytest.raises(InputError, match="the mask has 160x200 pixels"):
        one_view(camera, CapturePicture(rgb, np.zeros((200, 160), np.uint8), "a"), 96, "head")


# --- RenderMe-360 ---------------------------------------------------------------------------------------------------

RENDERME_SIZE = (306, 256)
RENDERME_CAMERAS = {"00": (168, 29), "10": (110, 3), "25": (12, 3), "28": (-8, 4), "40": (-90, 4)}


@dataclasses.dataclass
class RenderMe:
    """Files of a small performance, and the truth about its cameras."""

    raw: Path
    annotation: Path
    T_world_camera: Float[np.ndarray, "n 4 4"]


@pytest.fixture
def make_renderme(tmp_path: Path) -> Callable[..., RenderMe]:
    """A function: five cameras around a head, in the owners' layout of a raw and an annotation file."""
    import h5py

    def make(*, keypoints: bool = True, distortion: np.ndarray = DISTORTION, masks: bool = True) -> RenderMe:
        T_world_camera = arc([a for a, _ in RENDERME_CAMERAS.values()], [e for _, e in RENDERME_CAMERAS.values()])
        upside_down = HeadPlacement(
            1 / METRES_PER_UNIT, np.diag([1.0, -1, -1]), np.array([0.1, 0.8, 0.2]), "y down, face to -z, metres"
        )
        anywhere = HeadPlacement(1.9, rotation(3), np.array([0.3, 1.1, -0.2]), "any similarity")
        placement = anywhere if keypoints else upside_down
        raw, annotation = tmp_path / "raw/0026/0026_e0_raw.smc", tmp_path / "anno/0026/0026_e0_anno.smc"
        for file in (raw, annotation):
            file.parent.mkdir(parents=True)
        with h5py.File(raw, "w") as pictures, h5py.File(annotation, "w") as notes:
            for file in (pictures, notes):
                file.attrs.update({"actor_id": "0026", "performance_part": "e0", "capture_date": "0905", "age": 30})
                camera_group = file.create_group("Camera")
                camera_group.attrs.update({"num_device": 60, "num_frame": 1, "resolution": RENDERME_SIZE[::-1]})
            for name, T, T_capture in zip(
                RENDERME_CAMERAS, T_world_camera, in_capture(T_world_camera, placement), strict=True
            ):
                K = intrinsics(RENDERME_SIZE, 660.0)
                rgb, mask = drawn(K, distortion, T, RENDERME_SIZE)
                bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
                pictures[f"Camera/{name}/color/0"] = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 98])[
                    1
                ].ravel()
                if masks:
                    notes[f"Camera/{name}/mask/0"] = cv2.imencode(".png", mask)[1].ravel()
                notes[f"Calibration/{name}/K"] = K
                notes[f"Calibration/{name}/D"] = distortion
                notes[f"Calibration/{name}/RT"] = T_capture
            group = notes.create_group("Keypoints3d")
            group.attrs["num_frame"] = 1
            if keypoints:
                face = face_keypoints("106 points, nose tip 54", 106)
                group["0"] = (face - placement.t_world_capture) @ placement.R_world_capture / placement.scale
        return RenderMe(raw, annotation, T_world_camera)

    return make


@pytest.mark.parametrize("keypoints", [True, False])
def test_renderme_dots_come_out_where_the_cameras_say(make_renderme: Callable[..., RenderMe], keypoints: bool) -> None:
    capture = make_renderme(keypoints=keypoints)
    views = read_renderme360(capture.raw, size_px=160)
    assert views.names == tuple(RENDERME_CAMERAS)
    np.testing.assert_allclose(views.cameras.T_world_camera, capture.T_world_camera, atol=1e-6)
    assert_dots_in_place(views)
    front = views.names.index("25")
    assert abs(math.degrees(float(views.cameras.azimuth_rad[front])) - 12) < 0.1
    assert float(views.cameras.T_world_camera[front, 1, 1]) < -0.9  # its down is our -y
    assert len(views.surface.points_world) == (106 if keypoints else 0)


def test_renderme_distortion_matters_in_these_pictures(make_renderme: Callable[..., RenderMe]) -> None:
    capture = make_renderme()
    with pytest.raises(AssertionError, match="dot"):
        assert_dots_in_place(read_renderme360(capture.raw, size_px=160, undistort=False), tolerance_px=1.0)


def test_renderme_masks_become_alpha_and_their_absence_opaque(make_renderme: Callable[..., RenderMe]) -> None:
    alpha = read_renderme360(make_renderme().raw, size_px=64).alpha_unit
    assert 0.02 < float((alpha > 0.5).float().mean()) < 0.5
    assert float(((alpha > 0) & (alpha < 1)).float().mean()) > 0.01  # soft edges stay soft


def test_renderme_without_masks_is_opaque(make_renderme: Callable[..., RenderMe]) -> None:
    views = read_renderme360(make_renderme(masks=False).raw, size_px=64, framing="full")
    height = round(64 * RENDERME_SIZE[1] / RENDERME_SIZE[0])
    top = (64 - height) // 2
    assert bool((views.rgba[:, top + 4 : top + height - 4, 4:-4, 3] == 255).all())
    assert views.provenance.settings["cameras_without_mask"] == list(RENDERME_CAMERAS)


def test_renderme_reads_one_file_with_everything_in_it(make_renderme: Callable[..., RenderMe], tmp_path: Path) -> None:
    import h5py

    capture = make_renderme()
    both = tmp_path / "0026_e0.smc"
    with h5py.File(both, "w") as target, h5py.File(capture.raw) as raw, h5py.File(capture.annotation) as notes:
        for group in ("Calibration", "Keypoints3d"):
            notes.copy(group, target)
        raw.copy("Camera", target)
        for name in RENDERME_CAMERAS:
            notes.copy(f"Camera/{name}/mask", target[f"Camera/{name}"])
            data = bytes(target[f"Camera/{name}/color/0"][()])
            del target[f"Camera/{name}/color/0"]
            target[f"Camera/{name}/color/0"] = np.void(data)  # the other way to store bytes
    split, single = read_renderme360(capture.raw, size_px=48), read_renderme360(both, size_px=48)
    assert torch.equal(split.rgba, single.rgba)
    assert split.provenance.input_sha256 != single.provenance.input_sha256 or split.names == single.names


def test_renderme_decodes_only_what_was_asked_for(make_renderme: Callable[..., RenderMe]) -> None:
    import h5py

    capture = make_renderme()
    with h5py.File(capture.raw, "a") as file:
        file["Camera/40/color/0"][...] = 7
        file["Camera/41/color/0"] = np.zeros(9, np.uint8)  # not calibrated
    views = read_renderme360(capture.raw, cameras=["28", "25"], size_px=32)
    assert views.names == ("28", "25")
    assert views.provenance.generator == "capture" and "not AI-generated" in views.provenance.statement
    assert json.loads(json.dumps(views.provenance.settings))["actor_id"] == "0026"
    with pytest.raises(InputError, match="Camera/40/color/0 is not a picture"):
        read_renderme360(capture.raw, cameras=["40"])
    with pytest.raises(InputError, match=r"no camera 41; it has 00, 10, 25"):
        read_renderme360(capture.raw, cameras=["41"])
    with pytest.raises(InputError, match="list of different cameras"):
        read_renderme360(capture.raw, cameras=["25", "25"])


def test_renderme_damage_is_named(make_renderme: Callable[..., RenderMe], tmp_path: Path) -> None:
    import h5py

    capture = make_renderme()
    with pytest.raises(InputError, match=r"nowhere\.smc does not exist"):
        read_renderme360(tmp_path / "nowhere.smc")
    with pytest.raises(InputError, match=r"Camera/NN/color/3`; its frames are 0 to 0"):
        read_renderme360(capture.raw, frame=3)
    with pytest.raises(InputError, match=r"empty\.smc has no picture `Camera/NN/color/0`; it has no pictures at all"):
        with h5py.File(tmp_path / "empty.smc", "w"):
            pass
        read_renderme360(tmp_path / "empty.smc", annotation=capture.annotation.rename(tmp_path / "notes.smc"), frame=0)
    with pytest.raises(InputError, match=r"no group `Calibration`; it is in the file that ends in _anno\.smc"):
        read_renderme360(capture.raw)
    notes = tmp_path / "notes.smc"
    with h5py.File(notes, "a") as file:
        file["Calibration/25/RT"][0, 0] = 5
    with pytest.raises(InputError, match="pose of camera 25 is not a rotation"):
        read_renderme360(capture.raw, annotation=notes)
    with h5py.File(notes, "a") as file:
        file["Calibration/25/RT"][0, 0] = np.nan
    with pytest.raises(InputError, match="camera 25 holds numbers that are not finite"):
        read_renderme360(capture.raw, annotation=notes)
    notes.write_bytes(notes.read_bytes()[:900])
    with pytest.raises(InputError, match=r"notes\.smc is not an HDF5 file or is cut off"):
        read_renderme360(capture.raw, annotation=notes)


def test_renderme_wrong_sizes_are_named(make_renderme: Callable[..., RenderMe]) -> None:
    import h5py

    capture = make_renderme()
    with h5py.File(capture.annotation, "a") as file:
        del file["Camera/25/mask/0"]
        file["Camera/25/mask/0"] = cv2.imencode(".png", np.zeros((20, 20), np.uint8))[1].ravel()
    with pytest.raises(InputError, match=r"Camera/25/mask/0 has \(20, 20\) rows and columns"):
        read_renderme360(capture.raw, cameras=["25"])
    with h5py.File(capture.raw, "a") as file:
        file["Camera"].attrs["resolution"] = (2048, 2448)
    with pytest.raises(InputError, match=r"calibration is for \(2048, 2448\)"):
        read_renderme360(capture.raw, cameras=["28"])


# --- NeRSemble ------------------------------------------------------------------------------------------------------

SERIALS = {
    "222200037": (0, 0), "222200038": (45, 4), "222200046": (-45, 4), "221501007": (45, -4), "222200041": (-45, -4)
}  # fmt: skip
"""Azimuth and elevation, degrees; symmetric as the rig is."""
NERSEMBLE_SIZE = (275, 401)
SEQUENCE = "EXP-2-eyes"


@dataclasses.dataclass
class NeRSemble:
    """A participant's folder and the truth about its cameras."""

    folder: Path
    T_world_camera: Float[np.ndarray, "n 4 4"]


@pytest.fixture
def make_nersemble(tmp_path: Path) -> Callable[..., NeRSemble]:
    """A function: five cameras before a face, in one of the layouts; frame 1 has the dots, frame 0 is grey."""

    def make(layout: str, *, alpha: bool = True) -> NeRSemble:
        T_world_camera = arc([a for a, _ in SERIALS.values()], [e for _, e in SERIALS.values()])
        placement = HeadPlacement(1 / METRES_PER_UNIT, rotation(8), np.array([0.2, -0.4, 1.0]), "metres")
        poses = {
            name: np.linalg.inv(T).tolist()
            for name, T in zip(SERIALS, in_capture(T_world_camera, placement), strict=True)
        }
        K = intrinsics(NERSEMBLE_SIZE, 560.0)
        K_sensor = K.copy()
        K_sensor[:2] *= 8
        K_sensor[:2, 2] += 3.5  # OpenCV's count: the middle of the first pixel of the small picture
        own_matrices = layout == "benchmark"
        meta = {
            "world_2_cam": poses,
            "intrinsics": {n: K.tolist() for n in poses} if own_matrices else K_sensor.tolist(),
        }
        folder = tmp_path / "018"
        calibration = folder if layout == "version 1" else folder / "calibration"
        calibration.mkdir(parents=True)
        (calibration / "camera_params.json").write_text(json.dumps(meta))
        sequence = folder / "sequences" / SEQUENCE
        grey = np.full((NERSEMBLE_SIZE[1], NERSEMBLE_SIZE[0], 3), 60, np.uint8)
        for name, T in zip(SERIALS, T_world_camera, strict=True):
            rgb, mask = drawn(K, np.zeros(5), T, NERSEMBLE_SIZE)
            mattes = np.repeat(mask[..., None], 3, 2)
            match layout:
                case "version 1":
                    for part, pixels in (("images-2x-73fps", rgb), ("alpha_map-73fps", mask)):
                        file = sequence / "frame_00001" / part / f"cam_{name}.png"
                        file.parent.mkdir(parents=True, exist_ok=True)
                        if alpha or pixels is rgb:
                            file.write_bytes(png(pixels))
                case "pictures":
                    for part, pixels in (("images", rgb), ("alpha_maps", mask)):
                        file = sequence / part / f"cam_{name}_000001.png"
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(png(pixels))
                case _:
                    for part, pixels in (("images", rgb), ("alpha_maps", mattes)):
                        file = sequence / part / f"cam_{name}.mp4"
                        file.parent.mkdir(parents=True, exist_ok=True)
                        code = cv2.VideoWriter.fourcc(*"mp4v")
                        video = cv2.VideoWriter(str(file), code, 10.0, (NERSEMBLE_SIZE[0] - 1, NERSEMBLE_SIZE[1] - 1))
                        for frame in (grey, pixels, grey):
                            video.write(cv2.cvtColor(frame[:-1, :-1], cv2.COLOR_RGB2BGR))
                        video.release()
        return NeRSemble(folder, T_world_camera)

    return make


@pytest.mark.parametrize("layout", ["version 1", "pictures", "version 2", "benchmark"])
def test_nersemble_dots_come_out_where_the_cameras_say(make_nersemble: Callable[..., NeRSemble], layout: str) -> None:
    capture = make_nersemble(layout)
    views = read_nersemble(capture.folder, sequence=SEQUENCE, frame=1, size_px=160)
    order = [views.names.index(name) for name in SERIALS]
    np.testing.assert_allclose(views.cameras.T_world_camera[order], capture.T_world_camera, atol=1e-9)
    assert_dots_in_place(views, tolerance_px=1.0 if layout in ("version 2", "benchmark") else 0.6)
    assert 0.02 < float((views.alpha_unit > 0.5).float().mean()) < 0.5
    assert len(views.surface.points_world) == 0
    assert views.provenance.settings["sequence"] == SEQUENCE and views.provenance.settings["actor"] == "018"


def test_nersemble_takes_a_better_middle_and_asked_cameras(make_nersemble: Callable[..., NeRSemble]) -> None:
    capture = make_nersemble("version 1", alpha=False)
    views = read_nersemble(capture.folder, sequence=SEQUENCE, frame=1, cameras=["222200037"], size_px=64)
    assert views.names == ("222200037",)
    assert bool((views.rgba[0, 8:-8, 8:-8, 3] == 255).all())
    moved = read_nersemble(
        capture.folder, sequence=SEQUENCE, frame=1, cameras=["222200037"], size_px=64, middle_m=(0.1, 0.0, 0.0)
    )
    middle = np.array(moved.provenance.settings["placement"]["t_world_capture"])
    R = np.array(moved.provenance.settings["placement"]["R_world_capture"])
    np.testing.assert_allclose(R @ (0.1, 0, 0) / METRES_PER_UNIT + middle, 0, atol=1e-12)


def test_nersemble_color_corrections_are_found_and_applied(make_nersemble: Callable[..., NeRSemble]) -> None:
    folder = make_nersemble("version 1").folder
    plain = read_nersemble(folder, sequence=SEQUENCE, frame=1, size_px=32)
    corrections = folder / "annotations" / SEQUENCE / "color_correction"
    corrections.mkdir(parents=True)
    darker = np.eye(4)
    darker[:3, :3] *= 0.5
    np.save(corrections / "222200037.npy", darker)
    views = read_nersemble(folder, sequence=SEQUENCE, frame=1, size_px=32)
    front = views.names.index("222200037")
    assert int((views.rgba[front, ..., :3] * 2.0 - plain.rgba[front, ..., :3]).abs().max()) <= 1
    others = [i for i in range(len(views)) if i != front]
    assert torch.equal(views.rgba[others], plain.rgba[others])
    untouched = read_nersemble(folder, sequence=SEQUENCE, frame=1, size_px=32, correct_colors=False)
    assert torch.equal(untouched.rgba, plain.rgba)
    (corrections / "222200037.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"222200037\.npy is not a numpy array"):
        read_nersemble(folder, sequence=SEQUENCE, frame=1)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "camera_params.json").unlink(), r"camera_params\.json does not exist"),
        (lambda f: (f / "camera_params.json").write_text("{"), r"camera_params\.json is not valid JSON"),
        (lambda f: (f / "camera_params.json").write_text("{}"), "expected `world_2_cam`"),
        (lambda f: (f / f"sequences/{SEQUENCE}").rename(f / "sequences/FREE"), "no sequence 'EXP-2-eyes'; it has FREE"),
        (lambda f: (f / f"sequences/{SEQUENCE}/frame_00001").rename(f / f"sequences/{SEQUENCE}/frame_00007"),
         r"frame_00001 does not exist; the sequence has the frames 7"),
        (lambda f: next(f.rglob("images*/cam_222200038.png")).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40)),
         r"cam_222200038\.png is (damaged|not a picture)"),
        (lambda f: next(f.rglob("images*/cam_222200038.png")).write_bytes(png(np.zeros((80, 80, 3), np.uint8))),
         r"cam_222200038\.png has 80x80 pixels"),
        (lambda f: [p.unlink() for p in f.rglob("images*/cam_222200038.png")], "no picture of camera 222200038"),
    ],
)  # fmt: skip
def test_nersemble_damage_is_named(
    make_nersemble: Callable[..., NeRSemble], harm: Callable[[Path], object], message: str
) -> None:
    folder = make_nersemble("version 1").folder
    harm(folder)
    with pytest.raises(InputError, match=message):
        read_nersemble(folder, sequence=SEQUENCE, frame=1, cameras=["222200038"], size_px=32)


def test_nersemble_video_damage_is_named(make_nersemble: Callable[..., NeRSemble]) -> None:
    folder = make_nersemble("version 2").folder
    with pytest.raises(InputError, match=r"cam_221501007\.mp4 has the frames 0 to 2, not 5"):
        read_nersemble(folder, sequence=SEQUENCE, frame=5)
    next(folder.rglob("images/cam_221501007.mp4")).write_bytes(b"no video")
    with pytest.raises(InputError, match=r"cam_221501007\.mp4 is not a video"):
        read_nersemble(folder, sequence=SEQUENCE, frame=0)


def test_color_polynomials_have_the_published_terms() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    for columns in (3, 4, 5, 7, 8, 10, 11, 14, 16, 17, 19, 20, 22):
        np.testing.assert_array_equal(polynomial_corrected(np.eye(3, columns), "c")(rgb), rgb)
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    r, g, b = np.moveaxis(linear, -1, 0)
    M = np.random.default_rng(1).uniform(-0.1, 0.3, (3, 11))
    terms = np.stack([r, g, b, r * g, r * b, g * b, r**2, g**2, b**2, r * g * b, np.ones_like(r)])
    expected = np.clip(np.einsum("ck,kij->ijc", M, terms), 0, 1)
    expected = np.where(expected <= 0.0031308, 12.92 * expected, 1.055 * expected ** (1 / 2.4) - 0.055)
    assert np.abs(polynomial_corrected(M, "c")(rgb) - expected * 255).max() <= 0.5 + 1e-6
    with pytest.raises(InputError, match="colour matrix of 3 rows"):
        polynomial_corrected(np.eye(3, 6), "c")


def test_an_affine_color_correction_multiplies_rows_from_the_left(tmp_path: Path) -> None:
    A = np.eye(4)
    A[:3, :3] = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    A[:3, 3] = [0.1, 0, 0]
    np.save(tmp_path / "c.npy", A)
    result = affine_corrected(tmp_path / "c.npy")(np.array([[[100, 50, 10]]], np.uint8))
    np.testing.assert_array_equal(result, [[[36, 100, 50]]])  # blue + 25.5, red, green


# --- Ava-256 --------------------------------------------------------------------------------------------------------

AVA_SIZE = (667, 1024)
AVA_CAMERAS = {"400940": (30, 10), "401031": (0, 0), "401880": (175, -5)}


@dataclasses.dataclass
class Ava:
    """A capture's folder and the truth about its cameras."""

    folder: Path
    T_world_camera: Float[np.ndarray, "n 4 4"]


@pytest.fixture
def make_ava(tmp_path: Path) -> Callable[..., Ava]:
    """A function: three cameras of a dome around a head that is turned, in the owners' zips or unpacked."""

    def store(archive: Path, name: str, data: bytes, unpacked: bool) -> None:
        archive.parent.mkdir(parents=True, exist_ok=True)
        if unpacked:
            (archive.with_suffix("") / name).parent.mkdir(parents=True, exist_ok=True)
            (archive.with_suffix("") / name).write_bytes(data)
            return
        with zipfile.ZipFile(archive, "a") as contents:
            contents.writestr(name, data)

    def make(*, unpacked: bool = False, avif: bool = False, distortion: np.ndarray | None = None) -> Ava:
        folder = tmp_path / "20230308--1352--ABC123"
        decoder = folder / "decoder"
        T_world_camera = arc([a for a, _ in AVA_CAMERAS.values()], [e for _, e in AVA_CAMERAS.values()])
        R_head, t_head = rotation(11), np.array([40.0, -25.0, 980.0])  # to the dome from the head, millimetres
        scale = 0.001 / METRES_PER_UNIT
        offset = np.array([0.0, -0.040, 0.078])
        placement = HeadPlacement(scale, R_head.T, offset - scale * R_head.T @ t_head, "head pose")
        K = intrinsics(AVA_SIZE, 1500.0)
        K_sensor = K.copy()
        K_sensor[:2] *= 4
        K_sensor[:2, 2] += 1.5
        rows = []
        D = np.zeros(4) if distortion is None else distortion
        for name, T, T_capture in zip(AVA_CAMERAS, T_world_camera, in_capture(T_world_camera, placement), strict=True):
            rows.append({
                "cameraId": name, "projectionModel": "Pinhole", "distortionModel": "RadialAndTangential",
                "K": K_sensor.T.tolist(), "distortion": D.tolist(), "T": np.linalg.inv(T_capture).T.tolist(),
            })  # fmt: skip
            rgb, mask = drawn(K, D, T, AVA_SIZE)
            labels = np.where(mask > 127, 2, 0).astype(np.uint8)
            labels[:40] = 3  # the chair
            buffer = io.BytesIO()
            if avif and features.check("avif"):
                Image.fromarray(rgb).save(buffer, "AVIF", quality=90, speed=10)
            suffix, data = ("avif", buffer.getvalue()) if buffer.tell() else ("png", png(rgb))
            store(decoder / "image" / f"cam{name}.zip", f"cam{name}/000123.{suffix}", data, unpacked)
            store(decoder / "segmentation_parts" / f"cam{name}.zip", f"cam{name}/000123.png", png(labels), unpacked)
        (decoder / "camera_calibration.json").write_text(json.dumps({"KRT": rows}))
        (decoder / "frame_list.csv").write_text("seg_id,frame_id\nEXP_a,000007\nEXP_neutral_peak,000123\n")
        buffer = io.BytesIO()
        np.savetxt(buffer, np.column_stack([R_head, t_head]))
        store(decoder / "head_pose" / "head_pose.zip", "000123.txt", buffer.getvalue(), unpacked)
        points = (DOTS_WORLD - placement.t_world_capture) @ placement.R_world_capture / placement.scale
        buffer = io.BytesIO()
        np.save(buffer, np.column_stack([np.arange(len(points)), points, np.ones((len(points), 2))]))
        store(decoder / "keypoints_3d" / "keypoints_3d.zip", "000123.npy", buffer.getvalue(), unpacked)
        return Ava(folder, T_world_camera)

    return make


@pytest.mark.parametrize("unpacked", [False, True])
def test_ava_dots_come_out_where_the_cameras_say(make_ava: Callable[..., Ava], unpacked: bool) -> None:
    capture = make_ava(unpacked=unpacked, avif=not unpacked)
    views = read_ava256(capture.folder, size_px=192)
    assert views.names == tuple(AVA_CAMERAS)
    assert views.provenance.settings["segment"] == "EXP_neutral_peak"
    np.testing.assert_allclose(views.cameras.T_world_camera, capture.T_world_camera, atol=1e-6)
    assert_dots_in_place(views)
    np.testing.assert_allclose(views.surface.points_world, DOTS_WORLD, atol=1e-6)
    assert 0.003 < float((views.alpha_unit > 0.5).float().mean()) < 0.5


def test_ava_distortion_is_removed_when_asked(make_ava: Callable[..., Ava]) -> None:
    capture = make_ava(distortion=DISTORTION[:4])
    assert_dots_in_place(read_ava256(capture.folder, size_px=192, undistort=True))
    with pytest.raises(AssertionError, match="dot"):
        assert_dots_in_place(read_ava256(capture.folder, size_px=192), tolerance_px=1.0)


def test_avas_head_frame_agrees_with_our_mean_head() -> None:
    """The nose tip of the owners' published mesh, (0, 7.6, 73.1) mm, and its crown, (3, 150, -55) mm, on our head."""
    scale, offset = 0.001 / METRES_PER_UNIT, ava256._HEAD_TO_WORLD_UNITS
    model = load_head_model()
    nose = model.landmarks(model.neutral.astype(np.float64))[4]
    np.testing.assert_allclose(scale * np.array([0, 7.6, 73.1]) + offset, nose, atol=0.003)
    crown_y = scale * 149.9 + offset[1]
    assert crown_y == pytest.approx(float(model.neutral[:, 1].max()), abs=0.01 / METRES_PER_UNIT)


def test_ava_leaves_out_cameras_without_the_frame_unless_asked_for(make_ava: Callable[..., Ava]) -> None:
    folder = make_ava().folder
    (folder / "decoder/image/cam400940.zip").unlink()
    (folder / "decoder/segmentation_parts/cam401031.zip").unlink()
    views = read_ava256(folder / "decoder", frame=123, size_px=32)
    assert views.names == ("401031", "401880")
    assert views.provenance.settings["cameras_left_out"] == ["400940"]
    assert views.provenance.settings["cameras_without_mask"] == ["401031"]
    assert bool((views.rgba[0, ..., 3] == 255).all()) and not bool((views.rgba[1, ..., 3] == 255).all())
    with pytest.raises(InputError, match="no picture of camera 400940 in frame 123"):
        read_ava256(folder, cameras=["400940"])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "camera_calibration.json").unlink(), r"camera_calibration\.json does not exist"),
        (lambda f: (f / "camera_calibration.json").write_text('{"KRT": []}'), "expected a list `KRT`"),
        (lambda f: (f / "camera_calibration.json").write_text('{"KRT": [{"cameraId": "1"}]}'), r"\(1\) has no"),
        (lambda f: (f / "frame_list.csv").write_text("a,b\n"), r"frame_list\.csv lists no frames"),
        (lambda f: (f / "frame_list.csv").write_text("seg_id,frame_id\nEXP_a,9\n"), r"zip has no 000009\.txt"),
        (lambda f: (f / "head_pose/head_pose.zip").unlink(), r"head_pose\.zip does not exist"),
        (lambda f: (f / "head_pose/head_pose.zip").write_bytes(b"PK"), r"head_pose\.zip is not a zip archive"),
        (lambda f: (f / "image/cam401031.zip").write_bytes(b"PK"), r"cam401031\.zip is not a zip archive"),
    ],
)  # fmt: skip
def test_ava_damage_is_named(make_ava: Callable[..., Ava], harm: Callable[[Path], object], message: str) -> None:
    folder = make_ava().folder
    harm(folder / "decoder")
    with pytest.raises(InputError, match=message):
        read_ava256(folder, size_px=16)


def test_an_untransposed_calibration_is_refused(make_ava: Callable[..., Ava]) -> None:
    file = make_ava().folder / "decoder/camera_calibration.json"
    meta = json.loads(file.read_text())
    meta["KRT"][0]["T"] = np.array(meta["KRT"][0]["T"]).T.tolist()
    file.write_text(json.dumps(meta))
    with pytest.raises(InputError, match="pose of camera 400940 is not a rotation and a translation"):
        read_ava256(file.parent)


def test_ava_segment_choice(make_ava: Callable[..., Ava]) -> None:
    with pytest.raises(InputError, match="no segment EXP_b; it has EXP_a, EXP_neutral_peak"):
        read_ava256(make_ava().folder, segment="EXP_b")


# --- provenance -----------------------------------------------------------------------------------------------------


def test_the_hash_is_of_calibration_and_frame(make_renderme: Callable[..., RenderMe]) -> None:
    import h5py

    capture = make_renderme()
    before = read_renderme360(capture.raw, cameras=["25"], size_px=16).provenance.input_sha256
    assert read_renderme360(capture.raw, cameras=["28"], size_px=16).provenance.input_sha256 == before
    with h5py.File(capture.annotation, "a") as file:
        file["Calibration/00/K"][0, 0] += 1
    assert read_renderme360(capture.raw, cameras=["25"], size_px=16).provenance.input_sha256 != before


def test_a_capture_is_a_view_set_like_any_other(make_renderme: Callable[..., RenderMe], tmp_path: Path) -> None:
    from dp360.reconstruction.dataset import read_dataset, write_dataset

    views = read_renderme360(make_renderme(keypoints=False).raw, size_px=32)
    assert isinstance(views.cameras, Cameras) and bool((views.confidence == 1).all())
    write_dataset(views, tmp_path / "set")
    again = read_dataset(tmp_path / "set")
    assert torch.equal(again.rgba, views.rgba) and again.names == views.names and again.provenance == views.provenance

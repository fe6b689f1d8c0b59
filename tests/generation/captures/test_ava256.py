"""Ava-256: small captures in zips or unpacked, in which known dots come out where they were."""

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float
from PIL import Image, features

from dp360.generation import InputError
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.captures import HeadPlacement, ava256, read_ava256
from dp360.generation.head_model import load_head_model

AVA_SIZE = (667, 1024)
AVA_CAMERAS = {"400940": (30, 10), "401031": (0, 0), "401880": (175, -5)}


@dataclasses.dataclass
class Ava:
    """A capture's folder and the truth about its cameras."""

    folder: Path
    T_world_camera: Float[np.ndarray, "n 4 4"]


@pytest.fixture
def make_ava(scene: type, tmp_path: Path) -> Callable[..., Ava]:
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
        T_world_camera = scene.arc([a for a, _ in AVA_CAMERAS.values()], [e for _, e in AVA_CAMERAS.values()])
        R_head, t_head = scene.rotation(11), np.array([40.0, -25.0, 980.0])  # to the dome from the head, millimetres
        scale = 0.001 / METRES_PER_UNIT
        offset = np.array([0.0, -0.040, 0.078])
        placement = HeadPlacement(scale, R_head.T, offset - scale * R_head.T @ t_head, "head pose")
        K = scene.intrinsics(AVA_SIZE, 1500.0)
        K_sensor = K.copy()
        K_sensor[:2] *= 4
        K_sensor[:2, 2] += 1.5
        rows = []
        D = np.zeros(4) if distortion is None else distortion
        for name, T, T_capture in zip(
            AVA_CAMERAS, T_world_camera, scene.in_capture(T_world_camera, placement), strict=True
        ):
            rows.append({
                "cameraId": name, "projectionModel": "Pinhole", "distortionModel": "RadialAndTangential",
                "K": K_sensor.T.tolist(), "distortion": D.tolist(), "T": np.linalg.inv(T_capture).T.tolist(),
            })  # fmt: skip
            rgb, mask = scene.drawn(K, D, T, AVA_SIZE)
            labels = np.where(mask > 127, 2, 0).astype(np.uint8)
            buffer = io.BytesIO()
            if avif and features.check("avif"):
                Image.fromarray(rgb).save(buffer, "AVIF", quality=90, speed=10)
            suffix, data = ("avif", buffer.getvalue()) if buffer.tell() else ("png", scene.png(rgb))
            store(decoder / "image" / f"cam{name}.zip", f"cam{name}/000123.{suffix}", data, unpacked)
            store(
                decoder / "segmentation_parts" / f"cam{name}.zip", f"cam{name}/000123.png", scene.png(labels), unpacked
            )
        (decoder / "camera_calibration.json").write_text(json.dumps({"KRT": rows}))
        (decoder / "frame_list.csv").write_text("seg_id,frame_id\nEXP_a,000007\nEXP_neutral_peak,000123\n")
        buffer = io.BytesIO()
        np.savetxt(buffer, np.column_stack([R_head, t_head]))
        store(decoder / "head_pose" / "head_pose.zip", "000123.txt", buffer.getvalue(), unpacked)
        points = (scene.dots_world - placement.shift) @ placement.R / placement.scale
        buffer = io.BytesIO()
        np.save(buffer, np.column_stack([np.arange(len(points)), points, np.ones((len(points), 2))]))
        store(decoder / "keypoints_3d" / "keypoints_3d.zip", "000123.npy", buffer.getvalue(), unpacked)
        return Ava(folder, T_world_camera)

    return make


@pytest.mark.parametrize("unpacked", [False, True])
def test_ava_dots_come_out_where_the_cameras_say(scene: type, make_ava: Callable[..., Ava], unpacked: bool) -> None:
    capture = make_ava(unpacked=unpacked, avif=not unpacked)
    views = read_ava256(capture.folder, size_px=192)
    assert views.names == tuple(AVA_CAMERAS)
    assert views.provenance.settings["segment"] == "EXP_neutral_peak"
    np.testing.assert_allclose(views.cameras.T_world_camera, capture.T_world_camera, atol=1e-6)
    scene.assert_dots_in_place(views)
    np.testing.assert_allclose(views.surface.points_world, scene.dots_world, atol=1e-6)
    assert 0.003 < float((views.alpha_unit > 0.5).float().mean()) < 0.5


def test_ava_mattes_leave_out_the_chair_and_nothing(scene: type, make_ava: Callable[..., Ava]) -> None:
    folder = make_ava().folder
    entry = "cam401031/000123.png"
    with zipfile.ZipFile(folder / "decoder/segmentation_parts/cam401031.zip", "w") as archive:
        archive.writestr(entry, scene.png(np.repeat(np.arange(8, dtype=np.uint8), 128)[:, None].repeat(667, 1)))
    alpha = read_ava256(folder, cameras=["401031"], size_px=64, framing="full").rgba[0, :, 32, 3]
    assert alpha.reshape(8, 8)[:, 3].tolist() == [0, 255, 255, 0, 255, 255, 255, 255]


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

"""NeRSemble: small folders in each of the documented layouts, in which known dots come out where they were."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from jaxtyping import Float

from dp360.generation import InputError
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.captures import HeadPlacement, read_nersemble

SERIALS = {
    "222200037": (0, 0), "222200038": (45, 4), "222200046": (-45, 4), "221501007": (45, -4), "222200041": (-45, -4)
}  # fmt: skip
"""Azimuth and elevation, degrees; symmetric as the rig is."""
NERSEMBLE_SIZE = (275, 401)
SQUARE_PNG = cv2.imencode(".png", np.zeros((80, 80, 3), np.uint8))[1].tobytes()
SEQUENCE = "EXP-2-eyes"


@dataclasses.dataclass
class NeRSemble:
    """A participant's folder and the truth about its cameras."""

    folder: Path
    T_world_camera: Float[np.ndarray, "n 4 4"]


@pytest.fixture
def make_nersemble(scene: type, tmp_path: Path) -> Callable[..., NeRSemble]:
    """A function: five cameras before a face, in one of the layouts; frame 1 has the dots, frame 0 is grey."""

    def make(layout: str, *, alpha: bool = True) -> NeRSemble:
        T_world_camera = scene.arc([a for a, _ in SERIALS.values()], [e for _, e in SERIALS.values()])
        placement = HeadPlacement(1 / METRES_PER_UNIT, scene.rotation(8), np.array([0.2, -0.4, 1.0]), "metres")
        poses = {
            name: np.linalg.inv(T).tolist()
            for name, T in zip(SERIALS, scene.in_capture(T_world_camera, placement), strict=True)
        }
        K = scene.intrinsics(NERSEMBLE_SIZE, 560.0)
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
            rgb, mask = scene.drawn(K, np.zeros(5), T, NERSEMBLE_SIZE)
            mattes = np.repeat(mask[..., None], 3, 2)
            match layout:
                case "version 1":
                    for part, pixels in (("images-2x-73fps", rgb), ("alpha_map-73fps", mask)):
                        file = sequence / "frame_00001" / part / f"cam_{name}.png"
                        file.parent.mkdir(parents=True, exist_ok=True)
                        if alpha or pixels is rgb:
                            file.write_bytes(scene.png(pixels))
                case "pictures":
                    for part, pixels in (("images", rgb), ("alpha_maps", mask)):
                        file = sequence / part / f"cam_{name}_000001.png"
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(scene.png(pixels))
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
def test_nersemble_dots_come_out_where_the_cameras_say(
    scene: type, make_nersemble: Callable[..., NeRSemble], layout: str
) -> None:
    capture = make_nersemble(layout)
    views = read_nersemble(capture.folder, sequence=SEQUENCE, frame=1, size_px=160)
    order = [views.names.index(name) for name in SERIALS]
    np.testing.assert_allclose(views.cameras.T_world_camera[order], capture.T_world_camera, atol=1e-9)
    scene.assert_dots_in_place(views, tolerance_px=1.0 if layout in ("version 2", "benchmark") else 0.6)
    assert 0.02 < float((views.alpha_unit > 0.5).float().mean()) < 0.5
    assert len(views.surface.points_world) == 0
    assert views.provenance.settings["sequence"] == SEQUENCE and views.provenance.settings["actor"] == "018"


def test_nersemble_reads_the_cameras_that_were_asked_for(make_nersemble: Callable[..., NeRSemble]) -> None:
    capture = make_nersemble("version 1", alpha=False)
    views = read_nersemble(capture.folder, sequence=SEQUENCE, frame=1, cameras=["222200037"], size_px=64)
    assert views.names == ("222200037",)
    assert bool((views.rgba[0, 8:-8, 8:-8, 3] == 255).all())


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
        (lambda f: next(f.rglob("images*/cam_222200038.png")).write_bytes(SQUARE_PNG),
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

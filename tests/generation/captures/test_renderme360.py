"""RenderMe-360: small `.smc` files with the documented groups, in which known dots come out where they were."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import torch
from jaxtyping import Float

from dp360.generation import Cameras, InputError
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.captures import HeadPlacement, read_renderme360

if TYPE_CHECKING:
    import h5py

RENDERME_SIZE = (306, 256)
RENDERME_CAMERAS = {"00": (168, 29), "10": (110, 3), "25": (12, 3), "28": (-8, 4), "40": (-90, 4)}


@dataclasses.dataclass
class RenderMe:
    """Files of a small performance, and the truth about its cameras."""

    raw: Path
    annotation: Path
    T_world_camera: Float[np.ndarray, "n 4 4"]


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A data set, and no group, of an open file."""
    found = file[name]
    assert hasattr(found, "shape")
    return found  # pyright: ignore[reportReturnType] - checked above, without importing h5py here


@pytest.fixture
def make_renderme(scene: type, tmp_path: Path) -> Callable[..., RenderMe]:
    """A function: five cameras around a head, in the owners' layout of a raw and an annotation file."""
    import h5py

    def make(*, keypoints: bool = True, distortion: np.ndarray = scene.distortion, masks: bool = True) -> RenderMe:
        T_world_camera = scene.arc([a for a, _ in RENDERME_CAMERAS.values()], [e for _, e in RENDERME_CAMERAS.values()])
        upside_down = HeadPlacement(
            1 / METRES_PER_UNIT, np.diag([1.0, -1, -1]), np.array([0.1, 0.8, 0.2]), "y down, face to -z, metres"
        )
        anywhere = HeadPlacement(1.9, scene.rotation(3), np.array([0.3, 1.1, -0.2]), "any similarity")
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
                RENDERME_CAMERAS, T_world_camera, scene.in_capture(T_world_camera, placement), strict=True
            ):
                K = scene.intrinsics(RENDERME_SIZE, 660.0)
                rgb, mask = scene.drawn(K, distortion, T, RENDERME_SIZE)
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
                face = scene.face_keypoints("106 points, nose tip 54", 106)
                group["0"] = (face - placement.shift) @ placement.R / placement.scale
        return RenderMe(raw, annotation, T_world_camera)

    return make


@pytest.mark.parametrize("keypoints", [True, False])
def test_renderme_dots_come_out_where_the_cameras_say(
    scene: type, make_renderme: Callable[..., RenderMe], keypoints: bool
) -> None:
    capture = make_renderme(keypoints=keypoints)
    views = read_renderme360(capture.raw, size_px=160)
    assert views.names == tuple(RENDERME_CAMERAS)
    np.testing.assert_allclose(views.cameras.T_world_camera, capture.T_world_camera, atol=1e-6)
    scene.assert_dots_in_place(views)
    front = views.names.index("25")
    assert abs(math.degrees(float(views.cameras.azimuth_rad[front])) - 12) < 0.1
    assert float(views.cameras.T_world_camera[front, 1, 1]) < -0.9  # its down is our -y
    assert len(views.surface.points_world) == (106 if keypoints else 0)


def test_renderme_distortion_matters_in_these_pictures(scene: type, make_renderme: Callable[..., RenderMe]) -> None:
    import h5py

    capture = make_renderme()
    with h5py.File(capture.annotation, "a") as file:
        for name in RENDERME_CAMERAS:
            dataset(file, f"Calibration/{name}/D")[...] = 0
    with pytest.raises(AssertionError, match="dot"):
        scene.assert_dots_in_place(read_renderme360(capture.raw, size_px=160), tolerance_px=1.0)


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
        target.attrs.update(raw.attrs)
        for name in RENDERME_CAMERAS:
            notes.copy(f"Camera/{name}/mask", target[f"Camera/{name}"])
            data = bytes(dataset(target, f"Camera/{name}/color/0")[()])
            del target[f"Camera/{name}/color/0"]
            target[f"Camera/{name}/color/0"] = np.void(data)  # the other way to store bytes
    split, single = read_renderme360(capture.raw, size_px=48), read_renderme360(both, size_px=48)
    assert torch.equal(split.rgba, single.rgba)
    assert split.provenance.input_sha256 == single.provenance.input_sha256


def test_renderme_decodes_only_what_was_asked_for(make_renderme: Callable[..., RenderMe]) -> None:
    import h5py

    capture = make_renderme()
    with h5py.File(capture.raw, "a") as file:
        dataset(file, "Camera/40/color/0")[...] = 7
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
        with h5py.File(tmp_path / "empty.smc", "w") as empty, h5py.File(capture.annotation) as notes:
            notes.copy("Calibration", empty)
            empty.create_group("Camera")
        read_renderme360(tmp_path / "empty.smc")
    hidden = capture.annotation.rename(tmp_path / "hidden.smc")
    with pytest.raises(InputError, match=r"no group `Calibration`; it is in the file that ends in _anno\.smc"):
        read_renderme360(capture.raw)
    notes = hidden.rename(capture.annotation)
    with h5py.File(notes, "a") as file:
        dataset(file, "Calibration/25/RT")[0, 0] = 5
    with pytest.raises(InputError, match="pose of camera 25 is not a rotation"):
        read_renderme360(capture.raw)
    with h5py.File(notes, "a") as file:
        dataset(file, "Calibration/25/RT")[0, 0] = np.nan
    with pytest.raises(InputError, match="camera 25 holds numbers that are not finite"):
        read_renderme360(capture.raw)
    notes.write_bytes(notes.read_bytes()[:900])
    with pytest.raises(InputError, match=r"0026_e0_anno\.smc is not an HDF5 file or is cut off"):
        read_renderme360(capture.raw)


@pytest.mark.parametrize("seed", range(6))
def test_renderme_with_flipped_bytes_reads_or_says_so(make_renderme: Callable[..., RenderMe], seed: int) -> None:
    capture, generator = make_renderme(), np.random.default_rng(seed)
    data = bytearray(capture.annotation.read_bytes())
    for position in generator.integers(0, 4000, 20):
        data[position] = generator.integers(256)
    capture.annotation.write_bytes(bytes(data))
    try:
        assert len(read_renderme360(capture.raw, size_px=8)) == len(RENDERME_CAMERAS)
    except InputError as error:
        assert "0026_e0" in str(error)


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


def test_the_hash_is_of_calibration_and_frame(make_renderme: Callable[..., RenderMe]) -> None:
    import h5py

    capture = make_renderme()
    before = read_renderme360(capture.raw, cameras=["25"], size_px=16).provenance.input_sha256
    assert read_renderme360(capture.raw, cameras=["28"], size_px=16).provenance.input_sha256 == before
    with h5py.File(capture.annotation, "a") as file:
        dataset(file, "Calibration/00/K")[0, 0] += 1
    assert read_renderme360(capture.raw, cameras=["25"], size_px=16).provenance.input_sha256 != before


def test_a_capture_is_a_view_set_like_any_other(make_renderme: Callable[..., RenderMe], tmp_path: Path) -> None:
    from dp360.generation.dataset.view_dataset import read_dataset, write_dataset

    views = read_renderme360(make_renderme(keypoints=False).raw, size_px=32)
    assert isinstance(views.cameras, Cameras) and bool((views.confidence == 1).all())
    write_dataset(views, tmp_path / "set")
    again = read_dataset(tmp_path / "set")
    assert torch.equal(again.rgba, views.rgba) and again.names == views.names and again.provenance == views.provenance

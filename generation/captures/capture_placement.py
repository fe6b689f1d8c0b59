"""From the world of a capture to ours: the similarity that puts a captured head where all our heads are.

Our world has y up, the face to +z, the middle of the head at the origin, and `METRES_PER_UNIT` metres to the unit
(`generation.cameras`). A capture tells where its head is in one of three ways: key points on the face, a head pose,
or only the place and the aim of its cameras.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..cameras import METRES_PER_UNIT
from ..errors import InputError
from ..head_model import load_head_model
from ..similarity import Similarity, best_similarity

LARGEST_KEYPOINT_ERROR = 0.03
"""Root mean square distance of key points from the mean head, world units (18 mm), above which they are refused."""
_SMALLEST_KEYPOINT_COUNT = 6
_SMALLEST_CONVERGENCE = 1e-3
"""Least eigenvalue per camera of the system of optical axes: parallel axes meet nowhere."""

_COMMON_106 = {16: 152, 84: 61, 90: 291, 87: 0, 93: 17, 104: 468, 105: 473}
"""Chin, corners and middles of the lips, pupils: the same in both orders of 106 points."""
KEYPOINT_ORDERS: Mapping[str, Mapping[int, int]] = {
    "106 points, nose tip 46": _COMMON_106 | {43: 168, 46: 4, 49: 2, 52: 33, 55: 133, 58: 362, 61: 263},
    "106 points, nose tip 54": _COMMON_106 | {51: 168, 54: 4, 60: 2, 66: 33, 70: 133, 75: 362, 79: 263},
    "68 points": {
        8: 152, 27: 168, 30: 4, 33: 2, 36: 33, 39: 133, 42: 362, 45: 263, 48: 61, 54: 291, 51: 0, 57: 17,
    },
}  # fmt: skip
"""Orders of face key points in use: from the index in the order to the landmark of mediapipe's face mesh.

The two orders of 106 points agree on contour, mouth and pupils and differ in brows, nose and eyes; which one a file
has is found by trying. Sources: https://github.com/CainKernel/CainCamera (`FaceLandmark.java`: nose tip 46),
https://github.com/open-mmlab/mmpose (`configs/_base_/datasets/lapa.py`: nose tip 54; its symmetric pairs),
https://ibug.doc.ic.ac.uk/resources/300-W/ (68 points).
"""


@dataclass(frozen=True)
class HeadPlacement(Similarity):
    """A similarity to our world from the world of a capture; world units per unit of the capture."""

    source: str
    """What it rests on, for people."""

    def as_json(self) -> dict[str, object]:
        """The similarity as plain data, for provenance."""
        return {
            "source": self.source,
            "scale": self.scale,
            "R_world_capture": self.R.tolist(),
            "t_world_capture": self.shift.tolist(),
        }


def placement_from_keypoints(keypoints_capture: Float[np.ndarray, "k 3"], where: str) -> HeadPlacement:
    """Place a head by 3D key points of its face: they come to lie as near as can be on our mean head.

    The scale comes from the key points too: a face of any size gets the mean head's size, as portraits do. Points that
    are not finite are left out.

    Args:
        keypoints_capture: points in one of `KEYPOINT_ORDERS`, capture's unit.
        where: file and group, for messages.

    Raises:
        InputError: another number of points, too few of them finite, or points that no order explains.
    """
    count = len(keypoints_capture)
    candidates = {name: order for name, order in KEYPOINT_ORDERS.items() if name.startswith(f"{count} ")}
    if not candidates:
        raise InputError(f"{where}: expected 106 or 68 key points of a face, got {count}; choose another frame")
    model = load_head_model()
    landmarks_world = model.landmarks(model.neutral.astype(np.float64))
    placements: list[tuple[float, HeadPlacement]] = []
    for name, order in candidates.items():
        points = keypoints_capture[list(order)].astype(np.float64)
        targets = landmarks_world[list(order.values())]
        finite = np.isfinite(points).all(1)
        if finite.sum() < _SMALLEST_KEYPOINT_COUNT or np.ptp(points[finite], axis=0).max() <= 0:
            continue
        found = best_similarity(points[finite], targets[finite])
        error = float(np.sqrt(((found(points[finite]) - targets[finite]) ** 2).sum(1).mean()))
        placements.append((error, HeadPlacement(found.scale, found.R, found.shift, f"{name} on the mean head")))
    if not placements:
        raise InputError(f"{where}: too few usable key points; choose another frame")
    error, placement = min(placements, key=lambda each: each[0])
    if error > LARGEST_KEYPOINT_ERROR:
        raise InputError(
            f"{where}: the key points do not form a face (they miss the mean head by "
            f"{error * METRES_PER_UNIT * 1000:.0f} mm); choose another frame"
        )
    return placement


def optical_axes_meet(T_capture_camera: Float[np.ndarray, "n 4 4"], where: str) -> Float[np.ndarray, " 3"]:
    """The point nearest to all optical axes, capture's unit: what the cameras of a rig were aimed at.

    Raises:
        InputError: fewer than two cameras, or axes so nearly parallel that they meet nowhere.
    """
    forward, position = T_capture_camera[:, :3, 2], T_capture_camera[:, :3, 3]
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]  # projects along each axis
    normal = across.sum(0)
    if np.linalg.eigvalsh(normal)[0] < _SMALLEST_CONVERGENCE * len(forward):
        raise InputError(
            f"{where}: the {len(forward)} calibrated cameras do not look at one point, so where the head is cannot be "
            "told from them; expected the calibration of the whole rig"
        )
    return np.linalg.solve(normal, (across @ position[:, :, None])[..., 0].sum(0))


def placement_from_rig(
    right: Float[np.ndarray, " 3"], up: Float[np.ndarray, " 3"], T_capture_camera: Float[np.ndarray, "n 4 4"],
    source: str, where: str,
) -> HeadPlacement:  # fmt: skip
    """Place a head by its rig, whose unit is the metre: the middle is where the optical axes meet; sizes stay true.

    Args:
        right, up: unit vectors that become +x (towards the head's left) and +y; the face looks along their product.
        T_capture_camera: poses of all calibrated cameras.
        source: what the axes rest on, for people.
        where: file of the calibration, for messages.

    Raises:
        InputError: as `optical_axes_meet`.
    """
    R = np.stack([right, up, np.cross(right, up)])
    scale = 1 / METRES_PER_UNIT
    return HeadPlacement(scale, R, -scale * R @ optical_axes_meet(T_capture_camera, where), source)


def mean_camera_axes(R_capture_camera: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "2 3"]:
    """Right and up (rows) of the mean camera: the axes of a rig that stands symmetrically before a face.

    Source: ShenhanQian/VHAP `vhap/util/camera.py` (`align_cameras_to_axes`) aligns NeRSemble's cameras so.
    """
    x, y, _ = R_capture_camera.mean(0).T
    right = x / np.linalg.norm(x)
    up = -(y - right * (y @ right))
    return np.stack([right, up / np.linalg.norm(up)])

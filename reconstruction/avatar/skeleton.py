"""The skeleton of a head: root, neck, head and two eyes, and how much each vertex follows each joint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from dp360.generation.head_model.anatomy import centimetres, ramp, world_units

JOINTS = ("root", "neck", "head", "leftEye", "rightEye")
"""Names of the joints, parents first."""
PARENTS = (-1, 0, 1, 2, 2)
"""Joint that each hangs on; -1 for the first."""
ROOT, NECK, HEAD, LEFT_EYE, RIGHT_EYE = range(5)
_ROOT_CM = np.array([0.0, -22.0, -2.0])
_NECK_CM = np.array([0.0, -11.0, -2.5])
"""About the seventh vertebra of the neck, on the mean head."""
_HEAD_CM = np.array([0.0, -3.0, -0.5])
"""About the joint between skull and first vertebra, on the mean head."""
_JAW_PLANE_CM = (-6.6, -0.36)
"""Below the plane y = first + second * z, from under the chin to the nape, the neck begins."""
_HEAD_TO_NECK_CM = (0.2, 5.6)
"""From the first depth below that plane the skin follows the neck more and more, from the second on the neck alone."""
_NECK_TO_ROOT_CM = (-10.5, -16.0)
"""From the first height down the neck's share goes to the trunk; from the second down the trunk alone is left."""
NECK_SHARE = 0.35
"""Of a turn of the head, what the neck does; the head does the rest."""


@dataclass(frozen=True)
class Skeleton:
    """Joints at rest; all are turned as the world is."""

    positions_world: Float[np.ndarray, "5 3"]
    """World units."""

    def transforms(
        self, head_rad: Float[np.ndarray, " 3"], neck_share: float = NECK_SHARE
    ) -> Float[np.ndarray, "5 4 4"]:
        """What each joint does to points at rest: to posed world from rest world.

        Args:
            head_rad: yaw (positive: to the head's left), pitch (positive: down) and roll (positive: the crown to the
                head's right), applied in this order about the axes that move along.
        """
        turns = {NECK: head_turn(head_rad * neck_share), HEAD: head_turn(head_rad * (1 - neck_share))}
        result = np.tile(np.eye(4), (len(JOINTS), 1, 1))
        for joint, parent in enumerate(PARENTS):
            if parent < 0:
                continue
            local = np.eye(4)
            local[:3, :3] = turns.get(joint, np.eye(3))
            pivot = self.positions_world[joint]
            local[:3, 3] = pivot - local[:3, :3] @ pivot
            result[joint] = result[parent] @ local
        return result


def head_turn(head_rad: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """The rotation of a yaw, pitch and roll as of `Skeleton.transforms`."""
    yaw, pitch, roll = (float(v) for v in head_rad)
    return Rotation.from_euler("YXZ", [yaw, pitch, roll]).as_matrix()


def skeleton_of(
    centre_shift_world: Float[np.ndarray, " 3"], eyes_world: Float[np.ndarray, "2 3"], lowest_y_world: float
) -> Skeleton:
    """The joints of one head.

    Args:
        centre_shift_world: how far its neck lies from the mean head's.
        eyes_world: middles of the left and the right eyeball.
        lowest_y_world: the bust's lower end.
    """
    root, neck, head = world_units(np.stack([_ROOT_CM, _NECK_CM, _HEAD_CM])) + centre_shift_world
    root[1] = lowest_y_world
    return Skeleton(np.concatenate([[root, neck, head], eyes_world]))


def skin_weights(
    vertices_world: Float[np.ndarray, "v 3"], eye: Int[np.ndarray, " v"], rigid: Float[np.ndarray, " v"]
) -> Float[np.ndarray, "v 5"]:
    """Shares of the joints at each vertex; they add up to one.

    Args:
        vertices_world: at rest, with the neck where the mean head has it.
        eye: 1 for vertices of the left eyeball, 2 for the right one, 0 for all else.
        rigid: 1 for what is worn on the head and follows it alone, 0 for skin, hair and cloth.
    """
    at_cm = centimetres(vertices_world)
    y, z = at_cm[:, 1], np.clip(at_cm[:, 2], -8.0, 8.0)
    below = _JAW_PLANE_CM[0] + _JAW_PLANE_CM[1] * z - y
    head = _smooth(1 - ramp(below, *_HEAD_TO_NECK_CM))
    root = _smooth(ramp(-y, -_NECK_TO_ROOT_CM[0], -_NECK_TO_ROOT_CM[1]))
    head = np.maximum(head * (1 - root), rigid)
    root = root * (1 - head)
    weights = np.zeros((len(at_cm), len(JOINTS)))
    weights[:, ROOT], weights[:, HEAD] = root, head
    weights[:, NECK] = 1 - root - head
    for number, joint in ((1, LEFT_EYE), (2, RIGHT_EYE)):
        weights[eye == number] = np.eye(len(JOINTS))[joint]
    return weights


def _smooth(share: Float[np.ndarray, " v"]) -> Float[np.ndarray, " v"]:
    return share * share * (3 - 2 * share)

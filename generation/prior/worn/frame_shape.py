"""The form of a pair of glasses: a few numbers, and the curves in space that follow from them.

Everything is in the centimetres of `anatomy`. The frame has axes of its own: x to the head's left, y up, z to the
front, the origin between the rims at half their height.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float

from ...head_model import HeadModel
from ...head_model.anatomy import centimetres
from ...head_model.model import PART_CRANIUM_NECK, PART_EYEBALL_LEFT, PART_EYEBALL_RIGHT, PART_FACE
from ..labels.portrait_labels import ear_vertices

RIM_SAMPLES = 64
"""Points of a rim, counter-clockwise seen from the front, starting at +x."""
BRIDGE_POINTS, ARM_POINTS = 9, 12
"""Points of the bridge and of an arm."""
MIRRORED = (RIM_SAMPLES // 2 - np.arange(RIM_SAMPLES)) % RIM_SAMPLES
"""Numbers of a rim's points for the same way round in its mirror image."""
SIDES = (-1.0, 1.0)
"""The head's right and left, the sign of x."""
_OUTLINE = slice(6, 11)
"""The numbers of a shape that make its outline."""
_HIGHEST_EDGE = 0.95
"""Bridge and hinges start from the rim's side no higher, half heights."""
_WRAP_PER_CM = 1 / 50
"""Frames curve backwards at their ends: by this times the square of the distance from the middle."""
_VERTEX_DISTANCE_CM = 1.45
"""From the front of the eye to the middle of the rims: opticians aim at 12 to 14 mm to the back of the lens."""
_NOSE_GAP_CM = 0.25
"""From the skin of the nose's bridge to the middle of the frame's bridge, at least."""
_BRIDGE_ARCH_CM = 0.25
"""How far the bridge bends upwards and forwards."""
_END_PIECE_CM = 0.45
"""From the rim outwards to the hinge."""
_EAR_BOX_CM = (3.0, 1.2)
"""Below the top of the ear and before and behind it, the skull that arms rest on."""


@dataclass(frozen=True)
class FrameShape:
    """One pair of glasses. Left and right are alike."""

    x_cm: float
    """Middle of the frame, to the head's left of the eyes' middle."""
    y_cm: float
    """Above the height of the eyes."""
    z_cm: float
    """In front of where anatomy puts it."""
    roll_rad: float
    """Turn about z: positive lifts the head's left side."""
    yaw_rad: float
    """Turn about y: positive moves the head's left side backwards."""
    tilt_rad: float
    """Pantoscopic tilt: positive brings the lower edge nearer to the cheeks."""
    half_width_cm: float
    """Of a rim, to the middle of its wire."""
    half_height_cm: float
    """Likewise."""
    exponent: float
    """Of the superellipse |x/a|^n + |y/b|^n = 1: 2 is an ellipse, above 4 a rounded rectangle."""
    lift_cm: float
    """How much higher the outer upper corner stands (cat eyes); negative: how much lower the outer lower one."""
    taper: float
    """How much wider the rim is at its top than at half its height, as a share; it is narrower below by as much."""
    half_gap_cm: float
    """From the middle to the inner edge of a rim."""
    bridge_share: float
    """Height of the bridge, half heights above the middle."""
    hinge_share: float
    """Height of the hinges, likewise."""
    ear_drop_cm: float
    """How far below the upper root of the ears the arms pass."""

    @classmethod
    def of_vector(cls, values: Float[np.ndarray, " k"]) -> FrameShape:
        """The shape whose fields are these numbers, in order."""
        return cls(*values.tolist())

    def vector(self) -> Float[np.ndarray, " k"]:
        """Inverse of `of_vector`."""
        return np.array([getattr(self, f.name) for f in fields(self)])

    def outline(self) -> Float[np.ndarray, "n 2"]:
        """The left rim about its own middle, x outwards and y up."""
        return _outlines(self.vector()[:, None])[0]


@dataclass(frozen=True)
class WearersFace:
    """What a head gives its glasses to rest on, centimetres."""

    eyes_cm: Float[np.ndarray, "2 3"]
    """Foremost points of the eyes, the head's right first."""
    nose_z_cm: Float[np.ndarray, "n 2"]
    """Height and depth of the nose's ridge, ascending."""
    ears_cm: Float[np.ndarray, "2 3"]
    """Upper roots of the ears: where arms rest between ear and skull."""
    skin_cm: Float[np.ndarray, "v 3"]
    """Skin of the head without the ears."""

    @classmethod
    def of(cls, model: HeadModel, vertices_world: Float[np.ndarray, "v 3"]) -> WearersFace:
        """That of a fitted head."""
        cm = centimetres(vertices_world)
        eyes = [cm[model.part == part] for part in (PART_EYEBALL_RIGHT, PART_EYEBALL_LEFT)]
        eyes_cm = np.stack([[*eye[:, :2].mean(0), eye[:, 2].max()] for eye in eyes])
        is_ear = ear_vertices(model)
        skin = np.isin(model.part, (PART_FACE, PART_CRANIUM_NECK)) & ~is_ear
        ridge = cm[skin & (np.abs(cm[:, 0]) < 0.5) & (cm[:, 2] > 8)]
        heights = eyes_cm[:, 1].mean() + np.arange(-3.0, 2.01, 0.25)
        depths = [ridge[np.abs(ridge[:, 1] - y) < 0.3, 2].max(initial=eyes_cm[:, 2].max()) for y in heights]
        ears = []
        for side in SIDES:
            ear = cm[is_ear & (cm[:, 0] * side > 0)]
            top = ear[ear[:, 1] > np.quantile(ear[:, 1], 0.93)].mean(0)
            near = skin & (cm[:, 0] * side > 4) & (np.abs(cm[:, 1] - top[1]) < 1.2) & (np.abs(cm[:, 2] - top[2]) < 1.5)
            ears.append([side * np.abs(cm[near, 0]).mean(), *top[1:]])
        return cls(eyes_cm, np.stack([heights, depths], axis=1), np.array(ears), cm[skin])


@dataclass(frozen=True)
class FrameCurves:
    """Middle lines of a frame's wires, centimetres of `anatomy`."""

    rims: Float[np.ndarray, "2 n 3"]
    """The head's right and left; closed, counter-clockwise seen from the front, starting at +x."""
    bridge: Float[np.ndarray, "b 3"]
    """From the right rim to the left one."""
    hinges: Float[np.ndarray, "2 2 3"]
    """On either side, from the rim to the hinge."""
    R_head_frame: Float[np.ndarray, "3 3"]
    """Turns the frame's axes into the head's."""


def frame_curves(shape: FrameShape, face: WearersFace) -> FrameCurves:
    """Where the wires of a frame run on a face, arms excepted."""
    rims, bridge, hinges, R = _placed_wires(shape.vector()[None], face)
    return FrameCurves(rims[0], bridge[0], hinges[0], R[0])


def wire_points(shapes: Float[np.ndarray, "m k"], face: WearersFace) -> Float[np.ndarray, "m p 3"]:
    """Points of the wires of many shapes at once: those of the rims, of the bridge, of hinges and arms.

    Args:
        shapes: a `FrameShape.vector` in each row.
        face: they rest on.
    """
    rims, bridge, hinges, _ = _placed_wires(shapes, face)
    arms = _straight_arms(shapes, face, hinges)
    many = len(shapes)
    return np.concatenate([rims.reshape(many, -1, 3), bridge, hinges.mean(2), arms.reshape(many, -1, 3)], axis=1)


def _outlines(numbers: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "m n 2"]:
    """`FrameShape.outline` of many shapes; a number of each shape in each row."""
    half_width, half_height, exponent, lift, taper = numbers[_OUTLINE, :, None]
    angle = np.arange(RIM_SAMPLES) * 2 * np.pi / RIM_SAMPLES
    c, s = np.cos(angle), np.sin(angle)
    reach = (np.abs(c) ** exponent + np.abs(s) ** exponent) ** (-1 / exponent)
    x, y = c * reach, s * reach
    lifted = lift * np.clip(x, 0, 1) * np.abs(y) * (y * lift > 0)
    return np.stack([half_width * x * (1 + taper * y), half_height * y + lifted], axis=-1)


def _edge_x(numbers: Float[np.ndarray, "k m"], share: Float[np.ndarray, " m"], outer: bool) -> Float[np.ndarray, " m"]:
    """Distance of a rim's edge from its middle at a height.

    Args:
        numbers: of many shapes.
        share: the height, half heights above the middle.
        outer: the edge away from the nose.
    """
    half_width, half_height, exponent, lift, taper = numbers[_OUTLINE]
    v = np.clip(share, -_HIGHEST_EDGE, _HIGHEST_EDGE)
    x = (1 - np.abs(v) ** exponent) ** (1 / exponent)
    if outer:
        v = np.where(v * lift > 0, v * half_height / (half_height + np.abs(lift) * x), v)
        x = (1 - np.abs(v) ** exponent) ** (1 / exponent)
    return half_width * x * (1 + taper * v)


def _placed_wires(shapes: Float[np.ndarray, "m k"], face: WearersFace) -> tuple[np.ndarray, ...]:
    """Rims, bridges, hinges and rotations of many shapes: the fields of `FrameCurves`."""
    numbers = np.ascontiguousarray(shapes.T)
    x_cm, y_cm, z_cm, roll, yaw, tilt, half_width, half_height = numbers[:8]
    half_gap, bridge_share, hinge_share = numbers[11:14]
    outline, middle = _outlines(numbers), (half_gap + half_width)[:, None]
    right = np.stack([-(middle + outline[:, MIRRORED, 0]), outline[:, MIRRORED, 1]], axis=-1)
    left = np.stack([middle + outline[..., 0], outline[..., 1]], axis=-1)
    t = np.linspace(-1, 1, BRIDGE_POINTS)
    arch = _BRIDGE_ARCH_CM * (1 - t**2)
    bridge_y = bridge_share * half_height
    inner = middle[:, 0] - _edge_x(numbers, bridge_share, outer=False)
    bridge = np.stack([t * inner[:, None], bridge_y[:, None] + arch], axis=-1)
    hinge_y = hinge_share * half_height
    outer = middle[:, 0] + _edge_x(numbers, hinge_share, outer=True)
    ends = np.stack([outer, outer + _END_PIECE_CM], axis=-1)
    hinges = np.stack([np.multiply.outer(SIDES, ends), np.broadcast_to(hinge_y[:, None], (2, *ends.shape))], axis=-1)

    eyes = face.eyes_cm.mean(0)
    y = eyes[1] + y_cm
    nose = np.interp(y + bridge_y, *face.nose_z_cm.T) + _NOSE_GAP_CM - _BRIDGE_ARCH_CM
    at_eyes = float(face.eyes_cm[:, 2].mean()) + _VERTEX_DISTANCE_CM + _WRAP_PER_CM * float(face.eyes_cm[1, 0]) ** 2
    origin = np.stack([eyes[0] + x_cm, y, np.maximum(nose, at_eyes) + z_cm], axis=-1)
    R = _rotations(tilt, yaw, roll)

    def placed(flat: np.ndarray, forwards: np.ndarray | float = 0.0) -> np.ndarray:
        z = forwards - _WRAP_PER_CM * flat[..., 0] ** 2
        inside = np.concatenate([flat, z[..., None]], axis=-1)
        return origin[:, None] + inside @ R.transpose(0, 2, 1)

    rims = placed(np.concatenate([right, left], axis=1)).reshape(-1, 2, RIM_SAMPLES, 3)
    hinges = placed(hinges.transpose(1, 0, 2, 3).reshape(-1, 4, 2)).reshape(-1, 2, 2, 3)
    return rims, placed(bridge, arch), hinges, R


def _rotations(
    tilt_rad: Float[np.ndarray, " m"], yaw_rad: Float[np.ndarray, " m"], roll_rad: Float[np.ndarray, " m"]
) -> Float[np.ndarray, "m 3 3"]:
    """Turns about x (upper edge forwards), then y, then z."""
    turns = []
    for axis, angle in enumerate((tilt_rad, yaw_rad, roll_rad)):
        R = np.zeros((len(angle), 3, 3))
        a, b = (axis + 1) % 3, (axis + 2) % 3
        R[:, axis, axis] = 1
        R[:, a, a] = R[:, b, b] = np.cos(angle)
        R[:, b, a] = np.sin(angle)
        R[:, a, b] = -R[:, b, a]
        turns.append(R)
    return turns[2] @ turns[1] @ turns[0]


def upper_parts(shape: FrameShape) -> Bool[np.ndarray, "2 n"]:
    """Which points of the right and the left rim belong to the upper half, the sides included."""
    upper = shape.outline()[:, 1] >= -0.1 * shape.half_height_cm
    return np.stack([upper[MIRRORED], upper])


def straight_arms(shape: FrameShape, face: WearersFace) -> Float[np.ndarray, "2 n 3"]:
    """Arms as straight lines from the hinges to the ears: what a portrait shows of them, nearly."""
    shapes = shape.vector()[None]
    return _straight_arms(shapes, face, _placed_wires(shapes, face)[2])[0]


def _straight_arms(
    shapes: Float[np.ndarray, "m k"], face: WearersFace, hinges: Float[np.ndarray, "m 2 2 3"]
) -> Float[np.ndarray, "m 2 n 3"]:
    """`straight_arms` of many shapes."""
    t = np.linspace(0, 1, ARM_POINTS)[:, None]
    ends = face.ears_cm - np.multiply.outer(shapes[:, -1], [0.0, 1.0, 0.0])[:, None]
    return hinges[:, :, 1, None] * (1 - t) + ends[:, :, None] * t

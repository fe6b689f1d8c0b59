"""The eyeballs of a fitted head: where they are, how they turn, and lids that close over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from dp360.generation.cameras import UNITS_PER_CM, Cameras
from dp360.generation.head_model import HeadModel
from dp360.generation.head_model.model import (
    PART_EYEBALL_LEFT,
    PART_EYEBALL_RIGHT,
)
from dp360.generation.mesh_raster import rasterize_mesh

SIDES = ("Left", "Right")
_EYEBALLS = (PART_EYEBALL_LEFT, PART_EYEBALL_RIGHT)
OUTER_COUNT = 770
"""Vertices of each eyeball's outer shell, white and cornea, which come first; the inner one lies behind it, unseen."""
MOST_TURN_RAD = {"In": 0.52, "Out": 0.52, "Up": 0.42, "Down": 0.42}
"""How far an eye is turned at full weight (30 and 24 degrees)."""
_LID_OF_DOWN, _LID_OF_UP = 0.42, 0.45
"""Of a blink and of `eyeWide`, that go with a look down and a look up."""
_OVERLAP_CM = 0.03
"""Closed lids overlap by this much."""
_BULGE = 0.4
"""Of a cornea's height over the white's sphere, that a rig keeps."""
_FALLING_CM, _FORWARDS = 0.5, 0.1
"""What a blink moves down by this much falls wholly with the upper lid's edge; lids that fall farther come forwards by
this share, for the eye's lower half is nearer where they meet."""
_ROUNDS, _NEAR_CM = 4, 3.5
PX_CM, SIZE_PX, _FAR = 0.025, 256, 40.0
"""Of the pictures in which gaps are measured."""


@dataclass(frozen=True)
class Eyeball:
    """One eyeball at rest."""

    vertices: Int[np.ndarray, " n"]
    """Of the head model, outer and inner shell."""
    centre_world: Float[np.ndarray, " 3"]
    """Middle of the white's sphere, world units."""
    radius: float
    """Of the sphere, world units."""
    axis: Float[np.ndarray, " 3"]
    """Unit vector to the top of the cornea."""


def eyeballs_of(model: HeadModel, head_vertices: Float[np.ndarray, "v 3"]) -> tuple[Eyeball, Eyeball]:
    """The left and the right eyeball of a head given by its vertices, world units."""
    return _eyeball(model, head_vertices, 0), _eyeball(model, head_vertices, 1)


def _eyeball(model: HeadModel, head_vertices: Float[np.ndarray, "v 3"], side: int) -> Eyeball:
    own = np.flatnonzero(model.part == _EYEBALLS[side])
    outer = head_vertices[own[:OUTER_COUNT]].astype(np.float64)
    # the white: the outer shell's vertices between cornea and optic nerve
    low, high = outer[:, 2].min(), outer[:, 2].max()
    white = outer[(outer[:, 2] > low + 0.35 * (high - low)) & (outer[:, 2] < low + 0.78 * (high - low))]
    system = np.concatenate([2 * white, np.ones((len(white), 1))], axis=1)
    solution = np.linalg.lstsq(system, (white**2).sum(1), rcond=None)[0]
    centre = solution[:3]
    top = outer[np.argsort(outer[:, 2])[-12:]].mean(0) - centre
    return Eyeball(own, centre, float(np.sqrt(solution[3] + centre @ centre)), top / np.linalg.norm(top))


def with_flatter_corneas(model: HeadModel, head_vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
    """Vertices whose corneas stand out less, so that they stay behind the lids when the eyes turn."""
    result = head_vertices.astype(np.float64).copy()
    for eye in eyeballs_of(model, head_vertices):
        own = eye.vertices[:OUTER_COUNT]
        away = result[own] - eye.centre_world
        distance = np.linalg.norm(away, axis=1, keepdims=True)
        excess = np.maximum(distance - eye.radius, 0) * (away[:, 2:] > 0)
        result[own] = eye.centre_world + away / distance * (distance - (1 - _BULGE) * excess)
    return result


def turned(
    points: Float[np.ndarray, "n 3"], eye: Eyeball, yaw_rad: float, pitch_rad: float
) -> Float[np.ndarray, "n 3"]:
    """Points that turn with an eyeball: yaw to the head's left, pitch down."""
    cy, sy, cp, sp = np.cos(yaw_rad), np.sin(yaw_rad), np.cos(pitch_rad), np.sin(pitch_rad)
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return (points - eye.centre_world) @ (yaw @ pitch).T + eye.centre_world


def gaze_displacements(
    model: HeadModel, head_vertices: Float[np.ndarray, "v 3"], side: int
) -> dict[str, Float[np.ndarray, "v 3"]]:
    """Displacements of all vertices for `eyeLookIn`, `Out`, `Up` and `Down` of one side, lids included."""
    eye = _eyeball(model, head_vertices, side)
    outwards = 1.0 if side == 0 else -1.0
    angles = {"In": (-outwards, 0.0), "Out": (outwards, 0.0), "Up": (0.0, -1.0), "Down": (0.0, 1.0)}
    letter = SIDES[side][0]
    result = {}
    for name, (yaw, pitch) in angles.items():
        moved = np.zeros((len(head_vertices), 3))
        points, most = head_vertices[eye.vertices], MOST_TURN_RAD[name]
        moved[eye.vertices] = turned(points, eye, yaw * most, pitch * most) - points
        for expression, share in {"Down": ("eyeBlink", _LID_OF_DOWN), "Up": ("eyeWide", _LID_OF_UP)}.items():
            if name == expression:
                lid = model.expression_basis[model.expression_names.index(f"{share[0]}_{letter}")]
                moved += share[1] * lid
        result[name] = moved
    return result


def closing_blink(model: HeadModel, head_vertices: Float[np.ndarray, "v 3"], side: int) -> Float[np.ndarray, "v 3"]:
    """The head model's blink of one side, lengthened where this head's lids would not meet.

    What is still seen of the eyeball, column by column from in front, is what the upper lid falls farther.
    """
    blink = model.expression_basis[model.expression_names.index(f"eyeBlink_{SIDES[side][0]}")].astype(np.float64)
    falls = np.clip(-blink[:, 1] / (_FALLING_CM * UNITS_PER_CM), 0, 1)
    near = np.abs(head_vertices - _eyeball(model, head_vertices, side).centre_world).max(1) < _NEAR_CM * UNITS_PER_CM
    faces = model.faces[near[model.faces].all(1) & ~hidden_shell(model)[model.faces].any(1)]
    is_eye = model.part[faces[:, 0]] == _EYEBALLS[side]
    centre = head_vertices[model.part == _EYEBALLS[side]].mean(0)
    camera = front_camera(centre)
    for _ in range(_ROUNDS):
        seen = rasterize_mesh(head_vertices + blink, faces, camera).triangle_index
        open_px = ((seen >= 0) & is_eye[np.maximum(seen, 0)]).sum(0)
        if not open_px.any():
            break
        gap = (open_px + (open_px > 0) * _OVERLAP_CM / PX_CM) * PX_CM * UNITS_PER_CM
        gap = np.convolve(np.maximum(gap, np.convolve(gap, np.ones(9) / 9, mode="same")), np.ones(7) / 7, mode="same")
        x = centre[0] + (np.arange(SIZE_PX) + 0.5 - SIZE_PX / 2) * PX_CM * UNITS_PER_CM
        down = np.interp(head_vertices[:, 0] + blink[:, 0], x, gap) * falls
        blink = blink - down[:, None] * np.array([0.0, 1.0, 0.0])
        blink[:, 2] += down * _FORWARDS
    return blink


def front_camera(centre_world: Float[np.ndarray, " 3"]) -> Cameras:
    """A far camera in front of a place of the face, `PX_CM` per pixel, `SIZE_PX` wide."""
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3] = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    T[:3, 3] = torch.from_numpy(centre_world + np.array([0.0, 0.0, _FAR]))
    focal = torch.full((1, 2), _FAR / (PX_CM * UNITS_PER_CM), dtype=torch.float64)
    middle = torch.full((1, 2), SIZE_PX / 2, dtype=torch.float64)
    return Cameras(T[None], focal, middle, SIZE_PX, SIZE_PX)


def of_eyeball(model: HeadModel, head_vertex: Int[np.ndarray, " v"]) -> Int[np.ndarray, " v"]:
    """1 for vertices split from the left eyeball, 2 for the right one, 0 for all else."""
    part = np.where(head_vertex >= 0, model.part[np.maximum(head_vertex, 0)], 255)
    return np.select([part == _EYEBALLS[0], part == _EYEBALLS[1]], [1, 2], 0)


def hidden_shell(model: HeadModel) -> Bool[np.ndarray, " v"]:
    """The head model's vertices of the eyeballs' inner shells."""
    hidden = np.zeros(len(model.part), bool)
    for number in _EYEBALLS:
        hidden[np.flatnonzero(model.part == number)[OUTER_COUNT:]] = True
    return hidden

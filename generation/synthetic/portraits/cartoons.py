"""Flat cartoons of composed heads: regions of one colour, black outlines, features drawn with a few strokes.

Real cartoons have little in common with a filtered rendering: eyes are dots or big ellipses, the nose is a hook, the
mouth a line. Here hair, skin, cloth and hats come from a head's labels, and the features are drawn at its points; where
a feature is drawn larger or elsewhere the points move with it, so that the truth stays true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from ...head_model.sparse_points import POINT_NAMES, face_box
from ..parts import FACE_LABELS, Label
from .backgrounds import Colour, SquareRgb, dark_rgb, random_rgb
from .looks import Labels

Point = Float[np.ndarray, " 2"]
Points = Float[np.ndarray, "69 2"]
_EYE = (
    "eye_outer",
    "eyelid_upper_outer",
    "eyelid_upper_inner",
    "eye_inner",
    "eyelid_lower_inner",
    "eyelid_lower_outer",
)
_MOUTH = (
    "mouth_r", "lip_upper_r", "lip_top", "lip_upper_l", "mouth_l", "lip_lower_l", "lip_bottom", "lip_lower_r",
    "lips_upper_inner", "lips_lower_inner",
)  # fmt: skip
_BITS = 4
"""Fractional bits of the coordinates that are drawn."""


def indices(names: Sequence[str]) -> list[int]:
    """Indices of points by name."""
    return [POINT_NAMES.index(name) for name in names]


@dataclass
class _Pen:
    """A picture that is drawn on, its ink and the width of its lines."""

    rgb: SquareRgb
    ink: Colour
    width_px: float

    def line(self, points: Float[np.ndarray, "n 2"], width: float = 1.0, rgb: np.ndarray | None = None) -> None:
        """A line through points, its width in units of the pen's."""
        colour = [float(c) for c in (self.ink if rgb is None else rgb)]
        thickness = max(1, round(width * self.width_px))
        cv2.polylines(self.rgb, [_fixed(points)], False, colour, thickness, cv2.LINE_AA, _BITS)

    def fill(self, points: Float[np.ndarray, "n 2"], rgb: np.ndarray) -> None:
        """A filled polygon."""
        cv2.fillPoly(self.rgb, [_fixed(points)], [float(c) for c in rgb], cv2.LINE_AA, _BITS)


def _fixed(points: Float[np.ndarray, "n 2"]) -> np.ndarray:
    return np.round((points - 0.5) * (1 << _BITS)).astype(np.int32)


def _bow(points: Float[np.ndarray, "3 2"]) -> Float[np.ndarray, "15 2"]:
    """The parabola through three points."""
    t = np.linspace(0, 1, 15)[:, None]
    a, b, c = points
    return a * (1 - t) * (1 - 2 * t) + 4 * b * t * (1 - t) + c * t * (2 * t - 1)


def _ellipse(center: Point, along: Point, across: Point) -> Float[np.ndarray, "24 2"]:
    angle = np.linspace(0, 2 * np.pi, 24)[:, None]
    return center + np.cos(angle) * along + np.sin(angle) * across


def cartoon(
    rgb: SquareRgb,
    labels: Labels,
    background: SquareRgb,
    points_px: Points,
    toward_camera: Float[np.ndarray, " 3"],
    rng: np.random.Generator,
) -> tuple[SquareRgb, Points]:
    """A cartoon of a head.

    Args:
        rgb: the head as rendered, sRGB in [0, 1]; only its light and shade may be used.
        labels: `parts.Label` of each pixel.
        toward_camera: unit direction from the head to the camera, head's frame: it tells which features are seen.

    Returns:
        The picture and the points where the cartoon has them.
    """
    size = face_box(points_px).size_px
    if rng.random() < 0.6:
        labels = cv2.medianBlur(labels, 2 * max(1, round(size * rng.uniform(0.01, 0.04))) + 1)
    ink = dark_rgb(rng) * 0.6 if rng.random() < 0.85 else random_rgb(rng) * 0.5
    out, skin = _regions(rgb, labels, background, ink, rng)
    pen = _Pen(np.ascontiguousarray(out), ink, max(0.7, size * rng.uniform(0.008, 0.028)))
    if rng.random() < 0.85:
        _draw_borders(pen, labels, rng)
    under_hair = np.isin(labels, (Label.HAIR, Label.HEADGEAR)) if rng.random() < 0.7 else np.zeros(labels.shape, bool)
    covered = pen.rgb[under_hair]
    moved = _features(pen, points_px.copy(), toward_camera, skin, size, rng)
    pen.rgb[under_hair] = covered
    return np.clip(pen.rgb, 0, 1), moved


def _regions(
    rgb: SquareRgb, labels: Labels, background: SquareRgb, ink: Colour, rng: np.random.Generator
) -> tuple[SquareRgb, Colour]:
    """Flat colours of skin, hair and the rest, and the skin's colour."""
    draw = rng.random()
    if draw < 0.35:
        skin = np.full(3, rng.uniform(0.92, 1.0))
    elif draw < 0.8:
        skin = np.clip(np.array([0.95, 0.76, 0.62]) * rng.uniform(0.35, 1.08) + rng.normal(0, 0.04, 3), 0, 1)
    else:
        skin = np.clip(random_rgb(rng) * 0.6 + 0.35, 0, 1)
    hair = ink if rng.random() < 0.35 else (skin * 1.0 if rng.random() < 0.12 else random_rgb(rng))
    colours = {
        Label.FACE: skin,
        Label.NECK: skin if rng.random() < 0.7 else skin * rng.uniform(0.75, 1.0),
        Label.HAIR: hair,
        Label.BEARD: hair if rng.random() < 0.8 else skin * 0.9,
        Label.CLOTH: random_rgb(rng) if rng.random() < 0.7 else skin,
        Label.HEADGEAR: random_rgb(rng),
        Label.ACCESSORY: ink if rng.random() < 0.6 else random_rgb(rng),
    }
    labels = np.where(np.isin(labels, FACE_LABELS), np.uint8(Label.FACE), labels)
    labels = np.where(labels == Label.GLASSES, np.uint8(Label.ACCESSORY), labels)
    if rng.random() < 0.7:
        out = np.ones_like(rgb) * random_rgb(rng).astype(np.float32)
        if rng.random() < 0.35:
            out[:] = 1.0
    else:
        out = background.copy()
    tone = np.ones(labels.shape, np.float32)
    if rng.random() < 0.3:  # cel shading
        light = cv2.GaussianBlur(rgb.mean(-1), (0, 0), 1.5)
        for label in colours:
            where = labels == label
            if where.any():
                tone[where] = np.where(light[where] < rng.uniform(0.6, 0.95) * np.median(light[where]), 0.8, 1.0)
    for label, colour in colours.items():
        where = labels == label
        out[where] = np.clip(colour * tone[where][:, None], 0, 1)
    return out.astype(np.float32), skin


def _draw_borders(pen: _Pen, labels: Labels, rng: np.random.Generator) -> None:
    """Lines where the label changes."""
    shown = labels.copy()
    if rng.random() < 0.15:
        shown[shown == Label.NECK] = Label.FACE
    border = cv2.morphologyEx(shown, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
    width = max(1, round(pen.width_px))
    line = cv2.dilate(border.astype(np.float32), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
    line = cv2.GaussianBlur(line, (0, 0), 0.5)[..., None]
    pen.rgb[:] = pen.rgb * (1 - line) + line * pen.ink.astype(np.float32)


def _features(
    pen: _Pen, p: Points, toward: Float[np.ndarray, " 3"], skin: Colour, size: float, rng: np.random.Generator
) -> Points:
    """Draw eyes, brows, nose, mouth, ears; the points as drawn."""
    box = face_box(p)
    down = np.array([-np.sin(box.roll_rad), np.cos(box.roll_rad)])
    right = np.array([down[1], -down[0]])
    eye = _EyeStyle.draw(rng)
    raised = rng.uniform(-0.02, 0.07) * size
    brow_width, with_brows = rng.uniform(0.8, 3.0), rng.random() < 0.9
    glasses = rng.integers(1, 4) if rng.random() < 0.15 else 0
    if rng.random() < 0.15:
        for side in "rl":
            cheek = p[POINT_NAMES.index(f"cheek_lower_{side}")]
            if _seen(toward, side, 0.8):
                radius = size * rng.uniform(0.05, 0.1)
                pen.fill(_ellipse(cheek, radius * right, 0.7 * radius * down), skin * np.array([1.0, 0.75, 0.75]))
    for side in "rl":
        k = indices([f"{name}_{side}" for name in _EYE])
        p[k] = eye.moved(p[k], down)
        seen = _seen(toward, side, 0.45)
        if seen:
            eye.paint(pen, p[k], down, rng)
        brow = indices([f"brow_{place}_{side}" for place in ("outer", "middle", "inner")])
        p[brow] -= raised * down
        if with_brows and seen:
            pen.line(_bow(p[brow] + rng.normal(0, 0.012 * size, (3, 1)) * down), brow_width)
        if glasses and _seen(toward, side, 0.6):
            c, a = p[k].mean(0), (p[k[3]] - p[k[0]]) * rng.uniform(0.75, 1.0)
            round_glass = _ellipse(c + 0.02 * size * down, a, down * np.linalg.norm(a) * rng.uniform(0.6, 1.1))
            pen.line(round_glass if glasses == 1 else round_glass[[2, 10, 14, 22, 2]], 1.2)
        if rng.random() < 0.4 and toward[0] * (-1 if side == "r" else 1) > -0.05:
            top, lobe, back = (p[POINT_NAMES.index(f"ear_{place}_{side}")] for place in ("top", "lobe", "back"))
            middle = (top + lobe) / 2
            pen.line(_bow(np.stack([0.7 * top + 0.3 * middle, 0.5 * (back + middle), 0.7 * lobe + 0.3 * middle])), 0.8)
    if glasses:
        inner = p[indices(["eye_inner_r", "eye_inner_l"])]
        pen.line(inner + 0.01 * size * down, 1.2)
    _nose(pen, p, right * float(np.sign(toward[0]) or 1.0), rng)
    _mouth(pen, p, down, skin, rng)
    return p


def _seen(toward: Float[np.ndarray, " 3"], side: str, sideways: float) -> bool:
    """Whether a feature on that side, whose normal points sideways by that much, is turned to the camera."""
    normal = np.array([sideways * (-1 if side == "r" else 1), 0.0, np.sqrt(1 - sideways**2)])
    return bool(normal @ toward > 0.12)


@dataclass(frozen=True)
class _EyeStyle:
    """How both eyes of a cartoon are drawn."""

    kind: str
    wide: float
    tall: float
    pupil: float
    gaze: Point
    wink: str
    white: bool
    iris: Colour

    @staticmethod
    def draw(rng: np.random.Generator) -> _EyeStyle:
        kind = str(rng.choice(["dot", "almond", "ellipse", "lid", "closed"], p=[0.2, 0.27, 0.25, 0.2, 0.08]))
        big = kind in ("ellipse", "almond", "lid")
        return _EyeStyle(
            kind, float(np.exp(rng.uniform(-0.2, 0.55))) if big else 1.0, float(rng.uniform(0.45, 1.5)),
            float(rng.uniform(0.25, 0.75)), rng.uniform(-0.5, 0.5, 2), str(rng.choice(["", "", "", "", "r", "l"])),
            bool(rng.random() < 0.75), random_rgb(rng) if rng.random() < 0.5 else np.zeros(3),
        )  # fmt: skip

    def moved(self, eye: Float[np.ndarray, "6 2"], down: Point) -> Float[np.ndarray, "6 2"]:
        """The eye's points as this style has them."""
        center = eye.mean(0)
        out = center + self.wide * (eye - center)
        if self.kind == "ellipse":
            along = (out[3] - out[0]) / 2
            height = self.tall * max(float(np.linalg.norm(along)), 1e-6) * 0.9
            for k, (u, v) in zip((1, 2, 4, 5), ((-0.4, -0.9), (0.4, -0.9), (0.4, 0.9), (-0.4, 0.9))):
                out[k] = (out[0] + out[3]) / 2 + u * along + v * height * down
        elif self.kind == "almond":
            across = (out - center) @ down
            out = out + (self.tall - 1) * 0.6 * across[:, None] * down
        return out

    def paint(self, pen: _Pen, eye: Float[np.ndarray, "6 2"], down: Point, rng: np.random.Generator) -> None:
        """Draw one eye."""
        center, along = eye.mean(0), (eye[3] - eye[0]) / 2
        reach = max(float(np.linalg.norm(along)), 1e-6)
        height = max(float(np.abs((eye - center) @ down).max()), 0.1 * reach)
        left = float(along @ np.array([1.0, 0.0])) > 0
        kind = "closed" if self.wink and (self.wink == "l") == left else self.kind
        upper, lower = (
            _bow(np.stack([eye[0], eye[1:3].mean(0) + 0.15 * (eye[1:3].mean(0) - center), eye[3]])),
            _bow(np.stack([eye[3], eye[4:6].mean(0), eye[0]])),
        )
        pupil = self.pupil * min(max(height, 0.45 * reach), 1.3 * reach)
        look = center + self.gaze[0] * 0.5 * along + self.gaze[1] * 0.3 * height * down
        match kind:
            case "dot":
                radius = max(0.25 * reach, pupil * 0.8)
                pen.fill(_ellipse(center, radius * along / reach, radius * self.tall * down), pen.ink)
            case "closed":
                bend = rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 0.5) * reach
                pen.line(_bow(np.stack([eye[0], center + bend * down, eye[3]])), 1.4)
            case "lid":
                pen.line(upper, 1.6)
                pen.fill(_ellipse(look, 0.8 * pupil * along / reach, pupil * down), pen.ink)
            case _:
                outline = (
                    _ellipse((eye[0] + eye[3]) / 2, along, height / 0.9 * down)
                    if kind == "ellipse"
                    else np.concatenate([upper, lower])
                )
                if self.white:
                    pen.fill(outline, np.ones(3))
                pen.fill(_ellipse(look, pupil * along / reach, pupil * 1.1 * down), self.iris)
                pen.fill(_ellipse(look, 0.5 * pupil * along / reach, 0.5 * pupil * down), pen.ink)
                if rng.random() < 0.4:
                    pen.fill(_ellipse(look - 0.4 * pupil * down, 0.25 * pupil * along / reach, 0.25 * pupil * down),
                             np.ones(3))  # fmt: skip
                pen.line(outline if rng.random() < 0.7 else upper, rng.uniform(0.7, 1.6))


def _nose(pen: _Pen, p: Points, to_side: Point, rng: np.random.Generator) -> None:
    """A hook, two dots, a wedge, a profile line or nothing."""
    root, ridge, tip, base = p[indices(["nose_root", "nose_ridge", "nose_tip", "nose_base"])]
    right, left = p[indices(["nose_wing_r", "nose_wing_l"])]
    draw = rng.random()
    if draw < 0.4:  # the tip's curve, on the side it points to
        start = (ridge + tip) / 2 + rng.uniform(-0.3, 0.3) * (tip - ridge)
        pen.line(_bow(np.stack([start, tip + 0.15 * np.linalg.norm(tip - base) * to_side, base])), 1.1)
    elif draw < 0.55:
        pen.line(np.stack([root + rng.uniform(0, 0.6) * (tip - root), tip, base]), 1.0)
    elif draw < 0.7:
        wing = right if rng.random() < 0.5 else left
        pen.line(_bow(np.stack([tip, (wing + base) / 2 + 0.2 * (wing - tip), base])), 1.0)
    elif draw < 0.85:
        for nostril in p[indices(["nostril_r", "nostril_l"])]:
            radius = np.linalg.norm(right - left) * 0.08 + 0.3
            pen.fill(_ellipse(nostril, np.array([radius, 0]), np.array([0, radius * 0.7])), pen.ink)
    elif draw < 0.93:
        pen.line(_bow(np.stack([right, base, left])), 1.0)


def _mouth(pen: _Pen, p: Points, down: Point, skin: Colour, rng: np.random.Generator) -> None:
    """A line, lips or an open mouth; the points move in place."""
    k = indices(_MOUTH)
    center = p[k].mean(0)
    p[k] = center + (p[k] - center) * np.exp(rng.uniform(-0.6, 0.3))
    outline = p[k[:8]]
    right, left = outline[0], outline[4]
    reach = float(np.linalg.norm(left - right))
    draw = rng.random()
    if draw < 0.55:
        middle = (right + left) / 2 + rng.normal(0, 0.15) * reach * down
        tilt = rng.normal(0, 0.08, (2, 1)) * reach * down
        pen.line(_bow(np.stack([right + tilt[0], middle, left + tilt[1]])), rng.uniform(0.9, 1.6))
    elif draw < 0.8:
        pen.fill(outline, np.clip(skin * np.array([0.9, 0.5, 0.5]) * rng.uniform(0.7, 1.1), 0, 1))
        pen.line(_bow(np.stack([right, p[k[8:]].mean(0), left])), 0.8)
    else:
        drop = rng.uniform(0.1, 0.5) * reach * down
        mouth = np.concatenate([_bow(np.stack([right, outline[2] + 0.1 * drop, left])),
                                _bow(np.stack([left, outline[6] + drop, right]))])  # fmt: skip
        pen.fill(mouth, pen.ink if rng.random() < 0.5 else np.array([0.6, 0.15, 0.15]))
        pen.line(mouth, 1.0)

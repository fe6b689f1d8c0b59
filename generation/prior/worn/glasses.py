"""Glasses that a portrait shows, as a thing of their own: form, colours, and the pixels that they hide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.interpolate import LinearNDInterpolator

from ...head_model import HeadModel
from ...head_model.anatomy import world_units
from ...portrait import Portrait
from ..labels.portrait_labels import PortraitLabels, project_px
from .frame_evidence import EYE_LANDMARKS, OPAQUE_EDGE_CM, FrameEvidence, find_frame, outlined, sampled
from .frame_fit import fit_frame, shows_wires
from .frame_shape import FrameCurves, FrameShape, WearersFace, frame_curves, straight_arms, upper_parts

_RIM_CM = (0.12, 0.62)
"""Rims are no thinner and no thicker."""
_OPAQUE_RIM_CM = (0.15, 0.7)
"""Nor are rims about opaque lenses."""
_ALIKE = 0.06
"""Colours that differ by less are one."""
_ARM_CM = (0.16, 0.5)
"""Nor are arms, up and down."""
_SECTION_CM = 0.5
"""Wires are measured across, up to this distance on either side."""
_SECTION_STEPS = 15
_DARK = 0.16
"""A line that is darker than both sides by so much, in brightness of 1, is a wire."""
_LEAST_LINED = 0.2
"""Share of sections with at least half such a line from which on it tells how thick a wire is."""
_FAINT = 0.08
"""Above this likelihood dark lines are believed."""
_PLAINEST = 0.8
"""Fine dark wires are as dark as this quantile of their sections: the others are mixed with skin."""
_CERTAIN = 0.93
"""From this likelihood on the segmenter's borders are exact: thick rims of composed wearers have 0.96 and more, thin
ones of photographed wearers up to 0.88."""
_THERE = 0.3
"""A wire of this likelihood is seen."""
_STROKES = 0.2
"""Where dark lines are as frequent as this all over the face, a painter's strokes make half a frame: of a real one the
lower rims are seen as well. Photographed wearers have 0.03 to 0.14, a painted face 0.28."""
_BRIDGE = 0.4
"""Without whole rims the bridge has to be this likely: wearers in photographs have 0.75 to 1, others 0 to 0.13."""
_LEAST_SEEN = 0.45
"""An upper or lower rim is there if this share of it is seen."""
_LINED, _SURE_RIM, _LIKE_UPPER = 0.6, 0.64, 0.4
"""Of an upper rim alone the first share is a dark line, or half of it is as likely as the second: lids and brows behind
rimless lenses are taken for one, by up to 0.61 on photographs. A lower rim is at least as likely as the third share of
the upper one: composed wearers have 0.85 and more, edges of lenses 0.27."""
_USUAL_RIM_CM = 0.35
"""Nothing tells the width of thicker rims if they are neither certain nor dark."""
_CLEARANCE_CM = 0.08
"""Between a rim's back and the skin behind it."""
_MOST_FORWARDS_CM = 1.0
"""Frames are moved forwards to clear the skin by this much at most."""
_HIDES = 0.3
"""Pixels at the eyes that are frame or jewellery with this probability are hidden."""
_HALO_CM = 0.1
"""So far beside a frame colours are mixed with its own."""
_LINE_HIDES, _LINE_REACH_CM = 0.4, 0.3
"""Lines of this likelihood within this distance of the fitted wires are the portrait's own wires."""

_ARM_REACH_CM, _ARM_HIDES = 0.7, 0.12
"""This far about the line of an arm pixels are hidden from this probability on: portraits see arms from their end."""

Rims = Literal["full", "half", "none"]
"""Which part of the rims there is: all, the upper one, or none."""


@dataclass(frozen=True)
class Glasses:
    """One pair of glasses on the fitted head."""

    shape: FrameShape
    """Its form."""
    face: WearersFace
    """What it rests on."""
    rims: Rims
    """Which part of the rims there is."""
    rim_cm: tuple[float, float]
    """Width of the upper and the lower rim, seen from the front, centimetres."""
    arm_cm: float
    """Height of the arms, centimetres."""
    frame_rgb: Float[np.ndarray, " 3"]
    """Colour of rims and bridge, sRGB in [0, 1]."""
    arm_rgb: Float[np.ndarray, " 3"]
    """Colour of the arms; that of the rims if they are not seen."""
    lens_rgb: Float[np.ndarray, " 3"] | None
    """Colour of lenses that nothing is seen through; None for clear ones."""
    hidden: Bool[np.ndarray, "s s"]
    """Pixels of the portrait that show it and not the head."""
    clear: Bool[np.ndarray, "s s"]
    """Pixels within its rims, and of the eyes, that show the head."""


def fit_glasses(portrait: Portrait, labels: PortraitLabels, model: HeadModel) -> Glasses | None:
    """The glasses that a portrait shows; None where the eyes are bare.

    Deterministic; less than a second.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes; frames and opaque lenses are `segmenter.GLASSES`.
        model: the head model of the fit.
    """
    face, camera = WearersFace.of(model, portrait.head.vertices_world), portrait.head.camera
    landmarks_px = project_px(camera, model.landmarks(portrait.head.vertices_world))
    if portrait.landmarks_px is not None:
        landmarks_px = portrait.landmarks_px[:, :2]
    evidence = find_frame(portrait, labels, face, landmarks_px)
    if evidence is None or not shows_wires(evidence):
        return None
    shape = fit_frame(evidence, camera, face).shape
    forwards = _into_skin_cm(shape, face)
    if forwards > 0:
        shape = fit_frame(evidence, camera, face, forwards_cm=forwards, start=shape).shape
    curves = frame_curves(shape, face)
    arms = straight_arms(shape, face)
    upper = upper_parts(shape)
    rims_px = project_px(camera, world_units(curves.rims))
    sections = _Sections.across(np.concatenate(list(rims_px)), evidence, portrait, closed=upper.shape[1])
    of_upper = upper.ravel()
    if evidence.opaque:
        rims: Rims = "full"
        rim_cm = (_opaque_rim_cm(sections, of_upper), _opaque_rim_cm(sections, ~of_upper))
        # what was fitted is the middle of the edge, and the middle of the wire is farther in
        inwards = 0.5 * float(np.mean(rim_cm)) - 0.5 * OPAQUE_EDGE_CM
        shape = replace(
            shape, half_width_cm=shape.half_width_cm - inwards, half_height_cm=shape.half_height_cm - inwards,
            half_gap_cm=shape.half_gap_cm + inwards,
        )  # fmt: skip
        curves = frame_curves(shape, face)
        rims_px = project_px(camera, world_units(curves.rims))
    else:
        seen = sections.peak > _THERE
        rims = _seen_rims(sections, of_upper, seen)
        if rims != "full":
            bridge = _Sections.across(project_px(camera, world_units(curves.bridge)), evidence, portrait)
            if evidence.strokes > _STROKES or bridge.peak.mean() < _BRIDGE:
                return None
        parts = (of_upper & seen, ~of_upper & seen)
        widths = [sections.width_cm(part) if part.any() else _RIM_CM[0] for part in parts]
        rim_cm = (float(np.clip(widths[0], *_RIM_CM)), float(np.clip(widths[1], *_RIM_CM)))
    frame_rgb = sections.colour(np.ones(len(of_upper), bool))
    arm_sections = [_Sections.across(project_px(camera, world_units(arm)), evidence, portrait) for arm in arms]
    arm_rgb, arm_cm = frame_rgb, 0.9 * rim_cm[0]
    seen_arms = [s for s in arm_sections if (s.peak > 0.6).sum() >= 3]
    if seen_arms:
        most = max(seen_arms, key=lambda s: float(s.peak.sum()))
        arm_rgb = most.colour(most.peak > 0.6)
        arm_cm = most.width_cm(most.peak > 0.6)
    lens_rgb = _lens_colour(rims_px, rim_cm, evidence, portrait) if evidence.opaque else None
    eyes = outlined(landmarks_px, EYE_LANDMARKS, portrait.size_px) > 0
    hidden = _hidden(evidence, curves, arms, rims_px, rims, rim_cm, portrait, eyes)
    clear = ((_filled(rims_px, portrait.size_px) > 0) | eyes) & ~hidden
    arm_cm = float(np.clip(arm_cm, *_ARM_CM))
    return Glasses(shape, face, rims, rim_cm, arm_cm, frame_rgb, arm_rgb, lens_rgb, hidden, clear)


def _seen_rims(sections: _Sections, of_upper: Bool[np.ndarray, " n"], seen: Bool[np.ndarray, " n"]) -> Rims:
    """Which part of the rims about clear lenses there is."""
    upper, lower = (float(np.median(sections.likely[part].max(1))) for part in (of_upper, ~of_upper))
    if seen[of_upper].mean() <= _LEAST_SEEN:
        return "none"
    if seen[~of_upper].mean() > _LEAST_SEEN and lower >= _LIKE_UPPER * upper:
        return "full"
    lined = (sections.dark.max(1) > _DARK / 2)[of_upper & seen].mean()
    return "half" if lined > _LINED or upper > _SURE_RIM else "none"


def _into_skin_cm(shape: FrameShape, face: WearersFace) -> float:
    """How far a frame has to move forwards so that its rims clear brows, nose and cheeks."""
    skin = face.skin_cm[(face.skin_cm[:, 2] > 3) & (np.abs(face.skin_cm[:, 0]) < 8.5)]
    skin = skin[np.abs(skin[:, 1] - face.eyes_cm[:, 1].mean()) < 5.5]
    surface = LinearNDInterpolator(skin[:, :2], skin[:, 2])
    rims = frame_curves(shape, face).rims.reshape(-1, 3)
    depth = np.nan_to_num(surface(rims[:, :2]), nan=-np.inf)
    need = float(np.quantile(depth + 0.1 + _CLEARANCE_CM - rims[:, 2], 0.95))
    return float(np.clip(need, 0.0, _MOST_FORWARDS_CM))


@dataclass(frozen=True)
class _Sections:
    """Straight sections across a wire, one for each point of its projected middle line."""

    likely: Float32[np.ndarray, "n w"]
    """Likelihood of a wire."""
    rgb: Float32[np.ndarray, "n w 3"]
    """The portrait's colours."""
    dark: Float32[np.ndarray, "n w"]
    """How much darker than both sides, in brightness of 1; 0 within half the section's ends, on brows and on lids."""
    step_cm: float
    """Between the samples of a section."""

    @classmethod
    def across(
        cls, px: Float[np.ndarray, "n 2"], evidence: FrameEvidence, portrait: Portrait, closed: int = 0
    ) -> _Sections:
        """Sections of lines in the picture.

        Args:
            px: points of the line.
            closed: length of each closed ring that the points consist of; 0 for one open line.
        """
        if closed:
            rings = px.reshape(-1, closed, 2)
            along = (np.roll(rings, -1, 1) - np.roll(rings, 1, 1)).reshape(-1, 2)
        else:
            along = np.gradient(px, axis=0)
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
        offsets = np.linspace(-_SECTION_CM, _SECTION_CM, _SECTION_STEPS)
        normal = np.stack([along[:, 1], -along[:, 0]], axis=1)
        points = px[:, None] + offsets[:, None] * evidence.px_per_cm * normal[:, None]
        likely, rgb = sampled(evidence.worn, points), sampled(portrait.foreground_unit, points)
        grey = rgb.mean(-1)
        quarter, middle = _SECTION_STEPS // 4, _SECTION_STEPS // 2
        sides = np.minimum(grey[:, : quarter + 1].max(1), grey[:, -quarter - 1 :].max(1))
        dark = np.maximum(sides[:, None] - grey, 0) * sampled(evidence.plain, points)
        dark[:, : middle - quarter] = dark[:, middle + quarter + 1 :] = 0
        return cls(likely, rgb, dark, float(offsets[1] - offsets[0]))

    @property
    def peak(self) -> Float32[np.ndarray, " n"]:
        """Largest likelihood within half the section about its middle; a dark line makes a faint one certain."""
        quarter = self.likely.shape[1] // 4
        likely = self.likely[:, quarter:-quarter].max(1)
        return np.maximum(likely, np.minimum(self.dark.max(1) / _DARK, 1) * (likely > _FAINT))

    def width_cm(self, chosen: Bool[np.ndarray, " n"]) -> float:
        """Median width of the wire: where it is more likely than not, or half as dark as it gets where that is less.

        Where the segmenter is certain, it alone is asked; else it spreads wires, and without a dark line they are no
        thicker than usual.
        """
        likely = self.likely[chosen]
        middle = likely.shape[1] // 2
        peak = likely[:, middle - 3 : middle + 4].max(1)
        width = float(np.median(_run_length(likely > 0.5 * peak[:, None], likely.argmax(1)))) * self.step_cm
        if float(np.median(peak)) > _CERTAIN:
            return width
        dark = self.dark[chosen]
        deep = dark.max(1) > _DARK / 2
        if deep.mean() < _LEAST_LINED:
            return min(width, _USUAL_RIM_CM)
        line = _run_length(dark[deep] > 0.5 * dark[deep].max(1, keepdims=True), dark[deep].argmax(1))
        return min(width, float(np.median(line)) * self.step_cm)

    def colour(self, chosen: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " 3"]:
        """Median of the wire's colours over the sections where it is plainest: elsewhere skin mixes with it."""
        rgb, likely, dark = self.rgb[chosen], self.likely[chosen].astype(np.float64), self.dark[chosen]
        every, depth = np.arange(len(rgb)), dark.max(1)
        if np.median(depth) > _DARK / 2 and np.median(likely.max(1)) < _CERTAIN:
            plain = depth >= np.quantile(depth, _PLAINEST)
            return np.median(rgb[every, dark.argmax(1)][plain], axis=0).astype(np.float64)
        weight = likely**4
        quarter = weight.shape[1] // 4
        weight[:, :quarter] = weight[:, -quarter:] = 0
        mean = (rgb * weight[..., None]).sum(1) / np.maximum(weight.sum(1), 1e-9)[:, None]
        peak = likely.max(1)
        return np.median(mean[peak >= np.quantile(peak, 0.4)], axis=0).astype(np.float64)


def _run_length(inside: Bool[np.ndarray, "n w"], start: np.ndarray) -> Float[np.ndarray, " n"]:
    """How many neighbours about a sample of each row are inside, itself included."""
    columns = np.arange(inside.shape[1])
    left = np.where(~inside & (columns < start[:, None]), columns, -1).max(1)
    right = np.where(~inside & (columns > start[:, None]), columns, inside.shape[1]).min(1)
    return (right - left - 1).astype(np.float64)


def _opaque_rim_cm(sections: _Sections, part: Bool[np.ndarray, " n"]) -> float:
    """Width of a rim about an opaque lens: from its outer edge to where colours are half way to the lens'."""
    middle = sections.likely.shape[1] // 2
    inwards = np.median(sections.rgb[part][:, middle:], axis=0)
    off = np.linalg.norm(inwards - inwards[:2].mean(0), axis=1)
    alike = float(np.cumprod(off < max(_ALIKE, 0.5 * float(off.max()))).sum()) - 0.5
    return float(np.clip(0.5 * OPAQUE_EDGE_CM + alike * sections.step_cm, *_OPAQUE_RIM_CM))


def _lens_colour(
    rims_px: Float[np.ndarray, "2 n 2"], rim_cm: tuple[float, float], evidence: FrameEvidence, portrait: Portrait
) -> Float[np.ndarray, " 3"]:
    """Median colour within opaque lenses, away from their rims."""
    inside = _filled(rims_px, portrait.size_px)
    width = 2 * round((max(rim_cm) + 0.2) * evidence.px_per_cm) + 1
    inside = cv2.erode(inside, np.ones((width, width), np.uint8)) > 0
    chosen = inside & (evidence.worn > 0.5)
    if not chosen.any():
        chosen = evidence.worn > 0.5
    return np.median(portrait.foreground_unit[chosen], axis=0).astype(np.float64)


def _filled(rims_px: Float[np.ndarray, "2 n 2"], size: int) -> np.ndarray:
    """Pixels within the rims."""
    inside = np.zeros((size, size), np.uint8)
    for rim in rims_px:
        cv2.fillPoly(inside, [np.round(rim).astype(np.int32)], (1,))
    return inside


def _hidden(
    evidence: FrameEvidence, curves: FrameCurves, arms: Float[np.ndarray, "2 m 3"],
    rims_px: Float[np.ndarray, "2 n 2"], rims: Rims, rim_cm: tuple[float, float], portrait: Portrait,
    eyes: Bool[np.ndarray, "s s"],
) -> Bool[np.ndarray, "s s"]:  # fmt: skip
    """Pixels that show glasses: what the segmenter says, the fitted wires, and dark lines beside these.

    Through clear lenses `eyes` are seen wherever no wire runs by the fit and by the segmenter: without one of them it
    is a mistake, and it would cost an eye.
    """
    size, scale = portrait.size_px, evidence.px_per_cm
    wires, near, beside = np.zeros((3, size, size), np.uint8)

    def draw(target: np.ndarray, px: Float[np.ndarray, "n 2"], width_cm: float, closed: bool = False) -> None:
        points = np.round(8 * (px - 0.5)).astype(np.int32)
        cv2.polylines(target, [points], closed, (1,), max(1, round(width_cm * scale)), cv2.LINE_8, 3)

    others = [project_px(portrait.head.camera, world_units(line)) for line in (curves.bridge, *curves.hinges)]
    if rims != "none":
        for rim in rims_px:
            draw(wires, rim, max(rim_cm) if rims == "full" else rim_cm[0], closed=True)
            draw(near, rim, 2 * _LINE_REACH_CM + max(rim_cm), closed=True)
    for line in others:
        draw(wires, line, rim_cm[0])
        draw(near, line, 2 * _LINE_REACH_CM + rim_cm[0])
    for arm in arms:  # behind the head for the most part: only what is seen of them
        draw(beside, project_px(portrait.head.camera, world_units(arm)), 2 * _ARM_REACH_CM)
    hidden = (wires > 0) | ((near > 0) & ((evidence.worn > _HIDES) | (evidence.wire > _LINE_HIDES)))
    hidden |= (beside > 0) & ((evidence.worn > _ARM_HIDES) | (evidence.wire > _LINE_HIDES))
    lenses = _filled(rims_px, size) > 0
    hidden |= lenses if evidence.opaque else (evidence.worn > _HIDES) & ~lenses
    seen_eyes = eyes & ~((wires > 0) & (evidence.worn > _HIDES)) & (not evidence.opaque)
    width = 2 * round(_HALO_CM * scale) + 1
    hidden = cv2.dilate((hidden & ~seen_eyes).astype(np.uint8), np.ones((width, width), np.uint8)) > 0
    return hidden & ~seen_eyes

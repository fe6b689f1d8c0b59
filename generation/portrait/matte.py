"""Which pixels of the crop are the person: head, hair or hat, and shoulders, with soft edges.

Two segmentation networks look at several windows of the picture; maps that contradict the fitted head are thrown away,
the rest is averaged, and closed-form matting finds the soft edge. Where no map survives, GrabCut seeded by the fitted
head takes over, and after that the outline of the fitted head alone. A file's own alpha channel, made whole inside the
head, comes before all that, then the outline of a network that was asked for by name (`rembg_network`).

Source: Levin, Lischinski and Weiss, "A Closed-Form Solution to Natural Image Matting", PAMI 2008; Germer et al.,
"Fast Multi-Level Foreground Estimation", ICPR 2020 (both through https://github.com/pymatting/pymatting); Rother,
Kolmogorov and Blake, "GrabCut", SIGGRAPH 2004.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import threading
import warnings
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8

from ..cameras import PANOHEAD_RADIUS, UNITS_PER_CM
from ..head_model import HeadFit, HeadModel
from ..head_model.anatomy import CHIN_LANDMARK
from ..mesh_raster import rasterize_mesh
from ..numba_pool import numba_pool
from .given_alpha import whole_inside
from .person_networks import PersonNetworks, PersonSegmenter
from .resample import CropFrame

_QUIET_LOCK = threading.Lock()
"""stdout and warnings are the whole process's: one thread at a time puts them aside and back."""
# Where the soft edge is looked for and what is believed; lengths in centimetres at the head's depth.
WINDOW_SIZES = (1.0, 1.35, 1.8, 4.0)
"""Sides of the windows that the segmentation networks see, in units of the standard crop."""
_MATTING_PX = 512
"""Side at which closed-form matting runs; larger crops are reduced for it."""
_BAND_CM, _HAIR_BAND_CM = 0.7, 0.9
"""Half-width of the unknown band round the outline; the same above the chin, where hair is."""
_CORE_CM = 1.1
"""The fitted head, made smaller by this much, is certainly foreground."""
_HAIR_CM = 9.0
"""Farther than this from the fitted head, above the chin, foreground is suspicious."""
_LEAST_COVER = 0.85
"""Least share of the fitted head that a matte must cover."""
_MOST_SPILL = 0.45
"""Largest suspicious foreground, in units of the fitted head's area."""
_SURROUNDINGS_CM, _MOST_SURROUNDINGS = 1.5, 0.75
"""Largest share of the surroundings above the chin (this far from the head and farther) that may be foreground."""
_STRAND_CM = 0.35
"""Radius of the opening that cuts off leaks: bridges thinner than twice this do not hold a part to the head."""
_LUMP_CM = 0.14
"""Parts beyond the soft edge that are thicker than twice this are leaks, not strands."""
_FRINGE_CM = 0.4
"""Width of the soft edge round the solid part."""
_REACH_CM = 1.6
"""How far strands thinner than that may reach out of the solid part."""
_FLAT_STEPS = 4.0
"""Where the picture's border has one colour within this many 8-bit steps (drawings, cut-outs), what hangs together with
the border and has that colour is background."""


@dataclass(frozen=True)
class Matte:
    """Opacity and unmixed colour of the crop."""

    alpha_unit: Float32[np.ndarray, "s s"]
    """Opacity in [0, 1]; zero outside the source picture."""
    foreground_unit: Float32[np.ndarray, "s s 3"]
    """Colour of the person in [0, 1], continued smoothly beyond the edge."""
    notices: tuple[str, ...]
    """Sentences for the user."""
    source: Literal["file", "outline", "own"]
    """What said where the person is: the file's alpha channel, the outline that was given, or our own road."""


@dataclass(frozen=True)
class HeadZones:
    """The fitted head in the crop."""

    head: Bool[np.ndarray, "s s"]
    """Projection of the head above the chin (no hair)."""
    body: Bool[np.ndarray, "s s"]
    """Projection of the whole model, with neck."""
    core: Bool[np.ndarray, "s s"]
    """The head made smaller: certainly foreground."""
    height_cm: Float32[np.ndarray, "s s"]
    """Height over the chin along the head's own up direction, centimetres."""
    distance_cm: Float32[np.ndarray, "s s"]
    """Distance from `head`, centimetres."""
    cm_px: float
    """Pixels per centimetre at the head's depth."""

    @property
    def above_chin(self) -> Bool[np.ndarray, "s s"]:
        """Half-plane above the chin."""
        return self.height_cm > 0


def person_maps(
    rgb: UInt8[np.ndarray, "h w 3"], frame: CropFrame, window_sides_px: tuple[float, ...], networks: PersonSegmenter
) -> list[Float32[np.ndarray, "s s"]]:
    """What the networks see in windows of several sizes, brought into one square crop.

    Windows are cut off at the picture's edge instead of being padded: repeated edges mislead the networks. Windows
    that do not hold the whole crop are left out.

    Args:
        frame: the crop.
        window_sides_px: sides of the windows round the same middle, pixels of the picture.
    """
    (x, y), maps = frame.center_px, []
    seen: list[tuple[slice, slice]] = []
    for side in window_sides_px:
        if side < frame.side_px * 0.999:
            continue
        window = _window(rgb, frame.center_px, side)
        if window is None or window in seen:
            continue
        seen.append(window)
        local = CropFrame((x - window[1].start, y - window[0].start), frame.side_px, frame.size_px)
        maps += [local.part(seen_map).astype(np.float32) / 255 for seen_map in _seen_in(rgb[window], networks)]
    return maps


def outline_in_window(
    rgb: UInt8[np.ndarray, "h w 3"], center_px: tuple[float, float], side_px: float, network: PersonSegmenter
) -> UInt8[np.ndarray, "h w"]:
    """Probability of "person" (255 is certain) in one window of a picture, by the first map of a network; elsewhere 0.

    Args:
        center_px: middle of the window, pixels of the picture.
        side_px: its side; it is cut off at the picture's edge.
    """
    result = np.zeros(rgb.shape[:2], np.uint8)
    window = _window(rgb, center_px, side_px)
    if window is not None:
        result[window] = _seen_in(rgb[window], network)[0]
    return result


def _window(
    rgb: UInt8[np.ndarray, "h w 3"], center_px: tuple[float, float], side_px: float
) -> tuple[slice, slice] | None:
    """Rows and columns of a square that is cut off at the picture's edge; None where next to nothing is left of it."""
    (x, y), (height, width) = center_px, rgb.shape[:2]
    left, top = max(0, int(x - side_px / 2)), max(0, int(y - side_px / 2))
    right, bottom = min(width, int(x + side_px / 2)), min(height, int(y + side_px / 2))
    return None if min(right - left, bottom - top) < 16 else (slice(top, bottom), slice(left, right))


def _seen_in(window: UInt8[np.ndarray, "h w 3"], networks: PersonSegmenter) -> list[UInt8[np.ndarray, "h w"]]:
    """Maps of a window, 255 is certain; the networks see it no larger than 1024 pixels."""
    height, width = window.shape[:2]
    shrink = min(1.0, 1024 / max(height, width))
    if shrink < 1:
        window = cv2.resize(window, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return [cv2.resize((seen * 255).astype(np.uint8), (width, height)) for seen in networks.maps(window)]


def head_zones(fit: HeadFit, model: HeadModel) -> HeadZones:
    """Masks of the fitted head in the picture its camera describes (a square crop)."""
    camera = fit.camera
    vertices = fit.vertices_world
    body = np.asarray(rasterize_mesh(vertices, model.faces, camera).hit)
    chin = model.landmarks(vertices)[CHIN_LANDMARK]
    above = vertices[model.faces, 1].min(1) >= chin[1] - 0.5 * UNITS_PER_CM
    head = np.asarray(rasterize_mesh(vertices, model.faces[above], camera).hit)
    T_camera_world = camera.T_camera_world[0].numpy()
    chin_px = camera.project(torch.from_numpy(chin[None]))[0, 0].numpy()
    up = T_camera_world[:2, 1] / max(float(np.linalg.norm(T_camera_world[:2, 1])), 1e-9)
    x, y = np.meshgrid(np.arange(camera.width) + 0.5 - chin_px[0], np.arange(camera.height) + 0.5 - chin_px[1])
    cm_px = UNITS_PER_CM * float(camera.focal_px[0, 0]) / PANOHEAD_RADIUS
    distance = cv2.distanceTransform((~head).astype(np.uint8), cv2.DIST_L2, 5) / cm_px
    core = cv2.distanceTransform(head.astype(np.uint8), cv2.DIST_L2, 5) / cm_px > _CORE_CM
    height = (x * up[0] + y * up[1]) / cm_px
    return HeadZones(head, body, core, height.astype(np.float32), distance.astype(np.float32), cm_px)


def contradicts_head(mask: Bool[np.ndarray, "s s"], inside: Bool[np.ndarray, "s s"], zones: HeadZones) -> bool:
    """Whether a matte cannot belong to the fitted head: it leaves the head out, or spills over its surroundings."""
    core = zones.core & inside
    if not core.any() or mask[core].mean() < _LEAST_COVER:
        return True
    free = inside & zones.above_chin
    spill = (mask & free & (zones.distance_cm > _HAIR_CM)).sum() / max(int(zones.head.sum()), 1)
    around = free & (zones.distance_cm > _SURROUNDINGS_CM)
    surroundings = mask[around].mean() if around.any() else 0.0
    return bool(spill > _MOST_SPILL or surroundings > _MOST_SURROUNDINGS)


def estimate_matte(
    rgb: UInt8[np.ndarray, "s s 3"],
    inside: Bool[np.ndarray, "s s"],
    zones: HeadZones,
    maps: list[Float32[np.ndarray, "s s"]],
    *,
    file_alpha: UInt8[np.ndarray, "s s"] | None = None,
    outline: Float32[np.ndarray, "s s"] | None = None,
    elsewhere: Bool[np.ndarray, "s s"] | None = None,
) -> Matte:
    """Matte of the crop by the first source that agrees with the fitted head.

    Args:
        inside: pixels that lie within the source picture (a rectangle).
        zones: the fitted head in the crop.
        maps: probabilities of "person" from `person_maps`.
        file_alpha: the file's own matte in the crop.
        outline: probability of "person" by a network that was asked for, in place of `maps`.
        elsewhere: pixels that belong to other people.

    Returns:
        The matte, with notices where a fallback was used.
    """
    notices: list[str] = []

    def agrees(alpha: Float32[np.ndarray, "s s"]) -> bool:
        return not contradicts_head(alpha > 0.5, inside, zones)

    def matte(alpha: Float32[np.ndarray, "s s"], source: Literal["file", "outline", "own"] = "own") -> Matte:
        return Matte(alpha, _foreground(rgb, alpha, inside), tuple(notices), source)

    def only_ours(seen: list[Float32[np.ndarray, "s s"]]) -> list[Float32[np.ndarray, "s s"]]:
        if elsewhere is not None:
            seen = [np.where(elsewhere & ~zones.core, np.float32(0), m) for m in seen]
        flat = flat_background(rgb, inside) & ~zones.core
        return [np.where(flat, np.float32(0), m) for m in seen]

    if file_alpha is not None:
        alpha, was_mended = whole_inside(np.where(inside, file_alpha / np.float32(255), np.float32(0)), zones)
        if agrees(alpha):
            if was_mended:
                notices.append("The cut-out is translucent or has holes inside the head; it was made whole there.")
            return matte(alpha, "file")
        notices.append("The file's transparency does not outline the head; the outline is looked for in the picture.")

    if outline is not None:
        if agrees(outline):
            # A mean with the outline's own soft edge was tried on composed heads, whose true edge is known, with
            # blurred truth for an outline: it helps where the blur is small and leaves a halo where it is not.
            alpha = _refined(rgb, inside, only_ours([outline])[0], zones)
            if agrees(alpha):
                return matte(alpha, "outline")
        notices.append("The outline that rembg gives does not fit the head; our own networks outline the person.")

    agreeing = [m for m in maps if agrees(m)]
    if agreeing:
        alpha = _refined(rgb, inside, _decided_by_colour(rgb, inside, only_ours(agreeing), zones), zones)
        if agrees(alpha):
            return matte(alpha)

    by_colour = _grabcut(rgb, inside, _seeds_from_head(zones, elsewhere), zones)
    if agrees(by_colour):
        alpha = _refined(rgb, inside, (by_colour > 0.5).astype(np.float32), zones)
        if agrees(alpha):
            notices.append("No person was recognised by its outline; the outline comes from colours around the head.")
            return matte(alpha)

    notices.append("The outline of hair and shoulders was not found; the outline of an average head is used.")
    return matte(_outline_of_head(inside, zones))


def _decided_by_colour(
    rgb: UInt8[np.ndarray, "s s 3"],
    inside: Bool[np.ndarray, "s s"],
    maps: list[Float32[np.ndarray, "s s"]],
    zones: HeadZones,
) -> Float32[np.ndarray, "s s"]:
    """Mean of the maps; where they are unsure or contradict each other, colours have half of the say (GrabCut)."""
    mean, most = np.mean(maps, axis=0), np.max(maps, axis=0)
    sure = (mean > 0.92) | zones.core
    unsure = ~sure & (most > 0.2)
    seeds = np.full(rgb.shape[:2], cv2.GC_BGD, np.uint8)
    seeds[unsure] = np.where(mean[unsure] > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    seeds[sure] = cv2.GC_FGD
    by_colour = _grabcut(rgb, inside, seeds, zones)
    return np.where(unsure, 0.5 * mean + 0.5 * by_colour, mean).astype(np.float32)


def flat_background(rgb: UInt8[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Background of one colour, connected to the picture's top and sides; empty for any other background.

    Args:
        inside: the rectangle of it that is looked at.
    """
    rows, columns = _rectangle(inside)
    image = rgb[rows, columns].astype(np.float32)
    upper = image[: max(2, image.shape[0] // 2)]
    border = np.concatenate([upper[0], upper[:, 0], upper[:, -1]])
    colour = np.median(border, axis=0)
    alike = np.abs(image - colour).max(-1) <= _FLAT_STEPS
    result = np.zeros(inside.shape, bool)
    if (np.abs(border - colour).max(-1) <= _FLAT_STEPS).mean() < 0.97:
        return result
    seed = np.zeros(alike.shape, bool)
    seed[0, :], seed[:, 0], seed[:, -1] = True, True, True
    result[rows, columns] = components_touching(alike, seed)
    return result


def _disk(radius_px: float) -> UInt8[np.ndarray, "k k"]:
    """A round structuring element."""
    side = 2 * max(1, round(radius_px)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _refined(
    rgb: UInt8[np.ndarray, "s s 3"],
    inside: Bool[np.ndarray, "s s"],
    probability: Float32[np.ndarray, "s s"],
    zones: HeadZones,
) -> Float32[np.ndarray, "s s"]:
    """Soft edge by closed-form matting within a band round the outline, then leaks and islands removed."""
    solid = _solid_part(probability > 0.5, zones)
    near = cv2.dilate(solid.astype(np.uint8), _disk(_REACH_CM * zones.cm_px)) > 0
    probability = np.where(near | solid, probability, 0.0)

    outward = cv2.distanceTransform((~solid).astype(np.uint8), cv2.DIST_L2, 5) / zones.cm_px
    inward = cv2.distanceTransform(solid.astype(np.uint8), cv2.DIST_L2, 5) / zones.cm_px
    band = np.where(zones.above_chin & ~zones.head, _HAIR_BAND_CM, _BAND_CM)
    trimap = np.full(rgb.shape[:2], 0.5)
    trimap[(inward > band) & (probability > 0.85)] = 1.0
    trimap[(outward > band) & (probability < 0.15)] = 0.0
    trimap[zones.core & inside] = 1.0

    alpha = _closed_form(rgb, trimap, inside)
    solid = _solid_part(alpha > 0.5, zones)
    near = cv2.dilate(solid.astype(np.uint8), _disk(_REACH_CM * zones.cm_px)) > 0
    linked = components_touching((alpha > 0.05) & near, solid)
    # What sticks out of the solid part's soft edge and is no strand is background that has the person's colour.
    outward = cv2.distanceTransform((~solid).astype(np.uint8), cv2.DIST_L2, 5) / zones.cm_px
    rest = ((alpha > 0.2) & (outward > _FRINGE_CM)).astype(np.uint8)
    lumps = cv2.morphologyEx(rest, cv2.MORPH_OPEN, _disk(_LUMP_CM * zones.cm_px))
    lumps = cv2.dilate(lumps, _disk(_FRINGE_CM * zones.cm_px)).astype(np.float32)
    keep = 1.0 - cv2.GaussianBlur(lumps, (0, 0), 0.5 * _FRINGE_CM * zones.cm_px)
    alpha = np.where(linked, np.where(solid, alpha, alpha * keep), 0.0)
    alpha = np.clip((alpha - 0.03) / 0.94, 0.0, 1.0)  # the solver leaves a veil of a few hundredths
    return np.where(inside, alpha, 0.0).astype(np.float32)


def components_touching(
    mask: Bool[np.ndarray, "h w"], seed: Bool[np.ndarray, "h w"], connectivity: int = 8
) -> Bool[np.ndarray, "h w"]:
    """The connected parts of `mask` that share a pixel with `seed`."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)
    keep = np.unique(labels[mask & seed])
    return np.isin(labels, keep[keep > 0])


def _solid_part(mask: Bool[np.ndarray, "s s"], zones: HeadZones) -> Bool[np.ndarray, "s s"]:
    """The part of a mask that hangs together with the head by more than a thin bridge, with small holes closed."""
    mask = mask | zones.core
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, _disk(_STRAND_CM * zones.cm_px)) > 0
    solid = components_touching(opened | zones.core, zones.core)
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~solid).astype(np.uint8), connectivity=4)
    for k in range(1, count):
        left, top, width, height, area = stats[k]
        at_edge = left == 0 or top == 0 or left + width == mask.shape[1] or top + height == mask.shape[0]
        if not at_edge and area < (2.0 * zones.cm_px) ** 2:
            solid |= labels == k
    return solid


def load_solver_beside() -> None:
    """Begin to import the matting library, whose compiled code takes a third of a second to load, beside other work."""
    threading.Thread(target=importlib.import_module, args=("pymatting",), daemon=True).start()


def _rectangle(inside: Bool[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """Rows and columns of the part of a picture that lies within the picture."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _closed_form(
    rgb: UInt8[np.ndarray, "s s 3"],
    trimap: Float[np.ndarray, "s s"],
    inside: Bool[np.ndarray, "s s"],
) -> Float[np.ndarray, "s s"]:
    """Closed-form alpha, solved only on the rectangle that holds the unknown pixels."""
    from pymatting import estimate_alpha_cf

    unknown = inside & (trimap == 0.5)
    if not unknown.any():
        return trimap
    rows, columns = _rectangle(unknown)
    margin = 8
    limits = _rectangle(inside)
    rows = slice(max(rows.start - margin, limits[0].start), min(rows.stop + margin, limits[0].stop))
    columns = slice(max(columns.start - margin, limits[1].start), min(columns.stop + margin, limits[1].stop))
    image, known = rgb[rows, columns], trimap[rows, columns]
    height, width = known.shape
    scale = min(1.0, _MATTING_PX / rgb.shape[0])
    if scale < 1:
        size = (max(8, round(width * scale)), max(8, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        known = cv2.resize(known, size, interpolation=cv2.INTER_NEAREST)
    # The solver prints when its first preconditioner fails (flat colours) and then takes a stronger one.
    with (
        _QUIET_LOCK,
        warnings.catch_warnings(),
        contextlib.suppress(ValueError),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        solved = estimate_alpha_cf(image / 255.0, known)
        if scale < 1:
            solved = cv2.resize(solved, (width, height), interpolation=cv2.INTER_LINEAR)
        alpha = trimap.copy()
        alpha[rows, columns] = np.clip(solved, 0.0, 1.0)
        return alpha
    return trimap  # the solver refuses trimaps that are known everywhere


def _foreground(
    rgb: UInt8[np.ndarray, "s s 3"], alpha: Float32[np.ndarray, "s s"], inside: Bool[np.ndarray, "s s"]
) -> Float32[np.ndarray, "s s 3"]:
    """Colour of the person without the background's share; continued beyond the edge by the multi-level solver."""
    from pymatting import estimate_foreground_ml

    rows, columns = _rectangle(inside)
    image = np.ascontiguousarray(rgb[rows, columns], dtype=np.float32) / 255
    with numba_pool(image.size):  # its kernels share numba's threads with ours
        inner = estimate_foreground_ml(image, np.ascontiguousarray(alpha[rows, columns]))
    padding = (
        (rows.start, rgb.shape[0] - rows.stop),
        (columns.start, rgb.shape[1] - columns.stop),
        (0, 0),
    )
    return np.pad(np.clip(inner, 0.0, 1.0), padding, mode="edge").astype(np.float32)


def _grabcut(
    rgb: UInt8[np.ndarray, "s s 3"],
    inside: Bool[np.ndarray, "s s"],
    seeds: UInt8[np.ndarray, "s s"],
    zones: HeadZones,
) -> Float32[np.ndarray, "s s"]:
    """GrabCut within the picture, at half resolution for large crops; returns about 0 or 1, smooth at the edge."""
    limits = _rectangle(inside)
    half = 2 if rgb.shape[0] >= 384 else 1
    image = np.ascontiguousarray(rgb[limits][::half, ::half, ::-1])
    labels = np.ascontiguousarray(seeds[limits][::half, ::half])
    foreground, background = (cv2.GC_FGD, cv2.GC_PR_FGD), (cv2.GC_BGD, cv2.GC_PR_BGD)
    if np.isin(labels, foreground).any() and np.isin(labels, background).any():
        cv2.setRNGSeed(0)
        cv2.grabCut(image, labels, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    rows, columns = limits
    shape = (columns.stop - columns.start, rows.stop - rows.start)
    found = cv2.resize(np.isin(labels, foreground).astype(np.float32), shape)
    result = np.zeros(rgb.shape[:2], np.float32)
    result[limits] = cv2.GaussianBlur(found, (0, 0), 0.12 * zones.cm_px)
    return result


def _seeds_from_head(zones: HeadZones, elsewhere: Bool[np.ndarray, "s s"] | None) -> UInt8[np.ndarray, "s s"]:
    """Seeds for GrabCut out of the fitted head alone: a cap of hair round it, shoulders that widen below the chin."""
    distance_body = cv2.distanceTransform((~zones.body).astype(np.uint8), cv2.DIST_L2, 5) / zones.cm_px
    reach_cm = 3.0 + np.clip(-zones.height_cm, 0, None) * 1.4
    above, below = zones.above_chin, ~zones.above_chin
    seeds = np.full(zones.head.shape, cv2.GC_BGD, np.uint8)
    seeds[above & (zones.distance_cm < 6.5)] = cv2.GC_PR_BGD
    seeds[above & (zones.distance_cm < 2.0)] = cv2.GC_PR_FGD
    seeds[below & (distance_body < reach_cm + 3.0)] = cv2.GC_PR_BGD
    seeds[below & (distance_body < 0.5 * reach_cm)] = cv2.GC_PR_FGD
    if elsewhere is not None:
        seeds[elsewhere] = cv2.GC_BGD
    seeds[zones.core] = cv2.GC_FGD
    return seeds


def _outline_of_head(inside: Bool[np.ndarray, "s s"], zones: HeadZones) -> Float32[np.ndarray, "s s"]:
    """The fitted head with a close cap of hair, its neck, and sloping shoulders, softened."""
    grown = zones.above_chin & (zones.distance_cm < 1.0)
    mask = (grown | zones.body).astype(np.float32)
    soft = cv2.GaussianBlur(mask, (0, 0), 0.25 * zones.cm_px)
    return np.where(inside, np.clip((soft - 0.2) / 0.6, 0, 1), 0.0).astype(np.float32)


def people_elsewhere(
    size_px: int,
    center_px: tuple[float, float],
    face_size_px: float,
    others: list[tuple[tuple[float, float], float]],
) -> Bool[np.ndarray, "s s"] | None:
    """Pixels nearer to another person's face than to ours, distances measured in units of each face's size.

    Args:
        center_px, face_size_px: our face in the crop.
        others: middle and size of the other faces in the crop's pixels; they may lie outside it.

    Returns:
        The mask, or None where nobody else is near.
    """
    if not others:
        return None
    x, y = np.meshgrid(np.arange(size_px) + 0.5, np.arange(size_px) + 0.5)

    def distance(center: tuple[float, float], size: float) -> Float[np.ndarray, "s s"]:
        return np.hypot(x - center[0], y - center[1]) / max(size, 1e-6)

    ours = distance(center_px, face_size_px)
    mask = np.zeros((size_px, size_px), bool)
    for center, size in others:
        mask |= distance(center, size) < ours
    return mask if mask.any() else None


def seen_by_networks(rgb: UInt8[np.ndarray, "h w 3"], networks: PersonNetworks) -> Float32[np.ndarray, "h w"]:
    """Probability of "person" over a whole picture, averaged over the networks and a mirrored copy."""
    straight = networks.maps(rgb)
    mirrored = [m[:, ::-1] for m in networks.maps(np.ascontiguousarray(rgb[:, ::-1]))]
    return np.mean([*straight, *mirrored], axis=0).astype(np.float32)

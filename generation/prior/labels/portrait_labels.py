"""Tell skin, hair and cloth apart in a portrait, with the fitted head as the guide.

A trained network (`learned.segmenter`) says what each pixel is; a spatial prior from the projected head weighs a little
where it hesitates. Without the network's weights, or with `method="rules"`, colours decide:

Each class has a spatial prior from the projected head (the scalp is probably hair, the face and the neck are skin,
what lies below and beside the neck is probably cloth) and a colour model, a mixture of Gaussians in CIELAB. A few
rounds of expectation-maximisation fit the colour models; an edge-aware filter then smooths the posteriors. "Hair"
means everything worn above the shoulders: hats, turbans and scarves over the head are hair to this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage

from ...cameras import Cameras
from ...head_model import FACE_OVAL_LANDMARKS, HeadModel
from ...head_model.model import PART_CRANIUM_NECK, PART_FACE
from ...mesh_raster import interpolate, rasterize_mesh
from ...portrait import Portrait
from .. import capsule
from . import segmenter as learned
from .segmenter import LoadedSegmenter, load_segmenter, segment

SKIN, HAIR, CLOTH = 0, 1, 2

_ICT_ORIGIN_CM = np.array([0.0, 2.0, 1.0])
_UNITS_PER_CM = 0.0165
_LAB_SCALE = np.array([16.0, 8.0, 9.0], np.float32)
"""Lab units that count as one step of difference; lightness varies more than hue inside a class."""


@dataclass(frozen=True)
class LabelConfig:
    """How the classes are told apart."""

    method: Literal["learned", "rules"] = "learned"
    """`learned` asks the trained segmenter; `rules` needs no weights, and stands in where they are missing."""
    prior_weight: float = 0.25
    """Exponent of the fitted head's spatial prior beside the network's probabilities."""
    least_prior: float = 0.08
    """Smallest spatial prior beside the network: a high collar may reach where hair usually is."""
    rounds: int = 4
    """Rounds of expectation-maximisation."""
    components: int = 4
    """Gaussians per class."""
    colour_weight: float = 0.8
    """Exponent of the colour likelihood: neighbouring pixels are not independent witnesses."""
    bald_fraction: float = 0.12
    """Below this share of scalp pixels that differ from skin the head counts as bald."""


@dataclass(frozen=True)
class PortraitLabels:
    """Class maps of a portrait, all of its size."""

    probability: Float[np.ndarray, "s s 3"]
    """Posterior of skin, hair, cloth in the foreground."""
    skin: Bool[np.ndarray, "s s"]
    """Face, ears, neck."""
    hair: Bool[np.ndarray, "s s"]
    """Hair and headwear."""
    cloth: Bool[np.ndarray, "s s"]
    """Clothes and everything else below the neck."""
    bald: bool
    """No hair to speak of."""


def project_px(camera: Cameras, points_world: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, "p 2"]:
    """Pixel positions of world points in one camera."""
    points = torch.from_numpy(np.ascontiguousarray(points_world, dtype=np.float64))
    return camera.project(points)[0, :, :2].numpy()


def centimetres(model: HeadModel) -> Float[np.ndarray, "v 3"]:
    """Vertices of the mean head in ICT-FaceKit's centimetres, in which anatomical borders are stated."""
    return model.neutral / _UNITS_PER_CM + _ICT_ORIGIN_CM


def ear_vertices(model: HeadModel) -> Bool[np.ndarray, " v"]:
    """Vertices of the ears: what stands out of the opened skull at their place."""
    x, y, z = centimetres(model).T
    near = (np.abs(x) > 6.8) & (y > -4.5) & (y < 5.0) & (z > -3.5) & (z < 2.5) & (model.part <= PART_CRANIUM_NECK)
    skull = capsule.opened_skull_radius(model.neutral, model.faces_of(PART_FACE, PART_CRANIUM_NECK))
    row, column, radius = capsule.cell_coordinates(model.neutral)
    skull_here = ndimage.map_coordinates(skull, [row, column], order=1, mode="grid-wrap")
    return near & (radius > skull_here + 0.002)


def scalp_prior(model: HeadModel) -> Float[np.ndarray, " v"]:
    """How likely each vertex carries hair, from where hairlines usually run: 1 on the scalp, 0 on face and neck."""
    x, y, z = centimetres(model).T

    def ramp(value: Float[np.ndarray, " v"], low: float, high: float) -> Float[np.ndarray, " v"]:
        return np.clip((value - low) / (high - low), 0.0, 1.0)

    above_hairline = ramp(y, 8.0, 11.0)  # the forehead's upper third may be either
    behind_temples = ramp(-z, -3.2, -0.8) * ramp(y, -7.0, -4.5)
    scalp = np.maximum(above_hairline, behind_temples)
    return np.where(ear_vertices(model), 0.1 * scalp, scalp)


def _spatial_prior(portrait: Portrait, model: HeadModel) -> tuple[Float[np.ndarray, "s s 3"], float, float]:
    """Prior of skin, hair, cloth per pixel; also the rows of chin and neck base in pixels."""
    camera = portrait.head.camera
    vertices = portrait.head.vertices_world
    size = portrait.rgb.shape[0]
    faces = model.faces_of(PART_FACE, PART_CRANIUM_NECK)
    y_cm = centimetres(model)[:, 1]
    faces = faces[(y_cm[faces] > -14.5).all(1)]  # the model's own shoulders say nothing about the picture's
    fragments = rasterize_mesh(vertices, faces, camera)
    attributes = np.stack([scalp_prior(model), y_cm], axis=1).astype(np.float32)
    scalp, height_cm = np.moveaxis(interpolate(fragments, attributes, faces), -1, 0)
    covered = fragments.triangle_index >= 0

    def row_of(y_in_cm: float, z_in_cm: float) -> float:
        point = (np.array([[0.0, y_in_cm, z_in_cm]]) - _ICT_ORIGIN_CM) * _UNITS_PER_CM
        return float(project_px(camera, point)[0, 1])

    chin_row, neck_row = row_of(-8.5, 6.0), row_of(-13.0, 0.0)
    rows = np.arange(size, dtype=np.float64)[:, None]

    hair_outside = np.clip(0.97 - 0.65 * np.clip((rows - chin_row) / (neck_row - chin_row) + 0.5, 0.0, 1.4), 0.06, 0.97)
    cloth_outside = np.clip(1.0 - hair_outside - 0.03, 0.0, 1.0)
    outside = np.stack(np.broadcast_arrays(np.full_like(rows, 0.03), hair_outside, cloth_outside), axis=-1)
    outside = np.broadcast_to(outside, (size, size, 3))

    on_neck = covered & (height_cm < -9.0)
    hair_inside = np.where(on_neck, 0.08, 0.03 + 0.94 * scalp)
    neck_cloth = np.clip((-height_cm - 9.5) / 4.0, 0.02, 0.85)
    cloth_inside = np.where(on_neck, neck_cloth, 0.005)
    skin_inside = np.clip(1.0 - hair_inside - cloth_inside, 0.02, 1.0)
    inside = np.stack([skin_inside, hair_inside, cloth_inside], axis=-1)

    prior = np.where(covered[..., None], inside, outside)
    # The fit is off by some pixels at its rim; let the two sides of the outline mix.
    prior = np.stack([cv2.GaussianBlur(prior[..., k], (0, 0), size / 170) for k in range(3)], axis=-1)
    return prior / prior.sum(-1, keepdims=True), chin_row, neck_row


def _face_core(portrait: Portrait, model: HeadModel) -> Bool[np.ndarray, "s s"]:
    """Pixels that are the face for certain: the landmark hull, shrunk, or the projected face mask without landmarks."""
    size = portrait.rgb.shape[0]
    core = np.zeros((size, size), np.uint8)
    if portrait.landmarks_px is not None:
        oval = portrait.landmarks_px[FACE_OVAL_LANDMARKS, :2]
    else:
        landmarks_world = model.landmarks(portrait.head.vertices_world)
        oval = project_px(portrait.head.camera, landmarks_world[FACE_OVAL_LANDMARKS])
    cv2.fillConvexPoly(core, cv2.convexHull(oval.astype(np.int32)), 1)
    radius = max(3, size // 36)
    return cv2.erode(core, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)) > 0


def _mixture_log_likelihood(
    colours: Float[np.ndarray, "n 3"],
    weights: Float[np.ndarray, " n"],
    components: int,
    query: Float[np.ndarray, "m 3"],
    rng: np.random.Generator,
) -> Float[np.ndarray, " m"]:
    """Log-density at `query` of a spherical mixture fitted by weighted k-means to at most 4000 drawn samples."""
    probability = weights / weights.sum()
    drawn = colours[rng.choice(len(colours), size=min(4000, len(colours)), p=probability)].astype(np.float32)
    cv2.setRNGSeed(1)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 12, 0.05)
    k = min(components, len(np.unique(drawn, axis=0)))
    _, assignment, centres = cv2.kmeans(drawn, k, None, criteria, 1, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    log_terms = []
    for c in range(k):
        member = drawn[assignment[:, 0] == c]
        variance = ((member - centres[c]) ** 2).mean(0) + 0.15
        distance = (((query - centres[c]) ** 2) / variance).sum(1)
        log_terms.append(np.log(len(member) / len(drawn)) - 0.5 * distance - 0.5 * np.log(variance).sum())
    uniform = np.full(len(query), -12.0)  # outliers belong to every class a little
    return np.logaddexp.reduce(np.stack([*log_terms, uniform]), axis=0)


def _expectation_maximisation(
    pixels: Float[np.ndarray, "n 3"],
    prior: Float[np.ndarray, "n 3"],
    home: Bool[np.ndarray, "n 3"],
    config: LabelConfig,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Posterior of each class per pixel, and the log-likelihoods of the last round."""
    posterior = prior
    log_prior = np.log(np.clip(prior, 1e-4, 1.0))
    likelihood = np.full_like(log_prior, -9.0)
    for _ in range(config.rounds):
        for k in range(3):
            weight = home[:, k] * posterior[:, k] ** 2  # the sure pixels teach the colour model
            if weight.sum() >= 20:
                likelihood[:, k] = _mixture_log_likelihood(pixels, weight, config.components, pixels, rng)
        log_posterior = log_prior + config.colour_weight * likelihood
        log_posterior -= np.logaddexp.reduce(log_posterior, axis=1)[:, None]
        posterior = np.exp(log_posterior)
    return posterior, likelihood


def _where_hair_hangs(
    hair: Float[np.ndarray, " n"],
    foreground: Bool[np.ndarray, "s s"],
    core: Bool[np.ndarray, "s s"],
    chin_row: float,
    neck_row: float,
) -> Bool[np.ndarray, "s s"]:
    """Columns below the jaw into which hair reaches from beside the face; nothing for hair that ends at the ears."""
    size = len(foreground)
    image = np.zeros((size, size), bool)
    image[foreground] = hair > 0.5
    distance = neck_row - chin_row
    band = slice(max(0, int(chin_row - 0.8 * distance)), max(1, int(chin_row - 0.1 * distance)))
    enough = image[band].mean(0) > 0.6  # hair all along the jaw
    face_columns = np.nonzero(core.any(0))[0]
    enough[face_columns[0] : face_columns[-1] + 1] = False
    spread = ndimage.binary_dilation(enough, iterations=size // 14)
    below = np.arange(size)[:, None] > chin_row - 0.5 * distance
    return below & spread[None, :] & (enough.sum() > size // 40)


def label_portrait(
    portrait: Portrait,
    model: HeadModel,
    config: LabelConfig | None = None,
    *,
    seed: int = 0,
    segmenter: LoadedSegmenter | None = None,
) -> PortraitLabels:
    """Skin, hair and cloth of a portrait.

    Beards, glasses and jewellery count as skin, on which they are painted; hats and scarves over the head as hair.

    Args:
        portrait: the aligned portrait with its fitted head and matte.
        model: the head model of that fit.
        config: weights.
        seed: seed of the colour samples of the rules.
        segmenter: the network for `method="learned"`; None takes the installed one.
    """
    config = config or LabelConfig()
    match config.method:
        case "learned":
            segmenter = segmenter or load_segmenter()
            if segmenter is not None:
                return _labels_by_network(portrait, model, segmenter, config)
            return _labels_by_rules(portrait, model, config, seed)
        case "rules":
            return _labels_by_rules(portrait, model, config, seed)
        case _:
            assert_never(config.method)


def _labels_by_network(
    portrait: Portrait, model: HeadModel, segmenter: LoadedSegmenter, config: LabelConfig
) -> PortraitLabels:
    """What the network sees, weighed by the fitted head, smoothed along edges."""
    classes = segment(portrait.rgb, portrait.inside, segmenter)
    prior, chin_row, neck_row = _spatial_prior(portrait, model)
    foreground = portrait.alpha_unit > 0.5
    worn_on_skin = (learned.SKIN, learned.BEARD, learned.ACCESSORY)
    on_the_scalp = (learned.HAIR, learned.HEADGEAR)
    seen = np.stack(
        [classes[..., worn_on_skin].sum(-1), classes[..., on_the_scalp].sum(-1), classes[..., learned.CLOTH]], axis=-1
    )
    probability = (seen + 1e-3) * np.maximum(prior, config.least_prior) ** config.prior_weight
    probability = _smoothed(probability / probability.sum(-1, keepdims=True), portrait, foreground)
    return _connected_by_network(probability, foreground, _face_core(portrait, model), prior, chin_row, config)


def _smoothed(
    probability: Float[np.ndarray, "s s 3"], portrait: Portrait, foreground: Bool[np.ndarray, "s s"]
) -> Float[np.ndarray, "s s 3"]:
    """Probabilities that follow the picture's edges; zero away from the foreground.

    Source: He, Sun, Tang, "Guided Image Filtering", PAMI 2010.
    """
    size = len(foreground)
    guide = np.ascontiguousarray(portrait.foreground_unit, dtype=np.float32)
    mask = foreground.astype(np.float32)
    share = cv2.ximgproc.guidedFilter(guide, mask, size // 64, 1e-3)
    inside = np.ascontiguousarray(probability * mask[..., None], dtype=np.float32)
    smooth = cv2.ximgproc.guidedFilter(guide, inside, size // 64, 1e-3) / np.maximum(share, 0.05)[..., None]
    smooth = np.clip(smooth, 0.0, 1.0)
    return smooth / np.maximum(smooth.sum(-1, keepdims=True), 1e-6)


def _connected_by_network(
    probability: Float[np.ndarray, "s s 3"],
    foreground: Bool[np.ndarray, "s s"],
    core: Bool[np.ndarray, "s s"],
    prior: Float[np.ndarray, "s s 3"],
    chin_row: float,
    config: LabelConfig,
) -> PortraitLabels:
    """Hard classes: specks go to what surrounds them, hair reaches above the chin, cloth below it."""
    size = len(core)
    rows = np.arange(size)[:, None]
    label = cv2.medianBlur(probability.argmax(-1).astype(np.uint8), 2 * (size // 170) + 1)
    for k, home in ((HAIR, rows < chin_row), (CLOTH, rows > chin_row), (SKIN, core)):
        pieces, count = ndimage.label(foreground & (label == k))
        at_home = np.bincount(pieces[np.broadcast_to(home, pieces.shape)], minlength=count + 1) > 0
        large = np.bincount(pieces.ravel(), minlength=count + 1) > (size // 24) ** 2
        stray = (pieces > 0) & ~(at_home & large)[pieces]
        if k == SKIN:
            stray &= ~large[pieces]  # ears behind hair, a hand, bare shoulders
        others = probability.copy()
        others[..., k] = -1
        label = np.where(stray, others.argmax(-1), label)
    skin, hair, cloth = (foreground & (label == k) for k in (SKIN, HAIR, CLOTH))
    scalp = foreground & (prior[..., HAIR] > 0.8) & (rows < chin_row)
    bald = bool((hair & (rows < chin_row)).sum() < config.bald_fraction * max(1, scalp.sum()))
    return PortraitLabels(probability, skin, hair, cloth, bald)


def _labels_by_rules(portrait: Portrait, model: HeadModel, config: LabelConfig, seed: int) -> PortraitLabels:
    """A spatial prior and mixtures of colours.

    Source: mixture fitting as in Dempster, Laird, Rubin 1977; smoothing by the guided filter (He, Sun, Tang 2010).
    """
    rng = np.random.default_rng(seed)
    size = portrait.rgb.shape[0]
    prior, chin_row, neck_row = _spatial_prior(portrait, model)
    core = _face_core(portrait, model)
    foreground = portrait.alpha_unit > 0.5
    lab = cv2.cvtColor(np.ascontiguousarray(portrait.foreground_unit), cv2.COLOR_RGB2LAB) / _LAB_SCALE

    prior = np.where(core[..., None], np.array([0.98, 0.015, 0.005]), prior)
    scalp = foreground & (prior[..., HAIR] > 0.8) & (np.arange(size)[:, None] < chin_row)
    pixels = lab[foreground].astype(np.float32)

    # Colour of clear skin: the face core without its darkest and lightest pixels (brows, lips, highlights).
    skin_colour = lab[core & foreground] if (core & foreground).sum() > 50 else pixels
    median = np.median(skin_colour, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(skin_colour - median), axis=0), 0.35)
    skin_distance = np.sqrt((((lab - median) / spread) ** 2).sum(-1))
    bald = bool((scalp & (skin_distance > 3.0)).sum() < config.bald_fraction * max(1, scalp.sum()))
    if bald:
        prior = np.where(core[..., None], prior, prior * np.array([1.0, 0.03, 1.0]) + np.array([1e-3, 0, 0]))
        prior = prior / prior.sum(-1, keepdims=True)

    # Each class learns its colours only where it is at home; between chin and shoulders colour alone decides.
    rows = np.broadcast_to(np.arange(size)[:, None], foreground.shape)[foreground]
    home = np.stack(
        [
            (prior[foreground][:, SKIN] > 0.7) & (rows < neck_row) & (skin_distance[foreground] < 5.0),
            (prior[foreground][:, HAIR] > 0.6) & (rows < chin_row - 0.5 * (neck_row - chin_row)),
            rows > neck_row,
        ],
        axis=1,
    )
    posterior, likelihood = _expectation_maximisation(pixels, prior[foreground], home, config, rng)
    hanging = _where_hair_hangs(posterior[:, HAIR], foreground, core, chin_row, neck_row)[foreground]
    if hanging.any() and home[:, HAIR].sum() > 20:
        # Long hair lies on the shoulders: there it is as likely as cloth, and cloth does not learn from it.
        usual = np.percentile(likelihood[home[:, HAIR], HAIR], 10)
        hair_like = hanging & (likelihood[:, HAIR] > usual)
        home[:, CLOTH] &= ~hair_like
        prior_here = prior[foreground]
        prior_here[hanging] = np.array([0.03, 0.5, 0.47])
        posterior, _ = _expectation_maximisation(pixels, prior_here, home, config, rng)

    probability = np.zeros((size, size, 3), np.float32)
    probability[foreground] = posterior
    probability[core] = [1.0, 0.0, 0.0]
    probability = _smoothed(probability, portrait, foreground)
    return _connected(probability, foreground, core, bald, chin_row, neck_row)


def _connected(
    probability: Float[np.ndarray, "s s 3"],
    foreground: Bool[np.ndarray, "s s"],
    core: Bool[np.ndarray, "s s"],
    bald: bool,
    chin_row: float,
    neck_row: float,
) -> PortraitLabels:
    """Hard classes, each in one piece: skin with the face, hair with the hair above the chin; the rest is cloth."""
    size = len(core)
    label = probability.argmax(-1)
    label = cv2.medianBlur(label.astype(np.uint8), 2 * (size // 128) + 1)
    rows = np.arange(size)[:, None]

    skin = foreground & (label == SKIN)
    components, _ = ndimage.label(skin | core)
    skin = foreground & np.isin(components, np.setdiff1d(np.unique(components[core]), [0]))
    skin |= core & foreground

    hair = foreground & (label == HAIR) & ~skin
    components, _ = ndimage.label(cv2.morphologyEx(hair.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)))
    wanted = np.setdiff1d(np.unique(components[rows[:, 0] < chin_row]), [0])
    kept = np.isin(components, wanted)
    hair &= cv2.dilate(kept.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0

    cloth = foreground & ~skin & ~hair & (rows > chin_row - 0.3 * (neck_row - chin_row))
    # Whatever is left above the shoulders (a skin-coloured patch of hair, an ear ornament) goes with its likelier side.
    rest = foreground & ~skin & ~hair & ~cloth
    hair |= rest & (probability[..., HAIR] >= probability[..., SKIN]) & (not bald)
    skin |= rest & ~hair
    return PortraitLabels(probability, skin, hair, cloth, bald)

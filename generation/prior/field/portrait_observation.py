"""What a real portrait shows of a head field: its pixels looked up on a guess of the head's outer surface.

Rules are those by which composed portraits are simulated (`generation.synthetic.fields.observation`), so that networks
meet what they know. Where the surface lies is itself to be found: look up, estimate, and look up again on the
estimate's surface.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy import ndimage

from ...cameras import UNITS_PER_MM, Cameras
from ...head_model import HeadModel
from ...networks import LoadedNetwork
from ...portrait import Portrait
from .. import capsule
from ..hair.orientation import SeenOrientation
from ..labels.portrait_labels import PortraitLabels, project_px
from .chart import COLUMNS, cell_frames, of_capsule
from .coherent_cover import with_coherent_cover
from .grown_hair import with_grown_hair
from .head_field import HAIR, HEADGEAR, TOKENS, HeadField, cells_from_world
from .mean_network import FIELD_MEAN, FieldMeanNet, estimate_field
from .observed_field import ObservedField
from .seen_cover import with_seen_cover
from .seen_surface import BOUND_LEVELS, FRAMED_LEVEL, SeenSurface, first_standing_out

_BODY_ROW, _BODY_BLEND = 40, 5
"""From this row on, over so many rows, the fitted head, which has no shoulders, goes over into a usual body."""
_BODY_RADIUS = np.array([
    (0.085, -0.015, 0.009, 0.006, -0.001), (0.084, -0.026, 0.006, 0.006, -0.002), (0.084, -0.035, 0.003, 0.007, -0.003),
    (0.086, -0.042, 0.0, 0.009, -0.003), (0.090, -0.050, -0.003, 0.012, -0.004), (0.096, -0.058, -0.007, 0.017, -0.004),
    (0.104, -0.067, -0.013, 0.022, -0.004), (0.114, -0.075, -0.022, 0.028, -0.003),
    (0.125, -0.081, -0.031, 0.033, -0.001), (0.136, -0.085, -0.040, 0.035, 0.002),
    (0.147, -0.086, -0.047, 0.036, 0.004),
    (0.157, -0.084, -0.053, 0.034, 0.006), (0.165, -0.082, -0.056, 0.032, 0.007), (0.170, -0.079, -0.059, 0.030, 0.007),
    (0.171, -0.076, -0.062, 0.029, 0.008), (0.169, -0.071, -0.064, 0.029, 0.009),
])  # fmt: skip
"""Of each row from there on: mean radius of 1,152 composed bodies as a sum of cosines of 0 to 4 times the azimuth."""
_FINE_LEVELS = np.linspace(0, 0.22, 89)
_FIRST_THICKNESS = 0.02
"""Of the first guess where the outline allows it, world units."""
_BLUR_PX = 4.0
"""Deviation of what a cell covers in the picture, pixels at 512."""
_LEAST_SHARE, _LEAST_PERSON = 0.5, 0.1
"""Of a material, to be the cell's own; of all, for a cell not to lie beside the person."""
_WORN = (0.3, 0.7)
"""Share of headgear in what is worn on the scalp from which on it counts, and from which on it is all."""
_INSIDE_STEP = 0.01
"""What ends at the outline is looked up this far inside, world units."""
_OUTLINE_BEYOND = 4 * UNITS_PER_MM
"""Outlines stand out from where half of the light has stopped: the last hairs, and the last pixel that holds some."""
_RIM_CELLS = 1.0
"""How far thicknesses at the outline are averaged: deviation of a Gaussian."""
_ORIENTATION_GAIN, _LEAST_ORIENTATION = 1.5, 0.05
"""Certainty of an orientation by its weight in the picture, and the least weight that counts."""


def fitted_skull(portrait: Portrait, model: HeadModel) -> Float32[np.ndarray, "56 64"]:
    """Radius of the fitted head without ears and nose on the chart, on the shoulders of a usual body; world units."""
    skull = of_capsule(capsule.opened_skull_radius(portrait.head.vertices_world, model.skin_faces))
    azimuth = np.arange(COLUMNS) * (2 * math.pi / COLUMNS)
    body = _BODY_RADIUS @ np.cos(np.arange(_BODY_RADIUS.shape[1])[:, None] * azimuth)
    share = np.clip((1 + np.arange(len(body))) / _BODY_BLEND, 0, 1)[:, None]
    skull[_BODY_ROW:] += share * (body - skull[_BODY_ROW:])
    return skull.astype(np.float32)


def field_of_portrait(
    portrait: Portrait,
    labels: PortraitLabels,
    model: HeadModel,
    *,
    network: LoadedNetwork[FieldMeanNet] | None = None,
    rounds: int = 2,
) -> tuple[HeadField, ObservedField]:
    """The estimated field of a portrait, and what the portrait shows on its surface.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes.
        model: the head model of the fit.
        network: estimates what is not seen; None takes the one that ships.
        rounds: how often pixels are looked up, each time on the surface estimated before; at least 1.
    """
    picture, skull, network = _Picture.of(portrait, labels), fitted_skull(portrait, model), network or FIELD_MEAN.load()
    observed = _observed(picture, skull, None)
    field = estimate_field(observed, network)
    for _ in range(rounds - 1):
        observed = _observed(picture, skull, field.outer_radius)
        field = estimate_field(observed, network)
    return with_coherent_cover(with_grown_hair(with_seen_cover(field, observed), observed)), observed


def observe_portrait(
    portrait: Portrait,
    labels: PortraitLabels,
    skull_radius: Float32[np.ndarray, "56 64"],
    outer_radius: Float32[np.ndarray, "56 64"] | None = None,
) -> ObservedField:
    """What a portrait shows on a surface round the head.

    Args:
        portrait: aligned portrait with its fitted head.
        labels: its classes.
        skull_radius: from `fitted_skull`.
        outer_radius: guess of the outer surface; None is thin hair where the outline has room for it.
    """
    return _observed(_Picture.of(portrait, labels), skull_radius, outer_radius)


def _observed(
    picture: _Picture, skull_radius: Float32[np.ndarray, "56 64"], outer_radius: Float32[np.ndarray, "56 64"] | None
) -> ObservedField:
    bound, in_frame = picture.exit(skull_radius, BOUND_LEVELS)
    guess = skull_radius + np.minimum(bound, _FIRST_THICKNESS) if outer_radius is None else outer_radius
    frames = cell_frames()
    camera = picture.camera
    surface = SeenSurface.of(camera, frames.origins_world + frames.outward * guess[..., None].astype(np.float64))
    column, row, inside = picture.pixels(surface.uv_px)
    seen = inside & surface.visible(surface.depth[row, column])

    material = np.moveaxis(picture.material[row, column], -1, 0)
    total = material.sum(0)
    seen &= total > _LEAST_PERSON
    material = np.where(seen, material / np.maximum(total, 1e-6), 0)
    visibility = seen * surface.sureness

    tangents, weight = picture.orientation.on_surface(camera, surface.points_world, surface.normals_world)
    along = cells_from_world(tangents.astype(np.float32))
    doubled = 2 * np.arctan2(along[1], along[0])
    strands = seen & (material[HAIR] > _LEAST_SHARE) & (weight > _LEAST_ORIENTATION)

    # where a cell's ray runs along the picture, the outline tells its thickness, if what ends there is hair or headgear
    thickness, framed = picture.exit(skull_radius, _FINE_LEVELS)
    reach = skull_radius + thickness
    edge = frames.origins_world + frames.outward * (reach - _INSIDE_STEP)[..., None]
    inner_column, inner_row, inner_inside = picture.pixels(project_px(camera, edge))
    worn = picture.material[inner_row, inner_column][..., [HAIR, HEADGEAR]].sum(-1)
    rim = framed & inner_inside & (worn > _LEAST_SHARE) & surface.beside_outline
    rim &= (thickness > 0) & (thickness < _FINE_LEVELS[-1])
    near = ndimage.gaussian_filter(rim.astype(np.float64), _RIM_CELLS, mode=capsule.WRAPPED)
    smooth = ndimage.gaussian_filter(np.where(rim, thickness, 0.0), _RIM_CELLS, mode=capsule.WRAPPED)
    thickness = np.maximum(smooth / np.maximum(near, 1e-6) - _OUTLINE_BEYOND, 0)
    eye = camera.position_world[0].numpy()
    return ObservedField(
        skull_radius=skull_radius,
        visibility=visibility.astype(np.float32),
        material=material.astype(np.float32),
        rgb=(np.moveaxis(picture.rgb[row, column], -1, 0) * seen).astype(np.float32),
        orientation=(np.stack([np.cos(doubled), np.sin(doubled)]) * strands).astype(np.float32),
        orientation_certainty=(np.clip(_ORIENTATION_GAIN * weight, 0, 1) * strands).astype(np.float32),
        thickness=(thickness * rim).astype(np.float32),
        thickness_certainty=rim.astype(np.float32),
        thickness_bound=bound.astype(np.float32),
        in_frame=in_frame.astype(np.float32),
        tokens=np.full(len(TOKENS), np.nan, np.float32),
        towards_camera=(eye / np.linalg.norm(eye)).astype(np.float32),
    )


@dataclass(frozen=True)
class _Picture:
    """A portrait as cells see it: blurred by about the size of one."""

    camera: Cameras
    person: Bool[np.ndarray, "s s"]
    inside: Bool[np.ndarray, "s s"]
    material: Float32[np.ndarray, "s s 4"]
    """Shares of skin, hair, headgear and cloth; in sum less than 1 at the outline."""
    rgb: Float32[np.ndarray, "s s 3"]
    orientation: SeenOrientation

    @classmethod
    def of(cls, portrait: Portrait, labels: PortraitLabels) -> _Picture:
        sigma = _BLUR_PX * portrait.size_px / 512

        def blurred(maps: Float32[np.ndarray, "s s k"]) -> Float32[np.ndarray, "s s k"]:
            return cv2.GaussianBlur(np.ascontiguousarray(maps, np.float32), (0, 0), sigma)

        worn = np.clip((labels.headgear_share - _WORN[0]) / (_WORN[1] - _WORN[0]), 0, 1)
        cover = labels.hair.astype(np.float32)
        material = np.stack([labels.skin, cover * (1 - worn), cover * worn, labels.cloth], axis=-1)
        person = portrait.alpha_unit > 0.5
        weight = person[..., None].astype(np.float32)
        rgb = blurred(portrait.foreground_unit * weight) / np.maximum(blurred(weight.repeat(3, -1)), 1e-3)
        orientation = SeenOrientation.of(portrait, labels)
        return cls(portrait.head.camera, person, portrait.inside, blurred(material), np.clip(rgb, 0, 1), orientation)

    def pixels(
        self, uv_px: Float[np.ndarray, "*n 2"]
    ) -> tuple[Int[np.ndarray, "*n"], Int[np.ndarray, "*n"], Bool[np.ndarray, "*n"]]:
        """Columns and rows of the nearest pixels, and whether positions lie within the source picture."""
        size = len(self.person)
        whole = np.floor(uv_px).astype(np.int64)
        column, row = np.moveaxis(np.clip(whole, 0, size - 1), -1, 0)
        return column, row, ((whole >= 0) & (whole < size)).all(-1) & self.inside[row, column]

    def exit(
        self, skull_radius: Float32[np.ndarray, "56 64"], levels: Float[np.ndarray, " l"]
    ) -> tuple[Float[np.ndarray, "56 64"], Bool[np.ndarray, "56 64"]]:
        """First of ascending thicknesses at which a cover would stand out of the person's outline, `BEYOND` where
        none does, and whether the picture could show it.
        """
        frames = cell_frames()
        radii = skull_radius.astype(np.float64) + levels[:, None, None]
        column, row, inside = self.pixels(
            project_px(self.camera, frames.origins_world + frames.outward * radii[..., None])
        )
        out = inside & ~self.person[row, column]
        framed = inside[np.searchsorted(levels, BOUND_LEVELS[FRAMED_LEVEL])]
        return first_standing_out(out, levels), framed

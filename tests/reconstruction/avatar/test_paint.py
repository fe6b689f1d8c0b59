"""What a moving head shows that a still one hides: closed lids with lashes, teeth in the portrait's own tone."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dp360.generation.cameras import UNITS_PER_CM
from dp360.generation.head_model import load_head_model
from dp360.generation.mesh_raster import interpolate, rasterize_mesh, sample_texture
from dp360.generation.prior.texture.atlas import MATERIAL_EYE, MATERIAL_SKIN, MATERIAL_TEETH
from dp360.reconstruction.avatar.eyes import PX_CM, eyeballs_of, front_camera
from dp360.reconstruction.avatar.face_paint import repainted
from dp360.reconstruction.avatar.head_texels import HeadTexels
from dp360.reconstruction.avatar.lid_paint import ClosedLids, _folded
from dp360.reconstruction.avatar.poses import Pose
from dp360.reconstruction.avatar.rig import Rig, build_rig

SKIN = np.array([205, 160, 135])


def eye_picture(rig: Rig, side: int, closed: float) -> tuple[np.ndarray, np.ndarray]:
    """Colours (0 to 255) and materials of an eye from in front, with a blink of that weight."""
    model = load_head_model()
    vertices = rig.posed(Pose.of({"eyeBlinkLeft": closed, "eyeBlinkRight": closed}))
    centre = eyeballs_of(model, model.neutral)[side].centre_world
    fragments = rasterize_mesh(vertices, rig.faces, front_camera(centre))
    height, width = rig.texture_rgb.shape[:2]
    uv_px = interpolate(fragments, rig.uv_unit * [width, height], rig.faces)
    material = np.where(fragments.hit, rig.material[np.maximum(fragments.triangle_index, 0)], 255)
    return sample_texture(rig.texture_rgb.astype(np.float32), uv_px), material


@pytest.mark.parametrize("side", [0, 1])
def test_lashes_lie_where_closed_lids_meet_and_over_an_open_eye(mean_fit, side):
    rig = build_rig(mean_fit())
    opened, material = eye_picture(rig, side, 0.0)
    columns = np.flatnonzero((material == MATERIAL_EYE).any(0))
    columns = columns[len(columns) // 3 : -len(columns) // 3]
    upper = (material == MATERIAL_EYE)[:, columns].argmax(0)
    lower = len(material) - 1 - (material == MATERIAL_EYE)[::-1, columns].argmax(0)
    # the eye is open: dark above it, not below
    light = opened.mean(2) / SKIN.mean()
    reach = round(0.2 / PX_CM)
    above = [light[row - reach : row, c].min() for row, c in zip(upper, columns)]
    below = [light[row + 2 : row + 2 + reach, c].mean() for row, c in zip(lower, columns)]
    assert np.median(above) < 0.5 and np.median(below) > 0.65
    # closed: one dark line at the height of the lower lid, a lid like skin above it
    closed, material = eye_picture(rig, side, 1.0)
    assert (material[:, columns] == MATERIAL_SKIN).mean() > 0.99
    light = closed.mean(2) / SKIN.mean()
    around = light[upper.min() : lower.max() + 20, columns]
    line = upper.min() + around.argmin(0)
    assert np.median(around.min(0)) < 0.45
    assert np.abs(line - lower).max() * PX_CM < 0.35
    lid = [light[row - round(0.4 / PX_CM) : row - round(0.25 / PX_CM), c].mean() for row, c in zip(line, columns)]
    assert 0.85 < min(lid) and max(lid) < 1.1


def test_lids_of_an_eye_in_shadow_are_in_shadow(mean_fit):
    model, fit = load_head_model(), mean_fit()
    texels = HeadTexels.of(fit, model)
    x = texels.at(model.neutral)[:, 0]
    texture = fit.texture_rgb.copy()
    rows, columns = texels.rows[x > 0], texels.columns[x > 0]
    texture[rows, columns] = (0.3 * texture[rows, columns]).astype(np.uint8)
    lit, _ = repainted(replace(fit, texture_rgb=texture), model, model.neutral, model.neutral)
    lids = ClosedLids.of(texels, model, model.neutral.astype(np.float64))
    lid = lids.upper & (lids.distance_cm > 0.2) & (lids.distance_cm < 0.5)
    dark, bright = (lit[texels.rows[of], texels.columns[of]].mean() for of in (lid & (x > 0), lid & (x < 0)))
    assert 0.25 < dark / bright < 0.35


def test_teeth_that_show_stay_and_give_the_others_their_tone(mean_fit):
    model, fit = load_head_model(), mean_fit()
    texels = HeadTexels.of(fit, model)
    place = texels.at(model.neutral)
    teeth = np.flatnonzero(texels.material == MATERIAL_TEETH)
    shown = teeth[
        (np.abs(place[teeth, 0]) < 0.6 * UNITS_PER_CM) & (place[teeth, 2] > np.quantile(place[teeth, 2], 0.9))
    ]
    others = np.setdiff1d(teeth[place[teeth, 2] > np.quantile(place[teeth, 2], 0.8)], shown)

    def painted(colour: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        texture, confidence = fit.texture_rgb.copy(), fit.confidence.copy()
        confidence[texels.rows[teeth], texels.columns[teeth]] = 0
        confidence[texels.rows[shown], texels.columns[shown]] = 255
        texture[texels.rows[shown], texels.columns[shown]] = colour
        with_teeth = replace(fit, texture_rgb=texture, confidence=confidence)
        lit, _ = repainted(with_teeth, model, model.neutral, model.neutral)
        return tuple(np.median(lit[texels.rows[of], texels.columns[of]], axis=0) for of in (shown, others))

    own, tone = painted((190, 200, 170))  # greenish, as no typical tooth is
    np.testing.assert_allclose(own, (190, 200, 170), atol=2)
    assert tone[1] > tone[0] > tone[2] and tone.mean() > 120
    lips, typical = painted((170, 60, 60))  # a mouth that was shut
    assert lips[1] > 150 and typical[0] > typical[1] > typical[2]


def test_folds_above_the_eyes_are_smooth_when_brows_go_up(mean_fit):
    model, fit = load_head_model(), mean_fit()
    texels = HeadTexels.of(fit, model)
    texture = fit.texture_rgb.copy()
    texture[:, ::16] = (120, 90, 80)  # a smear of strokes that lie in the fold
    texture = cv2.GaussianBlur(texture, (0, 0), 2.0)
    lit, _ = repainted(replace(fit, texture_rgb=texture), model, model.neutral, model.neutral)
    lids = ClosedLids.of(texels, model, model.neutral.astype(np.float64))
    neutral = model.neutral.astype(np.float64)
    fold = _folded(texels, model, lids, neutral, neutral)
    assert (fold > 0.9).sum() > 500 and fold[~lids.upper].max() == 0

    def rough(picture: np.ndarray, of: np.ndarray) -> float:
        fine = picture.astype(np.float32) - cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 8.0)
        return float(fine[texels.rows[of], texels.columns[of]].std())

    inside, brow = fold > 0.95, lids.upper & (lids.distance_cm > 2.3) & (lids.distance_cm < 2.4)
    assert rough(lit, inside) < 0.6 * rough(texture, inside)
    assert rough(lit, brow) > 0.9 * rough(texture, brow)

"""What a portrait shows on the chart, by a ball whose hair, skin and outline are known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dp360.generation import Cameras, look_at_origin
from dp360.generation.head_model import HeadFit, load_head_model, mean_head_fit
from dp360.generation.portrait import Portrait
from dp360.generation.prior.field.chart import cell_frames
from dp360.generation.prior.field.head_field import HAIR, HEADGEAR, SKIN
from dp360.generation.prior.field.observed_field import ObservedField
from dp360.generation.prior.field.portrait_observation import fitted_skull, observe_portrait
from dp360.generation.prior.field.seen_surface import BEYOND
from dp360.generation.prior.labels.portrait_labels import PortraitLabels, project_px

SIZE, SKULL, HAIR_THICKNESS = 256, 0.15, 0.03


def mean_fit(camera: Cameras) -> HeadFit:
    """The mean head in front of a camera."""
    model = load_head_model()
    placed = mean_head_fit(model, 1000.0, (SIZE / 2, SIZE / 2), SIZE, SIZE)
    return replace(placed, camera=camera)


def portrait_of_ball(worn: float, thickness: float) -> tuple[Portrait, PortraitLabels]:
    """A surface of constant radius on the chart seen from the front: cover of one thickness above the face's middle."""
    camera = look_at_origin([0.0], [0.0], size_px=SIZE)
    frames = cell_frames()
    points = (frames.origins_world + (SKULL + thickness) * frames.outward)[:40]
    uv = project_px(camera, points).reshape(-1, 2)
    person = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillConvexPoly(person, cv2.convexHull(uv.astype(np.float32)).astype(np.int32), (1,))
    person = person > 0
    upper = np.arange(SIZE)[:, None] < SIZE / 2
    hair = person & upper
    labels = PortraitLabels(
        np.zeros((SIZE, SIZE, 3)), person & ~upper, hair, np.zeros((SIZE, SIZE), bool),
        np.full((SIZE, SIZE), worn, np.float32), np.zeros((SIZE, SIZE, 11), np.float32),
    )  # fmt: skip
    stripes = np.broadcast_to((np.arange(SIZE) % 6 < 3)[None, :, None], (SIZE, SIZE, 3))  # run down
    portrait = Portrait(
        np.full((SIZE, SIZE, 3), 128, np.uint8), person.astype(np.float32), (0.3 + 0.3 * stripes).astype(np.float32),
        np.ones((SIZE, SIZE), bool), None, mean_fit(camera), "standard", "ball", "", (),
    )  # fmt: skip
    return portrait, labels


def observed_ball(worn: float, thickness: float = HAIR_THICKNESS) -> ObservedField:
    """What is seen of it when its surface is known."""
    skull = np.full((56, 64), SKULL, np.float32)
    return observe_portrait(*portrait_of_ball(worn, thickness), skull, skull + np.float32(thickness))


def test_what_faces_the_camera_is_seen_and_told_apart() -> None:
    seen = observed_ball(worn=0.0)
    assert (seen.visibility[20:30, [0, 8, 56]] > 0.7).all() and not seen.visibility[:, 20:45].any()
    assert (seen.material[HAIR, 12:20, 0] > 0.9).all() and (seen.material[SKIN, 34:38, 0] > 0.9).all()
    assert (observed_ball(worn=1.0).material[HEADGEAR, 12:20, 0] > 0.9).all()
    np.testing.assert_allclose(seen.rgb[:, 15, 0], 0.45, atol=0.05)
    np.testing.assert_allclose(seen.towards_camera, [0, 0, 1], atol=1e-6)
    assert np.isnan(seen.tokens).all()


@pytest.mark.parametrize("thickness", [0.02, 0.05])
def test_the_outline_tells_how_thick_hair_is(thickness: float) -> None:
    seen = observed_ball(0.0, thickness)
    rim = seen.thickness_certainty > 0
    assert rim[10:28, 16].all() and rim[10:28, 48].all() and not rim[15:28, [0, 32]].any()
    np.testing.assert_allclose(seen.thickness[10:28, [16, 48]], thickness, atol=0.006)
    assert (seen.thickness_bound[10:28, [16, 48]] >= thickness).all()
    assert (seen.thickness_bound[20:28, [16, 48]] < thickness + 0.02).all()
    assert (seen.thickness_bound[28, [0, 32]] == np.float32(BEYOND)).all()  # towards the camera anything fits


def test_strands_that_run_down_the_picture_run_down_the_chart() -> None:
    seen = observed_ball(0.0)
    there = seen.orientation_certainty > 0.3
    assert there[15:25, [0, 4, 60]].any()
    np.testing.assert_allclose(seen.orientation[0, 15:25, 0][there[15:25, 0]], 1, atol=0.05)


def test_the_fitted_skull_stands_on_shoulders() -> None:
    skull = fitted_skull(portrait_of_ball(0.0, HAIR_THICKNESS)[0], load_head_model())
    assert skull.shape == (56, 64) and np.isfinite(skull).all() and skull.min() > 0.02
    assert skull[52, 16] > 2 * skull[42, 16] and skull[52, 0] < 0.1  # shoulders are wide, the throat stays
    assert np.abs(np.diff(skull[40:], axis=0)).max() < 0.04

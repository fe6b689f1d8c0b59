"""Where nerfstudio's viewer looks from when somebody opens it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import viser
from nerfstudio.viewer.viewer_elements import ViewerControl

from dp360.generation.cameras import PANOHEAD_FOCAL_NORMALISED, PANOHEAD_RADIUS

_DISTANCE = 0.7 * PANOHEAD_RADIUS
"""World units. Nearer than the training cameras, whose frustums would stand between us and the head otherwise."""
_FIELD_OF_VIEW_RAD = 2.0 * math.atan(1.15 * 0.5 / PANOHEAD_FOCAL_NORMALISED * PANOHEAD_RADIUS / _DISTANCE)
"""Vertical field that shows what a portrait shows, and a little more."""

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer


class FrontView(ViewerControl):
    """A viewer control without buttons: it turns y up and stands every new client in front of the face.

    nerfstudio finds it as an attribute of the model, in ns-train and in ns-viewer alike.
    """

    def _setup(self, viewer: Viewer) -> None:
        from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO

        super()._setup(viewer)
        viewer.viser_server.scene.set_up_direction("+y")

        @viewer.viser_server.on_client_connect
        def _(client: viser.ClientHandle) -> None:
            with client.atomic():
                client.camera.up_direction = (0.0, 1.0, 0.0)  # first: viser's own up is where we look from
                client.camera.position = (0.0, 0.0, _DISTANCE * VISER_NERFSTUDIO_SCALE_RATIO)
                client.camera.look_at = (0.0, 0.0, 0.0)
                client.camera.fov = _FIELD_OF_VIEW_RAD

"""Where nerfstudio's viewer looks from when somebody opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import viser
from nerfstudio.viewer.viewer_elements import ViewerControl

from .front_view import FrontCamera

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
        front = FrontCamera()
        x, y, z = (VISER_NERFSTUDIO_SCALE_RATIO * v for v in front.position_world)

        @viewer.viser_server.on_client_connect
        def _(client: viser.ClientHandle) -> None:
            with client.atomic():
                client.camera.up_direction = (0.0, 1.0, 0.0)  # first: viser's own up is where we look from
                client.camera.position = (x, y, z)
                client.camera.look_at = (0.0, 0.0, 0.0)
                client.camera.fov = front.vertical_fov_rad(client.camera.aspect)

"""The viewer of `dp360 view`: a head in the browser, shown by viser, which nerfstudio's own viewer is made with.

viser draws every Gaussian in one colour from all sides: harmonics above the constant one show in the .html page and in
ns-viewer, not here.
"""

from __future__ import annotations

import contextlib
import errno
import io
import socket
import threading
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import viser
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor
from trimesh.exchange.gltf import export_glb

from dp360.exporters.mesh_read import is_mesh_file, load_trimesh
from dp360.exporters.splat_moves import up_axis_matrix
from dp360.generation import InputError
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.generation.system import has_screen
from dp360.reconstruction.front_view import FrontCamera, framing_of_points
from dp360.reconstruction.spherical_harmonics import SH_C0
from dp360.reconstruction.splats import Splats

from .console import Notify, ignore
from .fitted_head import open_head
from .view import ViewCommand

_SCALE = 10.0
"""Scene lengths per world unit, as in nerfstudio's viewer: viser adds 1e-7 to covariances, which must not show."""
_STD_RANGE, _THINNEST = (1e-4, 1e4), 1e-5
"""Scene lengths of an axis of a Gaussian, and the least part of its longest one: what viser's factorisation bears."""


def view(command: ViewCommand, *, notify: Notify = ignore) -> None:
    """Show the head until Ctrl-C.

    Raises:
        InputError: the file cannot be read, does not hold what can be shown, or nothing can be served at this address.
    """
    with serve(command, notify=notify) as url:
        if command.port and not url.endswith(f":{command.port}"):
            print(f"port {command.port} is taken; the next free one serves instead", flush=True)
        print(f"showing {command.file} at {url} (Ctrl-C ends it)", flush=True)
        if command.open and has_screen():
            webbrowser.open(url)
        threading.Event().wait()


@contextlib.contextmanager
def serve(command: ViewCommand, *, notify: Notify = ignore) -> Iterator[str]:
    """A server of the head, running until the context ends.

    Yields:
        Its address.

    Raises:
        InputError: as `view`.
    """
    shown = _mesh(command) if is_mesh_file(command.file) else _splats(command, notify)
    port = _usable_port(command.host, command.port)
    with contextlib.redirect_stdout(io.StringIO()):  # its table of addresses; ours is one line
        server = viser.ViserServer(host=command.host, port=port, label=command.file.name, verbose=False)
    try:
        if isinstance(shown, Splats):
            shown = shown.to("cpu")
            server.scene._add_gaussian_splats(  # viser's experimental interface; the version is pinned
                "/head",
                centers=(_SCALE * shown.means_world).numpy(),
                covariances=_covariances(shown, _SCALE).numpy(),
                rgbs=(0.5 + SH_C0 * shown.sh0).clamp(0, 1).numpy(),
                opacities=shown.opacities[:, None].numpy(),
            )
        else:
            server.scene.add_glb("/head", shown.glb, scale=shown.scale, wxyz=shown.wxyz, position=shown.position)
        _stand_in_front(server, FrontCamera())
        shown_host = "127.0.0.1" if command.host in ("", "0.0.0.0", "::") else command.host
        yield f"http://{f'[{shown_host}]' if ':' in shown_host else shown_host}:{server.get_port()}"
    finally:
        server.stop()


@dataclass(frozen=True)
class _ShownMesh:
    """A mesh, and how it is placed in the scene."""

    glb: bytes
    """The file, or the same as .glb."""
    scale: float
    """Scene lengths in a unit of the file."""
    wxyz: tuple[float, float, float, float]
    """Its turn."""
    position: tuple[float, float, float]
    """Where its origin lies, scene lengths."""


def _mesh(command: ViewCommand) -> _ShownMesh:
    """A mesh file as .glb, which viser shows; a .glb as it is, with materials and parts that trimesh does not know."""
    if command.input_up_axis == "auto":
        raise InputError(f"Cannot show {command.file}: the up axis of a mesh is not guessed; name it")
    mesh = load_trimesh(command.file)
    turn = up_axis_matrix(command.input_up_axis or "y")
    framing = framing_of_points(torch.from_numpy(mesh.vertices @ turn.T / METRES_PER_UNIT).float())
    scale = _SCALE / framing.scale
    x, y, z, w = Rotation.from_matrix(turn).as_quat()
    middle = [-scale * v for v in framing.middle_world]
    glb = command.file.read_bytes() if command.file.suffix.lower() == ".glb" else export_glb(mesh)
    return _ShownMesh(glb, scale / METRES_PER_UNIT, (w, x, y, z), (middle[0], middle[1], middle[2]))


def _splats(command: ViewCommand, notify: Notify) -> Splats:
    """The Gaussians of a file, folder or run, framed."""
    path = command.file
    is_config = path.suffix.lower() in (".yml", ".yaml")
    head = open_head(path, None, command.input_up_axis) if is_config else open_head(None, path, command.input_up_axis)
    for notice in head.notices:
        notify(notice)
    if head.splats is None:
        raise InputError(f"Cannot show {path}: it is a radiance field; open it with ns-viewer --load-config {path}")
    if not len(head.splats):
        raise InputError(f"Cannot show {path}: expected at least one Gaussian, got none")
    return head.framing.framed(head.splats)


def _covariances(splats: Splats, scale: float) -> Float[Tensor, "n 3 3"]:
    """Second moments R diag(s^2) R^T of the Gaussians, scaled by `scale`, positive definite, float64."""
    std = (splats.scales.double() * scale).clamp(*_STD_RANGE)
    std = std.maximum(_THINNEST * std.max(dim=1, keepdim=True).values)
    rotations = Rotation.from_quat(splats.quats_wxyz[:, [1, 2, 3, 0]].double().numpy()).as_matrix()
    half = torch.from_numpy(rotations) * std[:, None]
    return half @ half.mT


def _stand_in_front(server: viser.ViserServer, front: FrontCamera) -> None:
    """Let every visitor start in front of the face, upright, and come back there by a button."""
    # The button would send the face through somebody's server; without it, the floating layout breaks the page.
    server.gui.configure_theme(control_layout="collapsible", control_width="small", show_share_button=False)
    server.scene.set_up_direction("+y")
    button = server.gui.add_button("From the front")

    def place(client: viser.ClientHandle) -> None:
        aspect = client.camera.aspect
        with client.atomic():
            client.camera.up_direction = (0.0, 1.0, 0.0)  # first: viser's own up is where we look from
            client.camera.position = tuple(_SCALE * np.array(front.position_world))
            client.camera.look_at = tuple(_SCALE * np.array(front.target_world))
            client.camera.fov = front.vertical_fov_rad(aspect)

    server.on_client_connect(place)

    @button.on_click
    def _(event: viser.GuiEvent) -> None:
        if event.client is not None:
            place(event.client)


def _usable_port(host: str, port: int) -> int:
    """The port if one can serve there, now or at one of the next, which viser tries itself; 0 becomes a free one.

    viser neither says what is wrong with a host nor which port it was given for 0, so both are asked for here.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"Cannot serve at port {port}: expected a number from 0 to 65535")
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            return probe.getsockname()[1]
    except PermissionError:
        raise InputError(f"Cannot serve at port {port}: it needs more rights; take one from 1024 on") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return port
        raise InputError(f"Cannot serve at host {host}: {error.strerror}") from error

"""A head as one .html file that shows it: a double click, any current browser, no network.

The page holds PlayCanvas' SuperSplat Viewer (MIT, `supersplat_viewer/`) and the splats as .sog in base64. Its content
security policy forbids the browser to load anything from anywhere else. WebGL draws, which every browser has; the
camera starts in front of the face and orbits the head's middle.

Own page around a library made for this purpose: it is the viewer that splat-transform writes as well.
Source: https://github.com/playcanvas/supersplat-viewer (docs/api.md)
"""

from __future__ import annotations

import base64
import binascii
import json
from importlib import resources

from dp360.generation import InputError, Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.reconstruction.front_view import framing_of
from dp360.reconstruction.splats import Splats

from . import splat_sog
from .html_page import filled_page
from .splat_reading import ParsedSplats, splat_decoder

_BACKGROUND_RGB_UNIT = (0.16, 0.17, 0.19)
"""Dark enough for the viewer's light controls."""
_SPLATS_ID = "head"
_SPLATS_OPENING = f'<script type="application/octet-stream" id="{_SPLATS_ID}">'
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
)


def encode(
    splats: Splats,
    provenance: Provenance,
    *,
    title: str = "3D head",
    metres_per_unit: float = METRES_PER_UNIT,
) -> bytes:
    """A complete .html file.

    Args:
        splats: Gaussians in world units, at least one.
        provenance: origin, written to the page's meta tags and into the splats.
        title: of the page; any text.
        metres_per_unit: factor on lengths, positive.

    Raises:
        ValueError: no Gaussians, or a number is not finite.
    """
    sog = splat_sog.encode(
        splats, provenance, metres_per_unit=metres_per_unit, up_axis="-y"
    )  # the viewer turns what it loads half a turn about z
    front = framing_of(splats, known=provenance.is_known).front_camera
    view = {
        "position": [metres_per_unit * v for v in front.position_world],
        "target": [metres_per_unit * v for v in front.target_world],
        "fov_rad": front.fov_rad,
        "background_rgb_unit": _BACKGROUND_RGB_UNIT,
    }
    room = resources.files("dp360.exporters")
    folder = room / "supersplat_viewer"
    parts = {
        "POLICY": _POLICY,
        "VIEWER_CSS": (folder / "viewer.css").read_text("utf-8").strip(),
        "VIEWER_JS": (folder / "viewer.js").read_text("utf-8").strip(),
        "LICENCE": (folder / "LICENSE.txt").read_text("utf-8").strip(),
        "BACKGROUND": ", ".join(str(round(255 * c)) for c in _BACKGROUND_RGB_UNIT),
        "VIEW": json.dumps(view, sort_keys=True),
        "SPLATS_OPENING": _SPLATS_OPENING,
        "SPLATS": base64.b64encode(sog).decode("ascii"),
    }
    return filled_page((room / "viewer_page.html").read_text("utf-8"), provenance, title, parts)


@splat_decoder("splats from this .html")
def decode(data: bytes) -> ParsedSplats:
    """The splats of a page that `encode` made.

    Raises:
        InputError: not such a page, or damaged.
    """
    start = data.rfind(_SPLATS_OPENING.encode())
    end = data.find(b"</script>", start)
    if start < 0 or end < 0:
        raise InputError("expected an .html file written by dp360, found none in this page")
    try:
        sog = base64.b64decode(data[start + len(_SPLATS_OPENING) : end], validate=True)
    except binascii.Error as error:
        raise InputError("its base64 is damaged") from error
    return splat_sog.decode.parse(sog)

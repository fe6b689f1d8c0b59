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
import html
import json
import re
from importlib import resources

from dp360.generation import InputError, Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.reconstruction.front_view import FrontCamera, front_camera_of
from dp360.reconstruction.splats import Splats

from . import splat_sog
from .provenance import provenance_from_json, provenance_to_json

_BACKGROUND_RGB_UNIT = (0.16, 0.17, 0.19)
"""Dark enough for the viewer's light controls."""
_PROVENANCE_NAME, _SPLATS_ID = "dp360.provenance", "head"
_SPLATS_OPENING = f'<script type="application/octet-stream" id="{_SPLATS_ID}">'
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
)
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="@POLICY@">
<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">
<meta name="generator" content="@GENERATOR@">
<meta name="description" content="@STATEMENT@">
<meta name="@PROVENANCE_NAME@" content="@PROVENANCE@">
<title>@TITLE@</title>
<link rel="icon" href="data:,">
<style>
@VIEWER_CSS@
</style>
<style>
html, body { height: 100%; margin: 0; overflow: hidden; background: rgb(@BACKGROUND@); }
.notice { margin: 2em; font: 16px sans-serif; color: #eee; }
</style>
</head>
<body>
<noscript><p class="notice">This page shows a 3D head; it needs JavaScript.</p></noscript>
<!--
@LICENCE@
-->
<script>
@VIEWER_JS@
</script>
<script type="application/json" id="view">@VIEW@</script>
@SPLATS_OPENING@@SPLATS@</script>
<script>
(() => {
  const text = (id) => document.getElementById(id).textContent;
  const view = JSON.parse(text("view"));
  const sog = Uint8Array.from(atob(text("head")), (letter) => letter.charCodeAt(0));
  // The viewer's field of view spans the longer side; ours is given for the shorter one, so that the head always fits.
  const aspect = innerWidth / innerHeight || 1;
  const longer = Math.max(aspect, 1 / aspect) * Math.tan(view.fov_rad / 2);
  const fov = Math.min(2 * Math.atan(longer) * 180 / Math.PI, 120);
  const off = { enabled: false };
  try {
    // The list of keys stays folded until somebody asks for it, lest it cover the shoulder.
    if (localStorage.getItem("controlsPanelOpen") === null) localStorage.setItem("controlsPanelOpen", "false");
  } catch { /* a browser that keeps nothing for files */ }
  SupersplatViewer.createViewer({
    container: document.body,
    contentUrl: "head.sog", // names the format only: the content is in the response below
    contentFilename: "head.sog",
    contents: Promise.resolve(new Response(sog, { headers: { "Content-Length": String(sog.length) } })),
    renderer: "webgl",
    noanim: true,
    settings: {
      version: 2,
      tonemapping: "none",
      highPrecisionRendering: false,
      background: { color: view.background_rgb_unit },
      postEffectSettings: {
        sharpness: { ...off, amount: 0 },
        bloom: { ...off, intensity: 0, blurLevel: 2 },
        grading: { ...off, brightness: 1, contrast: 1, saturation: 1, tint: [1, 1, 1] },
        vignette: { ...off, intensity: 0, inner: 0, outer: 1, curvature: 1 },
        fringing: { ...off, intensity: 0 },
      },
      animTracks: [],
      cameras: [{ initial: { position: view.position, target: view.target, fov } }],
      annotations: [],
      startMode: "default",
    },
  }).then((viewer) => {
    // It would start in its own camera flight, which the play button still offers.
    const orbit = () => { viewer.state.cameraMode = "orbit"; };
    if (viewer.state.loaded) orbit();
    else viewer.events.once("loaded:changed", orbit);
  }).catch((error) => {
    const notice = document.createElement("p");
    notice.className = "notice";
    notice.textContent = "This browser cannot show the 3D head; it needs WebGL 2. (" + error + ")";
    document.body.replaceChildren(notice);
  });
})();
</script>
</body>
</html>
"""


def encode(splats: Splats, provenance: Provenance, *, title: str = "3D head") -> bytes:
    """A complete .html file.

    Args:
        splats: Gaussians in world units, at least one.
        provenance: origin, written to the page's meta tags and into the splats.
        title: of the page; any text.

    Raises:
        ValueError: no Gaussians, or a number is not finite.
    """
    sog = splat_sog.encode(splats, provenance, up_axis="-y")  # the viewer turns what it loads half a turn about z
    folder = resources.files("dp360.exporters") / "supersplat_viewer"
    parts = {
        "POLICY": _POLICY,
        "GENERATOR": html.escape(f"dp360 {provenance.version}"),
        "STATEMENT": html.escape(provenance.statement),
        "PROVENANCE_NAME": _PROVENANCE_NAME,
        "PROVENANCE": html.escape(provenance_to_json(provenance)),
        "TITLE": html.escape(title),
        "VIEWER_CSS": (folder / "viewer.css").read_text("utf-8").strip(),
        "VIEWER_JS": (folder / "viewer.js").read_text("utf-8").strip(),
        "LICENCE": (folder / "LICENSE.txt").read_text("utf-8").strip(),
        "BACKGROUND": ", ".join(str(round(255 * c)) for c in _BACKGROUND_RGB_UNIT),
        "VIEW": _view_json(front_camera_of(splats.means_world)),
        "SPLATS_OPENING": _SPLATS_OPENING,
        "SPLATS": base64.b64encode(sog).decode("ascii"),
    }
    # One pass: what is put in is not searched again, whatever it says.
    page = re.sub("@([A-Z_]+)@", lambda found: parts[found[1]], _PAGE)
    return page.encode("utf-8", errors="backslashreplace")


def decode(data: bytes) -> Splats:
    """Gaussians in world units out of a page that `encode` made.

    Raises:
        InputError: not such a page, or damaged.
    """
    return splat_sog.decode(_embedded_sog(data))


def decode_provenance(data: bytes) -> Provenance | None:
    """The origin in the page's meta tags, or None in a page without it.

    Raises:
        InputError: the note is damaged.
    """
    head = data[: data.find(b"<style>")].decode("utf-8", errors="replace")
    note = re.search(f'<meta name="{re.escape(_PROVENANCE_NAME)}" content="([^"]*)">', head)
    return None if note is None else provenance_from_json(html.unescape(note[1]))


def _embedded_sog(data: bytes) -> bytes:
    """The splats' own file inside the page."""
    start = data.rfind(_SPLATS_OPENING.encode())
    end = data.find(b"</script>", start)
    if start < 0 or end < 0:
        raise InputError("Cannot read splats: expected an .html file written by dp360, found none in this page")
    try:
        return base64.b64decode(data[start + len(_SPLATS_OPENING) : end], validate=True)
    except binascii.Error as error:
        raise InputError("Cannot read splats from this .html: its base64 is damaged") from error


def _view_json(view: FrontCamera) -> str:
    """What the page's script needs to know, in metres."""
    return json.dumps(
        {
            "position": [METRES_PER_UNIT * v for v in view.position_world],
            "target": [METRES_PER_UNIT * v for v in view.target_world],
            "fov_rad": view.fov_rad,
            "background_rgb_unit": _BACKGROUND_RGB_UNIT,
        },
        sort_keys=True,
    )

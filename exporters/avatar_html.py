"""A head that moves as one .html file: a double click, any current browser, no network.

The page holds three.js (MIT, `three_viewer/`), the avatar as .glb, gzipped, and its texture in the portrait's light, in
base64. Sliders move the 52 blend shapes; the pointer turns head and eyes; a Live Link Face take is played when it is
dropped on the page. Its content security policy forbids the browser to load anything from anywhere else.

Source: https://github.com/mrdoob/three.js
"""

from __future__ import annotations

import base64
import gzip
import json
from importlib import resources

from dp360.generation import Provenance
from dp360.generation.cameras import METRES_PER_UNIT, PANOHEAD_FOCAL_NORMALISED, PANOHEAD_RADIUS
from dp360.reconstruction.avatar.arkit import ARKIT_NAMES, GROUPS
from dp360.reconstruction.avatar.poses import HEAD_NAMES, PRESETS
from dp360.reconstruction.avatar.rig import Rig
from dp360.reconstruction.avatar.skeleton import NECK_SHARE

from . import avatar_glb
from .html_page import filled_page

_BACKGROUND = "#c9ccd1"
_MIDDLE = -0.05
"""Height that the camera looks at, world units: the bust is seen too."""
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src data: blob:; base-uri 'none'; form-action 'none'"
)


def encode(
    rig: Rig, provenance: Provenance, *, title: str = "3D head", metres_per_unit: float = METRES_PER_UNIT
) -> bytes:
    """A complete .html file.

    Args:
        rig: the head.
        provenance: origin, written to the page's meta tags and into the .glb inside.
        title: of the page; any text.
        metres_per_unit: positive factor on lengths.

    Raises:
        ValueError: as `avatar_glb.encode`.
    """
    model = avatar_glb.encode(rig, provenance, metres_per_unit=metres_per_unit, target_normals=False)
    facts = {
        "names": ARKIT_NAMES,
        "groups": GROUPS,
        "presets": {**PRESETS, "portrait": rig.portrait_pose.named},
        "head_names": HEAD_NAMES,
        "neck_share": NECK_SHARE,
        "distance": PANOHEAD_RADIUS * metres_per_unit,
        "middle": _MIDDLE * metres_per_unit,
        "focal": PANOHEAD_FOCAL_NORMALISED,
        "background": _BACKGROUND,
    }
    room = resources.files("dp360.exporters")
    page, viewer = room / "avatar_page", room / "three_viewer"
    parts = {
        "POLICY": _POLICY,
        "CSS": (page / "page.css").read_text("utf-8").strip(),
        "LICENCE": (viewer / "LICENSE.txt").read_text("utf-8").strip(),
        "THREE_JS": (viewer / "three.js").read_text("utf-8").strip(),
        "FACTS": json.dumps(facts),
        "LIT_PICTURE": base64.b64encode(avatar_glb.jpeg(rig.texture_rgb)).decode("ascii"),
        "MODEL": base64.b64encode(gzip.compress(model, 6, mtime=0)).decode("ascii"),
        "JS": (page / "page.js").read_text("utf-8").strip(),
    }
    return filled_page((page / "page.html").read_text("utf-8"), provenance, title, parts)

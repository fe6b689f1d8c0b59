"""The aligned portrait with its matte as one RGBA picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from dp360.generation import Provenance
from dp360.generation.portrait import Portrait

from .contact_sheet import png_bytes


def encode(portrait: Portrait, provenance: Provenance) -> bytes:
    """A PNG file: the crop's own colours, also where the matte is transparent.

    Args:
        provenance: of the head made from it; its statement is replaced, since this picture is a photograph.
    """
    alpha = np.rint(portrait.alpha_unit * 255).astype(np.uint8)
    note = replace(provenance, statement="Portrait, cropped and cut out by dp360")
    return png_bytes(Image.fromarray(np.dstack([portrait.rgb, alpha])), note)

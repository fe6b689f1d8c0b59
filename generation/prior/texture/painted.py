"""What painters of the atlas hand over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Painted:
    """Some texels with their colours."""

    texels: Int[np.ndarray, " n"]
    """Their numbers."""
    rgb_unit: Float[np.ndarray, "n 3"]
    """Colours, sRGB."""
    confidence: Float[np.ndarray, " n"]
    """1 where the portrait shows the texel, about 0.5 where its mirror image does, 0 where it is made up."""

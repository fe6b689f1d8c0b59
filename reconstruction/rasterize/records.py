"""The row of float32 that the kernels keep per Gaussian and camera: what blending reads lies in one cache line.

`projection` writes it, `tiles` sorts by it, `blending` reads it. Powers are of two, so that alpha is
2^(LOG2_OPACITY - HALF_A dx^2 - B dx dy - HALF_C dy^2); the conic is [[A, B], [B, C]].
"""

from __future__ import annotations

LOG2_E = 1.4426950408889634
RECORD = 16
"""Columns of a record."""
U, V = 0, 1
"""Centre, pixels."""
HALF_A, B, HALF_C = 2, 3, 4
"""The inverse covariance times log2(e), px^-2; in gradients: of A, B and C as they are."""
LOG2_OPACITY = 5
"""log2 of the opacity."""
RED, GREEN, BLUE = 6, 7, 8
"""Colour."""
DEPTH = 9
"""Depth along the optical axis, world units."""
REACH_X, REACH_Y = 10, 11
"""Half extents of the ellipse alpha >= 1/255, pixels; REACH_X < 0 where no pixel can show the Gaussian."""
SLANT, RISE = 12, 13
"""At column dx the ellipse spans SLANT dx +- RISE sqrt(1 - (dx / REACH_X)^2) in y."""
OPACITY = 14
"""Opacity, with the compensation of `antialiased`."""
SUMMIT = 15
"""Where dx + U is the column in which the ellipse reaches farthest down, dx in pixels."""

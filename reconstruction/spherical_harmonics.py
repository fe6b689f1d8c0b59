"""Real spherical harmonics to degree 3 in the sign and order convention of 3D Gaussian Splatting.

Coefficients are *basis-major*, `[n, k, 3]`: basis 0 is the constant, then degree 1 as (-y, z, -x), degree 2, degree 3.
A colour is `0.5 + sum_k basis_k(direction) * coefficient_k`, clamped below at zero, where `direction` points from the
camera to the Gaussian.

Source: Green, "Spherical Harmonic Lighting: The Gritty Details", 2003, and Kerbl et al., "3D Gaussian Splatting",
2023; the explicit polynomials: https://en.wikipedia.org/wiki/Table_of_spherical_harmonics#Real_spherical_harmonics
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

Numbers = TypeVar("Numbers", Tensor, np.ndarray)
SH_C0 = 0.28209479177387814
"""The constant basis function, 1 / (2 sqrt(pi))."""
SH_C1 = 0.4886025119029199
SH_C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
SH_C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)
MAX_SH_DEGREE = 3
"""The highest degree that the rasterisers and the `.ply` layout know."""


def sh_basis_count(degree: int) -> int:
    """Number of basis functions up to and including `degree`."""
    return (degree + 1) ** 2


def sh_degree_from_basis_count(count: int) -> int:
    """Degree whose basis has `count` functions.

    Raises:
        ValueError: `count` is not 1, 4, 9 or 16.
    """
    degree = math.isqrt(count) - 1
    if sh_basis_count(degree) != count or not 0 <= degree <= MAX_SH_DEGREE:
        raise ValueError(f"spherical harmonics: expected 1, 4, 9 or 16 basis functions, got {count}")
    return degree


def sh0_from_rgb(rgb_unit: Float[Numbers, "*batch 3"]) -> Float[Numbers, "*batch 3"]:
    """Constant coefficients that show `rgb_unit` from every side."""
    return (rgb_unit - 0.5) / SH_C0  # pyright: ignore[reportReturnType]


def rgb_from_sh0(sh0: Float[Numbers, "*batch 3"]) -> Float[Numbers, "*batch 3"]:
    """Colour of constant coefficients; inverse of `sh0_from_rgb`, not clamped."""
    return sh0 * SH_C0 + 0.5  # pyright: ignore[reportReturnType]

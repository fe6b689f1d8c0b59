"""Distances of two sets of pictures in a network's features: the Frechet distance (FID) and the kernel one (KID)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

LEAST_FOR_KID = 100
"""Fewer pictures give a figure that says little."""


def frechet_distance(ours: Float[np.ndarray, "n d"], true: Float[np.ndarray, "m d"]) -> float:
    """Squared Frechet distance of the Gaussians with the means and covariances of two sets of features.

    Args:
        ours: features of n > d pictures; fewer make the covariance singular and the figure too large.
        true: features of m > d pictures.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, Eq. 6.
    """
    difference = ours.mean(0) - true.mean(0)
    a, b = np.cov(ours, rowvar=False), np.cov(true, rowvar=False)
    # the trace of the root of the product, from eigenvalues, which are those of a symmetric positive matrix
    eigenvalues = np.linalg.eigvals(a @ b)
    return float(difference @ difference + np.trace(a) + np.trace(b) - 2 * np.sqrt(eigenvalues.real.clip(min=0)).sum())


def kernel_distance(ours: Float[np.ndarray, "n d"], true: Float[np.ndarray, "m d"]) -> float:
    """Squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, unbiased: may fall below 0 for equal sets.

    Source: Binkowski et al., "Demystifying MMD GANs", 2018, Eq. 4 (unbiased estimator) and Sec. 3 (kernel); one block
    of all pictures instead of the mean over random subsets.
    """
    n, m, d = len(ours), len(true), ours.shape[1]
    within_ours, within_true, across = ((a @ b.T / d + 1) ** 3 for a, b in ((ours, ours), (true, true), (ours, true)))
    return float(
        (within_ours.sum() - np.trace(within_ours)) / (n * (n - 1))
        + (within_true.sum() - np.trace(within_true)) / (m * (m - 1))
        - 2 * across.mean()
    )

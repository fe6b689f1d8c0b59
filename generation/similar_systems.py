"""Symmetric positive definite sparse systems, alone and one after another that differ little."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Float

_RESIDUAL, _MOST_STEPS = 1e-6, 200
"""Residual of a solve, as a share of its right side, and steps after which it is taken as it is."""


def symmetric_factors(system: scipy.sparse.csc_matrix | scipy.sparse.csc_array) -> Any:
    """Factors of a symmetric positive definite system, float64, whose `solve` takes right sides."""
    return scipy.sparse.linalg.splu(
        system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )


class SimilarSystems:
    """Factors the first system that it is given; what solves that one nearly solves the others.

    Source: conjugate gradients with the first factorisation as preconditioner, from the solution before (Y. Saad,
    "Iterative Methods for Sparse Linear Systems", 2nd edition, Algorithm 9.1).
    """

    def __init__(self) -> None:
        self._factors: Any = None
        self._solution: Any = None

    def solve(
        self, system: scipy.sparse.csc_matrix | scipy.sparse.csr_matrix, right: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """The solution of `system` @ x = `right`.

        Args:
            system: symmetric and positive definite, float64.
            right: the right side.
        """
        if self._factors is None:
            self._factors = symmetric_factors(system.tocsc())
            self._solution = self._factors.solve(right)
        else:
            operator: Any = scipy.sparse.linalg.LinearOperator
            nearly = operator(system.shape, self._factors.solve, dtype=np.float64)
            self._solution, _ = scipy.sparse.linalg.cg(
                system.tocsr(), right, self._solution, rtol=_RESIDUAL, maxiter=_MOST_STEPS, M=nearly
            )
        return self._solution

"""Tests of systems that come one after another."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from dp360.generation.similar_systems import SimilarSystems


def test_systems_are_solved_as_well_as_one_by_one():
    """A stiff chain whose ends are held by other cells each time."""
    rng, n = np.random.default_rng(0), 300
    second = scipy.sparse.csc_matrix(np.eye(n, k=-1) - 2 * np.eye(n) + np.eye(n, k=1))
    systems = SimilarSystems()
    for _ in range(4):
        held = np.where(rng.random(n) < 0.2, rng.uniform(1, 4, n), 1e-3)
        system, right = 600 * (second.T @ second) + scipy.sparse.diags(held), held * rng.standard_normal(n)
        found, exact = systems.solve(system, right), np.linalg.solve(system.toarray(), right)
        np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())

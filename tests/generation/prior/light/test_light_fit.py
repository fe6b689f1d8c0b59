"""The light of skin of one tone is found again; what is not skin misleads it little; too little skin says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from dp360.generation.light.spherical_harmonics import Light, open_transfer
from dp360.generation.prior.light.light_fit import FittedLight, LitCells, MirroredCells, fit_light
from dp360.generation.prior.light.light_prior import LightPrior, load_light_prior, read_light_prior, save_light_prior

TONE = np.array([0.5, 0.3, 0.2])


def no_pairs() -> MirroredCells:
    empty = LitCells(np.zeros((0, 3)), np.zeros((0, 9)), np.zeros(0))
    return MirroredCells(empty, empty)


def front_normals() -> np.ndarray:
    """Normals of a face: they look to the camera and to both sides."""
    grid = np.stack(np.meshgrid(np.linspace(-0.9, 0.9, 19), np.linspace(-0.8, 0.8, 17)), axis=-1).reshape(-1, 2)
    grid = grid[np.linalg.norm(grid, axis=1) < 0.95]
    return np.concatenate([grid, np.sqrt(1 - np.square(grid).sum(1, keepdims=True))], axis=1)


def a_light(azimuth_rad: float) -> Light:
    return Light(load_light_prior().turned(azimuth_rad).mean.reshape(9, 3))


def skin(light: Light, tone: np.ndarray = TONE) -> LitCells:
    transfer = open_transfer(front_normals())
    reached = np.maximum(transfer @ light.coefficients, 0.03)
    return LitCells(tone * reached, transfer, np.ones(len(transfer)))


def pairs(cells: LitCells) -> MirroredCells:
    normals = front_normals()
    first = np.nonzero(normals[:, 0] > 0.05)[0]
    second = [int(np.argmin(np.linalg.norm(normals - n * [-1, 1, 1], axis=1))) for n in normals[first]]

    def chosen(index: np.ndarray | list[int]) -> LitCells:
        return LitCells(cells.rgb_linear[index], cells.transfer[index], cells.weight[index])

    return MirroredCells(chosen(first), chosen(second))


def fitted(cells: LitCells, others: list[LitCells] | None = None, *, camera_rad: float = 0.0) -> FittedLight:
    found = fit_light(cells, pairs(cells), others or [], camera_rad)
    assert found is not None
    return found


@pytest.mark.parametrize("azimuth_deg", [-80, -40, 0, 60])
def test_light_is_found_where_it_is(azimuth_deg: float) -> None:
    light = a_light(np.radians(azimuth_deg))
    found = fitted(skin(light))
    assert abs(np.degrees(found.light.azimuth_rad) - azimuth_deg) < 20  # the far side is not seen
    assert found.misfit < 0.12


def test_the_mirrored_portrait_has_the_mirrored_light() -> None:
    light = a_light(0.9)
    straight, turned = fitted(skin(light)).light, fitted(skin(light.mirrored())).light
    np.testing.assert_allclose(turned.coefficients, straight.mirrored().coefficients, atol=0.03)


def test_the_tone_of_skin_says_nothing_about_the_light() -> None:
    light = a_light(-0.8)
    pale, dark = fitted(skin(light, TONE)).light, fitted(skin(light, 0.2 * TONE)).light
    np.testing.assert_allclose(dark.coefficients, pale.coefficients, atol=0.06)


def test_a_dark_patch_is_no_shadow() -> None:
    """A beard that was taken for skin: a sixth of the cells, a quarter as bright."""
    light = a_light(0.6)
    cells = skin(light)
    low = front_normals()[:, 1] < -0.5
    assert 0.1 < low.mean() < 0.25
    patched = LitCells(cells.rgb_linear * np.where(low, 0.25, 1)[:, None], cells.transfer, cells.weight)
    away = fitted(patched).light.azimuth_rad - light.azimuth_rad
    assert abs(np.degrees(away)) < 25


def test_too_little_skin_tells_nothing() -> None:
    few = LitCells(np.ones((5, 3)), np.ones((5, 9)), np.ones(5))
    assert fit_light(few, no_pairs(), [], 0.0) is None


def test_a_prior_reads_back_and_turns_about_the_head(tmp_path) -> None:
    prior = load_light_prior()
    save_light_prior(tmp_path / "p.safetensors", prior)
    back = read_light_prior(tmp_path / "p.safetensors")
    np.testing.assert_allclose(back.covariance, prior.covariance, rtol=1e-5)
    turned: LightPrior = prior.turned(1.0)
    assert abs(Light(turned.mean.reshape(9, 3)).azimuth_rad - 1.0) < 1e-6
    np.testing.assert_allclose(np.linalg.eigvalsh(turned.covariance), np.linalg.eigvalsh(prior.covariance), atol=1e-3)

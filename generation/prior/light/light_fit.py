"""The light that a portrait was taken in, from what its skin, hair and clothes look like on the fitted head.

Skin of one tone under distant light: colours on the head are the tone times the light that reaches each place, shadows
of the head itself included. One picture does not tell whether its far side is dark because light is in front or because
nothing is there, so that a prior of natural light decides: its Gaussian is turned to 24 sides, the most likely light is
found for each by reweighted least squares, and the answers are averaged by how well they explain the picture.

Sources: Ramamoorthi and Hanrahan 2001 (light as harmonics); Geman and McClure's kind of weights against freckles,
make-up and highlights; Barron and Malik 2015 ("Shape, Illumination, and Reflectance from Shading": a Gaussian of
natural light as prior).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ...light.spherical_harmonics import Light
from .light_prior import LightPrior, load_light_prior

_TURNS, _ROUNDS = 24, 10
_SKIN_WORTH, _MIRROR_WORTH, _OTHER_WORTH = 80.0, 5.0, 20.0
"""Independent measurements that all skin together, its pairs of mirrored cells, and hair or cloth are worth."""
_SIGMA, _ROBUST = 0.15, 0.18
"""Relative error of one tone for all skin: its deviation, and from where on cells are doubted."""
_MIRROR_SIGMA, _MIRROR_ROBUST = 0.10, 0.25
_OTHER_SIGMA = 0.4
_WIDEN = 1.5
"""Factor on the prior's covariance."""
_FRONTAL = 20.0
"""How much likelier light from the photographer's side is, times the cosine of the angle between: log probability."""
_TEMPERATURE = 2.0
_DARK, _FLOOR = 0.004, 0.03
"""Error of dark colours, linear, and least light that is reckoned with."""
_STEP = 0.6
"""Share of each round's change that is taken."""
_TONE_LOGS = (-6.0, 1.5)
_LEAST_CELLS = 20


@dataclass(frozen=True)
class LitCells:
    """Cells of one material that a portrait shows."""

    rgb_linear: Float[np.ndarray, "c 3"]
    """Mean colour of each, linear RGB."""
    transfer: Float[np.ndarray, "c 9"]
    """How light reaches it."""
    weight: Float[np.ndarray, " c"]
    """How plainly it is seen, [0, 1]."""

    def __len__(self) -> int:
        return len(self.weight)


@dataclass(frozen=True)
class MirroredCells:
    """Pairs of cells of skin on either side of the middle plane that are both seen."""

    first: LitCells
    """One of each pair."""
    second: LitCells
    """The other."""


@dataclass(frozen=True)
class FittedLight:
    """The light of a portrait."""

    light: Light
    """Of about luminance 1."""
    misfit: float
    """Relative deviation of skin from one tone under it."""


def fit_light(
    skin: LitCells, mirrored: MirroredCells, others: list[LitCells], camera_azimuth_rad: float,
    prior: LightPrior | None = None,
) -> FittedLight | None:  # fmt: skip
    """The most likely light.

    Args:
        skin: cells of skin, without lips, eyes, brows and beard.
        mirrored: pairs of them.
        others: cells of hair and of cloth; each is taken to have one tone.
        camera_azimuth_rad: where the photographer stood; light comes from there more often than from behind.
        prior: of natural light; None takes the one that ships.

    Returns:
        None where too little skin is seen.
    """
    if (skin.weight > 0).sum() < _LEAST_CELLS:
        return None
    prior = prior or load_light_prior()
    azimuths = np.arange(_TURNS) * (2 * math.pi / _TURNS)
    turned = [prior.turned(float(azimuth)) for azimuth in azimuths]
    means = np.stack([p.mean for p in turned])
    precisions = np.stack([np.linalg.inv(_WIDEN * p.covariance) for p in turned])
    energy, lights = _solve(skin, mirrored, others, means, precisions)
    energy = energy - _FRONTAL * np.cos(azimuths - camera_azimuth_rad)
    share = np.exp(-(energy - energy.min()) / _TEMPERATURE)
    light = np.tensordot(share / share.sum(), lights, 1)
    reached = np.maximum(skin.transfer @ light, _FLOOR)
    tone = _tone(skin.rgb_linear[None], reached[None], skin.weight[None])[0]
    error = np.square(_relative(skin.rgb_linear, tone, reached)).mean(-1)
    return FittedLight(Light(light), math.sqrt(float((skin.weight * error).sum() / skin.weight.sum())))


def _relative(colour: np.ndarray, tone: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Errors of colours relative to the tone in the light that reaches them."""
    return (colour - tone * reached) / (tone * np.maximum(reached, 0.08) + _DARK)


def _solve(
    skin: LitCells, mirrored: MirroredCells, others: list[LitCells], means: Float[np.ndarray, "k 27"],
    precisions: Float[np.ndarray, "k 27 27"],
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "k 9 3"]]:  # fmt: skip
    """Reweighted least squares under k priors side by side: energies and lights."""
    k = len(means)
    lights = means.reshape(k, 9, 3).copy()
    start = np.einsum("kij,kj->ki", precisions, means)
    doubt = np.ones((k, len(skin)))
    energy = np.zeros(k)
    for _ in range(_ROUNDS):
        system, right = _System(precisions, start), skin.rgb_linear[None]
        reached = np.maximum(skin.transfer @ lights, _FLOOR)
        tone = _tone(right, reached, skin.weight * doubt)[:, None]
        error = np.square(_relative(right, tone, reached)).mean(-1)
        doubt = 1 / (1 + error / _ROBUST**2)
        share = skin.weight / skin.weight.sum()
        sigma = _SIGMA * np.maximum(reached, 0.05) + _DARK / tone
        system.add(skin.transfer, right / tone, (_SKIN_WORTH * share * doubt)[..., None] / sigma**2)
        scale = 1.5 * _SKIN_WORTH * (_ROBUST / _SIGMA) ** 2
        energy = scale * (share * np.log1p(error / _ROBUST**2)).sum(-1)
        energy = energy + _add_mirrored(system, mirrored, lights, len(skin))
        for cells in others:
            energy = energy + _add_other(system, cells, lights)
        away = lights.reshape(k, -1) - means
        energy = energy + 0.5 * np.einsum("ki,kij,kj->k", away, precisions, away)
        lights = (1 - _STEP) * lights + _STEP * system.solved()
    return energy, lights


def _add_mirrored(system: _System, cells: MirroredCells, lights: np.ndarray, count: int) -> np.ndarray:
    """Equations that mirrored cells have one colour each; their energy."""
    a, b = cells.first, cells.second
    if len(a) < _LEAST_CELLS:
        return np.zeros(len(lights))
    light_a, light_b = (np.maximum(side.transfer @ lights, _FLOOR) for side in (a, b))
    logs = np.log(np.maximum(a.rgb_linear, 0.002)) - np.log(np.maximum(b.rgb_linear, 0.002))
    error = np.square((logs - np.log(light_a) + np.log(light_b)).mean(-1) / _MIRROR_ROBUST)
    worth = _MIRROR_WORTH / max(count, 1) * np.minimum(a.weight, b.weight)
    weight = worth / (1 + error)
    for c in range(3):
        rows = a.rgb_linear[:, c, None] * b.transfer - b.rgb_linear[:, c, None] * a.transfer
        level = 0.5 * (a.rgb_linear[:, c] * light_b[..., c] + b.rgb_linear[:, c] * light_a[..., c])
        system.add_homogeneous(c, rows, weight / (_MIRROR_SIGMA * level + 1e-3) ** 2)
    return 0.5 * (_MIRROR_ROBUST / _MIRROR_SIGMA) ** 2 * (worth * np.log1p(error)).sum(-1)


def _add_other(system: _System, cells: LitCells, lights: np.ndarray) -> np.ndarray:
    """Equations of hair or cloth of one tone; their energy."""
    if len(cells) < _LEAST_CELLS:
        return np.zeros(len(lights))
    right, share = cells.rgb_linear[None], _OTHER_WORTH * cells.weight / cells.weight.sum()
    reached = np.maximum(cells.transfer @ lights, _FLOOR)
    tone = _tone(right, reached, np.broadcast_to(cells.weight, reached.shape[:2]))[:, None]
    logs = np.log(np.maximum(right, 0.002)) - np.log(np.maximum(reached * tone, 1e-4))
    error = np.square(logs.mean(-1) / _OTHER_SIGMA)
    sigma = _OTHER_SIGMA * np.maximum(reached, 0.05) + 0.01 / tone
    system.add(cells.transfer, right / tone, (share / (1 + error))[..., None] / sigma**2)
    return 0.5 * (share * np.log1p(error)).sum(-1)


class _System:
    """Normal equations of k lights; red, green and blue of a harmonic are neighbours."""

    def __init__(self, precisions: Float[np.ndarray, "k 27 27"], right: Float[np.ndarray, "k 27"]) -> None:
        self.matrix, self.right = precisions.copy(), right.copy()

    def add(
        self, rows: Float[np.ndarray, "c 9"], values: Float[np.ndarray, "k c 3"], weight: Float[np.ndarray, "k c 3"]
    ) -> None:
        """Equations `rows @ light = values`."""
        for channel in range(3):
            w = weight[..., channel]
            self.add_homogeneous(channel, rows, w)
            self.right[:, channel::3] += (w * values[..., channel]) @ rows

    def add_homogeneous(self, channel: int, rows: Float[np.ndarray, "c 9"], weight: Float[np.ndarray, "k c"]) -> None:
        """Equations `rows @ light = 0` of one channel."""
        outer = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
        self.matrix[:, channel::3, channel::3] += (weight @ outer).reshape(-1, 9, 9)

    def solved(self) -> Float[np.ndarray, "k 9 3"]:
        """The lights."""
        return np.linalg.solve(self.matrix, self.right[..., None]).reshape(len(self.right), 9, 3)


def _tone(
    colour: Float[np.ndarray, "#k c 3"], reached: Float[np.ndarray, "k c 3"], weight: Float[np.ndarray, "k c"]
) -> Float[np.ndarray, "k 3"]:
    """Weighted median over cells of colour by light, per channel."""
    logs = np.log(np.maximum(colour, 1e-3)) - np.log(reached)
    order = np.argsort(logs, axis=1)
    mass = np.cumsum(np.take_along_axis(np.broadcast_to(weight[..., None], logs.shape), order, 1), axis=1)
    middle = (mass < 0.5 * mass[:, -1:]).sum(1)
    chosen = np.take_along_axis(order, middle[:, None], 1)
    return np.exp(np.clip(np.take_along_axis(logs, chosen, 1)[:, 0], *_TONE_LOGS))

"""Build the prior of natural light that ships with the package out of openly licensed panoramas.

Run by hand; the package itself never needs the data:

    python scripts/build_light_prior.py --data PACK --output generation/weights/light_prior.safetensors

Panoramas of the training split, with their sun as it is and dimmed, and random soft boxes are turned until their
brightest side is in front, scaled to luminance 1 and taken with their mirror images. The result depends on nothing but
the data and the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from dp360.generation.light.spherical_harmonics import LUMINANCE
from dp360.generation.prior.light.light_prior import LightPrior, save_light_prior
from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
from dp360.generation.synthetic.rendering.lighting import Lighting, lighting_from_hdri, random_lighting

TURNS = 12
SUN_SHARES = (0.4, 1.0)
"""Shares of each panorama's bright spot that stay a distant light."""
LEAST_VARIANCE = 4e-4


@dataclass(frozen=True)
class LightPriorConfig:
    """Where the data is and where the prior goes."""

    data: Path
    """Folder of the head assets, with `hdri` inside."""
    output: Path = Path("generation/weights/light_prior.safetensors")
    """File to write."""
    boxes: float = 0.4
    """Share of soft boxes among all lights."""
    seed: int = 0
    """Seed of the soft boxes."""


def main(config: LightPriorConfig) -> None:
    """Build and write the prior."""
    rng = np.random.default_rng(config.seed)
    lights: list[Lighting] = []
    for panorama in Backgrounds.of_split(config.data, "train").panoramas:
        for azimuth in np.arange(TURNS) * (2 * np.pi / TURNS):
            lights += [lighting_from_hdri(panorama, azimuth_rad=azimuth, sun_share=share) for share in SUN_SHARES]
    lights += [random_lighting(rng) for _ in range(round(len(lights) * config.boxes / (1 - config.boxes)))]
    rows = []
    for light in lights:
        front = light.harmonics.turned(-light.harmonics.azimuth_rad)
        for turned in (front, front.mirrored()):
            rows.append((turned.coefficients / (turned.coefficients[0] @ LUMINANCE)).ravel())
    values = np.stack(rows)
    covariance = np.cov(values.T) + LEAST_VARIANCE * np.eye(values.shape[1])
    save_light_prior(config.output, LightPrior(values.mean(0), covariance))
    print(f"{len(lights)} lights, written to {config.output}")


if __name__ == "__main__":
    main(tyro.cli(LightPriorConfig, description=__doc__))

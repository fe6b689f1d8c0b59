"""Which light photographs are taken in: mean and covariance of its harmonics, its brightest side in front."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ...files import write_bytes_atomically
from ...light.spherical_harmonics import COUNT, turn_about_y
from ...weights import shipped_file

FILE_NAME = "light_prior.safetensors"


@dataclass(frozen=True)
class LightPrior:
    """A Gaussian over the 27 coefficients (9 harmonics of red, green and blue) of light of luminance 1.

    One Gaussian over all turns would confuse front and back: this is one of light whose brightest side is in front, to
    be turned about the head for every side that light may come from.
    """

    mean: Float[np.ndarray, " 27"]
    """Of the coefficients."""
    covariance: Float[np.ndarray, "27 27"]
    """Likewise."""
    sha256: str = ""
    """Of the file."""

    def turned(self, azimuth_rad: float) -> LightPrior:
        """The prior of light whose brightest side is at an azimuth."""
        turn = np.kron(turn_about_y(azimuth_rad), np.eye(3))
        return LightPrior(turn @ self.mean, turn @ self.covariance @ turn.T, self.sha256)

    @property
    def weights_name(self) -> str:
        """Name and hash for provenance."""
        return f"light_prior (sha256 {self.sha256[:16]})"


def save_light_prior(path: Path, prior: LightPrior) -> None:
    """Write a prior."""
    from safetensors.numpy import save

    arrays = {"mean": prior.mean.astype(np.float32), "covariance": prior.covariance.astype(np.float32)}
    write_bytes_atomically(path, save(arrays))


def read_light_prior(path: Path) -> LightPrior:
    """What `save_light_prior` has written."""
    from safetensors.numpy import load

    data = path.read_bytes()
    arrays = {name: array.astype(np.float64) for name, array in load(data).items()}
    return LightPrior(arrays["mean"], arrays["covariance"], hashlib.sha256(data).hexdigest())


@functools.lru_cache(maxsize=1)
def load_light_prior() -> LightPrior:
    """The prior that ships with the package, read once.

    Raises:
        InputError: the installation is damaged.
    """
    return read_light_prior(shipped_file(FILE_NAME))


assert COUNT * 3 == 27  # the annotations above say so

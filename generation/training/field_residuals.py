"""Residuals of expected fields without any condition, as one Gaussian: what learned samples have to be better than."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from ..errors import InputError
from ..files import write_bytes_atomically

RESIDUALS_NAME = "field_residuals.npz"
"""Name of its file, which stands beside the denoiser's weights."""


@dataclass(frozen=True)
class GaussianResiduals:
    """Mean, main directions and what is left: covariance factor factor' + diag(rest²), in units of latents."""

    mean: Float32[np.ndarray, "k 14 16"]
    """Mean residual at each place."""
    factor: Float32[np.ndarray, "k 14 16 c"]
    """Principal components, each as long as its deviation."""
    rest: Float32[np.ndarray, "k 14 16"]
    """Deviation at each place beside these."""

    @classmethod
    def fit(cls, residuals: Iterator[Float32[np.ndarray, "n k 14 16"]], components: int = 128) -> GaussianResiduals:
        """Moments of residuals.

        Args:
            residuals: rows, part by part.
            components: directions to keep, at most.
        """
        count, total, squares, shape = 0, 0.0, 0.0, ()
        for part in residuals:
            flat = part.reshape(len(part), -1).astype(np.float64)
            shape = part.shape[1:]
            count, total, squares = count + len(flat), total + flat.sum(0), squares + flat.T @ flat
        mean = np.asarray(total / count)
        covariance = np.asarray(squares / count) - np.outer(mean, mean)
        values, vectors = np.linalg.eigh(covariance)
        kept = np.maximum(values[-components:], 0)
        factor = vectors[:, -components:] * np.sqrt(kept)
        rest = np.sqrt(np.maximum(np.diagonal(covariance) - np.square(factor).sum(1), 0))
        arrays = mean.reshape(shape), factor.reshape(*shape, -1), rest.reshape(shape)
        return cls(*(a.astype(np.float32) for a in arrays))

    def draw(self, count: int, generator: torch.Generator) -> Float[Tensor, "m k 14 16"]:
        """Residuals, one after another the same for the same generator."""
        mean, factor, rest = (torch.from_numpy(x) for x in (self.mean, self.factor, self.rest))
        main = torch.randn(count, factor.shape[-1], generator=generator)
        return (
            mean
            + torch.einsum("mc,khwc->mkhw", main, factor)
            + rest * torch.randn(count, *rest.shape, generator=generator)
        )

    def save(self, path: Path) -> None:
        """Write to a .npz file."""
        file = io.BytesIO()
        np.savez(file, **vars(self))
        write_bytes_atomically(path, file.getvalue())

    @classmethod
    def read(cls, path: Path) -> GaussianResiduals:
        """What `save` has written.

        Raises:
            InputError: it is not there or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(**{name: file[name] for name in ("mean", "factor", "rest")})
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(
                f"{path} does not hold residuals of dp360 train field --stage diffusion: {error}"
            ) from error

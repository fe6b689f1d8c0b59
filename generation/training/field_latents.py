"""Portraits as the fields' denoiser sees them: latents of true and of expected fields, computed once, kept in files.

A file of 48 heads with four portraits each becomes 384 rows, portraits and their mirror images, in 5 MB.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int
from torch import Tensor

from ..files import write_bytes_atomically
from ..networks import LoadedNetwork
from ..prior.field.field_autoencoder import FieldAutoencoder
from ..prior.field.field_denoiser import field_conditions
from ..prior.field.mean_network import FieldMeanNet, expected_fields
from ..progress import Track, silent
from .field_samples import FieldSamples
from .field_training import with_tokens_lost

_TOGETHER = 16
"""Portraits that go through the networks at once."""
_ARRAYS = ("truth", "told", "portrait")


@dataclass(frozen=True)
class EncodedPortraits:
    """Those of one file; row 2 k is portrait k, row 2 k + 1 its mirror image."""

    truth: Float16[np.ndarray, "n k 14 16"]
    """Latents of the true field over the fitted skull."""
    told: Float16[np.ndarray, "n d 14 16"]
    """`field_conditions`, beginning with the latents of the expected field: the network's own words."""
    portrait: Float16[np.ndarray, "n 11"]
    """`ObservedField.pack_globals`."""

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def residuals(self) -> Float32[np.ndarray, "n k 14 16"]:
        """Latents of the true field less those of the expected one."""
        return self.truth.astype(np.float32) - self.told[:, : self.truth.shape[1]].astype(np.float32)


@dataclass(frozen=True)
class FieldLatents:
    """Rows of many files, one after another."""

    parts: Sequence[EncodedPortraits]
    """By file, at least one."""

    @classmethod
    def of(
        cls,
        paths: Sequence[Path],
        folder: Path,
        mean: LoadedNetwork[FieldMeanNet],
        autoencoder: LoadedNetwork[FieldAutoencoder],
        *,
        track: Track = silent,
    ) -> FieldLatents:
        """The portraits of files of fields, from files in `folder` where these were made of the same.

        Args:
            paths: what `dp360 data fields` has written.
            folder: for the latents; a kill loses at most one file.
            mean: expects.
            autoencoder: encodes.
            track: progress display.

        Raises:
            InputError: a file of fields is damaged.
        """
        parts = []
        for path in track(paths, total=len(paths), description="Encoding portraits"):
            key = "/".join([hashlib.sha256(path.read_bytes()).hexdigest(), mean.sha256, autoencoder.sha256])
            kept = folder / f"latents_{path.stem.removeprefix('fields_')}.npz"
            part = _read(kept, key)
            if part is None:
                part = encoded_portraits(FieldSamples.read([path]), mean, autoencoder)
                file = io.BytesIO()
                np.savez(file, key=np.array(key), **{name: getattr(part, name) for name in _ARRAYS})
                write_bytes_atomically(kept, file.getvalue())
            parts.append(part)
        return cls(parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def rows(self, indices: Int[np.ndarray, " m"]) -> dict[str, Tensor]:
        """Arrays of `EncodedPortraits` by name, and `residual`, of some rows; float32."""
        ends = np.cumsum([len(part) for part in self.parts])
        numbers = np.searchsorted(ends, indices, side="right")
        places = [(self.parts[n], int(i - (ends[n] - len(self.parts[n])))) for n, i in zip(numbers, indices)]
        found = {
            name: torch.from_numpy(np.stack([getattr(p, name)[i] for p, i in places]).astype(np.float32))
            for name in _ARRAYS
        }
        return {**found, "residual": found["truth"] - found["told"][:, : found["truth"].shape[1]]}

    def residuals(self) -> Iterator[Float32[np.ndarray, "n k 14 16"]]:
        """Residuals of all rows, file by file."""
        return (part.residuals for part in self.parts)

    def residual_variance(self) -> Float32[np.ndarray, " k"]:
        """Mean square of each channel's residuals, about 0: what the expected field leaves open."""
        squares = [np.square(r).mean((0, 2, 3), dtype=np.float64) * len(r) for r in self.residuals()]
        return (np.sum(squares, axis=0) / len(self)).astype(np.float32)


@torch.no_grad()
def encoded_portraits(
    samples: FieldSamples, mean: LoadedNetwork[FieldMeanNet], autoencoder: LoadedNetwork[FieldAutoencoder]
) -> EncodedPortraits:
    """The portraits of samples and their mirror images; some say nothing about tokens, drawn by their place.

    Args:
        samples: the portraits.
        mean: expects; its answer to a mirrored portrait is the mirrored answer.
        autoencoder: encodes.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in _ARRAYS}
    for first in range(0, len(samples), _TOGETHER):
        pairs = []
        for k in range(first, min(first + _TOGETHER, len(samples))):
            truth, observed = samples.of(k)
            pairs.append((truth, with_tokens_lost(observed, np.random.default_rng([k, 3]))))
        expected = expected_fields([observed for _, observed in pairs], mean)
        rows = []
        for (truth, observed), field in zip(pairs, expected):
            rows += [(truth, field, observed), (truth.mirrored(), field.mirrored(), observed.mirrored())]
        truths, means, shown = (torch.from_numpy(np.stack([x.pack() for x in column])) for column in zip(*rows))
        encode = autoencoder.network.encode
        found["truth"].append(encode(truths).half().numpy())
        found["told"].append(field_conditions(encode(means), shown).half().numpy())
        found["portrait"].append(np.stack([o.pack_globals() for _, _, o in rows]).astype(np.float16))
    return EncodedPortraits(**{name: np.concatenate(values) for name, values in found.items()})


def _read(path: Path, key: str) -> EncodedPortraits | None:
    """What a file holds; None where it is not there, damaged, or made of something else."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            same = str(file["key"]) == key
            return EncodedPortraits(**{name: file[name] for name in _ARRAYS}) if same else None
    except (OSError, ValueError, KeyError):
        return None

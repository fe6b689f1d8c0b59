"""The heads of `dp360 data fields`, kept in memory as they are stored: 360 KB a head with four portraits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from ..errors import InputError
from ..prior.field.head_field import HeadField
from ..prior.field.observed_field import ObservedField
from ..synthetic.assets import Split
from ..synthetic.fields.field_files import FieldShard

_CAMERAS_OF = "seen/visibility"


def field_paths(folder: Path, split: Split) -> list[Path]:
    """The files of a split in a folder, in the order of their names.

    Raises:
        InputError: there is none.
    """
    paths = sorted(folder.glob(f"fields_{split}_*.npz"))
    if not paths:
        raise InputError(f"No fields_{split}_*.npz in {folder}: expected what dp360 data fields writes")
    return paths


@dataclass(frozen=True)
class FieldSamples:
    """Portraits of heads, in one row: those of the first head, of the second, and so on."""

    shards: Sequence[FieldShard]
    """Heads by file."""
    places: Sequence[tuple[int, int, int]]
    """Shard, head in the shard, and camera of each portrait."""

    @classmethod
    def read(cls, paths: Sequence[Path], *, most: int | None = None) -> FieldSamples:
        """All portraits of files.

        Args:
            paths: the files.
            most: portraits at most, of heads spread evenly, each with another camera than its neighbour.

        Raises:
            InputError: a file is damaged.
        """
        shards = [FieldShard.read(path) for path in paths]
        heads = [(s, h) for s, shard in enumerate(shards) for h in range(len(shard))]
        if not heads:
            raise InputError("No heads to learn from: the files of head fields are empty")
        cameras = [shard.columns[_CAMERAS_OF].shape[1] for shard in shards]
        every = [(s, h, c) for s, h in heads for c in range(cameras[s])]
        if most is None or most >= len(every):
            return cls(shards, every)
        chosen = [heads[k * len(heads) // most] for k in range(most)]
        return cls(shards, [(s, h, k % cameras[s]) for k, (s, h) in enumerate(chosen)])

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def drawn(self) -> Int[np.ndarray, " n"]:
        """Numbers of the drawn portraits."""
        return np.nonzero([self.shards[shard].drawn for shard, _, _ in self.places])[0]

    def of(self, index: int) -> tuple[HeadField, ObservedField]:
        """The truth over the skull that the portrait was fitted with, and what the portrait shows."""
        shard, head, camera = self.places[index]
        observed = self.shards[shard].observed(head, camera)
        return self.shards[shard].field(head).over(observed.skull_radius), observed

    def truth(self, index: int, *, own_skull: bool = False) -> HeadField:
        """The truth alone, over the same skull or over the head's own."""
        shard, head, camera = self.places[index]
        field = self.shards[shard].field(head)
        return field if own_skull else field.over(self.shards[shard].fitted_skull(head, camera))

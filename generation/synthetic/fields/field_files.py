"""Fields of composed heads with simulated portraits in files: a few heads each, 8 and 16 bits, the same bytes again."""

from __future__ import annotations

import functools
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from ...errors import InputError
from ...files import write_bytes_atomically
from ...prior.field.head_field import HeadField
from ...prior.field.observed_field import ObservedField
from ..assets import Split, field_rng
from ..composed_recipe import ComposedRecipe
from ..hair.haircuts import style_of
from .field_recipes import HEADS_PER_PERSON, plain_heads
from .field_sheet import field_sheet
from .field_truth import true_field
from .fitted_fields import FittedFields
from .observation import observe

_SIGNED = ("flow", "orientation")
_HALF = ("skull_radius", "thickness", "strand_length", "thickness_bound", "tokens", "towards_camera")
"""What is kept in eight bits with a sign and in half precision; all else is a share of 255."""
_DRAWN = "drawn"
"""Word in the names of files."""
_NAMES = ("number", "style", "hair", "headgear")
_Record = TypeVar("_Record", HeadField, ObservedField)


@dataclass(frozen=True)
class FieldFiles:
    """Which heads a folder of files holds; a file's name and content follow from these and from its numbers."""

    data: Path
    """Folder of the head assets."""
    folder: Path
    """Where the files are."""
    split: Split = "train"
    """Whose people, haircuts and things."""
    seed: int = 0
    """Other seeds give other people."""
    cameras: int = 4
    """Portraits of each head."""
    heads_per_file: int = 16 * HEADS_PER_PERSON
    """Heads in one file: a kill loses at most these."""
    drawn: bool = False
    """One portrait a head, drawn and put through the whole pipeline (`fitted_fields`), in place of simulated ones."""

    def numbers(self, first: int, count: int) -> list[range]:
        """Heads `first` to `first + count`, file by file."""
        end = first + count
        return [range(n, min(n + self.heads_per_file, end)) for n in range(first, end, self.heads_per_file)]

    def path(self, numbers: range) -> Path:
        """File of these heads."""
        portraits = _DRAWN if self.drawn else self.cameras
        return self.folder / f"fields_{self.split}_{self.seed}_{portraits}_{numbers.start:06d}_{len(numbers)}.npz"

    def write(self, numbers: range) -> None:
        """Make a file, whole or not at all.

        Raises:
            InputError: the assets are damaged, or the file cannot be written.
        """
        columns: dict[str, list[Any]] = {}
        for row in map(_row, self._drawn(numbers) if self.drawn else self._simulated(numbers)):
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
        file = io.BytesIO()
        np.savez_compressed(file, **{name: np.stack(values) for name, values in columns.items()})
        write_bytes_atomically(self.path(numbers), file.getvalue())

    def _simulated(self, numbers: range) -> Iterator[_SeenHead]:
        for number, head in zip(numbers, plain_heads(numbers, self.data, self.split, self.seed)):
            kept = _stored(true_field(head))
            field = HeadField(**_restored(HeadField, "", kept))  # so that portraits follow from what the file holds
            seen = [observe(field, field_rng(self.seed, f"{self.split}/{number}/{k}")) for k in range(self.cameras)]
            yield _SeenHead(number, head.recipe, field, seen)

    def _drawn(self, numbers: range) -> Iterator[_SeenHead]:
        for number, head in _fitted_fields(self.data, self.split, self.seed).make(numbers):
            yield _SeenHead(number, head.recipe, head.field, [head.observed])


class _SeenHead(NamedTuple):
    """A head and what portraits show of it."""

    number: int
    recipe: ComposedRecipe
    field: HeadField
    seen: Sequence[ObservedField]


@functools.lru_cache(maxsize=1)
def _fitted_fields(data: Path, split: Split, seed: int) -> FittedFields:
    return FittedFields(data, split, seed)


def _row(head: _SeenHead) -> dict[str, Any]:
    """What a file keeps of a head, by column."""
    hair = head.recipe.hair
    row = dict(zip(_NAMES, (head.number, style_of(hair.name) or "bald", hair.name, head.recipe.wear.headgear)))
    row |= {f"true/{name}": array for name, array in _stored(head.field).items()}
    seen = [_stored(portrait) for portrait in head.seen]
    return row | {f"seen/{name}": np.stack([portrait[name] for portrait in seen]) for name in seen[0]}


@dataclass(frozen=True)
class FieldShard:
    """The heads of one file."""

    columns: Mapping[str, Shaped[np.ndarray, "n ..."]]
    """Arrays as they are stored, a row for each head: `number`, `style`, `hair` (name), `headgear`, the fields of
    `HeadField` after `true/`, and of `ObservedField` after `seen/` with the camera as second axis."""
    drawn: bool = False
    """Whether portraits are drawn and not simulated."""

    @classmethod
    def read(cls, path: Path) -> FieldShard:
        """The heads of a file.

        Raises:
            InputError: it is not there or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls({name: file[name] for name in file.files}, f"_{_DRAWN}_" in path.name)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is not a file of head fields: {error}") from error

    def __len__(self) -> int:
        return len(self.columns["number"])

    def field(self, head: int) -> HeadField:
        """The true field of a head."""
        return HeadField(**_restored(HeadField, "true/", self.columns, (head,)))

    def observed(self, head: int, camera: int) -> ObservedField:
        """What one of its portraits shows."""
        return ObservedField(**_restored(ObservedField, "seen/", self.columns, (head, camera)))

    def fitted_skull(self, head: int, camera: int) -> Float32[np.ndarray, "56 64"]:
        """Radius of the skull that one of its portraits was fitted with."""
        return self.columns["seen/skull_radius"][head, camera].astype(np.float32)


def _stored(record: HeadField | ObservedField) -> dict[str, np.ndarray]:
    """A record's arrays in few bits."""
    result = {}
    for name, values in vars(record).items():
        if name in _HALF:
            result[name] = values.astype(np.float16)
        elif name in _SIGNED:
            result[name] = np.rint(127 * values).astype(np.int8)
        else:
            result[name] = np.rint(255 * values).astype(np.uint8)
    return result


def _restored(
    kind: type[_Record], prefix: str, columns: Mapping[str, np.ndarray], index: tuple[int, ...] = ()
) -> dict[str, np.ndarray]:
    """Inverse of `_stored`, of one row."""
    result = {}
    for field in fields(kind):
        values = columns[prefix + field.name][index]
        scale = 1 if field.name in _HALF else 127 if field.name in _SIGNED else 255
        result[field.name] = values.astype(np.float32) / np.float32(scale)
    return result


def style_shares(paths: Sequence[Path]) -> dict[str, float]:
    """Share of each style of hair among the heads of files, the most frequent first."""
    counts = Counter(str(style) for path in paths for style in _column(path, "style"))
    return {style: count / counts.total() for style, count in counts.most_common()}


def random_sheet(paths: Sequence[Path], *, heads: int = 64, seed: int = 0) -> UInt8[np.ndarray, "h w 3"]:
    """A contact sheet of random heads out of files, from behind.

    Args:
        paths: of at least one file.
        heads: at most.
        seed: draws them.
    """
    places = [(path, head) for path in paths for head in range(len(_column(path, "number")))]
    chosen = np.random.default_rng(seed).permutation(len(places))[:heads]
    picked: dict[Path, list[tuple[int, int]]] = {}
    for place, k in enumerate(chosen):
        path, head = places[k]
        picked.setdefault(path, []).append((place, head))
    found: dict[int, HeadField] = {}
    for path, wanted in picked.items():
        shard = FieldShard.read(path)
        found |= {place: shard.field(head) for place, head in wanted}
    return field_sheet([found[place] for place in range(len(chosen))])


def _column(path: Path, name: str) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        return file[name]

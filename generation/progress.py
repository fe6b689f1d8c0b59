"""How long work reports its progress without printing: the caller hands in a `Track`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")


@runtime_checkable
class Track(Protocol):
    """Wraps an iterable and shows how far it is; `rich.progress.Progress.track` has this shape."""

    def __call__(self, sequence: Iterable[Item], *, total: float | int | None, description: str) -> Iterable[Item]:
        """Yield the items of `sequence`, showing `description` and a bar over `total` steps."""
        ...


def silent(sequence: Iterable[Item], *, total: float | int | None, description: str) -> Iterable[Item]:
    """The default `Track`: shows nothing."""
    del total, description
    return sequence

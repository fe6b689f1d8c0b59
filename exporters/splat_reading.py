"""From the numbers of a splat file, ours or a stranger's, to `Splats`: what every reader does behind its format.

A file of ours says its unit and axes and comes back in world units. A stranger's file is in its own unit, which nothing
tells: its numbers stay as they are, and its axes too, unless the file or the caller says where they point.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from dp360.generation import Provenance
from dp360.generation.cameras import METRES_PER_UNIT
from dp360.reconstruction.splats import Splats

from .splat_file_frame import FileNote, SplatArrays, reading, splats_from_file
from .splat_moves import InputUpAxis, guessed_up_axis, moved, up_axis_matrix
from .splat_repair import mended

_NAMES_SHOWN = 6
"""Names that a sentence lists before it counts the others."""


@dataclass(frozen=True)
class ParsedSplats:
    """What a format's own reader makes of a file."""

    arrays: SplatArrays
    """Numbers as the file has them; whatever they are."""
    note: FileNote = field(default_factory=FileNote)
    """What our writers say in it."""
    stated_axes: Float[np.ndarray, "3 3"] | None = None
    """Matrix to y up, where a stranger's file says how its axes point."""
    stated_metres_per_unit: float | None = None
    """Metres in a unit of length, where a stranger's file says so."""
    hinted_up_axis: InputUpAxis | None = None
    """An up axis that a remark in the file names, which may mean something else."""
    notices: tuple[str, ...] = ()
    """Sentences about what was left out or taken for granted."""


@dataclass(frozen=True)
class SplatFile:
    """A file of splats, read."""

    splats: Splats
    """Gaussians in world units; in the file's own unit if it is not ours."""
    provenance: Provenance | None
    """Where it comes from, if it tells."""
    metres_per_unit: float
    """The factor on lengths with which files are written from these splats unless another one is asked for: metres for
    our own, what keeps the numbers for a stranger's."""
    notices: tuple[str, ...] = ()
    """Sentences for people."""


@dataclass(frozen=True)
class SplatDecoder:
    """`decode` of a format, out of a function of the file's bytes and own settings that gives `ParsedSplats`."""

    what: str
    """What is read, for messages."""
    parse: Callable[..., ParsedSplats]
    """The format's own reader."""

    def __call__(self, data: bytes, **own: Any) -> tuple[Splats, Provenance | None]:
        """Gaussians in world units, and their origin if the file tells it.

        Raises:
            InputError: the file cannot be read.
        """
        file = self.file(data, **own)
        return file.splats, file.provenance

    def file(self, data: bytes, *, input_up_axis: InputUpAxis | None = None, **own: Any) -> SplatFile:
        """The file with all that is worth knowing about it.

        Args:
            input_up_axis: which way is up in the file, whatever it says itself; `auto` believes the file and guesses
                from its shape where it says nothing. None believes the file and leaves all else as it is.
            own: settings of the format's reader.

        Raises:
            InputError: the file cannot be read.
        """
        with reading(self.what):
            parsed = self.parse(data, **own)
            arrays, mending = mended(parsed.arrays)
            axes, turning = _axes(parsed, arrays, input_up_axis)
            note = parsed.note
            if axes is not None:
                arrays, note = moved(arrays, axes), replace(note, up_axis="+y")
            splats, provenance = splats_from_file(arrays, note)
        ours = provenance is not None and provenance.is_known
        factor = METRES_PER_UNIT if ours else parsed.stated_metres_per_unit or note.metres_per_unit
        return SplatFile(splats, provenance, factor, (*parsed.notices, *mending, *turning))


def splat_decoder(what: str) -> Callable[[Callable[..., ParsedSplats]], SplatDecoder]:
    """A decorator that makes `decode` of a format's own reader.

    Args:
        what: such as "splats from this .ply".
    """

    return functools.partial(SplatDecoder, what)


def named(names: list[str]) -> str:
    """Names as a list in a sentence, the first few of them."""
    shown = ", ".join(name[:40] for name in names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _axes(
    parsed: ParsedSplats, arrays: SplatArrays, up_axis: InputUpAxis | None
) -> tuple[Float[np.ndarray, "3 3"] | None, tuple[str, ...]]:
    """The matrix to y up, None for none, and what has to be said about it."""
    if up_axis is not None and up_axis != "auto":
        return up_axis_matrix(up_axis), ()
    if parsed.stated_axes is not None:
        return parsed.stated_axes, ()
    if parsed.note.provenance is not None or not len(arrays):
        return None, ()
    hint = parsed.hinted_up_axis
    if up_axis is None:
        if hint in (None, "y"):
            return None, ()
        return None, (
            f"A remark in the file says that its vertical axis is {hint}; it is left as it is, --input-up-axis {hint} "
            "turns it upright.",
        )
    guess = guessed_up_axis(arrays.means) if hint in (None, "auto") else hint
    assert guess is not None and guess != "auto"
    why = "its shape, which is narrower above than below" if hint is None else "a remark in it"
    return up_axis_matrix(guess), (
        f"The file does not say which way is up; {guess} is guessed from {why}; --input-up-axis says otherwise.",
    )

"""The table of formats: which extension is which, what it holds, and how it is written and read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from dp360.generation import InputError, Provenance
from dp360.reconstruction.splats import Splats

from . import (
    avatar_glb,
    avatar_html,
    contact_sheet,
    mesh_glb,
    mesh_obj,
    mesh_ply,
    mesh_stl,
    mesh_usd,
    splat_antimatter,
    splat_compressed_ply,
    splat_glb,
    splat_ply,
    splat_sog,
    splat_spz,
    splat_usd,
    turntable,
    viewer_html,
)
from .splat_moves import InputUpAxis
from .splat_reading import SplatDecoder, SplatFile
from .usd_stage import UsdForm

Kind = Literal["splats", "mesh", "turntable", "sheet", "avatar"]
"""What a file is made of: Gaussians, a textured surface, pictures from a circle of cameras, a contact sheet, or the rig
of a head that moves."""
_KIND_WORDS: dict[Kind | None, str] = {
    None: "",
    "splats": " for splats",
    "mesh": " for a mesh",
    "turntable": " for a turntable",
    "sheet": " for a contact sheet",
    "avatar": " for an avatar",
}


@dataclass(frozen=True)
class Format:
    """One kind of file."""

    extension: str
    """End of the file's name in lower case, with the dot; the longest one that fits decides. Avatars are told from
    still heads by the word before the dot."""
    kind: Kind
    encode: Callable[..., bytes]
    """`encode(asset, provenance, **options)`: the whole file; the asset is what `kind` says."""
    options: frozenset[str] = frozenset()
    """Keyword arguments of `encode` that the command line hands through."""
    decode: SplatDecoder | None = None
    """Splats in world units out of the file, and their origin where it tells; None where there is no reader."""
    keeps_provenance: bool = True
    """Whether the format has a place for where the head comes from."""
    companions: Callable[..., dict[str, bytes]] | None = None
    """`companions(asset, provenance, stem=...)`: name and content of the files that belong beside it; `encode` then
    takes `stem`, too, since it names them."""

    @property
    def ending(self) -> str:
        """What people call it, without a dot before it: `spz`, `compressed.ply`, `avatar.glb`."""
        return self.extension.removeprefix(".")

    def files(self, path: Path, asset: Any, provenance: Provenance, **options: Any) -> dict[Path, bytes]:
        """The file at `path`, and those that belong beside it.

        Args:
            path: where the file will lie; its name without the extension is the stem of the others.
            asset: what `kind` says.
            options: some of `options`, for `encode`.
        """
        if self.companions is None:
            return {path: self.encode(asset, provenance, **options)}
        stem = path.name[: -len(self.extension)]
        beside = self.companions(asset, provenance, stem=stem)
        return {path: self.encode(asset, provenance, stem=stem, **options)} | {
            path.with_name(name): data for name, data in beside.items()
        }


_METRES = frozenset({"metres_per_unit"})
_AXIS = frozenset({"metres_per_unit", "up_axis"})


def _splats(extension: str, module: ModuleType, options: frozenset[str], **more: Any) -> Format:
    """A splat format out of a module with `encode` and `decode`."""
    return Format(extension, "splats", more.pop("encode", module.encode), options, module.decode, **more)


def _usd(extension: str, form: UsdForm) -> Format:
    return _splats(extension, splat_usd, _METRES, encode=functools.partial(splat_usd.encode, form=form))


def _mesh(extension: str, module: ModuleType, options: Set[str] = frozenset(), **more: Any) -> Format:
    """A mesh format out of a module with `encode`."""
    return Format(extension, "mesh", module.encode, _METRES | options, **more)


def _turntable(extension: turntable.Extension) -> Format:
    encode = functools.partial(turntable.encode, extension=extension)
    return Format(extension, "turntable", encode, frozenset({"fps"}))


FORMATS: tuple[Format, ...] = (
    _splats(".ply", splat_ply, _AXIS),
    _splats(".compressed.ply", splat_compressed_ply, _AXIS),
    _splats(".splat", splat_antimatter, _AXIS, keeps_provenance=False),
    _splats(".spz", splat_spz, _AXIS | {"version", "sh_bits"}),
    _splats(".sog", splat_sog, _AXIS | {"palette_size"}),
    _mesh(".glb", mesh_glb, {"texture_format"}),
    _splats(".glb", splat_glb, _METRES),
    _usd(".usdc", "usdc"),
    _usd(".usd", "usdc"),
    _usd(".usda", "usda"),
    _mesh(".usdz", mesh_usd),
    _usd(".usdz", "usdz"),
    _mesh(".obj", mesh_obj, companions=mesh_obj.companions),
    _mesh(".ply", mesh_ply),
    _mesh(".stl", mesh_stl),
    _splats(".html", viewer_html, _METRES),
    _turntable(".mp4"),
    _turntable(".gif"),
    _turntable(".webp"),
    Format(".png", "sheet", contact_sheet.encode),
    Format("avatar.glb", "avatar", avatar_glb.encode, _METRES | {"unlit"}),
    Format("avatar.html", "avatar", avatar_html.encode, _METRES),
)
"""Every format; of those with the same extension the first is meant where no kind is named."""


def format_of(name: str | Path, kind: Kind | None = None) -> Format:
    """The format that a file's name asks for.

    Args:
        name: file name or path; upper and lower case are the same.
        kind: which of two, where an extension may hold splats or a mesh; None takes the first in the table.

    Raises:
        InputError: unknown extension, or one that never holds this kind; the message lists what is known.
    """
    fitting = [f for f in _formats_at_end_of(name) if kind is None or f.kind == kind]
    if not fitting:
        known = sorted({f.extension for f in FORMATS if kind is None or f.kind == kind})
        raise InputError(
            f"Cannot tell the format of {name}: expected a name that ends in one of {', '.join(known)}"
            f"{_KIND_WORDS[kind]}"
        )
    return max(fitting, key=lambda f: len(f.extension))  # the first of the longest


def is_ambiguous(name: str | Path) -> bool:
    """Whether a file of this name may hold splats as well as a mesh."""
    fitting = _formats_at_end_of(name)
    longest = max((f.extension for f in fitting), key=len, default="")
    return len({f.kind for f in fitting if f.extension == longest}) > 1


def _formats_at_end_of(name: str | Path) -> list[Format]:
    """Formats whose extension the name ends in."""
    lower = Path(name).name.lower()
    return [f for f in FORMATS if lower.endswith(f.extension)]


def decode_splats(name: str | Path, data: bytes) -> tuple[Splats, Provenance | None]:
    """Splats in world units out of a file of any format, and their origin where the file tells it.

    Args:
        name: file name or path; its extension says the format.

    Raises:
        InputError: an extension without a reader, or the file cannot be read; the message names the file.
    """
    with _naming(name):
        return _decoder_of(name, data)(data)


def read_splat_file(name: str | Path, data: bytes, *, input_up_axis: InputUpAxis | None = None) -> SplatFile:
    """A file of any format with all that is worth knowing about it.

    Args:
        name: file name or path; its extension says the format.
        input_up_axis: which way is up in it; None believes what the file says.

    Raises:
        InputError: as `decode_splats`.
    """
    with _naming(name):
        decoder = _decoder_of(name, data)
        # .splat cannot name a unit: its numbers are taken as they are, as those of all who say none
        own = {"metres_per_unit": 1.0} if decoder is splat_antimatter.decode else {}
        return decoder.file(data, input_up_axis=input_up_axis, **own)


@contextmanager
def _naming(name: str | Path) -> Iterator[None]:
    """Put the file's name in front of refusals."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _decoder_of(name: str | Path, data: bytes) -> SplatDecoder:
    """What reads a file of this name and content."""
    readable = [f for f in _formats_at_end_of(name) if f.decode is not None]
    if not readable:
        known = sorted({f.extension for f in FORMATS if f.decode is not None})
        raise InputError(f"cannot read splats: expected a name that ends in one of {', '.join(known)}")
    decoder = max(readable, key=lambda f: len(f.extension)).decode
    if decoder in (splat_ply.decode, splat_compressed_ply.decode):  # a plain .ply may turn out to be compressed
        decoder = splat_compressed_ply.decode if splat_compressed_ply.is_compressed(data) else splat_ply.decode
    assert decoder is not None
    return decoder

"""The table of formats: which extension is which, what it holds, and how it is written and read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dp360.generation import InputError, Provenance
from dp360.reconstruction.splats import Splats

from . import mesh_glb, splat_antimatter, splat_compressed_ply, splat_glb, splat_ply, splat_sog, splat_spz, splat_usd

Kind = Literal["splats", "mesh"]
"""What a file holds: Gaussians, or a textured surface."""


@dataclass(frozen=True)
class Format:
    """One kind of file."""

    extension: str
    """End of the file's name in lower case, with the dot; the longest one that fits decides."""
    kind: Kind
    title: str
    """A few words for help texts."""
    encode: Callable[..., bytes]
    """`encode(splats or mesh, provenance, **options)`: the whole file."""
    options: frozenset[str] = frozenset({"metres_per_unit"})
    """Keyword arguments of `encode` that the command line hands through."""
    decode: Callable[[bytes], Splats] | None = None
    """Splats in world units out of the file; None where there is no reader."""
    decode_provenance: Callable[[bytes], Provenance | None] | None = None
    """The origin in the file; None where the format has no place for it."""
    lossless: bool = False
    """Whether every number comes back, up to a rounding of float32."""


_WITH_AXIS = frozenset({"metres_per_unit", "up_axis"})


def _usd(extension: str, form: splat_usd.UsdForm, title: str) -> Format:
    encode = functools.partial(splat_usd.encode, form=form)
    return Format(
        extension,
        "splats",
        title,
        encode,
        decode=splat_usd.decode,
        decode_provenance=splat_usd.decode_provenance,
        lossless=True,
    )


FORMATS: tuple[Format, ...] = (
    Format(
        ".ply",
        "splats",
        "Gaussian splats, the original 3DGS layout",
        splat_ply.encode,
        _WITH_AXIS,
        splat_ply.decode,
        splat_ply.decode_provenance,
        lossless=True,
    ),
    Format(
        ".compressed.ply",
        "splats",
        "Gaussian splats, PlayCanvas' compressed .ply",
        splat_compressed_ply.encode,
        _WITH_AXIS,
        splat_compressed_ply.decode,
        splat_compressed_ply.decode_provenance,
    ),
    Format(
        ".splat",
        "splats",
        "Gaussian splats, 32 bytes each, one colour from all sides",
        splat_antimatter.encode,
        _WITH_AXIS,
        splat_antimatter.decode,
    ),
    Format(
        ".spz",
        "splats",
        "Gaussian splats, Niantic's compressed format",
        splat_spz.encode,
        _WITH_AXIS | {"version", "sh_bits"},
        splat_spz.decode,
        splat_spz.decode_provenance,
    ),
    Format(
        ".sog",
        "splats",
        "Gaussian splats, PlayCanvas' format for the web",
        splat_sog.encode,
        _WITH_AXIS | {"palette_size"},
        splat_sog.decode,
        splat_sog.decode_provenance,
    ),
    Format(
        ".glb", "mesh", "textured mesh, binary glTF", mesh_glb.encode, frozenset({"metres_per_unit", "texture_format"})
    ),
    Format(
        ".glb",
        "splats",
        "Gaussian splats, binary glTF with KHR_gaussian_splatting",
        splat_glb.encode,
        decode=splat_glb.decode,
        decode_provenance=splat_glb.decode_provenance,
        lossless=True,
    ),
    _usd(".usdc", "usdc", "Gaussian splats, OpenUSD, binary"),
    _usd(".usd", "usdc", "Gaussian splats, OpenUSD, binary"),
    _usd(".usda", "usda", "Gaussian splats, OpenUSD, text"),
    _usd(".usdz", "usdz", "Gaussian splats, OpenUSD package"),
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
    lower = Path(name).name.lower()
    fitting = [f for f in FORMATS if lower.endswith(f.extension) and (kind is None or f.kind == kind)]
    if not fitting:
        known = sorted({f.extension for f in FORMATS if kind is None or f.kind == kind})
        what = {None: "", "splats": " for splats", "mesh": " for a mesh"}[kind]
        raise InputError(
            f"Cannot tell the format of {name}: expected a name that ends in one of {', '.join(known)}{what}"
        )
    return max(fitting, key=lambda f: len(f.extension))  # the first of the longest


def splat_format_of(name: str | Path, data: bytes) -> Format:
    """The format to read a splat file with; a plain .ply may turn out to be a compressed one.

    Raises:
        InputError: unknown extension, or a .ply whose header is damaged.
    """
    found = format_of(name, "splats")
    if found.extension == ".ply" and splat_compressed_ply.is_compressed(data):
        return format_of(".compressed.ply", "splats")
    if found.extension == ".compressed.ply" and not splat_compressed_ply.is_compressed(data):
        return format_of(".ply", "splats")
    return found


def decode_splats(name: str | Path, data: bytes) -> tuple[Splats, Provenance | None]:
    """Splats in world units out of a file of any format, and their origin where the file tells it.

    Args:
        name: file name or path; its extension says the format.
        data: the file.

    Raises:
        InputError: unknown extension, or the file cannot be read; the message names the file.
    """
    try:
        found = splat_format_of(name, data)
        if found.decode is None:
            raise InputError(f"no reader for {found.extension}")
        provenance = found.decode_provenance(data) if found.decode_provenance else None
        return found.decode(data), provenance
    except InputError as error:
        raise InputError(f"{name}: {error}") from error

"""Gaussian splats as `.sog`, version 2: a zip of lossless WebP pictures, the smallest format for the web.

Layout: `meta.json` and pictures with one pixel per Gaussian: `means_l`/`means_u` hold positions after sign(x) ln(1 +
|x|) in 16 bits between bounds; `quats` the three smaller components of the rotation w, x, y, z and, as 252 + index, the
largest; `scales` and `sh0` indices into codebooks of 256 log-scales and constant harmonics, `sh0` also the opacity;
`shN_labels` an index into the palette `shN_centroids`, whose pixels are indices into a third codebook. Gaussians are
ordered along a curve. Origin, unit and axes stand in `meta.json` under `dp360`, which readers skip.

Own code: the known writer is splat-transform (JavaScript, wants a GPU for its palette); gsply reads the format and is
the second reader in the tests. Codebooks and palette come from k-means without chance: same splats, same bytes.

Source: https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/sog/
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from dp360.generation import InputError
from dp360.generation.errors import quoted

from .json_document import item, json_object, whole
from .splat_file_frame import (
    FileNote,
    SplatArrays,
    check_promised_count,
    file_note,
    splat_encoder,
)
from .splat_packing import (
    logits_from_bytes,
    morton_order,
    nearest_level,
    quats_from_smallest_three,
    scalar_codebook,
    smallest_three,
    to_bytes,
)
from .splat_palette import palette
from .splat_reading import ParsedSplats, splat_decoder

MAX_PALETTE = 65536
"""Entries that the two bytes of a label reach."""
_PALETTE_COLUMNS = 64
_LARGEST_TAG = 252
_META_BYTES_MAX = 4 << 20


@splat_encoder
def encode(arrays: SplatArrays, note: FileNote, *, palette_size: int | None = None) -> bytes:
    """A complete .sog file, the origin in meta.json.

    Args:
        arrays: numbers of the file, at least one Gaussian.
        palette_size: entries for harmonics above the constant one, 1 to 65536; by default about half the Gaussians.

    Raises:
        ValueError: no Gaussians, or the setting is out of range.
    """
    count = len(arrays)
    if not count:
        raise ValueError("splat_sog.encode: expected at least one Gaussian, got none")
    if palette_size is None:
        palette_size = min(max(1024, 1 << round(math.log2(count / 2))) if count > 2048 else count, MAX_PALETTE)
    if not 1 <= palette_size <= MAX_PALETTE:
        raise ValueError(f"splat_sog.encode: expected palette_size from 1 to {MAX_PALETTE}, got {palette_size}")
    arrays = arrays.reordered(morton_order(arrays.means))
    width = 4 * math.ceil(math.sqrt(count) / 4)
    height = 4 * math.ceil(count / width / 4)

    logarithm = np.sign(arrays.means) * np.log1p(np.abs(arrays.means.astype(np.float64)))
    low, high = logarithm.min(axis=0), logarithm.max(axis=0)
    steps = np.rint((logarithm - low) / np.maximum(high - low, 1e-12) * 65535).astype(np.uint16)
    index, three = smallest_three(arrays.quats_wxyz)
    quats = np.concatenate([to_bytes(three * 0.5 + 0.5), (index[:, None] + _LARGEST_TAG).astype(np.uint8)], axis=1)
    scale_codebook, colour_codebook = scalar_codebook(arrays.log_scales.ravel()), scalar_codebook(arrays.sh0.ravel())
    opacity = to_bytes(arrays.opacity)[:, None]
    per_gaussian = {
        "means_l.webp": (steps & 255).astype(np.uint8),
        "means_u.webp": (steps >> 8).astype(np.uint8),
        "quats.webp": quats,
        "scales.webp": nearest_level(arrays.log_scales, scale_codebook),
        "sh0.webp": np.concatenate([nearest_level(arrays.sh0, colour_codebook), opacity], axis=1),
    }
    pictures = {name: _webp(values, width, height) for name, values in per_gaussian.items()}
    meta: dict[str, object] = {
        "version": 2,
        "asset": {"generator": note.generator},
        "dp360": note.as_json_data(),
        "count": count,
        "means": {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": scale_codebook.tolist(), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": colour_codebook.tolist(), "files": ["sh0.webp"]},
    }
    k = arrays.sh_rest.shape[1]
    if k:
        centroids, labels = palette(arrays.sh_rest.reshape(count, 3 * k), palette_size)
        codebook = scalar_codebook(centroids.ravel())
        entries = nearest_level(centroids, codebook).reshape(len(centroids) * k, 3)
        rows = -(-len(centroids) // _PALETTE_COLUMNS)
        pictures["shN_centroids.webp"] = _webp(entries, _PALETTE_COLUMNS * k, rows)
        two_bytes = np.stack([labels & 255, labels >> 8, np.zeros_like(labels)], axis=1).astype(np.uint8)
        pictures["shN_labels.webp"] = _webp(two_bytes, width, height)
        meta["shN"] = {
            "count": len(centroids),
            "bands": arrays.sh_degree,
            "codebook": codebook.tolist(),
            "files": ["shN_centroids.webp", "shN_labels.webp"],
        }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {"meta.json": json.dumps(meta, sort_keys=True).encode("ascii"), **pictures}.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # dated 1980: the same splats give the same bytes
    return buffer.getvalue()


@splat_decoder("splats from this .sog")
def decode(data: bytes) -> ParsedSplats:
    """A .sog of version 2; the order is the file's.

    Raises:
        InputError: not such a file, or a part is missing or does not fit the count.
    """
    file = _SogFile.open(data)
    count = whole(item(file.meta, "count"))
    check_promised_count(count, len(data))
    low, high = file.numbers("means", "mins", 3), file.numbers("means", "maxs", 3)
    fine, coarse = file.per_gaussian(count, "means"), file.per_gaussian(count, "means", 1)
    steps = fine[:, :3].astype(np.float64) + coarse[:, :3] * 256.0
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and Inf are told later
        logarithm = low + (high - low) * steps / 65535
        means = (np.sign(logarithm) * np.expm1(np.abs(logarithm))).astype(np.float32)
    quats = file.per_gaussian(count, "quats")
    if (quats[:, 3] < _LARGEST_TAG).any():
        raise InputError(f"rotations are marked with numbers below {_LARGEST_TAG}")
    colours = file.per_gaussian(count, "sh0")
    arrays = SplatArrays(
        means=means,
        log_scales=file.codebook("scales")[file.per_gaussian(count, "scales")[:, :3]],
        quats_wxyz=quats_from_smallest_three(
            quats[:, 3].astype(np.int64) - _LARGEST_TAG, quats[:, :3].astype(np.float32) / 127.5 - 1
        ),
        opacity_logits=logits_from_bytes(colours[:, 3]),
        sh0=file.codebook("sh0")[colours[:, :3]],
        sh_rest=_rest(file, count) if "shN" in file.meta else np.zeros((count, 0, 3), np.float32),
    )
    return ParsedSplats(arrays, file_note(file.meta.get("dp360")))


@dataclass(frozen=True)
class _SogFile:
    """An open archive and what its meta.json says."""

    archive: zipfile.ZipFile
    meta: dict
    size: int
    """Bytes of the whole file."""

    @classmethod
    def open(cls, data: bytes) -> _SogFile:
        """The archive and its meta.json."""
        try:
            archive = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise InputError(f"expected a zip archive, got {data[:16]!r}") from error
        meta = json_object(_member(archive, "meta.json", _META_BYTES_MAX), "meta.json")
        if meta.get("version") != 2:
            raise InputError(
                f"expected version 2 in meta.json, got {quoted(meta.get('version'))}; convert it with splat-transform"
            )
        return cls(archive, meta, len(data))

    def picture(self, part: str, which: int = 0) -> UInt8[np.ndarray, "h w 4"]:
        """Pixels of a part's picture; its size is checked before it is unpacked."""
        name = str(item(self.meta, part, "files", which))
        content = _member(self.archive, name, self.size)
        try:
            with Image.open(io.BytesIO(content), formats=("WEBP", "PNG")) as file:
                check_promised_count(file.width * file.height // 4, self.size)
                return np.asarray(file.convert("RGBA"))
        except InputError:
            raise
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"its picture {name[:60]} is damaged") from error

    def per_gaussian(self, count: int, part: str, which: int = 0) -> UInt8[np.ndarray, "n 4"]:
        """The pixel of each Gaussian in a part's picture."""
        pixels = self.picture(part, which).reshape(-1, 4)
        if len(pixels) < count:
            raise InputError(
                f"it promises {count} Gaussians, but a picture of {part} has {len(pixels)} pixels; the file is damaged"
            )
        return pixels[:count]

    def numbers(self, part: str, name: str, length: int) -> Float[np.ndarray, " n"]:
        """A list of numbers of meta.json; a codebook may be shorter and is filled up with its last entry."""
        try:
            array = np.array(item(self.meta, part, name), dtype=np.float64)
        except OverflowError as error:
            raise InputError(f"{part}.{name} in meta.json are too large") from error
        except (TypeError, ValueError):
            array = np.zeros(0)
        if array.ndim != 1 or not (1 if name == "codebook" else length) <= array.size <= length:
            raise InputError(f"expected {length} numbers {part}.{name} in meta.json")
        return np.pad(array, (0, length - len(array)), "edge")

    def codebook(self, part: str) -> Float[np.ndarray, " n"]:
        """The 256 values that a part's indices stand for."""
        return self.numbers(part, "codebook", 256).astype(np.float32)


def _rest(file: _SogFile, count: int) -> Float[np.ndarray, "n k 3"]:
    """Harmonics above the constant one, through labels, palette and codebook."""
    bands, entries = whole(item(file.meta, "shN", "bands")), whole(item(file.meta, "shN", "count"))
    if not 1 <= bands <= 3 or not 1 <= entries <= MAX_PALETTE:
        raise InputError(f"expected 1 to 3 harmonic bands, got {bands} of {entries}")
    k = (bands + 1) ** 2 - 1
    pixels = file.picture("shN")
    if pixels.shape[1] != _PALETTE_COLUMNS * k or pixels.shape[0] * _PALETTE_COLUMNS < entries:
        raise InputError(f"its palette picture does not hold {entries} entries")
    centroids = file.codebook("shN")[pixels.reshape(-1, k, 4)[:entries, :, :3]]
    marks = file.per_gaussian(count, "shN", 1)
    labels = marks[:, 0].astype(np.int64) + marks[:, 1].astype(np.int64) * 256
    if (labels >= entries).any():
        raise InputError(f"labels name entries beyond its palette of {entries}")
    return centroids[labels]


def _webp(values: UInt8[np.ndarray, "n c"], width: int, height: int) -> bytes:
    """Values row by row as a lossless RGBA picture that keeps colours under transparent pixels.

    It is opaque where there is no fourth value, so that no reader touches the others.
    """
    pixels = np.zeros((width * height, 4), dtype=np.uint8)
    pixels[:, 3] = 255
    pixels[: len(values), : values.shape[1]] = values
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels.reshape(height, width, 4))
    picture.save(buffer, "WEBP", lossless=True, exact=True, quality=70, method=4)
    return buffer.getvalue()


def _member(archive: zipfile.ZipFile, name: str, bytes_max: int) -> bytes:
    """One file of the archive, never more than `bytes_max` of it."""
    try:
        with archive.open(name) as file:
            content = file.read(bytes_max + 1)
    except (KeyError, zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError, OSError) as error:
        raise InputError(f"its part {name[:60]} is missing or damaged") from error
    if len(content) > bytes_max:
        raise InputError(f"its part {name[:60]} is larger than {bytes_max} bytes")
    return content

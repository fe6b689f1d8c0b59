"""Gaussian splats as `.spz`: about a tenth of a 3DGS .ply, read by Niantic's tools, Spark, Babylon.js, PlayCanvas, ...

Layout of versions 1 to 3: one gzip stream of a header of 16 bytes (magic NGSP, version, count, harmonic degree,
fractional bits, flags) and then, each for all Gaussians, positions as 24-bit fixed point, opacities, colours,
log-scales in sixteenths, rotations, and harmonics coefficient by coefficient in 8 bits. Version 1 had half-precision
positions; version 2 keeps x, y, z of each quaternion in 8 bits; version 3 its smallest three components in 9 bits and
a sign. Version 4 keeps the numbers of version 3 in one zstd stream per attribute behind a plain header.

We write version 3, which nearly every reader takes, with rotations four times finer than version 2, which is there for
older readers. All four versions are read; version 4 needs the package `zstandard`.

Frame: RUB, that is x right, y up, z back: ours, unless an extension of the file says otherwise. The format leaves unit
and origin unsaid; they travel in the comment field of the gzip header (RFC 1952, section 2.3), which every gzip reader
skips.

Own code: the reference library (C++) uses 12 fractional bits (a quarter of a millimetre) and coarse harmonics; gsply,
the second reader in the tests, believes whatever a damaged header promises.

Source: https://github.com/nianticlabs/spz (README.md, "File Format", src/cc/load-spz.cc for the constants, and
extensions/README.md).
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from dp360.generation import InputError

from .splat_file_frame import (
    FileNote,
    SplatArrays,
    check_promised_count,
    file_note,
    splat_encoder,
)
from .splat_moves import axes_matrix
from .splat_packing import (
    ROTATION_BITS,
    logits_from_bytes,
    opacity_bytes,
    pack_fields,
    quats_from_smallest_three,
    smallest_three,
    to_bytes,
    unpack_fields,
)
from .splat_reading import ParsedSplats, named, splat_decoder

SpzVersion = Literal[2, 3]

_MAGIC = 0x5053474E  # "NGSP"
_HEADER, _HEADER_4 = struct.Struct("<IIIBBBB"), struct.Struct("<IIIBBBBI12x")
_STREAM_4 = struct.Struct("<QQ")
_FRACTIONAL_BITS_MAX = 18
"""Finest step that is written, 4 micrometres: finer ones only store noise."""
_COLOUR_SCALE = 0.15
"""Constant harmonic to colour byte; smaller than the basis function, so that colours beyond 0 and 1 fit."""
_HAS_EXTENSIONS = 0x2
_EXTENSION_BYTES_MAX = 1 << 20
_SH_DEGREE_MAX = 4
_AXES_EXTENSION, _HARMLESS_EXTENSIONS = 0xADBE0003, (0xADBE0002,)
"""The extension that says how axes point; those that only guide a viewer's camera."""
_AXES = "LDB RDB LUB RUB LDF RDF LUF RUF LFD RFD LFU RFU LBD RBD LBU RBU".split()
"""Where x, y and z point for each number, from 1 on, of that extension."""


@splat_encoder
def encode(arrays: SplatArrays, note: FileNote, *, version: SpzVersion = 3, sh_bits: int = 8) -> bytes:
    """A complete .spz file, the origin in the comment field of the gzip header; the format asks for `up_axis` "+y".

    Args:
        version: 3, or 2 for old readers.
        sh_bits: significant bits of the harmonics above the constant one, 1 to 8; fewer make smaller files.

    Raises:
        ValueError: a position is beyond the range of the format, or a setting is out of range.
    """
    if not 1 <= sh_bits <= 8:
        raise ValueError(f"splat_spz.encode: expected sh_bits from 1 to 8, got {sh_bits}")
    bits = _fractional_bits(arrays.means)
    fixed = np.rint(arrays.means.astype(np.float64) * 2**bits).astype("<i4")
    positions = fixed.reshape(-1).view(np.uint8).reshape(-1, 4)[:, :3]
    if version == 3:
        rotations = _pack_rotations(arrays.quats_wxyz[:, [1, 2, 3, 0]])
    else:
        unit = arrays.quats_xyzw
        positive = unit[:, :3] * np.where(unit[:, 3:] < 0, -1, 1)
        rotations = np.clip(np.rint(positive * 127.5 + 127.5), 0, 255).astype(np.uint8)
    step = 1 << (8 - sh_bits)
    levels = np.rint(arrays.sh_rest * (128 / step)) * step + 128
    attributes = (
        positions,
        opacity_bytes(arrays.opacity_logits),
        to_bytes(arrays.sh0 * _COLOUR_SCALE + 0.5),
        np.clip(np.rint((arrays.log_scales + 10) * 16), 0, 255).astype(np.uint8),
        rotations,
        np.clip(levels, 0, 256 - step).astype(np.uint8),
    )
    header = _HEADER.pack(_MAGIC, version, len(arrays), arrays.sh_degree, bits, 0, 0)
    payload = header + b"".join(values.tobytes() for values in attributes)
    return _gzip(payload, json.dumps({"dp360": note.as_json_data()}, sort_keys=True))


@splat_decoder("splats from this .spz")
def decode(data: bytes) -> ParsedSplats:
    """A .spz of version 1 to 4, also one that was unpacked; its origin where the gzip comment tells it.

    Harmonics of degree 4 lose their last degree. Axes are turned to ours where an extension says how they point.

    Raises:
        InputError: not such a file, the size does not fit the header, or version 4 without the package `zstandard`.
    """
    header, streams, extensions = _read_streams(data)
    version, count = header.version, header.count
    positions, opacities, colours, scales, rotations, harmonics = streams
    if version == 1:
        means = positions.view("<f2").astype(np.float32).reshape(count, 3)
    else:
        padded = np.zeros((count * 3, 4), dtype=np.uint8)
        padded[:, 1:] = positions.reshape(-1, 3)
        fixed = padded.reshape(-1).view("<i4") >> 8  # keeps the sign
        means = fixed.reshape(count, 3) / np.float32(2**header.fractional_bits)
    if version >= 3:
        quats_xyzw = _unpack_rotations(rotations.view("<u4"))
    else:
        xyz = rotations.reshape(count, 3).astype(np.float32) / 127.5 - 1
        w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(axis=1, keepdims=True)))
        quats_xyzw = np.concatenate([xyz, w], axis=1)
    rest = harmonics.reshape(count, header.rest_count, 3)[:, :15]
    arrays = SplatArrays(
        means=means.astype(np.float32),
        log_scales=scales.reshape(count, 3).astype(np.float32) / 16 - 10,
        quats_wxyz=quats_xyzw[:, [3, 0, 1, 2]].astype(np.float32),
        opacity_logits=logits_from_bytes(opacities),
        sh0=((colours.reshape(count, 3).astype(np.float32) / 255) - 0.5) / np.float32(_COLOUR_SCALE),
        sh_rest=(rest.astype(np.float32) - 128) / 128,
    )
    notices = [] if header.sh_degree <= 3 else ["Its harmonics reach degree 4; those above degree 3 are left out."]
    axes, unread = _read_extensions(extensions)
    if unread:
        notices.append(
            f"Its extensions {named(unread)} are not read; where they change the picture, it looks different here."
        )
    return ParsedSplats(arrays, _read_note(data), axes, notices=tuple(notices))


def _fractional_bits(means: Float[np.ndarray, "n 3"]) -> int:
    """Bits behind the point: as many as 24 bits with a sign leave for the farthest Gaussian."""
    farthest = float(np.abs(means).max(initial=0.0))
    bits = min(_FRACTIONAL_BITS_MAX, math.floor(math.log2((2**23 - 1) / max(farthest, 1e-6))))
    if bits < 0:
        raise ValueError(
            f"splat_spz.encode: expected positions below {2**23} metres, got {farthest:g}; nothing written"
        )
    return bits


def _pack_rotations(quats_xyzw: Float[np.ndarray, "n 4"]) -> UInt8[np.ndarray, "n 4"]:
    """Index of the largest component in the upper two bits, then the others as a sign and nine bits each."""
    index, three = smallest_three(quats_xyzw)
    signed = np.rint(np.abs(three) * 511).astype(np.int64) | (three < 0) * 512
    return pack_fields(np.column_stack([index, signed]), ROTATION_BITS).astype("<u4").view(np.uint8).reshape(-1, 4)


def _unpack_rotations(packed: np.ndarray) -> Float[np.ndarray, "n 4"]:
    """Inverse of `_pack_rotations`: unit quaternions xyzw."""
    fields = unpack_fields(packed, ROTATION_BITS)
    three = np.where(fields & 512, -1.0, 1.0) * (fields & 511) / 511
    return quats_from_smallest_three(fields[:, 0], three[:, 1:].astype(np.float32))


def _gzip(payload: bytes, comment: str) -> bytes:
    """One gzip member without a time, so that the same splats give the same bytes, with an ASCII comment."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    has_comment, unknown_system = 0x10, 255
    header = struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, has_comment, 0, 2, unknown_system)
    body = deflate.compress(payload) + deflate.flush()
    trailer = struct.pack("<II", zlib.crc32(payload), len(payload) & 0xFFFFFFFF)
    return header + comment.encode("ascii") + b"\0" + body + trailer


def _read_note(data: bytes) -> FileNote:
    """What the gzip comment says; the defaults where there is none or another program's."""
    if len(data) < 11 or data[:4] != b"\x1f\x8b\x08\x10":  # a comment and no other optional field, as we write
        return FileNote()
    end = data.find(b"\0", 10, 10 + _EXTENSION_BYTES_MAX)
    try:
        comment = json.loads(data[10 : max(end, 10)])
    except (ValueError, RecursionError):
        return FileNote()
    return file_note(comment.get("dp360")) if isinstance(comment, dict) else FileNote()


class _Header(NamedTuple):
    """What a file says in front of its numbers."""

    magic: int
    version: int
    count: int
    sh_degree: int
    fractional_bits: int
    flags: int
    stream_count: int = 0
    """Of version 4; a reserved byte before."""
    table: int = 0
    """Of version 4: first byte of the table of streams."""

    def attribute_bytes(self, file_bytes: int) -> list[int]:
        """Sizes of positions, opacities, colours, scales, rotations and harmonics; refuses what no .spz says."""
        if self.magic != _MAGIC or not 1 <= self.version <= 4:
            raise InputError(f"expected version 1 to 4 behind 'NGSP', got {self.version}")
        if self.sh_degree > _SH_DEGREE_MAX or self.fractional_bits > 24:
            raise InputError(
                f"expected harmonics to degree {_SH_DEGREE_MAX} and at most 24 fractional bits, got {self.sh_degree} "
                f"and {self.fractional_bits}; the file is damaged"
            )
        check_promised_count(self.count, file_bytes)
        sizes = (6 if self.version == 1 else 9, 1, 3, 3, 4 if self.version >= 3 else 3, 3 * self.rest_count)
        return [self.count * size for size in sizes]

    @property
    def spare_bytes(self) -> int:
        """Bytes behind the attributes, for extensions, at most."""
        return _EXTENSION_BYTES_MAX if self.flags & _HAS_EXTENSIONS else 0

    @property
    def rest_count(self) -> int:
        """Harmonics above the constant one."""
        return (self.sh_degree + 1) ** 2 - 1


_Streams = tuple[_Header, list[UInt8[np.ndarray, " bytes"]], bytes]
"""Header, the six attributes as bytes, and the records of extensions."""


def _read_streams(data: bytes) -> _Streams:
    """What a file of any version holds, packed or not."""
    if data[:2] == b"\x1f\x8b":
        return _read_gzip(data)
    if data[:4] != b"NGSP":
        raise InputError(f"expected a gzip stream or 'NGSP', got {data[:16]!r}")
    if len(data) >= _HEADER.size and 1 <= _HEADER.unpack_from(data)[1] <= 3:
        header = _Header(*_HEADER.unpack_from(data))
        return _split_payload(header, header.attribute_bytes(len(data)), data, whole=True)
    return _read_version_4(data)


def _read_gzip(data: bytes) -> _Streams:
    """Versions 1 to 3; never more is unpacked than the header promises, and the promise is checked first."""
    try:
        start = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data, _HEADER.size)
        if len(start) < _HEADER.size:
            raise InputError("it ends within its header; the file is cut off")
        header = _Header(*_HEADER.unpack(start))
        sizes = header.attribute_bytes(len(data))
        if header.version == 4:
            raise InputError("version 4 has no gzip stream; the file is damaged")
        inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        payload = inflate.decompress(data, _HEADER.size + sum(sizes) + header.spare_bytes + 1)
    except zlib.error as error:
        raise InputError(f"the gzip stream is damaged ({error})") from error
    return _split_payload(header, sizes, payload, whole=inflate.eof)


def _split_payload(header: _Header, sizes: list[int], payload: bytes, *, whole: bool) -> _Streams:
    """Attributes and extensions of an unpacked file of version 1 to 3.

    Args:
        whole: whether the stream ended where the payload does.
    """
    expected = _HEADER.size + sum(sizes)
    if not expected <= len(payload) <= expected + header.spare_bytes or not whole:
        raise InputError(
            f"its header promises {header.count} Gaussians ({expected} bytes), its stream "
            f"{'ends early' if len(payload) < expected else 'is longer or cut off'}; the file is damaged"
        )
    numbers = np.frombuffer(payload, dtype=np.uint8, count=sum(sizes), offset=_HEADER.size)
    return header, np.split(numbers, np.cumsum(sizes)[:-1]), payload[expected:]


def _read_extensions(records: bytes) -> tuple[Float[np.ndarray, "3 3"] | None, list[str]]:
    """The matrix to our axes that the extension about them states, and the numbers of those that are not known."""
    axes, unread, position = None, [], 0
    while position + 8 <= len(records):
        kind, length = struct.unpack_from("<II", records, position)
        content = records[position + 8 : position + 8 + length]
        position += 8 + length
        if len(content) < length:
            raise InputError("an extension ends behind its header; the file is cut off or damaged")
        if kind == _AXES_EXTENSION and length >= 4:
            number = int.from_bytes(content[:4], "little")
            if number > len(_AXES):
                raise InputError(f"its extension about axes holds {number}; expected a number up to {len(_AXES)}")
            axes = axes_matrix(_AXES[number - 1]) if number else None
        elif kind not in _HARMLESS_EXTENSIONS:
            unread.append(f"0x{kind:08X}")
    return axes, unread


def _read_version_4(data: bytes) -> _Streams:
    """Version 4: a table of sizes, then one zstd stream per attribute that is not empty."""
    if len(data) < _HEADER_4.size:
        raise InputError("it ends within its header; the file is cut off")
    header = _Header(*_HEADER_4.unpack_from(data))
    sizes = header.attribute_bytes(len(data))
    if header.version != 4:
        raise InputError(f"expected version 4 without gzip, got {header.version}")
    expected = sum(size > 0 for size in sizes)
    start = header.table + header.stream_count * _STREAM_4.size
    if header.stream_count != expected or header.table < _HEADER_4.size or start > len(data):
        raise InputError(
            f"expected a table of {expected} streams within the file, got {header.stream_count} at byte "
            f"{header.table}; the file is damaged"
        )
    try:
        import zstandard
    except ImportError as error:
        raise InputError("version 4 needs the package zstandard; run `pip install zstandard`") from error
    table = _STREAM_4.iter_unpack(data[header.table : start])
    streams = []
    for size in sizes:
        packed_size, promised = next(table) if size else (0, 0)
        piece = data[start : start + packed_size]
        start += packed_size
        try:
            # a reader, not decompress(): that one allocates what the frame's own header claims
            content = zstandard.ZstdDecompressor().stream_reader(piece).read(size + 1) if size else b""
        except zstandard.ZstdError as error:
            raise InputError(f"a zstd stream is damaged ({error})") from error
        if promised != size or len(piece) != packed_size or len(content) != size:
            raise InputError(
                f"its header promises {header.count} Gaussians, but a stream holds {len(content)} bytes instead of "
                f"{size}; the file is damaged"
            )
        streams.append(np.frombuffer(content, dtype=np.uint8))
    extensions = data[_HEADER_4.size : header.table] if header.flags & _HAS_EXTENSIONS else b""
    return header, streams, extensions

"""Tables of numbers as .ply: writing them, and reading the header: what there is, where it lies, and our comments.

Own code: plyfile reads bytes row by row and takes memory for a count before it looks at the size; trimesh, which reads
our point clouds and meshes, keeps no comments and refuses splats that are followed by lists.

Source: Turk, "The PLY Polygon File Format", 1994, http://paulbourke.net/dataformats/ply/
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dp360.generation import InputError

from .provenance import one_line, provenance_from_json, provenance_to_json
from .splat_file_frame import FileNote, UpAxis, positive_factor

_COMMENT_CHARACTERS = 160
"""Longest piece of provenance per comment: the reader inside open3d refuses lines of 1024 characters."""
HEADER_BYTES_MAX = 1 << 18
"""Headers end within this many bytes; a file without an end is refused before it is searched through."""
_FIRST_LINE = re.compile(rb"\A(?:\xef\xbb\xbf)?ply[ \t]*\r?\n")
_LAST_LINE = re.compile(rb"\n[ \t]*end_header[ \t]*\r?\n")
_HARMLESS_END = b" \t\r\n\0"
"""Bytes behind the numbers that mean nothing: some programs end a file as they end a text."""
_PLY_TYPES = {"<f4": "float", "<u4": "uint", "|u1": "uchar"}
_NUMPY_TYPES = {
    **dict.fromkeys(("char", "int8"), "<i1"),
    **dict.fromkeys(("uchar", "uint8"), "<u1"),
    **dict.fromkeys(("short", "int16"), "<i2"),
    **dict.fromkeys(("ushort", "uint16"), "<u2"),
    **dict.fromkeys(("int", "int32"), "<i4"),
    **dict.fromkeys(("uint", "uint32"), "<u4"),
    **dict.fromkeys(("float", "float32"), "<f4"),
    **dict.fromkeys(("double", "float64"), "<f8"),
}
_LENGTH_TYPES = (
    "uchar",
    "uint8",
    "ushort",
    "uint16",
    "uint",
    "uint32",
    "char",
    "int8",
    "short",
    "int16",
    "int",
    "int32",
)


@dataclass(frozen=True)
class PlyElement:
    """One table of a .ply file."""

    name: str
    count: int
    """Number of rows, checked against the size of the file."""
    properties: list[tuple[str, str]]
    """Name and numpy type of each property, in the order of the file."""
    offset: int
    """First byte of the table."""
    lists: dict[str, str]
    """Numpy type of the length of each property that is a list, by name; its numbers are of the type above."""

    @property
    def names(self) -> list[str]:
        """Names of the properties."""
        return [name for name, _ in self.properties]

    def rows(self, data: bytes) -> np.ndarray:
        """A view of the table as a structured array."""
        return np.frombuffer(data, dtype=np.dtype(self.properties), count=self.count, offset=self.offset)


@dataclass(frozen=True)
class PlyHeader:
    """What the text before the numbers says."""

    elements: list[PlyElement]
    """The tables without lists, in the order of the file."""
    note: FileNote
    """Origin, unit and axes from our comments."""
    comments: list[str]
    """What else its comments say."""


def our_comments(note: FileNote) -> list[str]:
    """Header lines that tell people and `read_header` where a file comes from, its unit and its axes."""
    assert note.provenance is not None
    text = provenance_to_json(note.provenance)
    pieces = (text[i : i + _COMMENT_CHARACTERS] for i in range(0, len(text), _COMMENT_CHARACTERS))
    return [
        f"comment {one_line(note.provenance.statement)[:_COMMENT_CHARACTERS]}",
        f"comment dp360.metres_per_unit {note.metres_per_unit!r}",
        f"comment dp360.up_axis {note.up_axis}",
        *(f"comment dp360.provenance {piece}" for piece in pieces),
    ]


def ply_bytes(comments: list[str], tables: Sequence[tuple[str, Sequence[str], np.ndarray]]) -> bytes:
    """A complete binary file.

    Args:
        comments: lines of the header.
        tables: for each element its name, the names of its properties, and the numbers, a row each, of one type.
    """
    header = ["ply", "format binary_little_endian 1.0", *comments]
    for name, properties, rows in tables:
        kind = _PLY_TYPES[rows.dtype.str]
        header += [f"element {name} {len(rows)}", *(f"property {kind} {p}" for p in properties)]
    return ("\n".join([*header, "end_header"]) + "\n").encode("ascii") + b"".join(
        rows.tobytes() for _, _, rows in tables
    )


def read_header(data: bytes) -> PlyHeader:
    """Parse and check the header; nothing is allocated from its numbers before they fit the size of the file.

    Blank lines, spaces round words, a byte order mark and white space behind the numbers do no harm.

    Raises:
        InputError: not a binary little-endian .ply, or its header is damaged or promises more than follows.
    """
    first = _FIRST_LINE.match(data)
    if first is None:
        raise InputError(f"expected a first line 'ply', got {data[:16]!r}")
    end = _LAST_LINE.search(data, first.end() - 1, HEADER_BYTES_MAX)
    if end is None:
        raise InputError("it has no line 'end_header'; the file is cut off or damaged")
    lines = [line.strip() for line in data[first.end() : end.start()].decode("utf-8", errors="replace").split("\n")]
    if "format binary_little_endian 1.0" not in {" ".join(line.split()) for line in lines}:
        raise InputError("expected 'format binary_little_endian 1.0'; convert text or big endian files first")
    tables: list[PlyElement] = []
    metres_per_unit, provenance, comments = 1.0, "", []
    up_axis: UpAxis = "+y"
    for line in lines:
        match line.split():
            case ["element", name, number] if (
                number.isdecimal() and len(number) <= 18 and name not in {t.name for t in tables}
            ):
                tables.append(PlyElement(name, int(number), [], 0, {}))
            case ["element", *rest]:
                name = rest[0][:40] if rest else "NAME"
                raise InputError(f"expected one 'element {name} COUNT', got {line[:60]!r}")
            case ["property", "list", length, kind, name] if (
                tables and tables[-1].name not in ("vertex", "chunk", "sh") and length in _LENGTH_TYPES
            ):
                _add_property(tables[-1], name, kind, line)
                tables[-1].lists[name] = _NUMPY_TYPES[length]
            case ["property", kind, name] if tables:
                _add_property(tables[-1], name, kind, line)
            case ["property", *_]:
                raise InputError(f"expected one number per property, got {line[:80]!r}")
            case ["comment", "dp360.metres_per_unit", number]:
                metres_per_unit = positive_factor(number)
            case ["comment", "dp360.up_axis", "-y"]:
                up_axis = "-y"
            case ["comment", "dp360.provenance", *_]:
                provenance += line.removeprefix("comment dp360.provenance ")
            case ["comment", *words]:
                comments.append(" ".join(words))
    position, elements = end.end(), []
    for table in tables:
        if table.lists and table is tables[-1]:
            break  # nothing that is read lies behind it
        if not table.lists:
            elements.append(replace(table, offset=position))
        position = _end_of(table, position, data)
    else:
        left = data[position : position + len(_HARMLESS_END) * 64].strip(_HARMLESS_END)
        if left and len(tables) == 1:
            raise InputError(_unlike_its_promise(tables[0], position - elements[0].offset, elements[0].offset, data))
    origin = provenance_from_json(provenance) if provenance else None
    return PlyHeader(elements, FileNote(origin, metres_per_unit, up_axis), comments)


def _add_property(table: PlyElement, name: str, kind: str, line: str) -> None:
    """Append a property to a table of the header."""
    if kind not in _NUMPY_TYPES or name in table.names:
        raise InputError(f"expected one number per property, got {line[:80]!r}")
    table.properties.append((name, _NUMPY_TYPES[kind]))


def _end_of(table: PlyElement, start: int, data: bytes) -> int:
    """First byte behind a table; one with lists is walked through row by row.

    Raises:
        InputError: it ends behind the file.
    """
    if not table.lists:
        size = table.count * (np.dtype(table.properties).itemsize if table.properties else 0)
        if len(data) - start < size:
            raise InputError(_unlike_its_promise(table, size, start, data))
        return start + size
    position = start
    for _ in range(table.count):
        for name, kind in table.properties:
            length = table.lists.get(name)
            number = 1
            if length is not None:
                width = np.dtype(length).itemsize
                number = int.from_bytes(data[position : position + width], "little")
                position += width
            position += number * np.dtype(kind).itemsize
        if position > len(data):
            raise InputError(f"its rows of {table.name} end behind the file; the file is cut off or damaged")
    return position


def _unlike_its_promise(table: PlyElement, size: int, start: int, data: bytes) -> str:
    """The sentence for a table of another size than the header says."""
    kind = "vertices" if table.name == "vertex" else f"rows of {table.name}"
    return (
        f"its header promises {table.count} {kind} ({size} bytes), but {len(data) - start} bytes follow; the file is "
        "cut off or damaged"
    )

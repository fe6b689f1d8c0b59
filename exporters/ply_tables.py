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
    """The tables in front of the first one with lists, in the order of the file."""
    note: FileNote
    """Origin, unit and axes from our comments."""


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

    Raises:
        InputError: not a binary little-endian .ply, or its header is damaged or promises more than follows.
    """
    if data[:4] not in (b"ply\n", b"ply\r"):
        raise InputError(f"expected a first line 'ply', got {data[:16]!r}")
    end = re.compile(rb"\nend_header\r?\n").search(data, 0, HEADER_BYTES_MAX)
    if end is None:
        raise InputError("it has no line 'end_header'; the file is cut off or damaged")
    lines = data[: end.start()].decode("ascii", errors="replace").splitlines()[1:]
    if "format binary_little_endian 1.0" not in lines:
        raise InputError("expected 'format binary_little_endian 1.0'; convert text or big endian files first")
    tables: list[PlyElement] = []
    first_with_lists: int | None = None
    metres_per_unit, provenance = 1.0, ""
    up_axis: UpAxis = "+y"
    position = end.end()
    for line in lines:
        match line.split():
            case ["element", name, number] if (
                number.isdigit() and len(number) <= 18 and name not in {t.name for t in tables}
            ):
                tables.append(PlyElement(name, int(number), [], 0))
            case ["element", *rest]:
                name = rest[0][:40] if rest else "NAME"
                raise InputError(f"expected one 'element {name} COUNT', got {line[:60]!r}")
            case ["property", "list", *_] if len(tables) > 1:
                first_with_lists = len(tables) - 1 if first_with_lists is None else first_with_lists
            case ["property", kind, name] if tables:
                properties = tables[-1].properties
                if kind not in _NUMPY_TYPES or name in dict(properties):
                    raise InputError(f"expected one number per property, got {line[:80]!r}")
                properties.append((name, _NUMPY_TYPES[kind]))
            case ["property", *_]:
                raise InputError(f"expected one number per property, got {line[:80]!r}")
            case ["comment", "dp360.metres_per_unit", number]:
                metres_per_unit = positive_factor(number)
            case ["comment", "dp360.up_axis", "-y"]:
                up_axis = "-y"
            case ["comment", "dp360.provenance", *_]:
                provenance += line.removeprefix("comment dp360.provenance ")
    elements = []
    for table in tables[:first_with_lists]:  # where tables behind lists begin is not known
        expected = table.count * (np.dtype(table.properties).itemsize if table.properties else 0)
        got = len(data) - position
        if got < expected or (got > expected and len(tables) == 1):
            kind = "vertices" if table.name == "vertex" else f"rows of {table.name}"
            raise InputError(
                f"its header promises {table.count} {kind} ({expected} bytes), but {got} bytes follow; the file is cut "
                "off or damaged"
            )
        elements.append(replace(table, offset=position))
        position += expected
    origin = provenance_from_json(provenance) if provenance else None
    return PlyHeader(elements, FileNote(origin, metres_per_unit, up_axis))

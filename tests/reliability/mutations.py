"""Damage to files, drawn from a seed: by bytes as disks and networks do it, and by meaning as programs with faults do
it.

Damage by meaning looks inside: a packed part is unpacked, changed and packed again, so that checksums and lengths
around it hold and the reader behind them is reached.

Source of the kinds: the mutators of AFL ("bit flips, arithmetics, interesting values, block operations, splicing",
https://lcamtuf.coredump.cx/afl/technical_details.txt), with values of text and of JSON beside those of bytes.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Parts = dict[str, bytes]
"""What is inside a file, by name."""

_WHOLE_NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    127,
    128,
    255,
    256,
    32767,
    65535,
    65536,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, 1e30, 3.4e38, -3.4e38, float("inf"), float("-inf"), float("nan"))
_NUMBERS_AS_TEXT = (
    *(
        b"0",
        b"1",
        b"-1",
        b"4294967296",
        b"99999999999999999999",
        b"1e5",
        b"1e400",
        b"-1e400",
        b"1e-400",
        b"nan",
        b"NaN",
    ),
    *(b"Infinity", b"", b" ", b"0x10", b"1.5", b"01", b"+1", "१".encode(), b"--1", b"1_000"),
)
_WORDS = re.compile(rb"[A-Za-z_][A-Za-z0-9_:]{1,30}")
_DIGITS = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")
_JSON_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        0.5,
        1e308,
        -1e308,
        2**31,
        2**53,
        2**70,
        "",
        "a",
        "../../../etc/passwd",
        "x" * 5000,
    ),
    *([], {}, [None], [[]], {"a": {}}, [0] * 20, ["a", 1], "\ud7ff\x00"),
)
_TEXT_BYTES = 4096
"""Headers and JSON lie here, in the formats that have them at the front."""


@dataclass(frozen=True)
class Structure:
    """How to look into a kind of file."""

    unpack: Callable[[bytes], Parts]
    pack: Callable[[Parts], bytes]


def _unzipped(data: bytes) -> Parts:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zipped(parts: Parts) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _glb_parts(data: bytes) -> Parts:
    length = struct.unpack("<I", data[12:16])[0]
    return {"head.json": data[20 : 20 + length], "body": data[20 + length :]}


def _glb(parts: Parts) -> bytes:
    text, body = parts["head.json"], parts["body"]
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(body), len(text), b"JSON") + text + body


def _safetensors_parts(data: bytes) -> Parts:
    length = struct.unpack("<Q", data[:8])[0]
    return {"head.json": data[8 : 8 + length], "body": data[8 + length :]}


def _safetensors(parts: Parts) -> bytes:
    return struct.pack("<Q", len(parts["head.json"])) + parts["head.json"] + parts["body"]


ZIP = Structure(_unzipped, _zipped)
GLB = Structure(_glb_parts, _glb)
SAFETENSORS = Structure(_safetensors_parts, _safetensors)
GZIP = Structure(
    lambda data: {"payload": gzip.decompress(data)}, lambda parts: gzip.compress(parts["payload"], 1, mtime=0)
)
JSON = Structure(lambda data: {"whole.json": data}, lambda parts: parts["whole.json"])


def mutated(
    data: bytes, rng: np.random.Generator, *, structure: Structure | None = None, others: Sequence[bytes] = ()
) -> bytes:
    """The file with one to three kinds of damage.

    Args:
        data: a file that can be read.
        rng: source of all choices.
        structure: how to look inside, for damage by meaning.
        others: files of the same or other kinds, to splice with.
    """
    if structure is not None and rng.random() < 0.6:
        parts = structure.unpack(data)
        name = list(parts)[rng.integers(len(parts))]
        if rng.random() < 0.1:
            rest = {other: content for other, content in parts.items() if other != name}
            return structure.pack(rest if structure is ZIP else {**parts, name: b""})
        change = _json_changed if name.endswith(".json") and rng.random() < 0.8 else _damaged
        return structure.pack({**parts, name: change(parts[name], rng, others)})
    return _damaged(data, rng, others)


def _damaged(data: bytes, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    for _ in range(rng.integers(1, 4)):
        kinds = (
            _cut,
            _bits,
            _bytes_set,
            _number_set,
            _number_set,
            _float_set,
            _text_number,
            _text_number,
            _word,
            _block,
        )
        if others and rng.random() < 0.08:
            data = _spliced(data, others[rng.integers(len(others))], rng)
        else:
            data = kinds[rng.integers(len(kinds))](data, rng)
    return data


def _place(size: int, rng: np.random.Generator) -> int:
    """A place in a file: half of them near the front, where headers are."""
    return int(rng.integers(max(1, min(size, 256) if rng.random() < 0.5 else size)))


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: _place(len(data), rng)] if rng.random() < 0.8 else data + rng.bytes(int(rng.integers(1, 64)))


def _bits(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        if changed:
            changed[_place(len(changed), rng)] ^= 1 << rng.integers(8)
    return bytes(changed)


def _bytes_set(data: bytes, rng: np.random.Generator) -> bytes:
    at, length = _place(len(data), rng), int(rng.integers(1, 33))
    filling = (b"\0", b"\xff", b" ", b"\n")[rng.integers(4)] * length if rng.random() < 0.5 else rng.bytes(length)
    return data[:at] + filling + data[at + length :]


def _number_set(data: bytes, rng: np.random.Generator) -> bytes:
    form, size = (("<B", 1), ("<H", 2), ("<I", 4), ("<Q", 8), (">I", 4))[rng.integers(5)]
    at = _place(len(data), rng) // size * size
    value = _WHOLE_NUMBERS[rng.integers(len(_WHOLE_NUMBERS))]
    if rng.random() < 0.4 and at + size <= len(data):  # a count that is off by one, or doubled
        value = (struct.unpack_from(form, data, at)[0] + int(rng.integers(-2, 3))) * int(rng.integers(1, 3))
    return data[:at] + struct.pack(form, value % 256**size) + data[at + size :]


def _float_set(data: bytes, rng: np.random.Generator) -> bytes:
    at = _place(len(data), rng) // 4 * 4
    return data[:at] + struct.pack("<f", _FLOATS[rng.integers(len(_FLOATS))]) + data[at + 4 :]


def _text_number(data: bytes, rng: np.random.Generator) -> bytes:
    found = list(_DIGITS.finditer(data[:_TEXT_BYTES]))
    if not found:
        return _number_set(data, rng)
    match = found[rng.integers(len(found))]
    return data[: match.start()] + _NUMBERS_AS_TEXT[rng.integers(len(_NUMBERS_AS_TEXT))] + data[match.end() :]


def _word(data: bytes, rng: np.random.Generator) -> bytes:
    """A word of the header takes another one's place, is written twice, or goes; so do lines."""
    found = list(_WORDS.finditer(data[:_TEXT_BYTES]))
    if len(found) < 2:
        return _bits(data, rng)
    here, there = (found[rng.integers(len(found))] for _ in range(2))
    new = (there.group(), here.group() * 2, b"", here.group() + b"\n" + there.group())[rng.integers(4)]
    return data[: here.start()] + new + data[here.end() :]


def _block(data: bytes, rng: np.random.Generator) -> bytes:
    """A block goes, is written twice, or moves."""
    start, end = sorted(_place(len(data), rng) for _ in range(2))
    block, rest = data[start:end], data[:start] + data[end:]
    at = _place(len(rest), rng)
    return (rest, data[:end] + data[start:], rest[:at] + block + rest[at:])[rng.integers(3)]


def _spliced(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return data[: _place(len(data), rng)] + other[_place(len(other), rng) :]


def _json_changed(data: bytes, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """JSON with one to three values that are wrong, missing, or at another's place."""
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except ValueError:
        return _damaged(data, rng, others)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(document))
        if not places:
            break
        holder, key = places[rng.integers(len(places))]
        choice = rng.integers(5)
        if choice == 0:
            del holder[key]
        elif choice == 1:
            other_holder, other_key = places[rng.integers(len(places))]
            holder[key] = copy.deepcopy(other_holder[other_key])
        elif choice == 2 and isinstance(holder, list):
            holder.extend(copy.deepcopy(holder[: rng.integers(1, 50)]))
        elif choice == 3 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
            value = holder[key]
            holder[key] = (value + 1, value - 1, -value, value * 1000, value / 3, str(value), [value])[rng.integers(7)]
        else:
            holder[key] = copy.deepcopy(_JSON_VALUES[rng.integers(len(_JSON_VALUES))])
    text = json.dumps(document)
    if rng.random() < 0.03:
        text = "[" * 20_000 + text  # deeper than a reader may follow
    return text.encode("utf-8", "surrogatepass")


def _places(document: Any) -> Any:
    """Every value of a document, as what holds it and its key there."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in list(items):
        yield document, key
        yield from _places(value)

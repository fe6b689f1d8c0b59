"""Binary glTF 2.0 (.glb): the container, and what grows or reads its one buffer.

Source: glTF 2.0 specification, https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html (sections 3.6 and 4.4).
"""

from __future__ import annotations

import json
import struct

import numpy as np
from jaxtyping import Float

from dp360.generation import InputError

_ARRAY_BUFFER, _FLOAT32 = 34962, 5126

_COMPONENT_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_TYPES = {count: name for name, count in _COMPONENTS.items()}
_DOCUMENT_BYTES_MAX = 8 << 20
_WHAT = "this .glb"


class GltfBuffer:
    """Grows the binary buffer together with the views and accessors that describe it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, object]] = []

    def vertex_attribute(self, values: Float[np.ndarray, "v c"], *, bounds: bool = False) -> int:
        """Append float32 numbers or vectors; the index of their accessor. `bounds` are required of positions."""
        values = np.ascontiguousarray(values, dtype="<f4")
        self.views.append(
            {"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes, "target": _ARRAY_BUFFER}
        )
        self.data.extend(values.tobytes())
        accessor: dict[str, object] = {
            "bufferView": len(self.views) - 1,
            "componentType": _FLOAT32,
            "count": len(values),
            "type": _TYPES[values.shape[1]],
        }
        if bounds:
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def described(self) -> dict[str, object]:
        """The parts of the JSON document that describe the buffer."""
        return {
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.data)}],
        }


def glb(document: dict[str, object], buffer: bytes) -> bytes:
    """Header, JSON chunk padded with spaces, BIN chunk padded with zeros."""
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 4)
    buffer += b"\0" * (-len(buffer) % 4)
    length = 12 + 8 + len(text) + 8 + len(buffer)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, length),
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            struct.pack("<I4s", len(buffer), b"BIN\0"),
            buffer,
        ]
    )


def read_glb(data: bytes) -> tuple[dict, memoryview]:
    """The JSON document and the buffer of a .glb.

    Raises:
        InputError: not a .glb of version 2, or it is cut off or damaged.
    """
    if len(data) < 20 or data[:4] != b"glTF":
        raise InputError(f"Cannot read: expected a .glb (first bytes 'glTF'), got {data[:16]!r}")
    version, length, text_length, kind = struct.unpack_from("<III4s", data, 4)
    if version != 2 or kind != b"JSON":
        raise InputError(f"Cannot read {_WHAT}: expected version 2 with a JSON chunk first, got {version} and {kind!r}")
    if length > len(data) or 20 + text_length > length or text_length > _DOCUMENT_BYTES_MAX:
        raise InputError(
            f"Cannot read {_WHAT}: its header promises {length} bytes, {text_length} of them JSON, but there are "
            f"{len(data)}; the file is cut off or damaged"
        )
    try:
        document = json.loads(data[20 : 20 + text_length])
    except (ValueError, RecursionError) as error:
        raise InputError(f"Cannot read {_WHAT}: its first chunk is no JSON; the file is damaged") from error
    if not isinstance(document, dict):
        raise InputError(f"Cannot read {_WHAT}: expected a JSON object, got {type(document).__name__}")
    start = 20 + text_length
    buffer = memoryview(b"")
    if length >= start + 8:
        buffer_length, kind = struct.unpack_from("<I4s", data, start)
        if kind != b"BIN\0" or start + 8 + buffer_length > length:
            raise InputError(f"Cannot read {_WHAT}: its second chunk is cut off or no buffer; the file is damaged")
        buffer = memoryview(data)[start + 8 : start + 8 + buffer_length]
    return document, buffer


def item(document: object, *path: str | int) -> object:
    """What stands at a path of keys and indices in a document.

    Raises:
        InputError: nothing stands there.
    """
    for key in path:
        if isinstance(key, int) and isinstance(document, list) and 0 <= key < len(document):
            document = document[key]
        elif isinstance(key, str) and isinstance(document, dict) and key in document:
            document = document[key]
        else:
            raise InputError(f"Cannot read {_WHAT}: its JSON lacks {'/'.join(map(str, path))}; the file is damaged")
    return document


def read_accessor(document: dict, buffer: memoryview, index: object, components: int) -> Float[np.ndarray, "v c"]:
    """The numbers of an accessor as float32, whole numbers marked as normalised in [-1, 1] or [0, 1].

    Args:
        document: the JSON document.
        buffer: the buffer.
        index: which accessor.
        components: how many numbers each vertex must have.

    Raises:
        InputError: no such accessor, another type, sparse, in another file, or beyond the end of the buffer.
    """
    accessor = item(document, "accessors", _whole(index))
    count = _whole(item(accessor, "count"))
    kind, type_name = item(accessor, "componentType"), item(accessor, "type")
    dtype = np.dtype(_COMPONENT_TYPES[kind]) if isinstance(kind, int) and kind in _COMPONENT_TYPES else None
    if dtype is None or not isinstance(type_name, str) or _COMPONENTS.get(type_name) != components:
        raise InputError(
            f"Cannot read {_WHAT}: expected an accessor of {components} numbers per vertex, got {str(type_name)[:20]} "
            f"of type {str(kind)[:20]}"
        )
    if not isinstance(accessor, dict) or "sparse" in accessor or "bufferView" not in accessor:
        raise InputError(f"Cannot read {_WHAT}: sparse accessors are not supported; export it without them")
    view = item(document, "bufferViews", _whole(item(accessor, "bufferView")))
    if not isinstance(view, dict) or view.get("buffer") != 0 or "extensions" in view:
        raise InputError(f"Cannot read {_WHAT}: compressed or outside buffers are not supported; export it whole")
    packed = dtype.itemsize * components
    stride = _whole(view.get("byteStride", packed))
    inside, length = _whole(accessor.get("byteOffset", 0)), _whole(item(view, "byteLength"))
    start = _whole(view.get("byteOffset", 0))
    needed = inside + stride * (count - 1) + packed if count else inside
    if stride < packed or needed > length or start + length > len(buffer):
        raise InputError(
            f"Cannot read {_WHAT}: an accessor promises {count} vertices ({needed} bytes), but there are "
            f"{min(length, max(0, len(buffer) - start))}; the file is cut off or damaged"
        )
    if not count:
        return np.zeros((0, components), dtype=np.float32)
    values = np.ndarray((count, components), dtype, buffer, start + inside, (stride, dtype.itemsize))
    result = values.astype(np.float32)
    if accessor.get("normalized") is True and dtype.kind in "iu":
        result = np.maximum(result / np.iinfo(dtype).max, -1.0)
    return result


def _whole(value: object) -> int:
    """A count, offset or index of a document."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        raise InputError(f"Cannot read {_WHAT}: expected a whole number, got {str(value)[:40]!r}; the file is damaged")
    return value

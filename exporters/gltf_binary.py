"""Binary glTF 2.0 (.glb): the container, and what fills or reads its one buffer.

Source: glTF 2.0 specification, https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html (sections 3.6 and 4.4).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from dp360.generation import InputError

from .json_document import item, json_object, whole

_ARRAY_BUFFER, _FLOAT32 = 34962, 5126

_COMPONENT_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_TYPES = {count: name for name, count in _COMPONENTS.items()}
_DOCUMENT_BYTES_MAX = 8 << 20


def vertex_attributes(values: Mapping[str, Float[np.ndarray, "v c"]]) -> tuple[dict[str, object], bytes]:
    """The parts of the JSON document that describe float32 attributes, accessors in their order, and their buffer.

    `POSITION` gets the bounds that the format requires of positions.
    """
    views, accessors, buffer = [], [], bytearray()
    for name, numbers in values.items():
        data = np.ascontiguousarray(numbers, dtype="<f4")
        accessor: dict[str, object] = {
            "bufferView": len(views),
            "componentType": _FLOAT32,
            "count": len(data),
            "type": _TYPES[data.shape[1]],
        }
        if name == "POSITION":
            accessor |= {"min": data.min(axis=0).tolist(), "max": data.max(axis=0).tolist()}
        accessors.append(accessor)
        views.append({"buffer": 0, "byteOffset": len(buffer), "byteLength": data.nbytes, "target": _ARRAY_BUFFER})
        buffer += data.tobytes()
    return {"accessors": accessors, "bufferViews": views, "buffers": [{"byteLength": len(buffer)}]}, bytes(buffer)


def glb(document: dict[str, object], buffer: bytes) -> bytes:
    """Header, JSON chunk padded with spaces, BIN chunk padded with zeros."""
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 4)
    buffer += b"\0" * (-len(buffer) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(buffer), b"BIN\0") + buffer
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def read_glb(data: bytes) -> tuple[dict, memoryview]:
    """The JSON document and the buffer of a .glb.

    Raises:
        InputError: not a .glb of version 2, or it is cut off or damaged.
    """
    if len(data) < 20 or data[:4] != b"glTF":
        raise InputError(f"expected a .glb (first bytes 'glTF'), got {data[:16]!r}")
    version, length, text_length, kind = struct.unpack_from("<III4s", data, 4)
    if version != 2 or kind != b"JSON":
        raise InputError(f"expected version 2 with a JSON chunk first, got {version} and {kind!r}")
    start = 20 + text_length
    if length > len(data) or start > length or text_length > _DOCUMENT_BYTES_MAX:
        raise InputError(
            f"its header promises {length} bytes, {text_length} of them JSON, but there are {len(data)}; the file is "
            "cut off or damaged"
        )
    document = json_object(data[20:start], "first chunk")
    if length < start + 8:
        return document, memoryview(b"")
    buffer_length, kind = struct.unpack_from("<I4s", data, start)
    if kind != b"BIN\0" or start + 8 + buffer_length > length:
        raise InputError("its second chunk is cut off or no buffer; the file is damaged")
    return document, memoryview(data)[start + 8 : start + 8 + buffer_length]


def read_accessor(document: dict, buffer: memoryview, index: object, components: int) -> Float[np.ndarray, "v c"]:
    """The numbers of an accessor as float32, whole numbers marked as normalised in [-1, 1] or [0, 1].

    Args:
        components: how many numbers each vertex must have.

    Raises:
        InputError: no such accessor, another type, sparse, in another file, or beyond the end of the buffer.
    """
    accessor = item(document, "accessors", whole(index))
    count = whole(item(accessor, "count"))
    kind, type_name = item(accessor, "componentType"), item(accessor, "type")
    dtype = np.dtype(_COMPONENT_TYPES[kind]) if isinstance(kind, int) and kind in _COMPONENT_TYPES else None
    if dtype is None or not isinstance(type_name, str) or _COMPONENTS.get(type_name) != components:
        raise InputError(
            f"expected an accessor of {components} numbers per vertex, got {str(type_name)[:20]} of type "
            f"{str(kind)[:20]}"
        )
    if not isinstance(accessor, dict) or "sparse" in accessor or "bufferView" not in accessor:
        raise InputError("sparse accessors are not supported; export it without them")
    view = item(document, "bufferViews", whole(item(accessor, "bufferView")))
    if not isinstance(view, dict) or view.get("buffer") != 0 or "extensions" in view:
        raise InputError("compressed or outside buffers are not supported; export it whole")
    packed = dtype.itemsize * components
    stride = whole(view.get("byteStride", packed))
    inside, start = whole(accessor.get("byteOffset", 0)), whole(view.get("byteOffset", 0))
    length = whole(item(view, "byteLength"))
    needed = inside + stride * (count - 1) + packed if count else inside
    if stride < packed or needed > length or start + length > len(buffer):
        raise InputError(
            f"an accessor promises {count} vertices ({needed} bytes), but there are "
            f"{min(length, max(0, len(buffer) - start))}; the file is cut off or damaged"
        )
    if not count:
        return np.zeros((0, components), dtype=np.float32)
    values = np.ndarray((count, components), dtype, buffer, start + inside, (stride, dtype.itemsize))
    result = values.astype(np.float32)
    if accessor.get("normalized") is True and dtype.kind in "iu":
        result = np.maximum(result / np.iinfo(dtype).max, -1.0)
    return result

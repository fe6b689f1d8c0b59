"""JSON of files that may be damaged: objects, what stands at a path in them, and counts."""

from __future__ import annotations

import json

from dp360.generation import InputError


def json_object(text: str | bytes, part: str) -> dict:
    """The object that a text holds.

    Args:
        part: which part of the file it is, for messages.

    Raises:
        InputError: no JSON, or no object.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"its {part} is no JSON; the file is damaged") from error
    if not isinstance(document, dict):
        raise InputError(f"expected a JSON object as its {part}, got {type(document).__name__}")
    return document


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
            raise InputError(f"its JSON lacks {'/'.join(map(str, path))}; the file is damaged")
    return document


def whole(value: object) -> int:
    """A count, offset or index of a document.

    Raises:
        InputError: another kind of value, or one that no file needs.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
        raise InputError(f"expected a whole number, got {str(value)[:40]!r}; the file is damaged")
    return value

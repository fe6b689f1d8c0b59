"""`Provenance` as text: the form in which it travels inside .ply comments, glTF extras and PNG chunks."""

from __future__ import annotations

import json
from dataclasses import asdict

from dp360.generation import InputError, Provenance
from dp360.generation.errors import quoted


def provenance_to_json(provenance: Provenance) -> str:
    """One line of ASCII JSON with sorted keys: the same provenance gives the same bytes."""
    return json.dumps(asdict(provenance), sort_keys=True)


def provenance_from_json(text: str) -> Provenance:
    """Inverse of `provenance_to_json`; fields that a later version added are left out.

    Raises:
        InputError: not a JSON object, or a field is missing or of another type.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected its provenance as JSON, got {quoted(text)}") from error
    return Provenance.from_data(data)


def one_line(text: str) -> str:
    """ASCII without line breaks, for comments in files."""
    return " ".join(text.split()).encode("ascii", "replace").decode("ascii")

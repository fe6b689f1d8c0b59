"""`Provenance` as text: the form in which it travels inside .ply comments, glTF extras and PNG chunks."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

from dp360.generation import InputError, Provenance


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
    except ValueError as error:
        raise InputError(f"expected its provenance as JSON, got {text[:40]!r}") from error
    known = {f.name: {"int": int, "str": str}.get(str(f.type), dict) for f in fields(Provenance)}
    for name, kind in known.items():
        if not isinstance(data, dict) or not isinstance(data.get(name), kind):
            raise InputError(f"expected its provenance as a JSON object with {name} ({kind.__name__})")
    return Provenance(**{name: data[name] for name in known})


def one_line(text: str) -> str:
    """ASCII without line breaks, for comments in files."""
    return " ".join(text.split()).encode("ascii", "replace").decode("ascii")

"""Pages that are one .html file: a template with its parts put in, and the provenance in its head."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

from dp360.generation import Provenance

from .provenance import provenance_to_json

PROVENANCE_NAME = "dp360.provenance"
"""Name of the meta tag."""


def filled_page(template: str, provenance: Provenance, title: str, parts: Mapping[str, str]) -> bytes:
    """The page, UTF-8.

    Args:
        template: HTML with `@NAME@` where a part goes.
        provenance: origin, for the meta tags.
        title: of the page; any text.
        parts: what goes in beside origin and title, by name, as it stands in the page.
    """
    every = {
        "GENERATOR": html.escape(f"dp360 {provenance.version}"),
        "STATEMENT": html.escape(provenance.statement),
        "PROVENANCE_NAME": PROVENANCE_NAME,
        "PROVENANCE": html.escape(provenance_to_json(provenance)),
        "TITLE": html.escape(title),
        **parts,
    }
    # One pass: what is put in is not searched again, whatever it says.
    page = re.sub("@([A-Z_]+)@", lambda found: every[found[1]], template)
    return page.encode("utf-8", errors="backslashreplace")

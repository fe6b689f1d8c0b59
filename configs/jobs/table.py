"""`table.html` of a batch: every portrait with pictures, figures and links, in one page that works offline."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from dp360.exporters.head_files import MESH_NAME, SHEET_NAME, SPLATS_NAME

from .results import PortraitResult

TABLE_NAME, TABLE_FOLDER = "table.html", "table"
"""The page, and the folder of its pictures."""
_LINKS = (SHEET_NAME, SPLATS_NAME, MESH_NAME)
_WORDS = {"done": "done", "refused": "refused", "crashed": "error", "set aside": "set aside"}


def table_page(results: Sequence[PortraitResult], folder: Path) -> bytes:
    """The page. Links are relative, so that the folder may be moved or served as it is.

    Args:
        results: one for each portrait, in the order of the page.
        folder: where the page and the heads' folders lie.
    """
    counts = Counter(result.status for result in results)
    said = ", ".join(f"{counts[status]} {words}" for status, words in _WORDS.items() if counts[status])
    parts = {
        "SUMMARY": html.escape(f"{len(results)} portraits: {said}" if results else "No portrait has ended yet"),
        "OPTIONS": "".join(
            f'<option value="{html.escape(status)}">{words} ({counts[status]})</option>'
            for status, words in _WORDS.items()
            if counts[status]
        ),
        "ROWS": "\n".join(_row(result, folder) for result in results),
    }
    page = resources.files("dp360.configs.jobs").joinpath("table_page.html").read_text("utf-8")
    return re.sub("@([A-Z_]+)@", lambda found: parts[found[1]], page).encode("utf-8", errors="backslashreplace")


def _row(result: PortraitResult, folder: Path) -> str:
    """One portrait. Cells that are sorted by a number carry it."""
    name = html.escape(result.name)
    place = quote(result.name)
    is_done, links = result.status == "done", list[str]()
    if is_done:
        links = [file for file in (*_LINKS, *result.exported) if (folder / result.name / file).is_file()]
    picture = f"{TABLE_FOLDER}/{place}.jpg"
    if (folder / TABLE_FOLDER / f"{result.name}.jpg").is_file() and is_done:
        shown = f'<img src="{picture}" alt="Portrait and head of {name}" width="432" height="144" loading="lazy">'
        if SHEET_NAME in links:
            shown = f'<a href="{place}/{SHEET_NAME}">{shown}</a>'
    else:
        shown = ""
    said = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in result.warnings)
    if result.error:
        lines = result.error.strip().splitlines()
        said += f'<p class="error">{html.escape(lines[-1])}</p>'
        if len(lines) > 1:
            said += f"<details><summary>Details</summary><pre>{html.escape(result.error)}</pre></details>"
    files = " ".join(f'<a href="{place}/{quote(file)}">{html.escape(file)}</a>' for file in dict.fromkeys(links))
    seconds = "" if result.seconds is None else f"{result.seconds:.0f} s"
    memory = f"{result.peak_memory_bytes / 1e9:.1f} GB" if result.peak_memory_bytes else ""
    words = _WORDS[result.status]
    return (
        f'<tr data-status="{html.escape(result.status)}"><td class="heads">{shown}</td>'
        f'<th scope="row">{name}<span class="path">{html.escape(result.portrait)}</span></th>'
        f'<td><span class="status {words.replace(" ", "-")}">{words}</span></td>'
        f'<td class="number" data-value="{result.seconds or 0}">{seconds}</td>'
        f'<td class="number" data-value="{result.peak_memory_bytes or 0}">{memory}</td>'
        f'<td class="said">{said}</td><td class="files">{files}</td></tr>'
    )

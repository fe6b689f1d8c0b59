"""Which portraits a batch makes heads of: patterns of names, and a table with options for each; checked as a whole."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from dp360.generation import InputError
from dp360.generation.diffusion.view_pictures import PICTURE_ENDINGS
from dp360.generation.file_names import as_file_name, is_file_name
from dp360.generation.light.named_lights import wanted_light

from ..options import GeneratorName, HeadOptions, Quality
from ..view_generators import settled
from .job import Job

_MOST_SENTENCES = 5
"""Faults of a table that are named before the rest is only counted."""
_RESERVED = frozenset({"results.jsonl", "table.html", "table"})
"""Names that the batch's own files have."""
_HEIC = (".heic", ".heif")


@dataclass(frozen=True)
class BatchItem:
    """One head of a batch."""

    name: str
    """Name of its folder."""
    options: HeadOptions
    """The portrait and how it is treated."""

    def key(self, input_sha256: str) -> str:
        """SHA-256 of what is asked for: the picture's bytes and the options."""
        asked = {**asdict(self.options), "image": None, "verbose": None}
        return hashlib.sha256(f"{input_sha256} {json.dumps(asked, sort_keys=True, default=str)}".encode()).hexdigest()


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"expected a whole number, got {text}") from None


def _one_of(choices: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise InputError(f"expected one of {', '.join(choices)}, got {text}")
        return text

    return read


def _light(text: str) -> str:
    wanted_light(text)
    return text


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("yes", "no", "true", "false", "1", "0"):
        raise InputError(f"expected yes or no, got {text}")
    return text.lower() in ("yes", "true", "1")


_COLUMNS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "seed": ("seed", _whole_number),
    "face": ("face_index", _whole_number),
    "crop": ("crop", _one_of(("auto", "standard", "wide"))),
    "quality": ("quality", _one_of(get_args(Quality))),
    "generator": ("generator", _one_of(get_args(GeneratorName))),
    "light": ("light", _light),
    "matte": ("matte", str),
    "no_face": ("no_face", _yes_or_no),
    "no_glasses": ("no_glasses", _yes_or_no),
}
"""Column of a table, the option that it sets, and how its text is read; an empty cell leaves the command's option."""


def plan_batch(patterns: Sequence[str], manifest: Path | None, options: HeadOptions) -> list[BatchItem]:
    """All heads of a batch, by name, with a generator's name in place of `auto`.

    Args:
        patterns: pictures, folders of pictures, or patterns such as `in/*.jpg`.
        manifest: a .csv file with the column `portrait` (its path, from the file's own folder) and any of `name` and
            `_COLUMNS`. A portrait that a pattern names as well takes the options of its rows.
        options: of all portraits.

    Raises:
        InputError: nothing is found, or something in the table or the options is wrong; the table is read to its end
            and all its faults are named.
    """
    Job(options, Path()).check()
    rows = [] if manifest is None else _rows(manifest, options)
    in_table = {row.options.portrait.absolute() for row in rows}
    pictures = [path for path in _pictures(patterns) if path.absolute() not in in_table]
    pictures += [path.expanduser() for path in options.image if path.expanduser().absolute() not in in_table]
    alone = [BatchItem("", replace(options, image=(path,))) for path in dict.fromkeys(pictures)]
    items = _named([*rows, *alone])
    if not items:
        raise InputError(
            "Cannot start: name the portraits, for example dp360 batch 'in/*.jpg' --output heads, or a table of them "
            "with --manifest list.csv"
        )
    return sorted((replace(item, options=settled(item.options)) for item in items), key=lambda item: item.name)


def part_of(items: Sequence[BatchItem], shard: str | None) -> list[BatchItem]:
    """Every n-th head, from the k-th on, for `k/n`; all of them without.

    Raises:
        InputError: not two whole numbers with 1 <= k <= n.
    """
    if shard is None:
        return list(items)
    first, _, count = shard.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise InputError(f"Cannot start: expected --shard K/N with K from 1 to N, such as 3/16, got {shard}")
    return list(items[int(first) - 1 :: int(count)])


def _pictures(patterns: Sequence[str]) -> list[Path]:
    """The files that patterns name."""
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if _is_picture(file))
            if not inside:
                raise InputError(f"No pictures in {path}; expected files that end in {', '.join(PICTURE_ENDINGS)}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            matched = sorted(map(Path, glob.glob(str(path), recursive=True)))
            if not matched:
                raise InputError(f"No picture matches {pattern}; check the path, and put patterns in quotes")
            found += [file for file in matched if file.is_file()]
    return found


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in (*PICTURE_ENDINGS, *_HEIC) and file.is_file() and not file.name.startswith(".")


def _rows(manifest: Path, options: HeadOptions) -> list[BatchItem]:
    """The heads of a table; the name is empty where the table gives none.

    Raises:
        InputError: all faults of the table in one sentence.
    """
    try:
        text = manifest.expanduser().read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"Cannot read {manifest}: {reason}; expected a table of portraits as .csv") from error
    table = csv.DictReader(text.splitlines(), skipinitialspace=True)
    columns = [name.strip() for name in table.fieldnames or ()]
    known = ("portrait", "name", *_COLUMNS)
    strange = [name for name in columns if name not in known]
    if "portrait" not in columns or strange or len(set(columns)) < len(columns):
        raise InputError(
            f"Cannot read {manifest}: expected a first line with the column portrait and any of "
            f"{', '.join(known[1:])}, got {', '.join(columns) or 'nothing'}"
        )
    table.fieldnames = columns
    items, faults = [], []
    for row in table:
        if None in row or any(value is None for value in row.values()):
            faults.append(f"line {table.line_num}: expected {len(columns)} cells")
            continue
        cells = {name: value.strip() for name, value in row.items() if value.strip()}
        if not cells:
            continue
        try:
            items.append(_item(cells, manifest.expanduser().parent, options))
        except InputError as error:
            faults.append(f"line {table.line_num}: {str(error).removeprefix('Cannot start: ')}")
    if faults:
        more = f", and {len(faults) - _MOST_SENTENCES} more" if len(faults) > _MOST_SENTENCES else ""
        raise InputError(f"Cannot start with {manifest}: {'; '.join(faults[:_MOST_SENTENCES])}{more}")
    return items


def _item(cells: Mapping[str, str], folder: Path, options: HeadOptions) -> BatchItem:
    """One row.

    Raises:
        InputError: a cell cannot be used.
    """
    if "portrait" not in cells:
        raise InputError("no portrait")
    path = folder / Path(cells["portrait"]).expanduser()
    if not path.is_file():
        raise InputError(f"no file at {path}")
    given: dict[str, Any] = {}
    for column, (option, read) in _COLUMNS.items():
        if column in cells:
            try:
                given[option] = read(cells[column])
            except InputError as error:
                raise InputError(f"{column}: {error}") from None
    made = replace(options, image=(path,), **given)
    if made.face_index is not None and made.face_index < 0:
        raise InputError(f"face: expected 0 or more, got {made.face_index}")
    Job(made, Path()).check()
    name = cells.get("name", "")
    if name and not _is_folder_name(name):
        raise InputError(f"name: expected a plain name of a folder, got {name}")
    return BatchItem(name, made)


def _is_folder_name(name: str) -> bool:
    return is_file_name(name) and name.lower() not in _RESERVED


def _named(items: Sequence[BatchItem]) -> list[BatchItem]:
    """The items with a name each: their own, or the portrait's; those that several would have get a piece of a hash.

    Raises:
        InputError: two rows ask for the same name.
    """
    given = Counter(item.name.lower() for item in items if item.name)
    twice = [name for name, count in given.items() if count > 1]
    if twice:
        raise InputError(f"Cannot start: several portraits have the name {twice[0]}; give each a name of its own")
    stems = Counter(item.options.portrait.stem.lower() for item in items if not item.name)
    named = []
    for item in items:
        stem = item.options.portrait.stem
        if not item.name and (stems[stem.lower()] > 1 or stem.lower() in given or not _is_folder_name(stem)):
            stem = f"{as_file_name(stem, 'portrait')}-{_piece_of_hash(item)}"
        named.append(replace(item, name=item.name or stem))
    if len({item.name.lower() for item in named}) < len(named):
        raise InputError("Cannot start: the same portrait with the same options is named twice; take one of them out")
    return named


def _piece_of_hash(item: BatchItem) -> str:
    """Tells portraits of the same name apart, in the same way in every run."""
    return item.key(str(item.options.portrait))[:8]

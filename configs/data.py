"""`dp360 data`: composed heads with truth as nerfstudio data sets or as fields, and a look at their assets.

Nothing heavy is imported here, so that `dp360 --help` answers at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from .console import Display
from .data_fields import DataFieldsCommand, make_fields
from .processes import in_processes
from .splits import SplitWord, split_of_word

if TYPE_CHECKING:
    from dp360.generation.synthetic.fitted_composed_head import NumberedHeads

SKIPPED = "skipped.json"


@dataclass(frozen=True)
class DataHeadsCommand:
    """Compose heads and write each as a nerfstudio data set with its truth; heads that are there are kept.

    Each gets a portrait, the prior fitted to it, and true views with alpha, normals and labels.
    """

    data: Path
    """Folder of the head assets, with makehuman, valid, hdri and the others inside (docs/training.md)."""
    output: Path
    """Folder for the heads; each gets a folder of its own."""
    count: int = 10
    """Heads to make; those whose face is not found in the portrait are left out and named."""
    first: int = 0
    """Number of the first head."""
    split: SplitWord = "train"
    """Whose shapes, skins and hair: people of one split never appear in another."""
    views: int = 32
    """True views round each head, beside the one of the portrait's camera."""
    size: int = 512
    """Side of the views in pixels."""
    orbit: Literal["level", "swinging", "random", "grid"] = "swinging"
    """level: one ring; swinging: it rises and sinks; random: anywhere from below the chin to above the crown; grid:
    three rings, level, above and below."""
    maps: bool = True
    """Also write normals, labels and what the prior shows; --no-maps makes heads faster."""
    jobs: int = 1
    """Heads made side by side, a core and about 1.5 GB of memory each."""
    seed: int = 0
    """Seed of portraits and cameras; the same seed gives the same bytes."""


@dataclass(frozen=True)
class DataCheckCommand:
    """Say of each part of a folder of head assets what it is for and what is missing; exit code 1 if heads lack any."""

    data: Path
    """Folder of the head assets (docs/training.md)."""


DataWhat = (
    Annotated[DataHeadsCommand, tyro.conf.subcommand("heads")]
    | Annotated[DataFieldsCommand, tyro.conf.subcommand("fields")]
    | Annotated[DataCheckCommand, tyro.conf.subcommand("check")]
)


@dataclass(frozen=True)
class DataCommand:
    """Compose heads with known truth to train and measure with, or check the assets that they are made of."""

    what: tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[DataWhat]]
    """What to do."""


def run(command: DataCommand, display: Display) -> Iterable[Path]:
    """Make heads or fields or check assets; the folders or files that were made.

    Raises:
        InputError: as `make_heads` and `make_fields`.
        SystemExit: with code 1, where assets are missing that heads are composed of.
    """
    if isinstance(command.what, DataHeadsCommand):
        return make_heads(command.what, display)
    if isinstance(command.what, DataFieldsCommand):
        return make_fields(command.what, display)
    if not check_assets(command.what):
        raise SystemExit(1)
    return []


def check_assets(command: DataCheckCommand) -> bool:
    """Print what is there; whether heads can be composed."""
    from dp360.generation.synthetic.asset_pack import asset_parts

    parts = asset_parts()
    print("\n".join(part.report(command.data) for part in parts))
    complete = not any(part.missing(command.data) for part in parts if part.needed_for_heads)
    print(
        f"{command.data} has all that heads are composed of"
        if complete
        else f"{command.data} is not complete: docs/training.md tells where the parts come from and where they go"
    )
    return complete


def make_heads(command: DataHeadsCommand, display: Display) -> list[Path]:
    """Write the heads that the output folder does not have yet; heads without a detectable face are left out.

    Returns:
        The folders of the heads asked for, earlier ones included.

    Raises:
        InputError: the head assets are not there, a number makes no sense, or the folder cannot be written.
    """
    from dp360.generation import InputError
    from dp360.generation.files import write_bytes_atomically
    from dp360.generation.synthetic.asset_pack import require_head_assets
    from dp360.generation.synthetic.head_dataset import FACTS

    require_head_assets(command.data)
    for name, least in (("count", 1), ("views", 1), ("size", 32), ("first", 0), ("jobs", 1)):
        if getattr(command, name) < least:
            raise InputError(f"--{name} must be at least {least}, got {getattr(command, name)}")
    heads = _heads(command)
    numbers = range(command.first, command.first + command.count)
    folders = {number: command.output / heads.name(number) for number in numbers}
    skipped = _read_skipped(command.output / SKIPPED)
    missing = [n for n, f in folders.items() if not (f / FACTS).is_file() and f.name not in skipped]
    made = in_processes(partial(_make_head, command), missing, command.jobs)
    for number, face_found in display.track(made, total=len(missing), description="Heads with truth"):
        if not face_found:
            skipped = sorted({*skipped, folders[number].name})
            write_bytes_atomically(command.output / SKIPPED, (json.dumps(skipped, indent=1) + "\n").encode())
    left_out = [f.name for f in folders.values() if f.name in skipped]
    if left_out:
        display.notify(
            f"No face was found in the portraits of {len(left_out)} of {command.count} heads, which were left out: "
            + ", ".join(left_out)
        )
    return [f for f in folders.values() if f.name not in skipped]


def _make_head(command: DataHeadsCommand, number: int) -> bool:
    """Compose, photograph, fit and write one head; whether its face was found."""
    from dp360.generation.synthetic.head_dataset import head_data, write_head_dataset

    heads = _heads(command)
    made = heads.make(number)
    if made is None:
        return False
    data = head_data(
        made.fitted, made.recipe, command.orbit, command.views, command.size, made.seed, with_maps=command.maps
    )
    write_head_dataset(data, command.output / made.name)
    return True


@cache
def _heads(command: DataHeadsCommand) -> NumberedHeads:
    """One for all heads of a process."""
    from dp360.generation.synthetic.fitted_composed_head import NumberedHeads

    split = split_of_word(command.split)
    return NumberedHeads(command.data, split, command.seed)


def _read_skipped(path: Path) -> list[str]:
    """Names of the heads that an earlier call has left out."""
    from dp360.generation import InputError

    try:
        names = json.loads(path.read_text("utf-8")) if path.is_file() else []
    except (ValueError, OSError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} is damaged; remove it, and the heads it named are tried again")
    return names

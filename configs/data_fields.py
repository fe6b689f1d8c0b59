"""`dp360 data fields`: the fields of composed heads and what portraits show of them, in files that networks learn from.

Nothing heavy is imported here, so that `dp360 --help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .console import Display
from .processes import in_processes
from .splits import SplitWord, split_of_word


@dataclass(frozen=True)
class DataFieldsCommand:
    """Compose heads of many haircuts and write their fields with simulated portraits; files that are there are kept.

    Nothing is drawn: a head with four portraits takes a third of a second and 110 KB. Drawn portraits go through the
    whole pipeline: one a head, three seconds.
    """

    data: Path
    """Folder of the head assets (docs/training.md)."""
    output: Path
    """Folder for the files, and for a contact sheet of some of the heads."""
    count: int = 480
    """Heads to make; three neighbours are one person with different hair."""
    first: int = 0
    """Number of the first head."""
    split: SplitWord = "train"
    """Whose people, haircuts and hats: those of one split never appear in another."""
    portraits: Literal["simulated", "drawn"] = "simulated"
    """simulated: what a portrait shows is told from the field, with the usual errors. drawn: a picture is made, found,
    fitted, cut out and labelled; heads whose faces are not found are left out."""
    cameras: int = 4
    """Simulated portraits of each head."""
    sheet: int = 64
    """Heads on the sheet (sheet_SPLIT.png), seen from behind: thickness, material, flow, colour; 0 for none."""
    jobs: int = 1
    """Files made side by side, a core and about 1 GB of memory each."""
    seed: int = 0
    """Seed of people and portraits; the same seed gives the same bytes."""


def make_fields(command: DataFieldsCommand, display: Display) -> list[Path]:
    """Write the files that the output folder does not have yet, and the sheet.

    Returns:
        The files asked for, earlier ones included, and the sheet.

    Raises:
        InputError: the head assets are not there, a number makes no sense, or the folder cannot be written.
    """
    from dp360.generation import InputError
    from dp360.generation.dataset.view_dataset import png_bytes
    from dp360.generation.files import write_bytes_atomically
    from dp360.generation.synthetic.asset_pack import require_head_assets
    from dp360.generation.synthetic.fields.field_files import FieldFiles, random_sheet, style_shares

    require_head_assets(command.data)
    for name, least in (("count", 1), ("cameras", 1), ("first", 0), ("sheet", 0), ("jobs", 1)):
        if getattr(command, name) < least:
            raise InputError(f"--{name} must be at least {least}, got {getattr(command, name)}")
    split = split_of_word(command.split)
    drawn = command.portraits == "drawn"
    files = FieldFiles(command.data, command.output, split, command.seed, command.cameras, drawn=drawn)
    ranges = files.numbers(command.first, command.count)
    paths = [files.path(numbers) for numbers in ranges]
    missing = [numbers for numbers, path in zip(ranges, paths) if not path.is_file()]
    made = in_processes(files.write, missing, command.jobs)
    for _ in display.track(made, total=len(missing), description=f"Fields of {command.count} heads"):
        pass
    style, share = next(iter(style_shares(paths).items()))
    display.notify(f"The most frequent style of hair is {style}: {share:.1%} of the heads")
    if not command.sheet:
        return paths
    sheet = command.output / f"sheet_{split}.png"
    write_bytes_atomically(sheet, png_bytes(random_sheet(paths, heads=command.sheet, seed=command.seed)))
    return [*paths, sheet]

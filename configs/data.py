"""`dp360 data heads`: composed heads with truth as nerfstudio data sets, one folder per head."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from dp360.generation import InputError
from dp360.generation.progress import Track

from .commands import DataCommand
from .processes import in_processes

if TYPE_CHECKING:
    from dp360.generation.synthetic.assets import Split
    from dp360.generation.synthetic.fitted_composed_head import NumberedHeads

SKIPPED = "skipped.json"


def make_heads(command: DataCommand, *, track: Track, notify: Callable[[str], None]) -> list[Path]:
    """Write the heads that the output folder does not have yet; heads without a detectable face are left out.

    Returns:
        The folders of the heads asked for, earlier ones included.

    Raises:
        InputError: the head assets are not there, a number makes no sense, or the folder cannot be written.
    """
    _refuse_nonsense(command)
    heads = _heads(command.data, _split(command), command.seed)
    numbers = range(command.first, command.first + command.count)
    folders = {number: command.output / heads.name(number) for number in numbers}
    from dp360.generation.files import write_bytes_atomically
    from dp360.generation.synthetic.head_dataset import FACTS

    skipped = _read_skipped(command.output / SKIPPED)
    missing = [n for n, f in folders.items() if not (f / FACTS).is_file() and f.name not in skipped]
    made = in_processes(partial(_make_head, command), missing, command.jobs)
    for number, face_found in track(made, total=len(missing), description="Heads with truth"):
        if not face_found:
            skipped = sorted({*skipped, folders[number].name})
            write_bytes_atomically(command.output / SKIPPED, (json.dumps(skipped, indent=1) + "\n").encode())
    left_out = [f.name for f in folders.values() if f.name in skipped]
    if left_out:
        notify(
            f"No face was found in the portraits of {len(left_out)} of {command.count} heads, which were left out: "
            + ", ".join(left_out)
        )
    return [f for f in folders.values() if f.name not in skipped]


def _make_head(command: DataCommand, number: int) -> bool:
    """Compose, photograph, fit and write one head; whether its face was found."""
    from dp360.generation.synthetic.head_dataset import head_data
    from dp360.generation.synthetic.head_dataset import write_head_dataset

    heads = _heads(command.data, _split(command), command.seed)
    made = heads.make(number)
    if made is None:
        return False
    data = head_data(
        made.fitted, made.recipe, command.orbit, command.views, command.size, made.seed, model=heads.model,
        with_maps=command.maps,
    )  # fmt: skip
    write_head_dataset(data, command.output / made.name)
    return True


@cache
def _heads(data: Path, split: Split, seed: int) -> NumberedHeads:
    """One for all heads of a process."""
    from dp360.generation.synthetic.fitted_composed_head import NumberedHeads

    return NumberedHeads(data, split, seed)


def _split(command: DataCommand) -> Split:
    return "held_out" if command.split == "held-out" else command.split


def _refuse_nonsense(command: DataCommand) -> None:
    if not command.data.is_dir():
        raise InputError(f"No head assets at {command.data}: --data expects a folder with makehuman, valid, hdri ...")
    for name, least in (("count", 1), ("views", 1), ("size", 32), ("first", 0), ("jobs", 1)):
        if getattr(command, name) < least:
            raise InputError(f"--{name} must be at least {least}, got {getattr(command, name)}")


def _read_skipped(path: Path) -> list[str]:
    """Names of the heads that an earlier call has left out."""
    if not path.is_file():
        return []
    try:
        names = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is damaged; remove it, and the heads it named are tried again") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} is damaged; remove it, and the heads it named are tried again")
    return names

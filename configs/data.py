"""`dp360 data heads`: composed heads with truth as nerfstudio data sets, one folder per head."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from dp360.generation import InputError
from dp360.generation.progress import Track

from .commands import DataCommand

SKIPPED = "skipped.json"


def make_heads(command: DataCommand, *, track: Track, notify: Callable[[str], None]) -> list[Path]:
    """Write the heads that the output folder does not have yet; heads without a detectable face are left out.

    Returns:
        The folders of the heads asked for, earlier ones included.

    Raises:
        InputError: the head assets are not there, a number makes no sense, or the folder cannot be written.
    """
    _refuse_nonsense(command)
    from dp360.generation.files import write_bytes_atomically
    from dp360.generation.head_model import load_head_model
    from dp360.generation.portrait.face_detection import FaceNetworks
    from dp360.generation.portrait.matte import PersonNetworks
    from dp360.generation.synthetic.assets import asset_index, sub_seed
    from dp360.generation.synthetic.backgrounds import Backgrounds
    from dp360.generation.synthetic.compose import compose
    from dp360.generation.synthetic.fitted import fitted_head
    from dp360.generation.synthetic.head_data import head_data
    from dp360.generation.synthetic.recipe import sample_recipe
    from dp360.reconstruction.head_dataset import FACTS, write_head_dataset

    split = "held_out" if command.split == "held-out" else command.split
    numbers = range(command.first, command.first + command.count)
    folders = {number: command.output / f"{split}_{number:06d}" for number in numbers}
    skipped = _read_skipped(command.output / SKIPPED)
    missing = [n for n, f in folders.items() if not (f / FACTS).is_file() and f.name not in skipped]
    if missing:
        model, backgrounds = load_head_model(), Backgrounds.of_split(command.data, split)
        with FaceNetworks() as faces, PersonNetworks() as people:
            for number in track(missing, total=len(missing), description="Heads with truth"):
                folder = folders[number]
                recipe = sample_recipe(number, asset_index(), split)
                seed = sub_seed(command.seed, f"{split}/{number}")
                fitted = fitted_head(compose(recipe, command.data), backgrounds, seed, faces, people, model=model)
                if fitted is None:
                    skipped = sorted({*skipped, folder.name})
                    text = json.dumps(skipped, indent=1) + "\n"
                    write_bytes_atomically(command.output / SKIPPED, text.encode())
                    continue
                data = head_data(fitted, recipe, command.orbit, command.views, command.size, seed % 2**31, model=model)
                write_head_dataset(data, folder)
    left_out = [f.name for f in folders.values() if f.name in skipped]
    if left_out:
        notify(
            f"No face was found in the portraits of {len(left_out)} of {command.count} heads, which were left out: "
            + ", ".join(left_out)
        )
    return [f for f in folders.values() if f.name not in skipped]


def _refuse_nonsense(command: DataCommand) -> None:
    if not command.data.is_dir():
        raise InputError(f"No head assets at {command.data}: --data expects a folder with makehuman, valid, hdri ...")
    for name, least in (("count", 1), ("views", 1), ("size", 32), ("first", 0)):
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

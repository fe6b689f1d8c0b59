"""`dp360 convert`: the official checkpoints become a folder for --weights."""

from __future__ import annotations

from pathlib import Path

import torch

from dp360.generation import InputError
from dp360.generation.diffusion.release.conversion_report import ROLE_NAMES, Role
from dp360.generation.diffusion.release.convert import convert_release, release_role
from dp360.generation.progress import Track, silent

from .commands import ConvertCommand

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def convert(command: ConvertCommand, *, track: Track = silent) -> str:
    """Convert one or both checkpoints; which is which is read from the files.

    Returns:
        What was found and written, for people.

    Raises:
        InputError: two files of the same model, or what `convert_release` raises.
    """
    found: dict[Role, Path] = {}
    for path in (command.official, command.back_head):
        if path is None:
            continue
        role = release_role(path)
        if role in found:
            raise InputError(
                f"{path} and {found[role]} both hold {ROLE_NAMES[role]}; give the 360 model with --official and the "
                "back-head model with --back-head"
            )
        found[role] = path
    report = convert_release(
        command.output,
        views_model=found.get("views"),
        back_model=found.get("back"),
        dtype=_DTYPES[command.dtype],
        stock=command.stock,
        context=command.context,
        track=track,
    )
    return report.to_text()

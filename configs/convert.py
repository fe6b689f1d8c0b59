"""`dp360 convert`: the official checkpoints become a folder for --weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from dp360.generation.diffusion.release.conversion_report import Role

    from .console import Display


@dataclass(frozen=True)
class ConvertCommand:
    """Turn the official DiffPortrait360 checkpoints into a folder for --weights."""

    official: Path
    """The 360 model: model_state-340000.th."""
    output: Path
    """Folder to write."""
    back_head: Path | None = None
    """The back-view model: back_head-230000.th; without it a picture of the back has to be given with each portrait."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Numbers to store; float16 and bfloat16 need half the room."""
    stock: Path | None = None
    """A Stable Diffusion 1.5 folder of diffusers: the report then says which parts equal it."""
    context: Path | None = None
    """Context of the empty prompt, a tensor [tokens, 768] in a .safetensors or .pt file; only for checkpoints without
    a text encoder."""


def run(command: ConvertCommand, display: Display) -> str:
    """Convert one or both checkpoints; which is which is read from the files.

    Raises:
        InputError: two files of the same model, or what `convert_release` raises.
    """
    import torch

    from dp360.generation import InputError
    from dp360.generation.diffusion.release.conversion import convert_release, release_role
    from dp360.generation.diffusion.release.conversion_report import ROLE_NAMES

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
        dtype=getattr(torch, command.dtype),
        stock=command.stock,
        context=command.context,
        track=display.track,
    )
    return report.to_text()

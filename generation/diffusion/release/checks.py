"""Comparisons that a conversion makes before it writes: with the architecture, the schedule, and a stock SD 1.5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import InputError
from ...progress import Track
from .checkpoint import CheckpointFile
from .conversion_report import ROLE_NAMES, Role
from .keys import IGNORED_KEYS, Home

_FIRST_FEW = 3
_OLD_VAE_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def require_all_keys(checkpoint: CheckpointFile, role: Role, homes: Mapping[str, Home]) -> None:
    """See that a checkpoint has every tensor of its model, in the right shape, and nothing else.

    Raises:
        InputError: one sentence each for missing, unexpected and wrongly shaped tensors.
    """
    name, model = checkpoint.path.name, ROLE_NAMES[role]
    expected = {key: home.official_shape for key, home in homes.items()}
    got = {key: shape for key, shape in checkpoint.shapes.items() if key not in IGNORED_KEYS}
    missing = [key for key in expected if key not in got]
    unexpected = [key for key in got if key not in expected]
    misshapen = [f"{k} {list(got[k])} in place of {list(s)}" for k, s in expected.items() if k in got and got[k] != s]
    sentences = []
    if missing:
        sentences.append(
            f"{name} lacks {len(missing)} of the {len(expected)} tensors of {model} ({_some(missing)}); "
            "download the file again, or give the one that belongs to this model"
        )
    if unexpected:
        sentences.append(
            f"{name} has {len(unexpected)} tensors besides the {len(expected)} that {model} expects "
            f"({_some(unexpected)}); give the released file, or remove what was added to it"
        )
    if misshapen:
        sentences.append(
            f"{name} has {len(misshapen)} tensors of another shape than {model} expects ({_some(misshapen)}); "
            "give a file with networks of the released sizes"
        )
    if sentences:
        raise InputError(". ".join(sentences))


def _some(items: list[str]) -> str:
    rest = len(items) - _FIRST_FEW
    return ", ".join(items[:_FIRST_FEW]) + (f" and {rest} more" if rest > 0 else "")


def schedule_notes(checkpoint: CheckpointFile, tables: Mapping[str, Float[np.ndarray, " t"]]) -> list[str]:
    """One sentence if the checkpoint's tables are not the float16-rounded ones of this schedule, else none."""
    differing = []
    stored = checkpoint.tensors()
    for name, exact in tables.items():
        got, rounded = stored[name].double(), torch.from_numpy(exact).half().double()
        if not torch.equal(got, rounded):
            differing.append(f"{name} by up to {float((got - rounded).abs().max()):.3g}")
    if not differing:
        return []
    return [
        f"{checkpoint.path.name} has {len(differing)} schedule tables that differ from the release's float16 ones "
        f"({_some(differing)}); they are not stored: sampling uses tables of its own"
    ]


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors hold the same numbers bit for bit; those of different types are compared as float32."""
    if first.dtype != second.dtype:
        return torch.equal(first.float(), second.float())
    if first.shape != second.shape:
        return False
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (first, second)))


def compare_with_stock(
    checkpoint: CheckpointFile, role: Role, homes: Mapping[str, Home], stock: Path, track: Track
) -> list[str]:
    """One line each on how UNet, VAE and text encoder relate to those of a stock folder, in that folder's precision.

    Args:
        stock: folder of Stable Diffusion 1.5 in diffusers' layout, with safetensors files.

    Raises:
        InputError: the folder has none of these parts as safetensors.
    """
    lines, stored = [], checkpoint.tensors()
    for part in ("unet", "vae", "text_encoder"):
        chosen = {key: home for key, home in homes.items() if home.part == part}
        theirs = _stock_tensors(stock / part)
        if not chosen or not theirs:
            continue
        equal = absent = 0
        largest, largest_at = 0.0, ""
        for key, home in track(chosen.items(), total=len(chosen), description=f"Comparing {part} with the stock one"):
            other = theirs.get(home.name.removeprefix("text_model."))
            if other is None or other.shape != home.shape:
                absent += 1
                continue
            ours = stored[key].reshape(home.shape).to(other.dtype)
            difference = float((ours.float() - other.float()).abs().max())
            equal += difference == 0.0
            largest, largest_at = max((largest, largest_at), (difference, home.name))
        line = f"{part} of {ROLE_NAMES[role]}: {equal} of {len(chosen)} tensors equal the stock ones"
        if largest:
            line += f", {len(chosen) - equal - absent} differ (by up to {largest:.3g}, in {largest_at})"
        lines.append(line + (f", {absent} not in the stock folder" if absent else ""))
    if not lines:
        raise InputError(
            f"{stock} has no unet, vae or text_encoder folder with .safetensors files; give a folder of Stable "
            "Diffusion 1.5 in diffusers' layout"
        )
    return lines


def _stock_tensors(folder: Path) -> dict[str, Tensor]:
    """Mapped tensors of a component, in full precision where there are such files, by the names of today."""
    files = sorted(folder.glob("*.safetensors"))
    plain = [file for file in files if "." not in file.name.removesuffix(".safetensors")]
    found = {}
    for file in plain or files[:1]:
        for name, tensor in CheckpointFile.inspect(file).tensors().items():
            for old, new in _OLD_VAE_NAMES.items() if "attentions" in name else ():
                name = name.replace(old, new)
            found[name.removeprefix("text_model.")] = tensor
    return found

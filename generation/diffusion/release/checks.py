"""Comparisons that a conversion makes before it writes: with the architecture, the schedule, and a stock SD 1.5."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import InputError
from ...progress import Track
from .checkpoint import CheckpointFile, TensorsByName
from .conversion_report import ROLE_NAMES, Role, StockComparison
from .keys import IGNORED_KEYS, CheckpointPart, Home

_FIRST_FEW = 3
_STOCK_FOLDERS: dict[CheckpointPart, str] = {"unet": "unet", "vae": "vae", "text_encoder": "text_encoder"}
_OLD_VAE_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def require_all_keys(checkpoint: CheckpointFile, role: Role, homes: Mapping[str, Home]) -> None:
    """See that a checkpoint has every tensor of its model, in the right shape, and nothing else.

    Args:
        checkpoint: the file.
        role: the model it is taken for.
        homes: where every official key belongs.

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
) -> list[StockComparison]:
    """Compare UNet, VAE and text encoder with those of a stock folder, in the precision of that folder.

    Args:
        checkpoint: the official file.
        role: which model it is.
        homes: where its keys belong.
        stock: folder of Stable Diffusion 1.5 in diffusers' layout, with safetensors files.
        track: progress.

    Raises:
        InputError: the folder has none of these parts as safetensors.
    """
    results = []
    for part, folder in _STOCK_FOLDERS.items():
        chosen = {key: home for key, home in homes.items() if home.part == part}
        files = _stock_files(stock / folder)
        if not chosen or not files:
            continue
        stored = checkpoint.tensors()
        theirs = _by_name_of_today(CheckpointFile.inspect(file).tensors() for file in files)
        names = track(chosen, total=len(chosen), description=f"Comparing {part} with the stock folder")
        pairs = ((chosen[key].name, stored[key].reshape(chosen[key].shape)) for key in names)
        results.append(_compare(role, part, pairs, theirs))
    if not results:
        raise InputError(
            f"{stock} has no unet, vae or text_encoder folder with .safetensors files; give a folder of Stable "
            "Diffusion 1.5 in diffusers' layout"
        )
    return results


def _compare(
    role: Role, part: CheckpointPart, pairs: Iterator[tuple[str, Tensor]], theirs: dict[str, tuple[TensorsByName, str]]
) -> StockComparison:
    equal = different = absent = 0
    largest, largest_at = 0.0, None
    for name, ours in pairs:
        file, stock_name = theirs.get(name.removeprefix("text_model."), ({}, ""))
        stock = file.get(stock_name)
        if stock is None or stock.shape != ours.shape:
            absent += 1
            continue
        difference = float((ours.to(stock.dtype).float() - stock.float()).abs().max())
        if difference == 0.0:
            equal += 1
            continue
        different += 1
        if largest_at is None or difference > largest:
            largest, largest_at = difference, name
    return StockComparison(role, part, equal, different, absent, largest, largest_at)


def _stock_files(folder: Path) -> list[Path]:
    """Full-precision weight files of a component, else those of a variant such as fp16."""
    files = sorted(folder.glob("*.safetensors"))
    plain = [file for file in files if "." not in file.name.removesuffix(".safetensors")]
    return plain or files[:1]


def _by_name_of_today(files: Iterable[TensorsByName]) -> dict[str, tuple[TensorsByName, str]]:
    """Where each tensor lies, by the name that diffusers gives it today; a text encoder's without prefix."""
    places = {}
    for file in files:
        for name in file:
            ours = name.removeprefix("text_model.")
            if "attentions" in name:
                for old, new in _OLD_VAE_NAMES.items():
                    ours = ours.replace(old, new)
            places[ours] = (file, name)
    return places

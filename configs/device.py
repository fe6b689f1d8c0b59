"""Where to compute."""

from __future__ import annotations

import importlib.util

import torch

from dp360.generation import InputError

from .extras import refuse_missing
from .options import Device


def choose_device(device: Device) -> str:
    """A torch device's name for `auto`, `cpu` or `cuda`.

    Raises:
        InputError: `cuda` where there is none, or without gsplat, which draws splats there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("Cannot use --device cuda: no GPU that CUDA can use was found; leave the option out")
    if device == "cuda":
        refuse_missing(["gsplat"], "--device cuda")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() and importlib.util.find_spec("gsplat") is not None else "cpu"
    return device

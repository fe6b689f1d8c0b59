"""Where to compute."""

from __future__ import annotations

import torch

from dp360.generation import InputError

from .options import Device


def choose_device(device: Device) -> str:
    """A torch device's name for `auto`, `cpu` or `cuda`.

    Raises:
        InputError: `cuda` where there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("Cannot use --device cuda: no GPU that CUDA can use was found; leave the option out")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device

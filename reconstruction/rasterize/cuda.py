"""The CUDA backend: gsplat's own kernels, which it compiles on first use."""

from __future__ import annotations

import functools
import subprocess
from typing import Any

import torch
from torch import Tensor

from dp360.generation.errors import InputError

_CURE = (
    "Install a CUDA compiler, `pip install nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-crt ninja`, point CUDA_HOME at "
    "site-packages/nvidia/cu13 and run again with g++ on the path, or use the CPU: `--machine.device-type cpu` for "
    "ns-train, tensors on the CPU in Python"
)


def rasterize_cuda(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """`gsplat.rasterization(*args, **kwargs)`.

    Raises:
        InputError: gsplat's extension is not there and cannot be built; the message says what to install.

    Source: https://github.com/nerfstudio-project/gsplat, version 1.4.0.
    """
    reason = why_not()
    if reason is not None:
        raise InputError(reason)
    from gsplat import rasterization

    return rasterization(*args, **kwargs)


@functools.cache
def why_not() -> str | None:
    """Why gsplat's kernels cannot run here, with the cure, in one sentence; None where they can. Tried once."""
    if not torch.cuda.is_available():
        return f"No CUDA device was found for gsplat's kernels. {_CURE}"
    try:
        from gsplat.cuda._backend import _C  # pyright: ignore[reportAttributeAccessIssue] - set at run time
    except (ImportError, OSError, RuntimeError, IndexError, subprocess.CalledProcessError) as error:
        return f"gsplat's CUDA kernels could not be compiled ({_first_line(error)}). {_CURE}"
    return f"gsplat found no CUDA compiler (nvcc) for its kernels. {_CURE}" if _C is None else None


def _first_line(error: BaseException) -> str:
    """The start of an error's text: compilers say pages."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

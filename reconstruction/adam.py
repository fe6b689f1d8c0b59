"""Adam for fit variables on the CPU: one kernel per variable on numba's threads.

torch's own optimizers import torch's compiler when they are made, which takes 1.5 s, and never use it here.

Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, Algorithm 1.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, no_type_check, runtime_checkable

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from dp360.generation.numba_pool import numba_pool

from .rasterize.kernels import Kernel
from .rasterize.simd import next_index

_BLOCK = 1 << 13
BETAS = (0.9, 0.999)
"""How slowly the two moments change; torch's defaults."""
EPS = 1e-15
"""Added to the root of the second moment, as Kerbl et al. have it."""


@runtime_checkable
class HasMoments(Protocol):
    """What this package asks of an optimizer: torch's own, or `CpuAdam`."""

    param_groups: list[dict[str, Any]]
    """One, with `params`, a list of one variable, and `lr`."""
    state: Any
    """A mapping from the variable to its moments, of its shape, and other numbers."""

    def step(self) -> Any:
        """Move the variable by its gradient."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient."""


class CpuAdam:
    """Adam for one float32 variable on the CPU, with the attributes of `torch.optim.Adam` that `densify` changes."""

    def __init__(self, param: Parameter, lr: float) -> None:
        """Start without moments.

        Args:
            param: the variable.
            lr: step size.
        """
        self.param_groups: list[dict[str, Any]] = [{"params": [param], "lr": lr}]
        self.state: dict[Tensor, dict[str, Any]] = {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient, whatever `set_to_none` says."""
        del set_to_none
        self._param.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the variable by its gradient, where it has one."""
        param = self._param
        if param.grad is None:
            return
        state = self.state.get(param)
        if state is None:
            state = {"step": 0, "exp_avg": torch.zeros_like(param), "exp_avg_sq": torch.zeros_like(param)}
            self.state[param] = state
        state["step"] += 1
        bias_1, bias_2 = (1 - beta ** state["step"] for beta in BETAS)
        tensors = (param.data, param.grad, state["exp_avg"], state["exp_avg_sq"])
        arrays = [tensor.contiguous().numpy().reshape(-1) for tensor in tensors]
        numbers = (self.param_groups[0]["lr"] / bias_1, 1 / math.sqrt(bias_2), EPS, *BETAS)
        with numba_pool(param.numel() // 8):
            _move(*arrays, *(np.float32(number) for number in numbers))

    @property
    def _param(self) -> Parameter:
        (param,) = self.param_groups[0]["params"]
        return param


@Kernel
@numba.njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _move(counter, values, gradient, first, second, step_size, inverse_root, eps, beta_1, beta_2):
    """One step of Algorithm 1 over flat arrays of the same length; changes all but the gradient."""
    one, n = np.float32(1), values.shape[0]
    while True:
        block = next_index(counter)
        if block * _BLOCK >= n:
            return
        low, high = np.uint64(block * _BLOCK), np.uint64(min(n, (block + 1) * _BLOCK))
        for i in range(low, high):
            g = gradient[i]
            m = beta_1 * first[i] + (one - beta_1) * g
            v = beta_2 * second[i] + (one - beta_2) * g * g
            first[i], second[i] = m, v
            values[i] -= step_size * m / (np.sqrt(v) * inverse_root + eps)

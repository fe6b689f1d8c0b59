"""Memory that is used again from one picture to the next: a step of a fit takes nothing large from the system.

Pages fresh from the system cost more than what is computed on them, so both scratch arrays and results are lent from
buffers that come back when the last array or tensor that looks at them dies.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

_SMALL = 1 << 15
_KEPT_BYTES = 1 << 28
_lock = threading.RLock()  # a collection of garbage inside may come back here
_idle: dict[int, list[np.ndarray]] = {}
_idle_bytes = 0


class _Loan:
    """Owns a buffer while arrays look at it."""

    def __init__(self, buffer: np.ndarray) -> None:
        self.buffer = buffer
        self.__array_interface__ = buffer.__array_interface__

    def __del__(self, ended: Callable[[], bool] = sys.is_finalizing) -> None:
        if ended():
            return  # names of this module may be gone
        global _idle_bytes  # noqa: PLW0603
        with _lock:
            if _idle_bytes + self.buffer.size <= _KEPT_BYTES:
                _idle.setdefault(self.buffer.size, []).append(self.buffer)
                _idle_bytes += self.buffer.size


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """As `np.empty`, from memory that earlier arrays left behind."""
    global _idle_bytes  # noqa: PLW0603
    count = math.prod(shape) * np.dtype(dtype).itemsize
    if count < _SMALL:
        return np.empty(shape, dtype)
    step = 1 << max(12, count.bit_length() - 3)  # sizes in steps of an eighth to a quarter, so that others fit as well
    size = -(-count // step) * step
    with _lock:
        fitting = _idle.get(size)
        buffer = fitting.pop() if fitting else None
        if buffer is not None:
            _idle_bytes -= size
    loan = _Loan(np.empty(size, np.uint8) if buffer is None else buffer)
    return np.asarray(loan)[:count].view(dtype).reshape(shape)

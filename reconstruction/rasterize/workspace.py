"""Arrays that kernels need from one picture to the next, kept so that a step of a fit allocates nothing large."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

_KEPT = 4
_idle: list[dict[str, np.ndarray]] = []
_lock = threading.Lock()


class Workspace:
    """Named scratch arrays. Whoever holds the object owns them; they go back for reuse when the object dies.

    A backward pass keeps its forward pass's workspace, so two graphs that live at a time have two.
    """

    def __init__(self) -> None:
        with _lock:
            self._buffers = _idle.pop() if _idle else {}

    def __del__(self) -> None:
        with _lock:
            if len(_idle) < _KEPT:
                _idle.append(self._buffers)

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array whose content is whatever was there before; the same name gives the same memory while it fits."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size or buffer.dtype != dtype:
            buffer = self._buffers[name] = np.empty(size + size // 4 + 8, dtype)
        return buffer[:size].reshape(shape)

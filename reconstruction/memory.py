"""How much memory this process has needed."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path


def peak_memory_bytes() -> int:
    """Largest resident memory of this process, 0 on systems without `getrusage`."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def forget_peak_memory() -> None:
    """Let `peak_memory_bytes` count from here on, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")

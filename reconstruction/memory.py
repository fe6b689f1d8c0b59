"""How much memory this process has needed."""

from __future__ import annotations

import sys


def peak_memory_bytes() -> int:
    """Largest resident memory of this process, 0 on systems without `getrusage`."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak

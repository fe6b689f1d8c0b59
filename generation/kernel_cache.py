"""Where compiled kernels are kept when neither the packages' folders nor the user's cache can be written.

numba keeps kernels beside their source, or else in the user's cache; where both are read-only, as in containers with
another user and no home, it refuses to compile at all. Then a folder of the user's own among temporary files is named
to it, before it is imported.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

from .system import is_private, user_number

CACHE_VARIABLE = "NUMBA_CACHE_DIR"
"""numba's own setting; whoever sets it is believed."""
_PREFIX = "dp360-kernels-"
_OTHERS = ("pymatting",)
"""Packages beside ours whose kernels numba keeps."""


def place_kernel_cache() -> Path | None:
    """Name a temporary folder to numba if it would find none.

    Returns:
        The folder, or None where numba finds one by itself.
    """
    if os.environ.get(CACHE_VARIABLE) or _is_writable(_users_cache()):
        return None
    os.environ.setdefault("MPLCONFIGDIR", str(temporary_cache()))  # matplotlib complains at length where it finds none
    places = [Path(__file__).resolve().parent]
    for name in _OTHERS:
        found = importlib.util.find_spec(name)
        places += [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    if all(map(_is_writable, places)):
        return None
    folder = temporary_cache()
    os.environ[CACHE_VARIABLE] = str(folder)  # processes that are started find the same
    numba = sys.modules.get("numba")
    if numba is not None:
        numba.config.CACHE_DIR = str(folder)
    return folder


def kept_in() -> tuple[Path, bool]:
    """Where kernels are kept, and whether that is a folder among temporary files that was chosen here."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen), Path(chosen).name.startswith(_PREFIX)
    beside = Path(__file__).resolve().parent
    user = _users_cache()
    return (beside, False) if user is None or _is_writable(beside) else (user / "numba", False)


def temporary_cache() -> Path:
    """A folder among temporary files that nobody but this user can write, the same in every run where that can be."""
    folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{user_number()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return Path(tempfile.mkdtemp(prefix=_PREFIX))
    return folder if is_private(status) else Path(tempfile.mkdtemp(prefix=_PREFIX))


def _users_cache() -> Path | None:
    """The folder that numba takes where it cannot write beside a source; None without a home."""
    home = os.path.expanduser("~")
    chosen = os.environ.get("XDG_CACHE_HOME")
    if not chosen and not os.path.isabs(home):
        return None
    return Path(chosen or os.path.join(home, ".cache"))


def _is_writable(folder: Path | None) -> bool:
    """Whether a file can be made in a folder, or in the nearest one above it that exists."""
    if folder is None or not folder.is_absolute():
        return False
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return True
    except OSError:
        return False


place_kernel_cache()  # before anything that is imported later compiles

"""What ships with the package: weights, each with its model card."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from ..errors import InputError


@contextlib.contextmanager
def shipped_file(name: str) -> Iterator[Path]:
    """A file of this folder, on disk while the block runs.

    Raises:
        InputError: this installation lacks it, so it is damaged.
    """
    file = resources.files(__name__) / name
    if not file.is_file():
        raise InputError(
            f"The file dp360/generation/weights/{name} is missing: this installation is damaged; "
            "install dp360 again (`pip install --force-reinstall --no-deps .`)"
        )
    with resources.as_file(file) as path:
        yield path

"""What ships with the package: weights, each with its model card."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError


def is_shipped(name: str) -> bool:
    """Whether this installation has a file in this folder."""
    return (Path(__file__).parent / name).is_file()


def shipped_file(name: str) -> Path:
    """A file of this folder.

    Raises:
        InputError: this installation lacks it, so it is damaged.
    """
    file = Path(__file__).parent / name
    if not is_shipped(name):
        raise InputError(
            f"The file dp360/generation/weights/{name} is missing: this installation is damaged; "
            "install dp360 again (`pip install --force-reinstall --no-deps .`)"
        )
    return file

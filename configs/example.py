"""A real portrait that an installed package already carries, so that the first run downloads nothing."""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import tyro

from .console import Display, Outcome

_HEAD_AND_SHOULDERS = (60, 0, 390, 330)
"""Left, top, right, bottom in pixels of the 512 px original; the head's middle lies on the vertical mid-line."""


@dataclass(frozen=True)
class ExampleCommand:
    """Write a real public-domain portrait to try things on; nothing is downloaded."""

    path: tyro.conf.Positional[Path] = Path("face.png")
    """Where to; a name that ends in .png."""


def run(command: ExampleCommand, display: Display) -> Outcome:
    """Write it."""
    write_example_portrait(command.path)
    return [command.path]


def write_example_portrait(path: Path) -> None:
    """Write `example_png` to a file.

    Raises:
        InputError: the name does not end in .png, the folder cannot be written, or scikit-image lacks the picture.
    """
    from dp360.generation import InputError
    from dp360.generation.files import write_bytes_atomically

    if path.suffix.lower() != ".png":
        raise InputError(f"Cannot write {path}: the example is a PNG picture; give a name that ends in .png")
    write_bytes_atomically(path, example_png())


def example_png() -> bytes:
    """A portrait of the astronaut Eileen Collins (NASA, public domain), 330 x 330 px.

    Source: `skimage.data.astronaut`, https://scikit-image.org/docs/stable/api/skimage.data.html

    Raises:
        InputError: scikit-image lacks the picture.
    """
    from PIL import Image

    from dp360.generation import InputError

    original = resources.files("skimage.data").joinpath("astronaut.png")  # what skimage.data.astronaut() opens
    if not original.is_file():
        raise InputError("scikit-image is installed without its astronaut picture; install scikit-image again")
    buffer = io.BytesIO()
    Image.open(io.BytesIO(original.read_bytes())).convert("RGB").crop(_HEAD_AND_SHOULDERS).save(buffer, "PNG")
    return buffer.getvalue()

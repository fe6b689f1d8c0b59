"""What results depend on beside their input: the code and the weights of the rooms that make them."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

_ENDINGS = (".py", ".npz", ".safetensors", ".json")


def update_with_generation(digest: hashlib._Hash) -> None:
    """Take the names and bytes of all code and weights of `dp360.generation` into a hash."""
    update_with_rooms(digest, "dp360.generation")


def update_with_rooms(digest: hashlib._Hash, *packages: str) -> None:
    """Take the names and bytes of all code and weights of some packages into a hash."""
    for package in packages:
        root = Path(str(resources.files(package)))
        for file in sorted(path for path in root.rglob("*") if path.suffix in _ENDINGS):
            digest.update(f"{file.relative_to(root)}\n".encode() + hashlib.sha256(file.read_bytes()).digest())

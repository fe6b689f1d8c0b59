"""What a conversion of official checkpoints found and wrote, for people and as plain data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Role = Literal["views", "back"]
"""The 360 model, which makes the views, or F, which makes the back of the head."""
ROLE_NAMES: dict[Role, str] = {"views": "the 360 model", "back": "the back-head model"}


@dataclass(frozen=True)
class SourceFile:
    """A checkpoint that was read."""

    role: Role
    """Which of the two models it is."""
    name: str
    """File name."""
    sha256: str
    """Hash of the file's bytes."""
    size_bytes: int
    """Size of the file."""
    tensors: int
    """Tensors in it."""


@dataclass(frozen=True)
class WrittenComponent:
    """A component of the pipeline folder."""

    name: str
    """Name in the pipeline."""
    source: str
    """Where its weights come from."""
    parameters: int
    """Numbers stored."""
    size_bytes: int
    """Bytes of its weight files."""


@dataclass(frozen=True)
class ConversionReport:
    """The outcome of `convert_release`."""

    output: Path
    """The pipeline folder."""
    dtype: str
    """float32, float16 or bfloat16."""
    sources: tuple[SourceFile, ...]
    """What was read."""
    components: tuple[WrittenComponent, ...]
    """What was written."""
    notes: tuple[str, ...]
    """What the two checkpoints share, where they differ, and anything unexpected that does no harm."""
    stock: tuple[str, ...]
    """Comparison with a stock folder, where one was given: a line for each part."""
    files: dict[str, str]
    """SHA-256 of every written weight and configuration file, by its path in the folder."""

    def to_text(self) -> str:
        """Some lines for people."""
        lines = [f"{ROLE_NAMES[s.role]}: {s.name}, {s.tensors} tensors, sha256 {s.sha256}" for s in self.sources]
        for part in self.components:
            size = f"{part.parameters / 1e6:.1f} M numbers, {part.size_bytes / 1e6:.1f} MB"
            lines.append(f"{part.name:<20} {size}, from {part.source}")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"stock: {line}" for line in self.stock]
        return "\n".join([*lines, f"pipeline folder ({self.dtype}): {self.output}"])

    def to_json(self) -> dict[str, Any]:
        """The same as plain data; without the folder's place, which may change."""
        data = dataclasses.asdict(self)
        del data["output"]
        return data

"""The quality dial: one word derives the number of views, their size and the length of the fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Quality = Literal["fast", "standard", "high"]

_RANGES = {"views": (4, 720), "size_px": (32, 2048), "iterations": (1, 1_000_000)}


@dataclass(frozen=True)
class Preset:
    """Numbers that one position of the dial stands for; each can be overridden alone."""

    views: int
    """Views on the level ring; the rings above and below get 3/8 and 1/4 as many."""
    size_px: int
    """Side of the generated views, pixels."""
    iterations: int
    """Steps of the splat fit."""

    def out_of_range(self) -> str:
        """A sentence about the first number that cannot be used, empty if all can."""
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                option = "--" + name.replace("_", "-")
                return f"expected {option} from {low} to {high}, got {getattr(self, name)}"
        return ""


PRESETS: dict[Quality, Preset] = {
    "fast": Preset(views=16, size_px=256, iterations=400),
    "standard": Preset(views=32, size_px=512, iterations=800),
    "high": Preset(views=48, size_px=512, iterations=3000),
}

"""Whose heads: the splits as commands spell them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from dp360.generation.synthetic.assets import Split

SplitWord = Literal["train", "validation", "held-out"]


def split_of_word(word: SplitWord) -> Split:
    """The split's name in code."""
    return "held_out" if word == "held-out" else word

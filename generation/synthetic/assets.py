"""Which assets there are and which split may draw them. Names only: nothing here opens a mesh or a picture."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal, get_args

import numpy as np

Split = Literal["train", "validation", "held_out"]
"""`train` is for learning, `validation` for choosing, `held_out` for the figures that are reported."""
SPLITS: tuple[Split, ...] = get_args(Split)
Kind = Literal[
    "bust", "toon", "skin", "card_hair", "strand_hair", "cut", "garment", "eyebrows", "iris", "hdri", "headgear",
    "glasses",
]  # fmt: skip
"""Kinds of assets: whole busts, toon characters, skins, hair as cards, as strands, our own haircuts, and the rest."""


@dataclass(frozen=True)
class AssetIndex:
    """Names of all assets by kind and split."""

    names: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Kind, then split, then names."""
    shape_identity_ranges: Mapping[str, tuple[int, int]]
    """Half-open ranges of the numbered identities of parametric shapes, by split."""

    def of(self, kind: Kind, split: Split) -> tuple[str, ...]:
        """Names that a split may draw."""
        return self.names[kind][split]


@functools.cache
def asset_index() -> AssetIndex:
    """The committed split, `split.json` beside this module."""
    table = json.loads(resources.files("dp360.generation.synthetic").joinpath("split.json").read_text("utf-8"))
    names = {kind: {s: tuple(table[kind][s]) for s in SPLITS} for kind in get_args(Kind)}
    return AssetIndex(names, {s: tuple(table["shape_identity_ranges"][s]) for s in SPLITS})


def sub_seed(seed: int, field: str) -> int:
    """A 63-bit seed for one field of one head: fields do not disturb each other."""
    digest = hashlib.blake2b(f"{seed}/{field}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def field_rng(seed: int, field: str) -> np.random.Generator:
    """Random numbers of one field of one head."""
    return np.random.default_rng(sub_seed(seed, field))


def choose(seed: int, field: str, names: Sequence[str], weights: Mapping[str, float] | None = None) -> str:
    """One of the names; those without a weight have weight 1.

    Every name draws its own number and the largest wins, so that a new name changes only the heads that draw it.
    Source: weighted rendezvous hashing, Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005.
    """

    prefix = hashlib.blake2b(f"{seed}/{field}/".encode(), digest_size=8)
    best, least = "", np.inf
    for name in names:
        state = prefix.copy()
        state.update(name.encode())
        u = ((int.from_bytes(state.digest(), "little") >> 1) + 0.5) / 2**63
        weight = 1.0 if weights is None else weights.get(name, 1.0)
        score = -math.log(u) / weight if weight > 0 else np.inf
        if score < least:
            best, least = name, score
    return best

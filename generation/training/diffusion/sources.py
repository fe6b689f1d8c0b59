"""Where heads come from: one door to all folder layouts, and mixtures of sources.

source = open_source(Path("heads"))                                     # whatever lies there
source = MixedSource([open_source(a), SyntheticHeads(assets)], weights=(0.7, 0.3))
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ...errors import InputError
from .clips import HeadPictures, HeadSource
from .source_folders import FolderKind, FolderSource, find_heads, make_head

SourceKind = Literal["auto", "posed", "rings", "captures", "capture-folders", "four-views"]
"""posed: data sets with transforms.json; rings: folders PHsup_*, PH_*, seed* of PanoHead and SphereHead; captures:
.smc files of RenderMe-360; capture-folders: 0*/image_seg; four-views: 0.png to 3.png; auto: all that is found."""
_MOST_HEADS = 5_000_000


class MixedSource:
    """Heads of several sources in fixed shares, evenly interleaved, so that any long run of numbers has the shares."""

    def __init__(self, sources: Sequence[HeadSource], weights: Sequence[float] | None = None) -> None:
        """Mix.

        Args:
            sources: at least one, each with at least one head.
            weights: positive, one per source; None makes every head as frequent as any other. The length is such that
                every head occurs at least once.

        Raises:
            InputError: no source, an empty one, or weights that make no sense.
        """
        lengths = np.array([len(source) for source in sources], np.float64)
        if not len(sources) or lengths.min() < 1:
            raise InputError("MixedSource: expected sources with at least one head each")
        shares = lengths if weights is None else np.asarray(weights, np.float64)
        if len(shares) != len(sources) or not np.isfinite(shares).all() or shares.min() <= 0:
            raise InputError(f"MixedSource: expected {len(sources)} positive weights, got {weights}")
        shares = shares / shares.sum()
        total = int(np.ceil((lengths / shares).max() - 1e-9))
        if total > _MOST_HEADS:
            raise InputError(f"MixedSource: with weights {weights} some heads hardly ever occur; make them more even")
        counts = [int(np.ceil(share * total)) + 1 for share in shares]
        times = np.concatenate([(np.arange(count) + 0.5) / share for count, share in zip(counts, shares)])
        which = np.repeat(np.arange(len(sources)), counts)
        inner = np.concatenate([np.arange(count) % len(source) for count, source in zip(counts, sources)])
        order = np.argsort(times, kind="stable")[:total]
        self._sources = tuple(sources)
        self._which, self._inner = which[order], inner[order]
        self.name = " + ".join(source.name for source in sources)

    def __len__(self) -> int:
        return len(self._which)

    def head(self, index: int) -> HeadPictures:
        """The head with this number."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} heads, asked for number {index}")
        return self._sources[self._which[index]].head(int(self._inner[index]))


def open_source(path: Path, kind: SourceKind = "auto", *, cache_heads: int = 16) -> HeadSource:
    """The heads under a path; only names are read.

    Args:
        path: a folder of heads as `source_folders` describes, one posed data set, or one .smc file.
        kind: the layout; auto takes whatever is there, several layouts as one mixture.
        cache_heads: heads of each layout whose decoded pictures stay in memory: about 26 MB each at 256 px with 36
            views and prior, once all are read.

    Raises:
        InputError: no such path, or nothing there that is known.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a folder of heads")
    kinds: tuple[FolderKind, ...] = get_args(FolderKind) if kind == "auto" else (kind,)
    found: dict[FolderKind, list[Path]] = {k: heads for k in kinds if (heads := find_heads(path, k))}
    if not found:
        layouts = "transforms.json, PHsup_*/image, seed*, *.smc, 0*/image_seg or 0.png to 3.png"
        raise InputError(
            f"{path} has no heads of the layout {kind}; expected folders with {layouts if kind == 'auto' else kind}"
        )
    sources = [
        FolderSource(f"{path} ({name})", heads, partial(make_head, kind=name), cache_heads)
        for name, heads in found.items()
    ]
    return sources[0] if len(sources) == 1 else MixedSource(sources)

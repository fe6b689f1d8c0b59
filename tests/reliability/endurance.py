"""The campaign on long lives: many portraits in one process, one after another and in threads side by side.

What has to hold: memory after the last portrait is within 5 % of that after the fifth; threads give the same heads as
one after another, nothing aborts, and whatever is written to stderr meanwhile arrives.
"""

from __future__ import annotations

import gc
import hashlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dp360.generation import InputError, orbit
from dp360.generation.portrait import PortraitConfig, prepare_portrait
from dp360.generation.prior import build_head_prior

AFTER = 5
"""Portraits after which everything is loaded that stays."""
MOST_GROWTH = 0.05


def resident_bytes() -> int:
    """Memory of this process, once what nobody holds is given back."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def head_of(path: Path) -> str:
    """Make a portrait's prior and render it from two sides; a hash of the pictures, or the sentence that refuses it."""
    try:
        portrait = prepare_portrait(path, PortraitConfig())
    except InputError as error:
        return f"refused: {error}"
    shown = build_head_prior(portrait, seed=0).render(orbit(2, size_px=256))
    return hashlib.sha256(b"".join(part.tobytes() for part in (shown.rgb, shown.alpha))).hexdigest()


def one_after_another(paths: Sequence[Path], report: Callable[[str], None]) -> tuple[list[str], list[str]]:
    """Heads of portraits; broken promises.

    Args:
        report: gets a line for every portrait.
    """
    heads, memory = [], []
    for number, path in enumerate(paths, 1):
        start = time.process_time()
        heads.append(head_of(path))
        memory.append(resident_bytes())
        report(f"{number} {path.name}: {memory[-1] / 2**20:.0f} MB, {time.process_time() - start:.1f} s of CPU")
    growth = memory[-1] / memory[AFTER - 1] - 1
    report(
        f"{len(paths)} portraits: {memory[AFTER - 1] / 2**20:.0f} MB after {AFTER}, {memory[-1] / 2**20:.0f} MB after "
        f"the last ({growth:+.1%}), at most {max(memory) / 2**20:.0f} MB"
    )
    return heads, [f"memory has grown by {growth:.1%}"] if growth > MOST_GROWTH else []


def side_by_side(
    paths: Sequence[Path], threads: int, expected: Sequence[str], report: Callable[[str], None]
) -> list[str]:
    """Broken promises of portraits in threads of this process.

    Args:
        expected: what `one_after_another` made of the same portraits.
    """
    with tempfile.TemporaryFile() as caught:
        before = os.dup(2)
        os.dup2(caught.fileno(), 2)

        def head(number: int) -> str:
            made = head_of(paths[number])
            print(f"stderr of {number}", file=sys.stderr, flush=True)
            return made

        try:
            with ThreadPoolExecutor(threads) as pool:
                heads = list(pool.map(head, range(len(paths))))
        finally:
            os.dup2(before, 2)
            os.close(before)
        caught.seek(0)
        told = caught.read().decode(errors="replace")
    broken = [f"stderr of portrait {k} is lost" for k in range(len(paths)) if told.count(f"stderr of {k}\n") != 1]
    broken += [f"{path.name} is another head in a thread" for path, a, b in zip(paths, heads, expected) if a != b]
    report(
        f"{len(paths)} portraits in {threads} threads: {resident_bytes() / 2**20:.0f} MB, {len(broken)} broken promises"
    )
    return broken

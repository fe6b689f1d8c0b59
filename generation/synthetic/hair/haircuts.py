"""Haircuts drawn from continuous numbers: every style is a range of lengths, combs, partings, ties and hairlines.

A haircut has a name like `bob_017`: its style and its number there, from which all of its numbers follow. A hash of
the name says which split may wear it, so that no haircut of one split is ever seen by another. The numbers of a style
are drawn one by one, each from a seed of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..assets import Split, choose, field_rng, sub_seed
from .cuts import CUTS, Cut

HAIRCUTS_PER_STYLE = 100
"""Numbers of a style; about 85 of them are for training."""
_SHARES: tuple[tuple[Split, float], ...] = (("train", 0.85), ("validation", 0.05), ("held_out", 0.10))
Range = tuple[float, float] | Sequence[str] | None
"""From and to, names to choose from, or nothing."""

_COMMON: Mapping[str, Range] = {
    "lift": (0.25, 0.55), "volume": (0.7, 1.7), "gravity": (0.15, 0.55), "clump": (0.25, 0.6), "comb": ("down",),
    "second_comb": ("side", "back", "forward", "down", "across"), "second_weight": (-0.25, 0.4), "whorl_x": (-2.5, 2.5),
    "whorl_y": (11.2, 12.8), "whorl_z": (-6.8, -3.2), "swirl": (-0.9, 0.9), "parting_cm": (-5.0, 5.0),
    "parting_slant": (-0.25, 0.25), "face_clear": (0.1, 0.9), "stiff_cm": (0.8, 3.8), "fade": (0.0, 0.5),
    "layers": (-0.1, 0.3), "end_slope": (-0.2, 0.2),
    "end_tilt": (-0.08, 0.08), "side_volume": (0.6, 1.3), "fringe": (-0.8, 0.6), "fringe_cm": (4.0, 8.0),
    "fringe_half_cm": (2.5, 5.5), "fringe_sweep": (-0.6, 0.6), "front_recess_cm": (-0.5, 1.0),
    "temple_recess_cm": (-0.5, 1.5), "neckline_y": (-5.6, -3.4), "neckline_round": (0.0, 0.03),
    "texture": ("straight", "straight", "straight", "wavy", "wavy", "curly", "coily"),
}  # fmt: skip
"""Ranges of every style that does not state its own; what must not be negative is 0 below."""
_LONG: Mapping[str, Range] = {
    "top": (34.0, 52.0), "sides": (30.0, 44.0), "back": (28.0, 42.0), "lift": (0.15, 0.4), "volume": (0.7, 2.2),
    "gravity": (0.5, 0.75), "fade": None, "neckline_y": None, "comb": ("side", "side", "back"),
    "second_comb": ("back", "side"), "parting_cm": (-4.0, 4.0), "face_clear": (0.4, 1.2),
}  # fmt: skip
_CHIN: Mapping[str, Range] = {"second_comb": ("back", "side"), "fade": None, "face_clear": (0.3, 1.1)}
_TIED: Mapping[str, Range] = {
    "top": (22.0, 30.0), "sides": (20.0, 26.0), "back": (16.0, 24.0), "lift": (0.08, 0.25), "volume": (0.4, 1.2),
    "gravity": (0.0, 0.05), "fade": None, "neckline_y": None, "comb": ("tie",), "fringe": (-0.6, 0.7),
    "tail_curl": (0.05, 1.0), "tail_spread_cm": (0.4, 1.6), "layers": None, "clump": (0.3, 0.7),
}  # fmt: skip
_SHORT: Mapping[str, Range] = {"layers": (0.0, 0.35), "fade": (0.2, 0.9), "neckline_y": (-5.4, -1.5)}


@dataclass(frozen=True)
class HaircutFamily:
    """A family of haircuts."""

    female: float
    """How often women wear it, beside the other styles."""
    male: float
    """How often men do."""
    ranges: Mapping[str, Range]
    """What is drawn: fields of `Cut`, lengths `top`, `sides`, `back` (cm), places `whorl_x`, `tie_y` ..., `texture`."""


def _family(female: float, male: float, *bases: Mapping[str, Range], **ranges: Range) -> HaircutFamily:
    merged: dict[str, Range] = {**_COMMON}
    for base in (*bases, ranges):
        merged |= base
    return HaircutFamily(female, male, merged)


def _lengths(top: Range, sides: Range, back: Range) -> Mapping[str, Range]:
    return {"top": top, "sides": sides, "back": back}


FAMILIES: Mapping[str, HaircutFamily] = {
    "shaved": _family(0.5, 1.2, _SHORT, _lengths((0.3, 1.4), (0.2, 0.9), (0.2, 0.9)), lift=(0.7, 1.0),
                     volume=(0.2, 0.5), gravity=(0.0, 0.05), comb=("forward", "down"), fringe=None),
    "cropped": _family(0.6, 1.3, _SHORT, _lengths((2.0, 5.0), (0.5, 2.5), (0.6, 2.8)), lift=(0.4, 0.8),
                      volume=(0.6, 1.5), gravity=(0.05, 0.25), comb=("forward", "down", "side", "across")),
    "spiky": _family(0.5, 1.2, _SHORT, _lengths((2.5, 6.0), (0.8, 2.5), (1.0, 3.0)), lift=(0.9, 1.0),
                    volume=(1.8, 3.6), gravity=(0.0, 0.1), clump=(0.6, 0.9), comb=("radial", "radial", "up"),
                    fringe=None),
    "caesar": _family(0.5, 1.1, _SHORT, _lengths((2.5, 6.0), (1.0, 3.0), (1.0, 3.5)), gravity=(0.1, 0.3),
                     comb=("forward",), fringe=(0.6, 1.0), fringe_cm=(2.5, 5.0), fringe_sweep=(-0.9, 0.9)),
    "side_parted": _family(0.6, 1.4, _SHORT, _lengths((5.0, 10.0), (1.0, 4.0), (1.2, 4.0)), lift=(0.35, 0.65),
                          gravity=(0.05, 0.25), comb=("side",), layers=(0.0, 0.2)),
    "quiff": _family(0.5, 1.3, _SHORT, _lengths((5.0, 10.0), (0.6, 3.0), (0.8, 3.0)), lift=(0.7, 1.0),
                    volume=(1.8, 4.0), gravity=(0.0, 0.1), comb=("up",), fringe=None, layers=(0.0, 0.15)),
    "slicked": _family(0.7, 1.2, _lengths((7.0, 18.0), (4.0, 10.0), (4.0, 10.0)), lift=(0.08, 0.3),
                      volume=(0.3, 1.2), gravity=(0.05, 0.2), clump=(0.5, 0.85), comb=("back",), fringe=None),
    "undercut": _family(0.7, 1.2, _lengths((7.0, 18.0), (3.0, 8.0), (3.0, 8.0)), short_below_y=(4.0, 8.5),
                       short_cm=(0.2, 1.2), comb=("back", "side", "across", "up"), volume=(0.8, 2.6), fade=None),
    "comb_over": _family(0.2, 1.1, _SHORT, _lengths((6.0, 14.0), (1.5, 4.0), (1.5, 4.5)), front_recess_cm=(0.5, 4.0),
                        temple_recess_cm=(1.0, 4.0), crown_bald_cm=(-2.0, 3.0), thinning=(0.2, 0.75),
                        comb=("across", "side"), fringe=None, lift=(0.1, 0.3), volume=(0.3, 0.8)),
    "receding": _family(0.2, 1.4, _SHORT, _lengths((1.0, 6.0), (0.8, 3.5), (0.8, 4.0)), front_recess_cm=(0.5, 5.0),
                       temple_recess_cm=(1.5, 5.0), crown_bald_cm=(-3.0, 3.5), thinning=(0.1, 0.8),
                       comb=("forward", "back", "side", "across"), fringe=None, volume=(0.4, 1.0)),
    "wreath": _family(0.1, 1.2, _SHORT, _lengths((0.8, 3.0), (0.8, 5.0), (0.8, 5.0)), front_recess_cm=(7.0, 14.0),
                     temple_recess_cm=(1.0, 4.0), crown_bald_cm=(3.0, 6.5), thinning=(0.4, 0.95), comb=("down", "back"),
                     fringe=None, volume=(0.4, 1.2), fade=(0.0, 0.4)),
    "pixie": _family(1.3, 0.7, _SHORT, _lengths((5.0, 10.0), (2.5, 5.0), (2.5, 6.0)),
                     comb=("side", "forward", "across"), layers=(0.1, 0.5), fade=(0.0, 0.4)),
    "bowl": _family(0.9, 0.8, _lengths((13.0, 18.0), (8.0, 12.0), (8.0, 12.0)), end_y=(-1.5, 3.5), gravity=(0.4, 0.7),
                   volume=(1.0, 2.4), comb=("down",), fringe=(0.8, 1.0), fade=None, whorl_z=(-5.0, -1.0)),
    "bob": _family(1.4, 0.4, _CHIN, _lengths((24.0, 32.0), (18.0, 24.0), (16.0, 22.0)), end_y=(-9.0, -3.0),
                  end_slope=(-0.1, 0.5), end_tilt=(-0.15, 0.15), gravity=(0.45, 0.7), volume=(0.9, 2.6), comb=("side",),
                  texture=("straight", "straight", "wavy")),
    "textured_bob": _family(1.2, 0.5, _CHIN, _lengths((22.0, 30.0), (16.0, 24.0), (15.0, 22.0)), end_y=(-9.0, -2.0),
                           gravity=(0.4, 0.6), volume=(1.2, 3.2), comb=("side",),
                           texture=("wavy", "wavy", "curly"), layers=(0.0, 0.4)),
    "lob": _family(1.4, 0.4, _LONG, _lengths((30.0, 38.0), (24.0, 30.0), (22.0, 28.0)), end_y=(-14.5, -9.0),
                  end_slope=(-0.1, 0.5)),
    "shag": _family(1.1, 0.9, _CHIN, _lengths((12.0, 22.0), (10.0, 20.0), (12.0, 22.0)), end_y=(-16.0, -7.0),
                   lift=(0.35, 0.65),
                   volume=(1.4, 3.0), layers=(0.3, 0.65), fringe=(-0.2, 0.9), comb=("side", "side", "back"), fade=None),
    "curtains": _family(0.8, 1.0, _lengths((10.0, 18.0), (4.0, 9.0), (3.0, 8.0)), end_y=(-4.0, 1.0), comb=("side",),
                       parting_cm=(-1.5, 1.5), gravity=(0.35, 0.55), volume=(1.0, 2.2), fringe=None),
    "swept": _family(1.0, 1.1, _lengths((9.0, 17.0), (6.0, 12.0), (6.0, 13.0)), comb=("back", "across", "side"),
                    lift=(0.3, 0.6),
                    volume=(1.0, 2.8), gravity=(0.15, 0.45), fade=(0.0, 0.3)),
    "mullet": _family(0.6, 0.9, _lengths((4.0, 10.0), (1.0, 5.0), (14.0, 28.0)), gravity=(0.3, 0.5), fade=None,
                     neckline_y=None, comb=("down", "forward", "up"), layers=(0.0, 0.4)),
    "long_straight": _family(1.5, 0.7, _LONG, end_y=(-28.0, -15.0), texture=("straight",), volume=(0.6, 1.8)),
    "long_wavy": _family(1.5, 0.6, _LONG, end_y=(-27.0, -15.0), texture=("wavy",), volume=(1.2, 3.0)),
    "long_curly": _family(1.4, 0.6, _LONG, end_y=(-24.0, -12.0), texture=("curly", "curly", "coily"), lift=(0.35, 0.6),
                         volume=(1.4, 3.2), clump=(0.5, 0.85)),
    "long_back": _family(1.1, 0.9, _LONG, end_y=(-27.0, -11.0), comb=("back",), lift=(0.06, 0.25), volume=(0.4, 1.6),
                        fringe=None),
    "long_fringed": _family(1.4, 0.3, _LONG, end_y=(-26.0, -11.0), fringe=(0.75, 1.0), fringe_cm=(5.0, 9.0)),
    "curls": _family(1.0, 1.0, _lengths((6.0, 15.0), (3.0, 11.0), (3.0, 11.0)), comb=("radial", "radial", "down"),
                    lift=(0.6, 0.9), volume=(1.6, 3.6), gravity=(0.05, 0.5), texture=("curly",), clump=(0.4, 0.8),
                    fringe=None),
    "afro": _family(1.0, 1.0, _lengths((3.0, 14.0), (2.0, 12.0), (2.0, 12.0)), comb=("radial",), lift=(0.9, 1.0),
                   volume=(4.0, 9.0), gravity=(0.0, 0.15), texture=("coily",), clump=(0.1, 0.4), fringe=None,
                   layers=None),
    "locs": _family(0.8, 0.8, _CHIN, _lengths((10.0, 34.0), (10.0, 32.0), (10.0, 30.0)), end_y=(-22.0, -3.0),
                   texture=("coily",),
                   clump=(0.88, 0.9), comb=("side", "back"), volume=(0.8, 2.4), neckline_y=None),
    "mohawk": _family(0.25, 0.4, _lengths((3.0, 13.0), (0.2, 1.0), (0.2, 12.0)), strip_cm=(1.2, 3.6), lift=(0.85, 1.0),
                     volume=(2.0, 4.5), gravity=(0.0, 0.1), comb=("up", "radial"), fringe=None, neckline_y=None),
    "ponytail": _family(1.4, 0.7, _TIED, tie_y=(-6.0, 13.0), tie_z=(-10.0, -8.0), tail=(12.0, 42.0)),
    "bun": _family(1.3, 0.7, _TIED, tie_y=(-5.0, 13.5), tie_z=(-10.0, -7.0), bun_cm=(1.6, 3.8)),
    "pigtails": _family(1.0, 0.15, _TIED, tie_x=(3.5, 8.0), tie_y=(-5.0, 11.0), tie_z=(-7.0, -1.0), tail=(-6.0, 32.0),
                       bun_cm=(1.4, 2.8), parting_cm=(-1.0, 1.0)),
    "half_up": _family(1.3, 0.6, _TIED, _lengths((30.0, 42.0), (28.0, 40.0), (26.0, 38.0)), tie_y=(5.0, 12.5),
                      tie_z=(-10.0, -7.0), tail=(-10.0, 30.0), bun_cm=(1.6, 3.0), tied_above_y=(3.0, 8.0),
                      second_comb=("side", "back"), end_y=(-26.0, -9.0), gravity=(0.3, 0.6), count_factor=(0.8, 0.9)),
    "top_knot": _family(0.8, 0.9, _TIED, tie_y=(13.0, 15.0), tie_z=(-5.0, 0.0), bun_cm=(1.6, 3.4), short_below_y=(-6.0,
                       7.0),
                       short_cm=(0.2, 1.0), fringe=None),
    "braid": _family(1.0, 0.5, _TIED, tie_y=(-7.0, 2.0), tie_z=(-10.0, -8.5), tail=(18.0, 45.0), tail_spread_cm=(0.2,
                    0.5),
                    tail_curl=(0.5, 0.9)),
}  # fmt: skip
"""All styles by name."""
_TEXTURES: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "straight": ((-0.15, 0.12), (0.8, 1.6)), "wavy": ((0.25, 1.0), (0.9, 2.0)), "curly": ((0.4, 1.0), (2.2, 5.0)),
    "coily": ((0.2, 0.5), (5.0, 9.0)),
}  # fmt: skip
"""Radius of curls (cm) and turns per 10 cm."""


def haircut_names(split: Split, style: str) -> tuple[str, ...]:
    """The haircuts of a style that a split may wear."""
    return _names_by_split(style)[split]


@functools.cache
def _names_by_split(style: str) -> Mapping[Split, tuple[str, ...]]:
    names = [f"{style}_{k:03d}" for k in range(HAIRCUTS_PER_STYLE)]
    return {split: tuple(name for name in names if haircut_split(name) == split) for split, _ in _SHARES}


def haircut_split(name: str) -> Split:
    """Which split may wear a haircut."""
    place = (sub_seed(0, f"haircut split/{name}") + 0.5) / 2**63
    for split, share in _SHARES:
        place -= share
        if place < 0:
            return split
    return _SHARES[-1][0]


def style_of(name: str) -> str:
    """The style of a drawn haircut; other names stand for themselves."""
    style, _, number = name.rpartition("_")
    return style if number.isdecimal() and style in FAMILIES else name


def choose_haircut(seed: int, split: Split, male: float, styles: Sequence[str] = ()) -> str:
    """A haircut of a split, by the styles that men and women wear.

    Args:
        seed: of the head.
        split: whose haircuts.
        male: 0 female, 1 male.
        styles: some of `FAMILIES`, if not all of them are to be chosen from.
    """
    shares = {name: s.female * (1 - male) + s.male * male for name, s in FAMILIES.items()}
    style = choose(seed, "haircut/style", tuple(styles) or tuple(FAMILIES), shares)
    return choose(seed, "haircut/number", haircut_names(split, style))


@functools.lru_cache(maxsize=256)
def cut_named(name: str) -> Cut:
    """A cut of `CUTS`, or a drawn one like `bob_017`.

    Raises:
        KeyError: there is no such cut.
    """
    return CUTS[name] if style_of(name) == name else _drawn(name)


def _drawn(name: str) -> Cut:
    ranges = FAMILIES[style_of(name)].ranges

    def number(field: str, default: float = 0.0, *, of: Range = None) -> float:
        span = of or ranges.get(field)
        if span is None:
            return default
        low, high = span
        assert isinstance(low, float) and isinstance(high, float), (name, field, span)
        return float(field_rng(0, f"{name}/{field}").uniform(low, high))

    def above_0(field: str) -> float:
        return max(0.0, number(field))

    def optional(field: str) -> float | None:
        return None if ranges.get(field) is None else number(field)

    def one(field: str) -> str:
        names = ranges[field]
        assert names is not None
        return choose(sub_seed(0, name), field, [f"{k}/{n}" for k, n in enumerate(names)]).split("/")[1]

    def length(field: str) -> float:
        span = ranges[field]
        assert span is not None
        return float(np.exp(number(field, of=(float(np.log(span[0])), float(np.log(span[1]))))))  # type: ignore[arg-type]

    lengths = (length("top"), length("sides"), length("back"))
    texture = one("texture")
    radius, turns = _TEXTURES[texture]
    comb, longest = one("comb"), max(lengths)
    loose = texture in ("curly", "coily") and comb not in ("radial", "tie")
    plain: dict[str, Any] = {
        field: number(field)
        for field in ("gravity", "clump", "swirl", "parting_cm", "parting_slant", "end_slope", "end_tilt",
        "side_volume",
                      "fringe_cm", "fringe_half_cm", "fringe_sweep", "neckline_round", "face_clear", "stiff_cm")
    }  # fmt: skip
    plain |= {
        field: above_0(field)
        for field in ("second_weight", "fade", "layers", "fringe", "front_recess_cm", "temple_recess_cm",
                      "crown_bald_cm", "thinning", "tail")
    }  # fmt: skip
    plain |= {field: optional(field) for field in ("end_y", "short_below_y", "tied_above_y", "neckline_y", "strip_cm")}
    plain |= {
        field: number(field) for field in ("short_cm", "tail_spread_cm", "tail_curl", "bun_cm") if field in ranges
    }
    tied = ranges.get("tie_y") is not None
    return Cut(
        lengths,
        lift=number("lift") + (0.15 if loose else 0.0),
        volume=number("volume") * (1.35 if loose else 1.0),
        comb=comb,
        second_comb=one("second_comb"),
        curl=(max(0.0, number("curl_cm", of=radius)), number("curl_turns", of=turns)),
        whorl_cm=(number("whorl_x"), number("whorl_y"), number("whorl_z")),
        tie=(number("tie_x"), number("tie_y"), number("tie_z")) if tied else None,
        tie_pair=ranges.get("tie_x") is not None,
        count=round((4600 if tied or longest < 6 else 4200 if longest < 20 else 2900) * number("count_factor", 1.0)),
        width=0.45 if longest < 2 else 0.55,
        **plain,
    )

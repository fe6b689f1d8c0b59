"""Haircuts as numbers: what a cut is, and those that we have named. `haircuts` draws any number of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ...head_model.anatomy import ramp
from . import hair_zones as zones


@dataclass(frozen=True)
class Cut:
    """How a haircut grows. Lengths in centimetres; the three lengths are those on top, at the sides, at the back."""

    lengths: tuple[float, float, float]
    """Of the hairs on top, at the sides, at the back."""
    end_y: float | None = None
    """Hairs end at this height at the latest."""
    lift: float = 0.35
    """How steeply hairs leave the skin, in [0, 1]."""
    volume: float = 1.2
    """Distance from the skin that hairs tend to, half-way along them."""
    comb: str = "down"
    """Where the comb leads: `down`, `back`, `side` (from the parting), `forward`, `up`, `across`, `radial`, `tie`."""
    gravity: float = 0.5
    """Weight of gravity beside the comb."""
    curl: tuple[float, float] = (0.0, 2.0)
    """Radius of curls and turns per 10 cm."""
    clump: float = 0.4
    """How much neighbouring hairs join at their tips, in [0, 1]."""
    tie: tuple[float, float, float] | None = None
    """Where a tail or bun is tied, centimetres."""
    tail: float = 0.0
    """Length of the tail; 0 with a tie makes a bun."""
    bare: str = ""
    """What carries no hair: `crown` (receding), `mohawk` (all but the middle)."""
    count: int = 4200
    """Strands."""
    width: float = 0.55
    """Width of the ribbon that stands for one strand, centimetres."""
    second_comb: str = ""
    """Another comb that is mixed in."""
    second_weight: float = 0.0
    """Its share, in [0, 1]."""
    whorl_cm: tuple[float, float, float] = zones.WHORL_CM
    """Where hair spreads from."""
    swirl: float = 0.0
    """Turn about the whorl beside the spreading, positive from the head's right over the back to its left."""
    parting_cm: float | None = None
    """Where the parting meets the forehead, x; None takes the recipe's."""
    parting_slant: float = 0.0
    """How far the parting leaves x per centimetre backwards."""
    fade: float = 0.0
    """How much shorter hair is at the lower edge of sides and back than `FADE_Y_CM` above it, in [0, 1]."""
    short_below_y: float | None = None
    """Below this height hair has `short_cm`: an undercut."""
    short_cm: float = 0.6
    """Length there."""
    layers: float = 0.0
    """How unlike in length neighbouring hairs are cut, in [0, 1]."""
    end_slope: float = 0.0
    """How much lower hair ends for each centimetre forwards, centimetres."""
    end_tilt: float = 0.0
    """The same towards the head's left."""
    side_volume: float = 1.0
    """Factor on the volume off the top."""
    fringe: float = 0.0
    """Share of the hairs above the forehead that fall over it, beside the recipe's."""
    fringe_cm: float = zones.FRINGE_CM
    """Their longest."""
    fringe_half_cm: float = zones.FORELOCK_X_CM
    """How far from the middle they grow."""
    fringe_sweep: float = 0.0
    """How far they lean to the head's left, in [-1, 1]."""
    stiff_cm: float | None = None
    """Length over which long hair keeps its direction; None lets it keep the same from point to point."""
    face_clear: float = 0.0
    """How much more than usual hair keeps out of the face."""
    tie_pair: bool = False
    """Two ties, one on each side."""
    tied_above_y: float | None = None
    """Only hair that grows above this height is tied; the rest hangs."""
    tail_spread_cm: float = 0.9
    """Width of a tail."""
    tail_curl: float = 0.35
    """Radius of its curls, centimetres."""
    bun_cm: float = 2.6
    """Radius of a bun."""
    front_recess_cm: float = 0.0
    """How far the hairline has gone back, Norwood's scale as one number with the next two; 14 leaves a wreath."""
    temple_recess_cm: float = 0.0
    """How far more at the temples."""
    crown_bald_cm: float = 0.0
    """Radius of a bald crown."""
    thinning: float = 0.0
    """Share of the hairs on top that are gone."""
    neckline_y: float | None = None
    """Lowest height of hair on the nape; None leaves it where it grows."""
    neckline_round: float = 0.0
    """How much higher it ends beside the middle: the height is raised by this times x squared, per centimetre."""
    strip_cm: float | None = None
    """Half the width of the strip that alone is left; None shaves nothing."""

    def kept_share(self, rest_cm: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
        """Share of the hairs that baldness and razor leave at places of the average head, [0, 1].

        Source: the course of male baldness as Norwood staged it, "Male Pattern Baldness: Classification and
        Incidence", Southern Medical Journal 1975: temples, hairline and crown recede until a wreath is left.
        """
        x, y, z = np.moveaxis(rest_cm, -1, 0)
        share = np.ones_like(y)
        if self.bare == "crown":
            share = share * (1 - ramp(y, *zones.RECEDING_Y_CM) * ramp(z, *zones.RECEDING_Z_CM))
        if self.bare == "mohawk":
            share = share * ramp(np.abs(x), *zones.MOHAWK_X_CM)
        if self.strip_cm is not None:
            share = share * ramp(np.abs(x), self.strip_cm + 0.3, self.strip_cm - 0.3)
        if self.front_recess_cm > 0 or self.temple_recess_cm > 0:
            line = zones.HAIRLINE_Z_CM + 0.5 - self.front_recess_cm
            line = line - self.temple_recess_cm * ramp(np.abs(x), *zones.TEMPLE_X_CM)
            share = share * (1 - ramp(z - line, -0.8, 0.8) * ramp(y, *zones.RECESS_ABOVE_Y_CM))
        if self.crown_bald_cm > 0:
            away = np.sqrt(((rest_cm - np.array(zones.WHORL_CM, rest_cm.dtype)) ** 2).sum(-1))
            share = share * ramp(away, self.crown_bald_cm - 0.9, self.crown_bald_cm + 0.9)
        if self.thinning > 0:
            share = share * (1 - self.thinning * ramp(y, *zones.TOP_Y_CM))
        if self.neckline_y is not None:
            height = y - self.neckline_y - self.neckline_round * x * x
            share = share * (1 - ramp(z, -0.5, -2.5) * (1 - ramp(height, -0.5, 0.5)))
        return share


CUTS: Mapping[str, Cut] = {
    "buzz": Cut((0.5, 0.4, 0.4), lift=0.9, volume=0.3, comb="forward", gravity=0.0, count=2600, width=0.4),
    "crop": Cut((3.2, 1.3, 1.5), lift=0.6, volume=0.9, comb="forward", gravity=0.15, count=4600),
    "side_part": Cut((8.0, 2.0, 2.2), lift=0.5, volume=1.3, comb="side", gravity=0.15),
    "quiff": Cut((6.5, 1.2, 1.5), lift=0.9, volume=2.6, comb="up", gravity=0.05),
    "slicked_back": Cut((11.0, 6.0, 6.0), lift=0.15, volume=0.6, comb="back", gravity=0.1, clump=0.7),
    "receding": Cut((2.5, 2.0, 2.2), lift=0.5, volume=0.6, comb="forward", gravity=0.2, bare="crown"),
    "undercut": Cut((9.0, 0.5, 0.5), lift=0.6, volume=1.8, comb="back", gravity=0.1),
    "pixie": Cut((7.0, 3.5, 4.0), lift=0.45, volume=1.3, comb="side", gravity=0.3),
    "bowl": Cut((16.0, 9.0, 9.0), end_y=1.5, lift=0.3, volume=1.6, gravity=0.6),
    "bob": Cut((28.0, 20.0, 18.0), end_y=-7.5, lift=0.3, volume=1.8, comb="side", gravity=0.6, count=3000),
    "shag": Cut((18.0, 14.0, 15.0), end_y=-10.0, lift=0.5, volume=2.2, comb="side", curl=(0.5, 1.6), count=3200),
    "curtains": Cut((15.0, 6.0, 5.0), end_y=-1.0, lift=0.5, volume=1.6, comb="side", gravity=0.45),
    "mullet": Cut((7.0, 3.0, 22.0), lift=0.5, volume=1.4, gravity=0.4, curl=(0.3, 1.5), count=3400),
    "long_straight": Cut((44.0, 38.0, 36.0), end_y=-24.0, lift=0.25, volume=1.4, comb="side", gravity=0.65, count=2500),
    "long_wavy": Cut((44.0, 38.0, 36.0), end_y=-22.0, volume=2.2, comb="side", gravity=0.6, curl=(1.0, 1.3),
                     count=2700),
    "long_curly": Cut((36.0, 32.0, 30.0), end_y=-17.0, lift=0.5, volume=1.8, comb="side", gravity=0.55, curl=(0.8,
                      3.2), clump=0.75, count=3300),
    "curly": Cut((11.0, 8.0, 8.0), lift=0.85, volume=2.6, comb="radial", gravity=0.2, curl=(0.9, 5.0), clump=0.7,
                 count=5200, width=0.5),
    "afro": Cut((8.0, 7.0, 6.5), lift=1.0, volume=6.0, comb="radial", gravity=0.0, curl=(0.35, 9.0), clump=0.2,
                count=6500, width=0.5),
    "lob": Cut((34.0, 26.0, 24.0), end_y=-12.0, lift=0.25, volume=1.3, comb="side", gravity=0.65, count=2900),
    "wavy_bob": Cut((26.0, 19.0, 18.0), end_y=-6.0, lift=0.4, volume=1.6, comb="side", gravity=0.55, curl=(0.7, 1.8),
                    count=3000),
    "spiky": Cut((3.4, 1.6, 2.0), lift=1.0, volume=2.5, comb="radial", gravity=0.0, clump=0.8, count=4600),
    "mohawk": Cut((9.0, 0.5, 0.5), lift=1.0, volume=4.0, comb="up", gravity=0.0, clump=0.6, bare="mohawk"),
    "long_back": Cut((40.0, 30.0, 30.0), end_y=-20.0, lift=0.12, volume=0.8, comb="back", gravity=0.6, count=2700),
    "top_knot": Cut((20.0, 20.0, 20.0), lift=0.12, volume=0.5, comb="tie", gravity=0.0, tie=(0.0, 14.3, -3.0),
                    count=4600),
    "ponytail": Cut((24.0, 22.0, 18.0), lift=0.15, volume=0.7, comb="tie", gravity=0.0, tie=(0.0, 7.5, -9.5),
                    tail=30.0, count=4600),
    "bun": Cut((24.0, 22.0, 18.0), lift=0.15, volume=0.7, comb="tie", gravity=0.0, tie=(0.0, 10.5, -8.0), count=4600),
}  # fmt: skip
"""Our own cuts by name."""

"""Recipes of heads: names and numbers only, drawn from a seed. `compose.compose` makes the head.

Every field has its own hashed seed, and assets are drawn by name: a new field or a new asset leaves the other fields
of existing heads as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from .assets import AssetIndex, Kind, Split, choose, field_rng
from .parts import RGB

Base = Literal["shape", "bust", "toon"]
"""A parametric shape with a skin, a bust of the VALID library, or a toon character."""
HairKind = Literal["bald", "card", "strand", "cut", "own"]
"""No hair, cards, an asset of strands, one of our cuts, or what the bust or character comes with."""
BEARDS = ("stubble", "heavy_stubble", "goatee", "moustache", "full", "long", "sideburns")
NECKWEAR = ("turtleneck", "scarf", "collar", "high_collar", "ruff")
EXPRESSIONS = ("neutral", "smile", "laugh", "open", "frown", "surprise", "squint", "pout", "sneer", "blink", "mixed")
NATURAL_HAIR: Mapping[str, tuple[RGB, float]] = {
    "black": ((0.055, 0.048, 0.046), 0.2),
    "soft_black": ((0.1, 0.08, 0.07), 0.12),
    "dark_brown": ((0.17, 0.11, 0.075), 0.16),
    "brown": ((0.28, 0.18, 0.115), 0.14),
    "light_brown": ((0.42, 0.29, 0.18), 0.08),
    "dark_blond": ((0.52, 0.39, 0.24), 0.08),
    "blond": ((0.72, 0.57, 0.36), 0.08),
    "platinum": ((0.86, 0.79, 0.66), 0.03),
    "auburn": ((0.34, 0.15, 0.08), 0.05),
    "red": ((0.53, 0.21, 0.08), 0.06),
}
"""Mean sRGB colour and how often it is drawn."""
DYED_HAIR: tuple[RGB, ...] = (
    (0.75, 0.15, 0.35), (0.2, 0.3, 0.75), (0.1, 0.55, 0.45), (0.5, 0.2, 0.65), (0.9, 0.5, 0.65), (0.65, 0.05, 0.08),
    (0.35, 0.7, 0.85), (0.9, 0.45, 0.1),
)  # fmt: skip
CLOTHS: tuple[RGB, ...] = (
    (0.93, 0.92, 0.9), (0.75, 0.2, 0.18), (0.25, 0.4, 0.7), (0.3, 0.5, 0.3), (0.85, 0.7, 0.3), (0.6, 0.6, 0.62),
    (0.75, 0.65, 0.55), (0.55, 0.3, 0.5), (0.85, 0.55, 0.45), (0.4, 0.65, 0.7), (0.5, 0.35, 0.22),
)  # fmt: skip
DARK_CLOTHS: tuple[RGB, ...] = (
    (0.05, 0.05, 0.055), (0.09, 0.09, 0.1), (0.07, 0.08, 0.15), (0.16, 0.1, 0.07), (0.1, 0.14, 0.1), (0.2, 0.07, 0.08),
    (0.2, 0.2, 0.22), (0.14, 0.12, 0.11),
)  # fmt: skip


_KIND_OF_HAIR: Mapping[str, Kind] = {"card": "card_hair", "strand": "strand_hair", "cut": "cut"}


@dataclass(frozen=True)
class HairRecipe:
    """The hair of the scalp."""

    kind: HairKind = "bald"
    """Where it comes from."""
    name: str = ""
    """Name of the asset or cut; empty if bald or the bust's own."""
    rgb: RGB = (0.1, 0.07, 0.05)
    """Mean sRGB colour."""
    tip_rgb: RGB = (0.1, 0.07, 0.05)
    """Colour of the tips."""
    grey: float = 0.0
    """Share of grey hairs."""
    length: float = 1.0
    """Factor on the usual length."""
    volume: float = 1.0
    """Factor on how far it stands off."""
    curl: float = 0.0
    """Added waviness in [0, 1]."""
    parting_x: float = 0.0
    """Where the parting runs, world units towards the head's left."""
    fringe: float = 0.0
    """Share of the front hairs that fall over the forehead."""
    wet: float = 0.0
    """Wetness in [0, 1]."""
    messy: float = 0.3
    """How unlike neighbouring strands are, in [0, 1]."""


@dataclass(frozen=True)
class BeardRecipe:
    """Hair of the face."""

    name: str = ""
    """One of `BEARDS`; empty for none."""
    rgb: RGB = (0.1, 0.07, 0.05)
    """Colour."""
    density: float = 1.0
    """Share of the hairs, in [0, 1]."""


@dataclass(frozen=True)
class WearRecipe:
    """What is worn."""

    garment: str = ""
    """Name of a garment; empty for none."""
    garment_rgb: RGB | None = None
    """Colour it is dyed with; None leaves it as it is."""
    neckwear: str = ""
    """One of `NECKWEAR`, or empty."""
    neckwear_rgb: RGB = (0.2, 0.2, 0.2)
    """Its colour."""
    headgear: str = ""
    """Name of a headgear, or empty."""
    headgear_rgb: RGB = (0.2, 0.2, 0.2)
    """Its colour."""
    glasses: str = ""
    """Name of a shape of glasses, or empty."""
    glasses_rgb: RGB = (0.05, 0.05, 0.05)
    """Colour of the frame."""
    lens_alpha: float = 0.05
    """Opacity of the lenses; sunglasses are above 0.5."""
    earrings: str = ""
    """`stud`, `hoop` or empty."""
    necklace: bool = False
    """A chain of beads."""
    headgear_change: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """How headgear leaves its usual form: rim lower in front, beside, behind (degrees), crown higher (cm)."""


@dataclass(frozen=True)
class ComposedRecipe:
    """One head."""

    seed: int
    """Seed of the head and of all small random features."""
    split: Split
    """Whose assets were drawn."""
    base: Base
    """What the head is built on."""
    identity: str
    """Name of the bust or character, or the number of the shape."""
    skin: str = ""
    """Name of a skin (shapes only)."""
    skin_gain: RGB = (1.0, 1.0, 1.0)
    """Factors on the skin's linear colour."""
    race: RGB = (1 / 3, 1 / 3, 1 / 3)
    """Weights of African, Asian and Caucasian shapes."""
    male: float = 0.5
    """0 female, 1 male."""
    age: float = 0.4
    """0 child, 0.35 young, 1 old."""
    weight: float = 0.5
    """Body weight in [0, 1]."""
    scanned: float = 1.0
    """Factor on the identity modes of scanned faces that are added to the shape."""
    iris: str = "brown"
    """Name of an iris."""
    eyebrows: str = ""
    """Name of a pair of brows, or empty."""
    expression: str = "neutral"
    """One of `EXPRESSIONS`."""
    expression_strength: float = 0.0
    """In [0, 1]."""
    hair: HairRecipe = field(default_factory=HairRecipe)
    """Hair of the scalp."""
    beard: BeardRecipe = field(default_factory=BeardRecipe)
    """Hair of the face."""
    wear: WearRecipe = field(default_factory=WearRecipe)
    """What is worn."""
    style: str = "photo"
    """A name of `stylise.STYLES`."""
    exaggeration: float = 0.0
    """How far proportions leave nature, in [-1, 1]; positive: big eyes and cranium, negative: long face, big nose."""

    @property
    def name(self) -> str:
        """Split and seed."""
        return f"{self.split}_{self.seed}"

    @property
    def assets(self) -> tuple[str, ...]:
        """`kind/name` of everything that was drawn, identity first."""
        named = [
            (self.base if self.base != "shape" else "identity", self.identity),
            ("skin", self.skin),
            (_KIND_OF_HAIR.get(self.hair.kind, ""), self.hair.name),
            ("garment", self.wear.garment),
            ("eyebrows", self.eyebrows),
            ("headgear", self.wear.headgear),
            ("glasses", self.wear.glasses),
        ]
        return tuple(f"{kind}/{name}" for kind, name in named if kind and name)


def sample_recipe(seed: int, assets: AssetIndex, split: Split, *, base: Base | None = None) -> ComposedRecipe:
    """The recipe of head number `seed` of a split.

    Args:
        seed: any integer; the same seed gives another head in another split.
        assets: names by split.
        base: what it is built on; drawn if not given.
    """
    seed = seed * 3 + {"train": 0, "validation": 1, "held_out": 2}[split]
    drawn = base or choose(seed, "base", ("shape", "bust", "toon"), {"shape": 0.78, "bust": 0.19, "toon": 0.03})
    style = choose(
        seed, "style", ("photo", "toon", "flat", "painterly", "anime", "pastel", "ink"),
        {"photo": 4.6, "toon": 0.25, "flat": 0.2, "painterly": 0.45, "anime": 0.25, "pastel": 0.15, "ink": 0.1},
    )  # fmt: skip
    if drawn == "bust":
        return _bust_recipe(seed, assets, split, style)
    if drawn == "toon":
        toon_style = style if style != "photo" or field_rng(seed, "toon_style").random() < 0.5 else "toon"
        return ComposedRecipe(
            seed, split, "toon", choose(seed, "toon", assets.of("toon", split)), hair=HairRecipe("own"),
            style=toon_style,
        )  # fmt: skip
    return _shape_recipe(seed, assets, split, style)


def _shape_recipe(seed: int, assets: AssetIndex, split: Split, style: str) -> ComposedRecipe:
    low, high = assets.shape_identity_ranges[split]
    identity = int(field_rng(seed, "identity").integers(low, high))
    # what belongs to the person follows from the identity alone
    person = field_rng(identity, "person")
    race = person.dirichlet([0.45, 0.45, 0.45])
    skin = choose(seed, "skin", assets.of("skin", split))
    male = float(np.clip((1.0 if "_male" in skin else 0.0) + person.normal(0, 0.12), 0, 1))
    age = {"young": 0.35, "middleage": 0.62, "old": 0.95}[skin.split("_")[0]] + person.normal(0, 0.07)
    if skin.startswith("young") and person.random() < 0.22:
        age = person.uniform(0.02, 0.25)
    stylised = style != "photo"
    rng = field_rng(seed, "numbers")
    tone, hue = rng.normal(0, 0.16), rng.normal(0, 0.035)
    gain = np.exp(np.clip(tone, -0.35, 0.3)) * np.array([1 + hue, 1.0, 1 - hue])
    return ComposedRecipe(
        seed, split, "shape", f"{identity:05d}", skin, (float(gain[0]), float(gain[1]), float(gain[2])),
        (float(race[0]), float(race[1]), float(race[2])), male, float(np.clip(age, 0, 1)),
        float(np.clip(person.normal(0.5, 0.2), 0, 1)), float(person.uniform(0.2, 1.0)),
        choose(seed, "iris", assets.of("iris", split), {"brown": 4.0, "brownlight": 2.0}),
        "" if field_rng(seed, "browless").random() < 0.03 else choose(seed, "eyebrows", assets.of("eyebrows", split)),
        *_expression(seed), _hair(seed, assets, split, male, age), _beard(seed, male, age),
        draw_wear(seed, assets, split, male), style, _exaggeration(seed, stylised),
    )  # fmt: skip


def _bust_recipe(seed: int, assets: AssetIndex, split: Split, style: str) -> ComposedRecipe:
    wear = draw_wear(seed, assets, split, 0.5)
    rng = field_rng(seed, "bust_hair")
    rgb, tip, grey = draw_hair_colour(field_rng(seed, "hair_colour"), 0.45)
    own = HairRecipe("own", "", rgb if rng.random() < 0.4 else (-1.0, -1.0, -1.0), tip, grey)
    dyed = wear.garment_rgb if field_rng(seed, "bust_cloth").random() < 0.7 else None
    bare_headed = wear.headgear == "fedora"  # it is fitted to parametric shapes
    wear = replace(wear, garment="", garment_rgb=dyed, headgear="" if bare_headed else wear.headgear)
    return ComposedRecipe(
        seed, split, "bust", choose(seed, "bust", assets.of("bust", split)), hair=own, wear=wear, style=style,
        exaggeration=_exaggeration(seed, style != "photo"),
    )  # fmt: skip


def _exaggeration(seed: int, stylised: bool) -> float:
    rng = field_rng(seed, "exaggeration")
    return float(rng.uniform(-1, 1)) if stylised and rng.random() < 0.7 else 0.0


def _expression(seed: int) -> tuple[str, float]:
    name = choose(seed, "expression", EXPRESSIONS, {"neutral": 3.5, "smile": 3.0, "mixed": 2.0})
    return name, float(field_rng(seed, "expression_strength").uniform(0.25, 1.0)) if name != "neutral" else 0.0


def _hair(seed: int, assets: AssetIndex, split: Split, male: float, age: float) -> HairRecipe:
    rng = field_rng(seed, "hair_kind")
    bald = 0.1 if male > 0.5 and age > 0.3 else 0.02
    draw = rng.random()
    if draw < bald:
        return HairRecipe("bald")
    kind: HairKind = "card" if draw < bald + 0.2 else "strand" if draw < bald + 0.33 else "cut"
    name = choose(
        seed, f"hair/{kind}", assets.of(_KIND_OF_HAIR[kind], split),
        {"receding": (0.2, 2.0)[male > 0.5 and age > 0.4], "buzz": (0.3, 1.2)[male > 0.5], "mohawk": 0.35},
    )  # fmt: skip
    numbers = field_rng(seed, "hair_numbers")
    rgb, tip, grey = draw_hair_colour(field_rng(seed, "hair_colour"), age)
    return HairRecipe(
        kind, name, rgb, tip, grey,
        length=float(np.exp(numbers.normal(0, 0.22))),
        volume=float(np.exp(numbers.normal(0, 0.3))),
        curl=float(max(0.0, numbers.normal(0.0, 0.3))),
        parting_x=float(numbers.choice([-0.05, -0.035, 0.0, 0.0, 0.035, 0.05]) + numbers.normal(0, 0.005)),
        fringe=float(numbers.uniform(0.4, 1.0)) if numbers.random() < 0.35 else 0.0,
        wet=float(numbers.uniform(0.4, 1.0)) if numbers.random() < 0.06 else 0.0,
        messy=float(numbers.uniform(0.05, 0.8)),
    )  # fmt: skip


def _beard(seed: int, male: float, age: float) -> BeardRecipe:
    rng = field_rng(seed, "beard")
    if male < 0.5 or age < 0.3 or rng.random() > 0.55:
        return BeardRecipe()
    name = choose(seed, "beard", BEARDS, {"full": 1.5, "long": 0.6})
    rgb, _, _ = draw_hair_colour(field_rng(seed, "hair_colour"), age)
    darker = np.array(rgb) * rng.uniform(0.75, 1.05)
    return BeardRecipe(name, (float(darker[0]), float(darker[1]), float(darker[2])), float(rng.uniform(0.5, 1.0)))


def draw_wear(seed: int, assets: AssetIndex, split: Split, male: float) -> WearRecipe:
    """What somebody wears."""
    rng = field_rng(seed, "wear")
    numbers = rng.random(8)
    garments = assets.of("garment", split)
    suited = {g: (1.0 if g.startswith("male") == (male > 0.5) else 0.12) for g in garments}
    garment = choose(seed, "garment", garments, suited)
    dyed = cloth_rgb(field_rng(seed, "garment_rgb"), dark=0.5)
    neckwear = choose(seed, "neckwear", NECKWEAR, {"ruff": 0.15}) if numbers[0] < 0.36 else ""
    headgear = choose(
        seed,
        "headgear",
        assets.of("headgear", split),
        {"wizard_hat": 0.3, "crown": 0.4, "hood": 0.7, "headscarf": 0.8, "bonnet": 0.4},
    )
    glasses = choose(seed, "glasses", assets.of("glasses", split)) if numbers[2] < 0.24 else ""
    metal = [(0.05, 0.05, 0.06), (0.35, 0.2, 0.1), (0.65, 0.55, 0.3), (0.55, 0.56, 0.58), (0.5, 0.08, 0.1)]
    return WearRecipe(
        garment, dyed if numbers[3] < 0.8 else None, neckwear, cloth_rgb(field_rng(seed, "neckwear_rgb"), dark=0.45),
        headgear if numbers[1] < 0.2 else "", cloth_rgb(field_rng(seed, "headgear_rgb"), dark=0.4),
        glasses, metal[int(rng.choice(5, p=[0.5, 0.15, 0.12, 0.15, 0.08]))],
        float(rng.uniform(0.6, 0.95)) if numbers[4] < 0.3 else float(rng.uniform(0.02, 0.08)),
        str(rng.choice(["stud", "hoop"])) if numbers[5] < (0.3 if male < 0.5 else 0.05) else "",
        bool(numbers[6] < (0.2 if male < 0.5 else 0.06)),
    )  # fmt: skip


def _rgb(values: np.ndarray) -> RGB:
    red, green, blue = np.clip(values, 0.015, 0.95)
    return float(red), float(green), float(blue)


def draw_hair_colour(rng: np.random.Generator, age: float) -> tuple[RGB, RGB, float]:
    """Colour, colour of the tips, share of grey hairs; the old are more often grey or white."""
    colours, shares = zip(*NATURAL_HAIR.values())
    natural = np.array(colours[rng.choice(len(colours), p=np.array(shares) / sum(shares))])
    natural = natural * np.exp(rng.normal(0, 0.12)) * (1 + rng.normal(0, 0.04, 3))
    grey = 0.0
    if rng.random() < np.clip((age - 0.45) * 1.6, 0.03, 0.85):
        grey = float(rng.uniform(0.15, 1.0))
        silver = np.full(3, rng.uniform(0.4, 0.82)) * [1.0, 0.99, 0.96]
        natural = natural * (1 - grey) + silver * grey
    if rng.random() < 0.06:
        natural = np.array(DYED_HAIR[rng.integers(len(DYED_HAIR))]) * np.exp(rng.normal(0, 0.15))
    tip = natural * np.exp(rng.normal(0.08, 0.12))
    if rng.random() < 0.08:
        tip = np.array([0.7, 0.55, 0.35]) * rng.uniform(0.8, 1.1)
    return _rgb(natural), _rgb(tip), grey


def cloth_rgb(rng: np.random.Generator, *, dark: float) -> RGB:
    """Colour of a cloth; with probability `dark` a dark one, as clothes at portraits often are."""
    table = DARK_CLOTHS if rng.random() < dark else CLOTHS
    return _rgb(np.array(table[rng.integers(len(table))]) * np.exp(rng.normal(0, 0.15)) * (1 + rng.normal(0, 0.06, 3)))

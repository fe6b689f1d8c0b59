"""Training sets of shots: heads without background, rendered once, kept in files, finished anew for every step.

`portrait_shots` are taken as portraits are; `lit_shots` too, in stronger light, and once more in even light;
`surround_shots` from all sides, profiles and backs of heads included.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from ..cameras import PANOHEAD_FOCAL_NORMALISED, PANOHEAD_RADIUS, Cameras, look_at_origin
from ..progress import Track, silent
from ..synthetic.assets import Split, asset_index, choose, field_rng
from ..synthetic.compose import SyntheticHead
from ..synthetic.composed_recipe import ComposedRecipe
from ..synthetic.fields.field_recipes import drawn_recipe
from ..synthetic.hair.haircuts import FAMILIES, choose_haircut, style_of
from ..synthetic.portraits.backgrounds import Backgrounds
from ..synthetic.portraits.portrait_shots import PortraitShot, portrait_camera, shoot, take_shot
from ..synthetic.portraits.stylise import draw_views
from ..synthetic.rendering.lighting import even_lighting, random_lighting, side_lighting
from ..synthetic.rendering.renderer import HeadScene
from .head_samples import (
    HeadSamplesConfig,
    RecipeOf,
    Sample,
    camera_fields,
    composed_recipe,
    head_samples,
    square_camera,
)

PORTRAIT_SHOTS = HeadSamplesConfig(heads=5000, samples_per_head=3, size_px=352, heads_per_file=20)
"""The segmenter's training set."""
_RECEDING, _RECEDING_STYLES = 0.35, ("receding", "wreath", "comb_over", "shaved")
"""So many of the men in drawn haircuts wear one of these."""
_HATS = 0.25
"""So many of the bare heads get a hat."""
_PORTRAIT_SEED = 5
"""Of the people in them: others than head fields are of."""
LIT_SHOTS = HeadSamplesConfig(heads=1600, first_head=20000, samples_per_head=4, size_px=256, heads_per_file=20)
"""The training set of the network that tells light from skin."""
_SIDE_LIGHT = 0.4
"""So many of them are in strong light from the side."""
SURROUND_SHOTS = HeadSamplesConfig(heads=300, first_head=2000, samples_per_head=6, size_px=288)
"""The landmark networks' training set; the yaws of a head's shots go round `_YAW_RANGES_DEG`."""
_SURROUND_FRAME_FACTOR = 1.15
"""Side of a surround shot in units of the standard frame."""
_YAW_RANGES_DEG = ((0.0, 25.0), (0.0, 50.0), (35.0, 75.0), (55.0, 95.0), (65.0, 105.0), (110.0, 180.0))
"""Ranges of |yaw| of a head's shots, in turn; the last one shows the back of the head."""


@dataclass(frozen=True)
class Shots:
    """All shots of a split."""

    rgb: UInt8[np.ndarray, "n s s 3"]
    """Straight sRGB."""
    alpha: UInt8[np.ndarray, "n s s"]
    """Coverage."""
    labels: UInt8[np.ndarray, "n s s"]
    """`parts.Label`."""
    head: np.ndarray
    """Number of the head of each shot."""
    T_world_camera: Float[np.ndarray, "n 4 4"]
    """Poses of their cameras."""
    focal_px: Float[np.ndarray, " n"]
    """Focal lengths."""

    def __len__(self) -> int:
        return len(self.rgb)

    def __getitem__(self, index: int) -> tuple[PortraitShot, Cameras]:
        """A shot and its camera."""
        size = self.rgb.shape[1]
        camera = square_camera(self.T_world_camera[index], self.focal_px[index], np.full(2, size / 2), size)
        return PortraitShot(self.rgb[index], self.alpha[index], self.labels[index]), camera


@dataclass(frozen=True)
class LitShots:
    """Shots in some light, and the same ones in even light."""

    lit: Shots
    """As photographed."""
    even_rgb: UInt8[np.ndarray, "n s s 3"]
    """Straight sRGB of the same heads from the same cameras, light from everywhere."""

    def __len__(self) -> int:
        return len(self.lit)


def portrait_shots(
    data: Path, split: Split, folder: Path, config: HeadSamplesConfig = PORTRAIT_SHOTS, *, track: Track = silent
) -> Shots:
    """Heads as portraits show them, half of them in drawn haircuts; arguments and errors as of `head_samples`."""

    def take(scene: HeadScene, style: str, number: int, k: int, backgrounds: Backgrounds) -> Sample:
        rng = field_rng(number, f"{split}/shot/{k}")
        shot, camera = take_shot(scene, style, backgrounds, rng, config.size_px)
        return {"rgb": shot.rgb, "alpha": shot.alpha, "labels": shot.labels, **camera_fields(camera)}

    return Shots(**_shots("portraits", data, split, folder, config, take, track, _portrait_recipe))


def lit_shots(
    data: Path, split: Split, folder: Path, config: HeadSamplesConfig = LIT_SHOTS, *, track: Track = silent
) -> LitShots:
    """Heads as portraits show them, each in its light and in even light; arguments and errors as of `head_samples`."""

    def take(scene: HeadScene, style: str, number: int, k: int, backgrounds: Backgrounds) -> Sample:
        rng = field_rng(number, f"{split}/lit_shot/{k}")
        camera = portrait_camera(rng, config.size_px)
        lighting_of = side_lighting if rng.random() < _SIDE_LIGHT else random_lighting
        shot = shoot(scene, style, camera, lighting_of(rng, backgrounds.panoramas))
        even = shoot(scene, style, camera, even_lighting())
        return {
            "rgb": shot.rgb, "alpha": shot.alpha, "labels": shot.labels, "even_rgb": even.rgb, **camera_fields(camera),
        }  # fmt: skip

    columns = _shots("lit_shots", data, split, folder, config, take, track, _portrait_recipe)
    even_rgb = columns.pop("even_rgb")
    return LitShots(Shots(**columns), even_rgb)


def surround_shots(
    data: Path, split: Split, folder: Path, config: HeadSamplesConfig = SURROUND_SHOTS, *, track: Track = silent
) -> Shots:
    """Heads from all sides; arguments and errors as of `head_samples`."""

    def take(scene: HeadScene, style: str, number: int, k: int, backgrounds: Backgrounds) -> Sample:
        rng = field_rng(number, f"{split}/landmark_shot/{k}")
        camera = surround_camera(rng, _YAW_RANGES_DEG[k % len(_YAW_RANGES_DEG)], config.size_px)
        views = draw_views(scene, style, camera, random_lighting(rng, backgrounds.panoramas))
        rgb, alpha = (np.round(255 * a[0]).astype(np.uint8) for a in (views.rgb_unit, views.alpha_unit))
        return {"rgb": rgb, "alpha": alpha, "labels": views.labels[0], **camera_fields(camera)}

    return Shots(**_shots("landmark_shots", data, split, folder, config, take, track))


def surround_camera(rng: np.random.Generator, yaw_range_deg: tuple[float, float], size_px: int) -> Cameras:
    """A camera round the head: |yaw| in the range on either side, pitch within 28 degrees, any distance.

    Args:
        yaw_range_deg: least and largest |yaw|, degrees.
        size_px: side of the shot; its frame is 1.15 times the standard one.
    """
    yaw = math.radians(float(rng.uniform(*yaw_range_deg) * rng.choice([-1, 1])))
    pitch = math.radians(float(np.clip(rng.normal(1, 10), -28, 28)))
    distance = PANOHEAD_RADIUS * float(np.exp(rng.uniform(math.log(0.55), math.log(1.7))))
    focal = PANOHEAD_FOCAL_NORMALISED * distance / PANOHEAD_RADIUS / _SURROUND_FRAME_FACTOR
    return look_at_origin([yaw], [pitch], size_px=size_px, radius=distance, focal_normalised=focal)


def _shots(
    kind: str, data: Path, split: Split, folder: Path, config: HeadSamplesConfig,
    take: Callable[[HeadScene, str, int, int, Backgrounds], Sample], track: Track,
    recipe_of: RecipeOf = composed_recipe,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Columns of shots of any kind; `take` gets scene, style, numbers of head and shot, and backgrounds."""

    backgrounds = functools.cache(lambda: Backgrounds.of_split(data, split))

    def samples_of(head: SyntheticHead, number: int) -> list[Sample]:
        scene = HeadScene(head)
        return [take(scene, head.style, number, k, backgrounds()) for k in range(config.samples_per_head)]

    return head_samples(kind, data, split, folder, config, samples_of, recipe_of=recipe_of, track=track)


def _portrait_recipe(number: int, split: Split) -> ComposedRecipe:
    """Heads of all kinds, with more men who lose their hair and more hats than elsewhere: there labels are hardest."""
    recipe = drawn_recipe(number, split, _PORTRAIT_SEED)
    hatless = recipe.base == "shape" and not recipe.wear.headgear
    if hatless and field_rng(recipe.seed, "shots/headgear").random() < _HATS:
        name = choose(recipe.seed, "shots/headgear", asset_index().of("headgear", split))
        recipe = replace(recipe, wear=replace(recipe.wear, headgear=name))
    drawn_cut = recipe.hair.kind == "cut" and style_of(recipe.hair.name) in FAMILIES
    if not drawn_cut or recipe.male < 0.5 or field_rng(recipe.seed, "shots/receding").random() > _RECEDING:
        return recipe
    name = choose_haircut(recipe.seed, split, recipe.male, _RECEDING_STYLES)
    return replace(recipe, hair=replace(recipe.hair, name=name))

"""The prior against composed heads whose every side is known: labels, outlines and colours.

Held-out heads are photographed from random cameras, and the pictures go through the whole of the portrait preparation
and the prior; the prior is then seen from round the head beside the true head in the same light
(`synthetic.fitted_composed_head`). Measured are

- the labels of the portrait's pixels: intersection over union (IoU) with those of the true head as the fitted camera
  sees it, errors of the fit included;
- outlines in the upper 190 of 256 rows, without what either takes for clothes: IoU;
- headgear in both, where the true head shows any: IoU;
- the colour of skin without light, over all views and in the portrait's own, there as it is photographed as well, one
  gain for each head (root mean square, sRGB); and how far the direction is off that most light is found to come from,
  degrees;
- colours where both cover, so that the shape has no say: as they are (PSNR), and low-passed (mean absolute error in
  8-bit steps, PSNR), for nobody can know where single strands lie.

Needs the head assets; run by hand (about 20 s a head on one core), and again to go on where it stopped. Heads that wear
something are chosen by their recipe:

    python tests/benchmarks/prior_against_truth.py --data DATA/heads --heads 48
    python tests/benchmarks/prior_against_truth.py --data DATA/heads --heads 24 --wearing headgear
    python tests/benchmarks/prior_against_truth.py --data DATA/heads --heads 12 --light side
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

import cv2
import numpy as np
import tyro
from jaxtyping import Bool, Float32
from PIL import Image

from dp360.generation.cameras import Cameras, look_at_origin
from dp360.generation.files import write_bytes_atomically
from dp360.generation.light.exposure import GAMMA
from dp360.generation.portrait import FaceNetworks
from dp360.generation.portrait.person_networks import PersonNetworks
from dp360.generation.prior import HeadPrior
from dp360.generation.prior.hair.loose_strands import HairStrands
from dp360.generation.prior.texture.atlas import MATERIAL_CLOTH, MATERIAL_HEADGEAR, MATERIAL_SKIN
from dp360.generation.synthetic.assets import Split, asset_index
from dp360.generation.synthetic.compose import compose
from dp360.generation.synthetic.composed_recipe import ComposedRecipe, sample_recipe
from dp360.generation.synthetic.fitted_composed_head import (
    PHOTOGRAPHS,
    FittedComposedHead,
    fitted_head,
)
from dp360.generation.synthetic.parts import SKIN_LABELS, Label
from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
from dp360.generation.synthetic.rendering.lighting import even_lighting, side_lighting
from dp360.reconstruction.evaluation.compare import masked_psnr

AZIMUTHS_DEG = (0, 45, -45, 90, -90, 135, -135, 180)
SIZE_PX = 256
HEAD_ROWS = 190
"""Rows from the top that show head and hair rather than shoulders."""
LOW_PASS_PX = 6.5
LEAST_PIXELS = 200
PLAINLY_SEEN = 0.7
CLASSES = {
    "skin": (*SKIN_LABELS, Label.BEARD, Label.ACCESSORY, Label.GLASSES),
    "hair": (Label.HAIR, Label.HEADGEAR),
    "cloth": (Label.CLOTH,),
}
"""True labels of the prior's three classes."""


Wearing = Literal["any", "headgear", "glasses"]
"""What chosen heads wear: whatever it is, at least headgear, at least glasses."""


@dataclass(frozen=True)
class PriorBenchmarkConfig:
    """What to measure."""

    data: Path
    """Folder of the head assets."""
    output: Path = Path("outputs/prior_against_truth")
    """Folder for the figures and pictures of each head and the table; heads that are there are kept."""
    heads: int = 48
    """Heads with a face that is found."""
    split: Split = "held_out"
    """Whose."""
    wearing: Wearing = "any"
    """What they wear."""
    light: Literal["usual", "side"] = "usual"
    """Light as photographs have it, or strong light from the side."""


def overlap(a: Bool[np.ndarray, "h w"], b: Bool[np.ndarray, "h w"]) -> float:
    """Intersection over union; 1 for two empty masks."""
    return float((a & b).sum() / (a | b).sum()) if (a | b).any() else 1.0


def low_passed(rgb: Float32[np.ndarray, "h w 3"], mask: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 3"]:
    """Means of the masked pixels about each pixel."""
    mass = cv2.GaussianBlur(mask, (0, 0), LOW_PASS_PX)
    return cv2.GaussianBlur(rgb * mask[..., None], (0, 0), LOW_PASS_PX) / np.maximum(mass, 1e-3)[..., None]


def colour_figures(
    ours: Float32[np.ndarray, "h w 3"], truth: Float32[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"]
) -> dict[str, float]:
    """Differences of colours on the pixels inside."""
    mask = inside.astype(np.float32)
    low, true_low = low_passed(ours, mask), low_passed(truth, mask)
    return {
        "error, low-passed": 255 * float(np.abs(low - true_low)[inside].mean()),
        "PSNR, low-passed": masked_psnr(low, true_low, inside),
        "PSNR": masked_psnr(ours, truth, inside),
    }


def skin_error(prior: HeadPrior, fitted: FittedComposedHead, cameras: Cameras, *, seen: bool = False) -> float:
    """Root mean square difference of skin from the true one in even light, sRGB, one gain for all.

    Args:
        seen: whether only what the portrait shows plainly counts.
    """
    ours, truth = (
        prior.render(cameras, supersample=1),
        fitted.true_views(cameras, lighting=even_lighting(), supersample=1),
    )
    both = (ours.labels == MATERIAL_SKIN + 1) & np.isin(truth.labels, SKIN_LABELS)
    both &= (ours.alpha > 0.95) & (truth.alpha_unit > 0.95)
    if seen:
        both &= ours.validity > PLAINLY_SEEN
    a, b = ours.rgb[both] ** GAMMA, truth.rgb_linear[both]
    a = np.clip(a * ((a * b).sum() / max(float((a * a).sum()), 1e-9)), 0, 1)
    error = a ** (1 / GAMMA) - np.clip(b, 0, 1) ** (1 / GAMMA)
    return float(np.sqrt(np.square(error).mean()))


def light_figures(fitted: FittedComposedHead, prior: HeadPrior, cameras: Cameras) -> dict[str, float]:
    """Skin without light against the truth, and where light comes from."""
    bare = dataclasses.replace(
        prior, texture=dataclasses.replace(prior.texture, rgb=prior.texture.albedo), strands=HairStrands.none()
    )
    own = fitted.portrait.head.camera.resized(SIZE_PX, SIZE_PX)
    figures = {
        "skin without light": skin_error(bare, fitted, cameras),
        "the portrait's skin as photographed": skin_error(prior, fitted, own),
        "the portrait's skin without light": skin_error(bare, fitted, own),
        "the portrait's skin, plainly seen, without light": skin_error(bare, fitted, own, seen=True),
    }
    if prior.texture.portrait_light is not None:
        found = prior.texture.portrait_light.towards_world
        true = fitted.lighting.harmonics.rotated(fitted.fit_from_true.R).towards_world
        cosine = found @ true / np.linalg.norm(found) / np.linalg.norm(true)
        figures["light's direction"] = math.degrees(math.acos(float(np.clip(cosine, -1, 1))))
    return figures


def measure(fitted: FittedComposedHead) -> tuple[dict[str, float], np.ndarray]:
    """Figures by name, and a strip: portrait, then truth and prior from all sides."""
    portrait, prior = fitted.portrait, fitted.prior()
    seen = fitted.true_views(portrait.head.camera).labels[0]
    figures = {
        f"labels, {name}": [overlap(getattr(prior.portrait_labels, name), np.isin(seen, true) & portrait.inside)]
        for name, true in CLASSES.items()
    }
    cameras = look_at_origin([math.radians(a) for a in AZIMUTHS_DEG], [0.0] * len(AZIMUTHS_DEG), size_px=SIZE_PX)
    ours, truth = prior.render(cameras), fitted.true_views(cameras)
    for k, azimuth in enumerate(AZIMUTHS_DEG):
        counted = (ours.labels[k] != MATERIAL_CLOTH + 1) & (truth.labels[k] != Label.CLOTH)
        counted[HEAD_ROWS:] = False
        outlines = (ours.alpha[k] > 0.5) & counted, (truth.alpha_unit[k] > 0.5) & counted
        figures.setdefault(f"{abs(azimuth)}, outline", []).append(overlap(*outlines))
        worn = truth.labels[k] == Label.HEADGEAR
        if worn.sum() > LEAST_PIXELS:
            ours_worn = ours.labels[k] == MATERIAL_HEADGEAR + 1
            figures.setdefault(f"{abs(azimuth)}, headgear", []).append(overlap(ours_worn, worn))
        both = (ours.alpha[k] > 0.95) & (truth.alpha_unit[k] > 0.95)
        if both.sum() > LEAST_PIXELS:
            for name, value in colour_figures(ours.rgb[k], truth.rgb_unit[k], both).items():
                figures.setdefault(f"{abs(azimuth)}, {name}", []).append(value)
    over_white = ours.rgb * ours.alpha[..., None] + 1 - ours.alpha[..., None]
    small = cv2.resize(portrait.rgb, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
    rows = [np.round(255 * pictures.clip(0, 1)).astype(np.uint8) for pictures in (truth.over(1.0), over_white)]
    means = {name: float(np.mean(values)) for name, values in figures.items()}
    means |= light_figures(fitted, prior, cameras)
    return means, np.concatenate([np.concatenate([small, *row], axis=1) for row in rows])


def wears(recipe: ComposedRecipe, wearing: Wearing) -> bool:
    """Whether a head belongs to a selection."""
    match wearing:
        case "any":
            return True
        case "headgear":
            return recipe.wear.headgear != ""
        case "glasses":
            return recipe.wear.glasses != ""
        case _:
            assert_never(wearing)


def table(results: list[dict[str, float]]) -> str:
    """Means over heads with 95 % intervals (1.96 standard errors)."""
    lines = [f"{len(results)} heads; mean and 95 % interval", "", "| figure | |", "| --- | --- |"]
    for name in dict.fromkeys(name for result in results for name in result):
        values = np.array([result[name] for result in results if name in result])
        error = 1.96 * values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        lines.append(f"| {name} | {values.mean():.3f} +- {error:.3f} |")
    return "\n".join(lines) + "\n"


def main(config: PriorBenchmarkConfig) -> None:
    """Measure, and write the table, the figures of each head and a strip of pictures of each."""
    backgrounds = Backgrounds.of_split(config.data, config.split)
    # white balance and exposure of the photograph are no fault of the prior
    settings = dataclasses.replace(PHOTOGRAPHS, photographed=0.0)
    config.output.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, float]] = []
    number = 0
    faces, people = FaceNetworks(), PersonNetworks()
    while len(results) < config.heads:
        recipe = sample_recipe(number, asset_index(), config.split)
        if not wears(recipe, config.wearing):
            number += 1
            continue
        path = config.output / f"{config.split}_{number:04d}.json"
        if not path.is_file():
            head = compose(recipe, config.data)
            side = config.light == "side"
            lighting = side_lighting(np.random.default_rng(number), backgrounds.panoramas) if side else None
            fitted = fitted_head(head, backgrounds, number, faces, people, settings, lighting)
            figures: dict[str, float] = {}
            if fitted is not None:
                figures, strip = measure(fitted)
                Image.fromarray(strip).save(path.with_suffix(".png"))
            write_bytes_atomically(path, json.dumps(figures).encode())
        found = json.loads(path.read_text("utf-8"))
        results += [found] if found else []
        number += 1
    text = table(results)
    write_bytes_atomically(config.output / "table.md", text.encode())
    print(text)


if __name__ == "__main__":
    main(tyro.cli(PriorBenchmarkConfig, description=__doc__))

"""Colours of what a portrait does not show, against composed heads whose every side is known: learned beside plain.

Held-out heads are photographed from random cameras, and the pictures go through the whole of the portrait preparation
and the prior. The same fitted mesh is painted twice, by the completion network and in the typical colours of
hair, skin and clothes, and seen from round the
head beside the true head in the same light (`synthetic.fitted`). Only pixels that both cover count, so that the shape
has no say. Colours are compared as they are and low-passed, for nobody can know where single strands lie. Needs the
head assets; run by hand (about 20 s a head on one core), and again to go on where it stopped:

    python tests/benchmarks/completion_against_truth.py --data ../shared/data/heads --heads 48
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from jaxtyping import Float32
from PIL import Image

from dp360.generation.cameras import look_at_origin
from dp360.generation.files import write_bytes_atomically
from dp360.generation.head_model import HeadModel, load_head_model
from dp360.generation.networks import LoadedNetwork
from dp360.generation.portrait import FaceNetworks
from dp360.generation.portrait.matte import PersonNetworks
from dp360.generation.prior import HeadPrior
from dp360.generation.prior.bust.torso import fit_torso
from dp360.generation.prior.hair.hair_shell import fit_hair_shell
from dp360.generation.prior.labels.portrait_labels import label_portrait
from dp360.generation.prior.texture.atlas import build_atlas_mesh
from dp360.generation.prior.texture.completion_network import COMPLETION, CompletionNet
from dp360.generation.prior.texture.prior_texture import paint_prior
from dp360.generation.synthetic.assets import Split, asset_index
from dp360.generation.synthetic.compose import compose
from dp360.generation.synthetic.fitted_composed_head import FittedConfig, FittedHead, fitted_head, photograph_look
from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
from dp360.generation.synthetic.recipe import sample_recipe

METHODS = ("learned", "plain")
RINGS = {"0": (0,), "45": (45, -45), "90": (90, -90), "135": (135, -135), "180": (180,)}
AZIMUTHS_DEG = tuple(a for ring in RINGS.values() for a in ring)
MEASURES = ("mean_absolute", "psnr_low", "psnr")
"""Mean absolute error of low-passed colours (8-bit steps), PSNR of low-passed colours, PSNR as rendered."""
SIZE_PX = 192
LOW_PASS_PX = 5.0
LEAST_PIXELS = 200


@dataclass(frozen=True)
class CompletionBenchmarkConfig:
    """What to measure."""

    data: Path
    """Folder of the head assets."""
    output: Path = Path("outputs/completion_against_truth")
    """Folder for the figures of each head, the table and the pictures; heads that are there are kept."""
    heads: int = 48
    """Heads with a face that is found."""
    split: Split = "held_out"
    """Whose."""
    weights: Path | None = None
    """Weights of the network; the installed ones if not given."""


def low_passed(rgb: Float32[np.ndarray, "h w 3"], mask: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 3"]:
    """Means of the masked pixels about each pixel."""
    mass = cv2.GaussianBlur(mask, (0, 0), LOW_PASS_PX)
    return cv2.GaussianBlur(rgb * mask[..., None], (0, 0), LOW_PASS_PX) / np.maximum(mass, 1e-3)[..., None]


def compare(
    ours: Float32[np.ndarray, "h w 3"], truth: Float32[np.ndarray, "h w 3"], mask: Float32[np.ndarray, "h w"]
) -> dict[str, float]:
    """All measures on the masked pixels."""
    inside = mask > 0
    low, true_low = low_passed(ours, mask)[inside], low_passed(truth, mask)[inside]

    def psnr(a: np.ndarray, b: np.ndarray) -> float:
        return float(-10 * np.log10(max(float(((a - b) ** 2).mean()), 1e-6)))

    return {
        "mean_absolute": 255 * float(np.abs(low - true_low).mean()),
        "psnr_low": psnr(low, true_low),
        "psnr": psnr(ours[inside], truth[inside]),
    }


def measure(
    fitted: FittedHead, model: HeadModel, loaded: LoadedNetwork[CompletionNet]
) -> tuple[dict[str, dict[str, dict[str, float]]], np.ndarray]:
    """Figures by method and azimuth, and a strip: portrait, then truth, learned and plain from all sides."""
    portrait = fitted.portrait
    labels = label_portrait(portrait, model)
    shell, torso = fit_hair_shell(portrait, labels, model), fit_torso(portrait, labels, model)
    mesh = build_atlas_mesh(model, portrait.head.vertices_world, shell, torso, bald=labels.bald)
    cameras = look_at_origin([math.radians(a) for a in AZIMUTHS_DEG], [0.0] * len(AZIMUTHS_DEG), size_px=SIZE_PX)
    truth = fitted.true_views(cameras)
    true_rgb = truth.rgb_unit
    small = cv2.resize(portrait.rgb, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
    strips = [np.concatenate([small, *np.round(255 * truth.over(1.0)).astype(np.uint8)], axis=1)]
    figures: dict[str, dict[str, dict[str, float]]] = {}
    untrained = LoadedNetwork(CompletionNet().eval(), "")  # it says the typical colours
    for method, network in zip(METHODS, (loaded, untrained)):
        texture = paint_prior(portrait, labels, model, mesh, completion=network)
        ours = HeadPrior(mesh, texture, labels, model.weights_name).render(cameras)
        figures[method] = {}
        for k, azimuth in enumerate(AZIMUTHS_DEG):
            mask = ((ours.alpha[k] > 0.95) & (truth.alpha_unit[k] > 0.95)).astype(np.float32)
            if mask.sum() > LEAST_PIXELS:
                figures[method][str(azimuth)] = compare(ours.rgb[k], true_rgb[k], mask)
        over_white = ours.rgb * ours.alpha[..., None] + 1 - ours.alpha[..., None]
        strips.append(np.concatenate([small, *np.round(255 * over_white.clip(0, 1)).astype(np.uint8)], axis=1))
    return figures, np.concatenate(strips)


def table(results: list[dict[str, dict[str, dict[str, float]]]]) -> str:
    """Means over heads by ring with 95 % intervals (1.96 standard errors), and the paired differences."""
    lines = [
        f"{len(results)} held-out heads; mean and 95 % interval; the difference is paired, learned minus plain.",
        "",
        "| azimuth | measure | learned | plain | difference |",
        "| --- | --- | --- | --- | --- |",
    ]
    titles = {"mean_absolute": "mean absolute error, low-passed", "psnr_low": "PSNR low-passed", "psnr": "PSNR"}
    for ring, azimuths in RINGS.items():
        for name in MEASURES:
            values = {m: [] for m in METHODS}
            for result in results:
                both = [str(a) for a in azimuths if all(str(a) in result[m] for m in METHODS)]
                for m in METHODS:
                    if both:
                        values[m].append(float(np.mean([result[m][a][name] for a in both])))
            cells = [_interval(np.array(v)) for v in values.values()]
            cells.append(_interval(np.array(values["learned"]) - np.array(values["plain"]), signed=True))
            lines.append(f"| {ring} | {titles[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _interval(values: np.ndarray, *, signed: bool = False) -> str:
    error = 1.96 * values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{values.mean():{'+' if signed else ''}.2f} +- {error:.2f}"


def main(config: CompletionBenchmarkConfig) -> None:
    """Measure, and write the table, the figures of each head and a strip of pictures of each."""
    loaded = COMPLETION.load() if config.weights is None else COMPLETION.read(config.weights)
    model, backgrounds = load_head_model(), Backgrounds.of_split(config.data, config.split)
    # white balance and exposure of the photograph are no fault of the completion
    settings = FittedConfig(look=dataclasses.replace(photograph_look(), photographed=0.0))
    results: list[dict] = []
    with FaceNetworks() as faces, PersonNetworks() as people:
        number = -1
        while len(results) < config.heads:
            number += 1
            path = config.output / f"{config.split}_{number:04d}.json"
            if path.is_file():
                figures = json.loads(path.read_text("utf-8"))
            else:
                head = compose(sample_recipe(number, asset_index(), config.split), config.data)
                fitted = fitted_head(head, backgrounds, number, faces, people, settings, model=model)
                figures = {}
                if fitted is not None:
                    figures, strip = measure(fitted, model, loaded)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(strip).save(path.with_suffix(".png"))
                write_bytes_atomically(path, json.dumps(figures).encode())
            if figures:
                results.append(figures)
    text = table(results)
    write_bytes_atomically(config.output / "table.md", text.encode())
    print(text)


if __name__ == "__main__":
    main(tyro.cli(CompletionBenchmarkConfig, description=__doc__))

"""The whole prior on heads it has never seen: its learned parts beside its rules.

Held-out heads are photographed from random cameras in random light (yaw within 42 degrees), and the pictures go
through the portrait preparation and through the prior twice, with everything learned and with everything ruled. The
true head in the same light is laid over the fitted one by the face alone (`generation/synthetic/fitted.py`), and all
three are seen from round the head. Needs the head assets; run by hand (about 25 s a head on one core). A second call
goes on where the first one stopped:

    python tests/benchmarks/learned_against_rules.py --data ../shared/data/heads --output outputs/learned_against_rules

Measures: overlap of the silhouettes above the shoulders; PSNR, SSIM and GMSD over white. GMSD is the perceptual
distance: the spread of the similarity of gradients (Xue et al., "Gradient Magnitude Similarity Deviation", 2014,
Eqs. 1 to 5), 0 for equal pictures; it needs no weights.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import tyro
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from skimage.metrics import structural_similarity

from dp360.generation.cameras import Cameras, look_at_origin
from dp360.generation.files import write_bytes_atomically
from dp360.generation.head_model import HeadModel, load_head_model
from dp360.generation.portrait.face_detection import FaceNetworks
from dp360.generation.portrait.matte import PersonNetworks
from dp360.generation.prior import HeadPriorConfig, build_head_prior
from dp360.generation.prior.hair_shell import HairShellConfig
from dp360.generation.prior.labels import LabelConfig
from dp360.generation.prior.texture import TextureConfig
from dp360.generation.synthetic.assets import Split, asset_index
from dp360.generation.synthetic.backgrounds import Backgrounds
from dp360.generation.synthetic.compose import compose
from dp360.generation.synthetic.fitted import fitted_head
from dp360.generation.synthetic.recipe import sample_recipe

AZIMUTHS_DEG = (0, 45, -45, 90, -90, 135, -135, 180)
SIZE_PX = 256
HEAD_ROWS = slice(0, 190)
"""Rows of a 256 px picture that show head and hair rather than shoulders."""
METHODS = {
    "learned": HeadPriorConfig(shell=HairShellConfig(method="learned")),
    "rules": HeadPriorConfig(
        labels=LabelConfig(method="rules"), shell=HairShellConfig(method="rules"), texture=TextureConfig(method="rules")
    ),
}
MEASURES = ("iou", "psnr", "ssim", "gmsd")


@dataclass(frozen=True)
class LearnedBenchmarkConfig:
    """What to measure."""

    data: Path
    """Folder of the head assets."""
    output: Path = Path("outputs/learned_against_rules")
    """Folder for the table, the portraits and the pictures."""
    heads: int = 72
    """Heads, one portrait each; those in which no face is found are left out."""
    first: int = 0
    """Number of the first head."""
    split: Split = "held_out"
    """Whose."""
    methods: dict[str, HeadPriorConfig] = field(default_factory=lambda: METHODS)
    """What is compared."""


def cameras() -> Cameras:
    """Round the head, on the level."""
    return look_at_origin([math.radians(a) for a in AZIMUTHS_DEG], [0.0] * len(AZIMUTHS_DEG), size_px=SIZE_PX)


def gmsd(a: Float32[np.ndarray, "h w 3"], b: Float32[np.ndarray, "h w 3"]) -> float:
    """Gradient magnitude similarity deviation of two pictures in [0, 1]."""

    def magnitude(rgb: Float32[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        kernel = np.array([[1, 0, -1]] * 3, np.float32) / 3
        return np.hypot(cv2.filter2D(grey, cv2.CV_32F, kernel), cv2.filter2D(grey, cv2.CV_32F, kernel.T))

    x, y = magnitude(a), magnitude(b)
    constant = 170 / 255**2
    return float(((2 * x * y + constant) / (x * x + y * y + constant)).std())


def compare(
    rgb: Float32[np.ndarray, "h w 3"],
    alpha: Float32[np.ndarray, "h w"],
    true_rgb: Float32[np.ndarray, "h w 3"],
    true_alpha: Float32[np.ndarray, "h w"],
) -> dict[str, float]:
    """Measures of one view; pictures over white."""
    rows = HEAD_ROWS
    ours, true = alpha[rows] > 0.5, true_alpha[rows] > 0.5
    error = float(((rgb[rows] - true_rgb[rows]) ** 2).mean())
    return {
        "iou": float((ours & true).sum() / max(1, (ours | true).sum())),
        "psnr": 10 * math.log10(1 / max(error, 1e-9)),
        "ssim": float(structural_similarity(rgb[rows], true_rgb[rows], channel_axis=2, data_range=1.0)),
        "gmsd": gmsd(np.ascontiguousarray(rgb[rows]), np.ascontiguousarray(true_rgb[rows])),
    }


@dataclass(frozen=True)
class Tools:
    """What all heads need."""

    backgrounds: Backgrounds
    faces: FaceNetworks
    people: PersonNetworks
    model: HeadModel


def measure(
    number: int, config: LearnedBenchmarkConfig, tools: Tools
) -> tuple[dict[str, list[dict[str, float]]], UInt8[np.ndarray, "h w 3"]] | None:
    """Measures by method and azimuth, and a strip of pictures: truth, then the methods; None without a face."""
    head = compose(sample_recipe(number, asset_index(), config.split), config.data)
    fitted = fitted_head(head, tools.backgrounds, number, tools.faces, tools.people, model=tools.model)
    if fitted is None:
        return None
    truth = fitted.true_views(cameras())
    true_rgb, true_alpha = truth.over(1.0).astype(np.float32), truth.alpha_unit
    strips = [np.concatenate(list(true_rgb), axis=1)]
    result = {}
    for name, prior_config in config.methods.items():
        views = build_head_prior(fitted.portrait, prior_config, model=tools.model).render(cameras())
        rgb = np.clip(views.rgb * views.alpha[..., None] + 1 - views.alpha[..., None], 0, 1).astype(np.float32)
        result[name] = [compare(*each) for each in zip(rgb, views.alpha, true_rgb, true_alpha)]
        strips.append(np.concatenate(list(rgb), axis=1))
    strip = cv2.resize(np.concatenate(strips), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return result, np.round(255 * strip).astype(np.uint8)


def table(results: list[dict[str, list[dict[str, float]]]]) -> str:
    """Means with 95 % confidence intervals over heads, and of the paired difference."""
    names = list(results[0])
    lines = [
        f"| measure, azimuth | {' | '.join(names)} | {names[0]} - {names[-1]} |",
        "| --- " * (len(names) + 2) + "|",
    ]
    for measure_name in MEASURES:
        for azimuth in (0, 45, 90, 135, 180):
            columns = [k for k, a in enumerate(AZIMUTHS_DEG) if abs(a) == azimuth]
            values = np.array(
                [[np.mean([r[name][k][measure_name] for k in columns]) for name in names] for r in results]
            )
            values = np.concatenate([values, values[:, :1] - values[:, -1:]], axis=1)
            interval = 1.96 * values.std(0, ddof=1) / math.sqrt(len(values))
            digits = 2 if measure_name == "psnr" else 3
            cells = [f"{m:.{digits}f} +- {i:.{digits}f}" for m, i in zip(values.mean(0), interval)]
            lines.append(f"| {measure_name}, {azimuth} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(config: LearnedBenchmarkConfig) -> None:
    """Measure, write `table.md` and one strip per head, and print the table."""
    results = []
    backgrounds, model = Backgrounds.of_split(config.data, config.split), load_head_model()
    with FaceNetworks() as faces, PersonNetworks() as people:
        tools = Tools(backgrounds, faces, people, model)
        for number in range(config.first, config.first + config.heads):
            path = config.output / f"head_{number:03d}.json"
            if not path.is_file():
                measured = measure(number, config, tools)
                if measured is not None:
                    config.output.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(measured[1]).save(config.output / f"head_{number:03d}.png")
                write_bytes_atomically(path, json.dumps(measured and measured[0]).encode())
            result = json.loads(path.read_text())
            if result is not None:
                results.append(result)
    text = f"{len(results)} {config.split} heads, heads' rows of {SIZE_PX} px views\n\n{table(results)}"
    write_bytes_atomically(config.output / "table.md", text.encode())
    print(text)


if __name__ == "__main__":
    main(tyro.cli(LearnedBenchmarkConfig, description=__doc__))

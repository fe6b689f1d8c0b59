"""Put trained compact weights where the package ships them, with what was measured of them.

    dp360 eval heads --benchmark HEADS --generators prior compact@RUN/pipeline --output RESULTS
    python scripts/ship_compact.py --pipeline RUN/pipeline --results RESULTS

Source of the figures: `results.json` of that evaluation, and the results of its heads beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from dp360.generation import InputError
from dp360.generation.diffusion.compact import HeldOut, load_pipeline, verified_name, write_compact
from dp360.generation.diffusion.diffportrait360_generator import weights_name_of
from dp360.reconstruction.evaluation.results import RESULTS


@dataclass(frozen=True)
class Arguments:
    """Put trained compact weights where the package ships them."""

    pipeline: Path
    """Pipeline folder of the last stage."""
    results: Path
    """Output folder of `dp360 eval heads` with the generators prior and compact@PIPELINE."""
    drawing_steps: int | None = None
    """Denoising steps in which the weights draw best; None leaves the choice to the device."""
    output: Path = Path(__file__).parents[1] / "generation" / "weights" / "compact"
    """Folder to write."""


def main(arguments: Arguments) -> str:
    """Write the folder; how the weights are called from now on, their size, and who is better.

    Raises:
        InputError: results of other generators or none at all, or a pipeline that cannot be loaded.
    """
    measured = held_out_figures(arguments.results, arguments.pipeline)
    pipeline = load_pipeline(arguments.pipeline, torch.float32)
    pipeline.register_to_config(drawing_steps=arguments.drawing_steps)
    write_compact(pipeline, measured, arguments.output)
    size_mb = sum(file.stat().st_size for file in arguments.output.rglob("*")) / 1e6
    return f"{verified_name(arguments.output)}, {size_mb:.1f} MB, --generator auto takes: {measured.winner}"


def held_out_figures(results: Path, pipeline: Path) -> HeldOut:
    """Figures of the prior and of the compact model with these weights, out of the folder of an evaluation.

    Raises:
        InputError: that folder has none of them.
    """
    digest = weights_name_of(pipeline, str(pipeline)).rpartition(" ")[2]
    try:
        found = json.loads((results / RESULTS).read_text("utf-8"))
        (compact,) = (name for name, weights in found["facts"]["weights"].items() if digest in weights)
        figures = [
            {metric: value["mean"] for metric, value in found["summary"][name]["all"].items()}
            for name in ("prior", compact)
        ]
        head = json.loads(next((results / "heads").rglob("*.json")).read_text("utf-8"))
        return HeldOut(found["heads"], len(head["rows"]), *figures)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise InputError(
            f"{results} has no figures of these weights beside those of prior; expected the output of dp360 eval heads "
            f"--generators prior compact@{pipeline}"
        ) from error


if __name__ == "__main__":
    print(main(tyro.cli(Arguments)))

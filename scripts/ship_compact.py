"""Put trained compact weights where the package ships them, with what was measured of them.

dp360 eval heads --benchmark HEADS --generators prior compact@RUN/pipeline --output RESULTS
python scripts/ship_compact.py --pipeline RUN/pipeline --results RESULTS/results.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from dp360.generation.diffusion.compact import HeldOut, load_pipeline, verified_name, write_compact


@dataclass(frozen=True)
class Arguments:
    """Put trained compact weights where the package ships them."""

    pipeline: Path
    """Pipeline folder of the last stage."""
    results: Path
    """results.json of `dp360 eval heads` with the generators prior and compact@PIPELINE."""
    views: int
    """True views of each head in those results."""
    drawing_steps: int | None = None
    """Denoising steps in which the weights draw best; None leaves the choice to the device."""
    name: str = "compact@pipeline"
    """What the weights are called in the results."""
    output: Path = Path(__file__).parents[1] / "generation" / "weights" / "compact"
    """Folder to write."""


def main(arguments: Arguments) -> None:
    """Write the folder and say how the weights are called from now on."""
    found = json.loads(arguments.results.read_text())
    figures = [
        {metric: value["mean"] for metric, value in found["summary"][name]["all"].items()}
        for name in ("prior", arguments.name)
    ]
    measured = HeldOut(found["heads"], arguments.views, *figures)
    pipeline = load_pipeline(arguments.pipeline, torch.float32)
    pipeline.register_to_config(drawing_steps=arguments.drawing_steps)
    write_compact(pipeline, measured, arguments.output)
    size_mb = sum(file.stat().st_size for file in arguments.output.rglob("*")) / 1e6
    print(f"{verified_name(arguments.output)}, {size_mb:.1f} MB, --generator auto takes: {measured.winner}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))

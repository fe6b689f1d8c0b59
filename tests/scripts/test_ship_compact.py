"""`scripts/ship_compact.py`, called as its docstring says: weights and figures go together, or are refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import tyro

from dp360.generation import InputError
from dp360.generation.diffusion.compact import compact_folder, load_pipeline, verified_name
from dp360.generation.diffusion.diffportrait360_generator import weights_name_of

SCRIPT = Path(__file__).parents[2] / "scripts" / "ship_compact.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ship_compact", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ship_compact"] = module  # where its dataclass looks for its annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights that ship, as a trained pipeline."""
    shipped = compact_folder()
    assert shipped is not None
    return Path(shutil.copytree(shipped, tmp_path_factory.mktemp("run") / "pipeline"))


def results_of(folder: Path, weights: str) -> Path:
    """What an evaluation of one head with three views leaves, as far as it is read."""
    figures = {"prior": (11.0, 0.6), "compact@pipeline": (12.0, 0.5)}
    summary = {
        name: {"all": {"psnr_head": {"mean": psnr}, "perceptual": {"mean": perceptual}}}
        for name, (psnr, perceptual) in figures.items()
    }
    facts = {"weights": {"prior": "head_model (sha256 00)", "compact@pipeline": f"{weights}; head_model (sha256 00)"}}
    head = folder / "heads" / "compact@pipeline" / "held_out_000000.json"
    head.parent.mkdir(parents=True)
    head.write_text(json.dumps({"facts": {}, "rows": [{}, {}, {}]}))
    (folder / "results.json").write_text(json.dumps({"facts": facts, "heads": 1, "summary": summary}))
    return folder


def test_the_call_of_the_docstring_ships_weights_with_their_figures(
    script: ModuleType, pipeline: Path, tmp_path: Path
) -> None:
    assert script.__doc__ is not None
    (call,) = (line.split() for line in script.__doc__.splitlines() if "ship_compact.py --" in line)
    results = results_of(tmp_path / "results", weights_name_of(pipeline, str(pipeline)))
    places = {"RUN/pipeline": str(pipeline), "RESULTS": str(results)}
    words = [places.get(word, word) for word in call[2:]] + ["--output", str(tmp_path / "compact")]
    said = script.main(tyro.cli(script.Arguments, args=words))
    assert verified_name(tmp_path / "compact") in said and said.endswith("auto takes: compact")
    measured = json.loads((tmp_path / "compact" / "held_out.json").read_text())
    assert (measured["heads"], measured["views"]) == (1, 3)
    assert measured["figures"]["prior"] == {"psnr_head": 11.0, "perceptual": 0.6}
    assert measured["figures"]["compact"] == {"psnr_head": 12.0, "perceptual": 0.5}
    before, after = (load_pipeline(folder, torch.float32) for folder in (pipeline, tmp_path / "compact"))
    assert all(torch.equal(a, b) for a, b in zip(before.unet.parameters(), after.unet.parameters()))


def test_figures_of_other_weights_are_refused(script: ModuleType, pipeline: Path, tmp_path: Path) -> None:
    results = results_of(tmp_path / "results", "pipeline (sha256 0123456789abcdef)")
    for folder in (results, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"no figures of these weights.*dp360 eval heads"):
            script.held_out_figures(folder, pipeline)

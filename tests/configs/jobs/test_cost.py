"""The forecast is a sum: stages, failures, jobs."""

import json

import pytest

from dp360.configs import cli
from dp360.configs.jobs.cost import batch_cost
from dp360.configs.jobs.results import PortraitResult, ResultsFile
from dp360.generation import InputError

RESULTS = [
    PortraitResult("a", "a.png", "done", "k", stages_s={"portrait": 2.0, "fit": 30.0}, peak_memory_bytes=2_000_000_000),
    PortraitResult("b", "b.png", "done", "k", stages_s={"portrait": 4.0, "fit": 50.0}, peak_memory_bytes=1_000_000_000),
    PortraitResult("c", "c.png", "refused", "k", error="no face"),
    PortraitResult("d", "d.png", "refused", "k", error="no face"),
]


def test_hours():
    cost = batch_cost(RESULTS, portraits=7200, jobs=4)
    assert cost.stage_s == {"portrait": 3.0, "fit": 40.0} and cost.head_s == 43.0 and cost.failed_share == 0.5
    assert cost.wall_hours == pytest.approx(7200 * (0.5 * 43 + 0.5 * 3) / 4 / 3600)
    assert cost.peak_memory_bytes == 2_000_000_000


def test_command(tmp_path, capsys):
    for result in RESULTS:
        ResultsFile(tmp_path / "results.jsonl").append(result)
    words = ["bench", "batch", "--results", str(tmp_path / "results.jsonl"), "--heads", "3600", "--jobs", "1"]
    assert cli.main([*words, "--json", str(tmp_path / "cost.json")]) == 0
    assert "means of 2 heads" in capsys.readouterr().out
    assert json.loads((tmp_path / "cost.json").read_text())["wall_hours"] == pytest.approx(23.0)


def test_nothing_measured():
    with pytest.raises(InputError, match="at least one head"):
        batch_cost(RESULTS[2:], portraits=10, jobs=1)
    with pytest.raises(InputError, match="at least 1"):
        batch_cost(RESULTS, portraits=10, jobs=0)

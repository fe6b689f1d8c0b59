"""Kernels are compiled beside the making of the first head, or all at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dp360.configs import cli, doctor, kernels


def test_nothing_happens_where_kernels_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "fit_kernels_are_compiled", lambda: True)
    notes: list[str] = []
    with kernels.fit_kernels_beside("cpu", notify=notes.append) as wait:
        assert wait is None
    assert not notes


def test_another_process_compiles_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "fit_kernels_are_compiled", lambda: False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    notes, shown = [], []

    def track(sequence, *, total, description):
        shown.append((total, description))
        return sequence

    with kernels.fit_kernels_beside("cpu", track=track, notify=notes.append) as wait:
        assert wait is not None and notes == [kernels.FIRST_HEAD] and not shown
        wait()
    assert shown == [(1, kernels.COMPILING)]


def test_the_other_process_ends_with_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "fit_kernels_are_compiled", lambda: False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    started = []
    context = kernels.multiprocessing.get_context("spawn")

    def remembered(*args, **kwargs):
        started.append(context.Process(*args, **kwargs))
        return started[0]

    monkeypatch.setattr(kernels.multiprocessing, "get_context", lambda name: type("C", (), {"Process": remembered}))
    with pytest.raises(KeyboardInterrupt), kernels.fit_kernels_beside("cpu"):
        raise KeyboardInterrupt
    assert not started[0].is_alive() and started[0].exitcode is not None


def test_one_core_compiles_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "fit_kernels_are_compiled", lambda: False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    notes: list[str] = []
    with kernels.fit_kernels_beside("cpu", notify=notes.append) as wait:
        assert wait is None
    assert notes == [kernels.FIRST_HEAD]


@pytest.mark.parametrize("possible", (True, False))
def test_the_doctor_compiles_when_asked_and_able(possible: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    monkeypatch.setattr(kernels, "compile_kernels", lambda *, track: done.append(track))
    if not possible:
        lacking = doctor.Finding("weights", "none", "missing", "all", blocks_main_job=True)
        monkeypatch.setattr(doctor, "examine", lambda folder: doctor.Diagnosis((lacking,), ""))
    assert cli.main(["doctor"]) == (0 if possible else 1) and not done
    assert cli.main(["doctor", "--compile"]) == (0 if possible else 1)
    assert len(done) == possible


@pytest.mark.slow
def test_a_head_finds_every_kernel_that_the_doctor_has_compiled(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def compiled_by(*words: str) -> set[str]:
        subprocess.run([sys.executable, "-m", "dp360.configs.cli", *words], env=environment, cwd=tmp_path, check=True)
        return {path.name for path in (tmp_path / "cache").rglob("*.nbc")}

    first = compiled_by("doctor", "--compile")
    assert len(first) > 50
    subprocess.run([sys.executable, "-m", "dp360.configs.cli", "example", "face.png"], cwd=tmp_path, check=True)
    assert compiled_by("run", "face.png", "--quality", "fast") == first

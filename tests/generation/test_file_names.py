"""Names out of other names: taken by Windows, macOS and Linux alike."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp360.generation.file_names import as_file_name, is_file_name, leads_inside

REFUSED = (
    "", " ", ".", "..", "con", "CON", "nul.png", "Aux.tar.gz", "com1", "LPT9.x", "COM\u00b2", "con .png", "a:b", "a/b",
    "a\\b", "what?", "a*", 'say "x"', "<a>", "a|b", "a.", "a ", " a", "a\n", "a\x00", "\udcff", "x" * 256,
    "\u65e5" * 90,
)  # fmt: skip
TAKEN = ("face", "zoë", "日本", "console", "com10", "a b", "a.b", ".hidden", "CON-1", "it's", "100%", "x" * 255)


@pytest.mark.parametrize("name", REFUSED)
def test_such_a_name_is_refused_and_made_anew(name: str) -> None:
    assert not is_file_name(name)
    assert is_file_name(as_file_name(name, "portrait"))


@pytest.mark.parametrize("name", TAKEN)
def test_such_a_name_stays(name: str) -> None:
    assert is_file_name(name) and as_file_name(name, "portrait") == name


def test_what_is_left_of_a_name_can_be_recognised() -> None:
    assert as_file_name("me: 12/3", "portrait") == "me_ 12_3"
    assert as_file_name("nul", "portrait") == "_nul" and as_file_name("con.old", "portrait") == "_con.old"
    assert as_file_name("a. ", "portrait") == "a" and as_file_name("???", "portrait") == "portrait"


@given(st.text(alphabet=st.characters(codec=None), max_size=300))
def test_whatever_the_text_every_system_takes_the_name(text: str) -> None:
    name = as_file_name(text, "portrait")
    assert is_file_name(name) and as_file_name(name, "portrait") == name
    for kind in (PureWindowsPath, PurePosixPath):
        assert kind("folder", name).name == name and kind("folder", name).parent == kind("folder")


INSIDE = ("a.png", "images/a.png", "images\\a.png", "a..b/c", "./a")
OUTSIDE = (
    "", "/etc/passwd", "../a", "a/../../b", "..\\a", "a\\..\\..\\b", "C:\\a", "C:a", "c:/a", "\\\\server\\share\\a",
    "\\a", "//server/share/a", "a\x00b",
)  # fmt: skip


@pytest.mark.parametrize("name", INSIDE)
def test_paths_below_a_folder(name: str) -> None:
    assert leads_inside(name)


@pytest.mark.parametrize("name", OUTSIDE)
def test_paths_out_of_a_folder_on_any_system(name: str) -> None:
    assert not leads_inside(name)


@given(st.text(alphabet="ab./\\:", max_size=12))
def test_what_leads_inside_does_so_for_the_paths_of_both_systems(name: str) -> None:
    if not leads_inside(name):
        return
    for kind in (PureWindowsPath, PurePosixPath):
        joined = kind("folder") / kind(name)
        assert joined.parts[0] == "folder" and ".." not in joined.parts

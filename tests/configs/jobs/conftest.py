"""Runners that play a head in milliseconds, in a module that worker processes find as well."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

_PLAYED = Path(__file__).with_name("played_heads.py")


@pytest.fixture
def played_heads(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `played_heads.py` beside this file, where new processes look for modules."""
    folder = tmp_path_factory.mktemp("modules")
    shutil.copy(_PLAYED, folder)
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module(_PLAYED.stem)


@pytest.fixture
def make_pictures(tmp_path: Path) -> Callable[..., Path]:
    """A function: a folder of small pictures with the names given, each of another colour."""

    def make(*names: str) -> Path:
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for number, name in enumerate(names):
            Image.new("RGB", (64, 80), (60 + 37 * number % 190, 150, 120)).save(folder / name)
        return folder

    return make

"""Compiled kernels find a place where neither packages nor a home can be written."""

import os
import stat
from pathlib import Path

import pytest

from dp360.generation import kernel_cache


@pytest.fixture
def bare(monkeypatch, tmp_path) -> Path:
    """No home, nothing beside the packages; temporary files in a folder of the test."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "nowhere")
    monkeypatch.setenv("MPLCONFIGDIR", "x")
    monkeypatch.setattr(kernel_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(kernel_cache, "_is_writable", lambda folder: False)
    monkeypatch.setattr(kernel_cache.sys, "modules", {})
    return tmp_path


def test_a_folder_of_the_users_own(bare):
    folder = kernel_cache.place_kernel_cache()
    assert folder is not None and folder == bare / f"dp360-kernels-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert os.environ["NUMBA_CACHE_DIR"] == str(folder)
    assert kernel_cache.kept_in() == (folder, True)
    assert kernel_cache.place_kernel_cache() is None  # chosen already


def test_nobody_elses_folder(bare):
    (bare / "elsewhere").mkdir()
    (bare / f"dp360-kernels-{os.getuid()}").symlink_to(bare / "elsewhere")
    assert kernel_cache.temporary_cache() != bare / f"dp360-kernels-{os.getuid()}"


def test_a_home_or_writable_packages_need_nothing(bare, monkeypatch):
    monkeypatch.setattr(kernel_cache, "_is_writable", lambda folder: folder is not None)
    assert kernel_cache.place_kernel_cache() is None and "NUMBA_CACHE_DIR" not in os.environ

"""The one module of system calls: what it says here, and what it says where a call is missing."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import runpy
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dp360.generation import system

NO_PROCESS = 2**22 + 12345
"""Above the largest number that Linux gives."""


class FakeKernel32:
    """Windows' calls on processes: 7 runs, 8 has ended with code 3, 9 is somebody else's, others are not there."""

    def __init__(self) -> None:
        self.OpenProcess: Any = _Call(lambda rights, inherit, number: number if number in (7, 8) else None)
        self.closed: list[int] = []

    def GetExitCodeProcess(self, handle: Any, code: Any) -> int:
        code._obj.value = {7: 259, 8: 3}[handle.value]
        return 1

    def CloseHandle(self, handle: Any) -> None:
        self.closed.append(handle.value)


class _Call:
    restype: Any = None

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __call__(self, *arguments: Any) -> Any:
        return self._answer(*arguments)


def test_this_process_runs_and_ended_ones_do_not() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert system.is_running(os.getpid()) and system.is_running(os.getppid())
    assert not system.is_running(ended.pid)
    assert not system.is_running(NO_PROCESS) and not system.is_running(2**70)


@pytest.mark.parametrize(("number", "error", "runs"), [(7, 0, True), (8, 0, False), (9, 5, True), (10, 87, False)])
def test_windows_is_asked_by_its_own_calls(number: int, error: int, runs: bool) -> None:
    kernel32 = FakeKernel32()
    assert system._is_running_on_windows(number, kernel32, lambda: error) is runs
    assert kernel32.closed == ([number] if number in (7, 8) else [])
    assert kernel32.OpenProcess.restype is ctypes.c_void_p  # handles are as long as pointers


def test_windows_is_not_asked_about_impossible_numbers() -> None:
    assert not any(system._is_running_on_windows(number, None, None) for number in (0, -1, 2**40))


def test_commands_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["dp360", "view", "heads/it's me/head.ply"]
    assert shlex.split(system.command_line(words)) == words
    monkeypatch.setattr(system, "IS_WINDOWS", True)
    assert system.command_line(["dp360", "view", r"C:\my heads\head.ply"]) == r'dp360 view "C:\my heads\head.ply"'


def test_numbers_of_this_machine_make_sense() -> None:
    total, available = system.machine_memory_bytes(), system.available_memory_bytes()
    assert total is not None and total > 2**28
    assert available is None or 0 < available <= total
    assert 1 <= system.usable_cores() <= (os.cpu_count() or 1)
    assert system.load() >= 0
    assert 2**20 < system.peak_memory_bytes() < total


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give memory back by themselves")
def test_freed_memory_goes_back_to_the_system() -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    pieces = [bytes(64 << 10) for _ in range(3200)]
    lasting = bytes(64 << 10)  # lies above them, so that the C library keeps what is freed below
    pieces.clear()
    before = resident_bytes()
    system.give_back_memory()
    assert before - resident_bytes() > 100 << 20 and lasting


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such number")
@pytest.mark.parametrize("asked", [False, True])
def test_large_blocks_go_back_as_soon_as_they_are_freed(asked: bool) -> None:
    code = (
        f"import runpy, ctypes, os; system = runpy.run_path({str(system.__file__)!r})\n"
        f"if {asked}: system['give_back_large_blocks']()\n"
        "c = ctypes.CDLL(None); c.malloc.restype = ctypes.c_void_p; c.free.argtypes = [ctypes.c_void_p]\n"
        "resident = lambda: int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE') >> 20\n"
        "c.memset.restype = ctypes.c_void_p; c.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]\n"
        "taken = lambda megabytes: c.memset(c.malloc(megabytes << 20), 1, megabytes << 20)\n"
        "c.free(taken(30))\n"  # from here on glibc keeps what is smaller, if nobody tells it otherwise
        "pairs = [(taken(20), taken(1)) for _ in range(5)]; before = resident()\n"
        "for large, _ in pairs: c.free(large)\n"
        "print(before - resident())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    given_back = int(done.stdout)
    assert given_back > 90 if asked else given_back < 50, done.stderr


@pytest.mark.parametrize("waits", [False, True])
def test_a_process_ends_after_everything_that_was_registered(tmp_path: Path, waits: bool) -> None:
    """Exit code, output and files are as at any other end, and a thread that writes a file is waited for."""
    code = """
import atexit, sys, threading, time
from pathlib import Path
from dp360.generation.system import end_process
folder, waits = Path(sys.argv[1]), sys.argv[2] == "True"
class Dismantled:
    def __del__(self): (folder / "dismantled").touch()
kept = Dismantled()
atexit.register((folder / "registered").touch)
def work(): time.sleep(0.5); (folder / "worked").touch()
threading.Thread(target=work, daemon=not waits).start()
print("said", end="")
end_process(3)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code, tmp_path, str(waits)], check=False, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "said", "")
    expected = {"registered", "worked", "dismantled"} if waits else {"registered"}
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_a_system_without_these_calls_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("sched_getaffinity", "getloadavg", "sysconf", "statvfs", "getuid"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert system.usable_cores() == (os.cpu_count() or 1)
    assert math.isnan(system.load())
    assert system.machine_memory_bytes() is None and system.peak_memory_bytes() == 0
    system.limit_memory(1)  # this process goes on
    assert not system.inodes_are_used_up(tmp_path)
    assert system.user_number() == 0
    tmp_path.chmod(0o777)
    assert system.is_private(tmp_path.lstat())  # modes say nothing there


def test_a_folder_that_others_write_into_is_not_private(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir(mode=0o700)
    file.write_bytes(b"")
    assert system.is_private(folder.lstat()) and not system.is_private(file.lstat())
    folder.chmod(0o770)
    assert not system.is_private(folder.lstat())


def test_new_files_get_what_the_umask_leaves(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    assert system.default_mode(0o666) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert system.default_mode(0o666) == system.default_mode(0o666)


def test_memory_is_limited_in_a_process_that_loads_the_file_alone() -> None:
    code = (
        f"import runpy; runpy.run_path({str(system.__file__)!r})['limit_memory'](200)\n"
        "import sys; assert not any(name.startswith(('torch', 'dp360')) for name in sys.modules)\n"
        "try: bytearray(400 << 20)\nexcept MemoryError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "refused", done.stderr


def test_the_file_needs_nothing_but_pythons_own_library() -> None:
    assert runpy.run_path(str(system.__file__))["is_running"](os.getpid())


def test_errors_files_and_calls_come_without_torch() -> None:
    code = (
        "import sys; from dp360.generation import InputError; from dp360.generation import files, system\n"
        "print('torch' in sys.modules, 'numba' in sys.modules)\n"
        "from dp360 import generation; print(generation.orbit.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["False", "False", "orbit", "True"], done.stderr

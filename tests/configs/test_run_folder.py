"""The folder of a run on file systems without locks, and the file systems that the shared cases imitate."""

import errno
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from dp360.configs.run_folder import HOLDER_NAME, RunRecord, exclusive_run
from dp360.generation import InputError

SHIM = Path(__file__).parents[3] / "shared" / "cases" / "fs_shim.c"
WORK = """
import sys
from pathlib import Path
from dp360.configs.run_folder import exclusive_run
from dp360.generation.files import directory_written_atomically, write_bytes_atomically
folder = Path(sys.argv[1])
with exclusive_run(folder):
    for content in (b"1", b"2"):
        write_bytes_atomically(folder / "head.ply", content)
        with directory_written_atomically(folder / "dataset") as made:
            (made / "a.bin").write_bytes(content)
"""


@pytest.fixture
def without_locks(monkeypatch):
    def fail(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(FileLock, "acquire", fail)


def test_without_locks_a_mark_stands_for_one(without_locks, tmp_path):
    with exclusive_run(tmp_path / "out"):
        mark = json.loads((tmp_path / "out" / HOLDER_NAME).read_text())
        assert mark == {"process": os.getpid(), "machine": platform.node()}
    assert not (tmp_path / "out").exists()


def test_the_mark_of_a_running_process_holds(without_locks, tmp_path):
    path = tmp_path / HOLDER_NAME
    path.write_text(json.dumps({"process": os.getppid(), "machine": platform.node()}))
    with pytest.raises(InputError, match="Another dp360 is writing into"), exclusive_run(tmp_path):
        pass
    path.write_text(json.dumps({"process": 1, "machine": "another"}))
    with pytest.raises(InputError, match=f"started on another; if it runs no more, delete {path}"):
        with exclusive_run(tmp_path):
            pass
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for text in (json.dumps({"process": gone.pid, "machine": platform.node()}), "", "[1]"):
        path.write_text(text)
        with exclusive_run(tmp_path):
            pass
        assert not path.exists()


def test_a_folder_may_be_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "out")
    with exclusive_run(tmp_path / "link"):
        (tmp_path / "link" / "dp360.json").write_text("{}")
        RunRecord(tmp_path / "link" / "dp360.json", {})
        assert not (tmp_path / "disk" / "out" / "dp360.json").exists()
    assert (tmp_path / "link").is_symlink()


@pytest.mark.skipif(not SHIM.is_file() or shutil.which("gcc") is None, reason="needs the shared cases and gcc")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_syncs_and_modes(tmp_path, number):
    library = tmp_path / "fs_shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", str(SHIM), "-o", str(library), "-ldl"], check=True)
    shim = {"LD_PRELOAD": str(library), "NO_FLOCK": str(number), "NO_FSYNC": "1", "NO_CHMOD": "1"}
    words = [sys.executable, "-c", WORK, str(tmp_path / "out")]
    done = subprocess.run(words, env={**os.environ, **shim}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*"))
    assert found == ["dataset", "dataset/a.bin", "head.ply"]
    assert (tmp_path / "out" / "head.ply").read_bytes() == b"2"

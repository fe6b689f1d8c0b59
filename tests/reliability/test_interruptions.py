"""A few of the campaign's kills and full disks; and that it would notice what it looks for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dp360.exporters import splat_ply
from dp360.generation.dataset.view_dataset import write_dataset
from reliability.interruptions import hashes, unreadable
from reliability.readers import ball_views

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from reliability.__main__ import main
sys.argv = ["reliability", *sys.argv[2:]]
sys.exit(main())
"""


def campaign(*words: str) -> subprocess.CompletedProcess[str]:
    """A campaign in a process of its own: it forks, which a process with threads had better not."""
    tests = str(Path(__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, tests, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_killed_exports_leave_whole_files_and_end_the_same_when_run_again() -> None:
    done = campaign("kills", "--only", "export", "--count", "12", "--seed", "1")
    assert done.returncode == 0 and "12 kills" in done.stdout and "BROKEN" not in done.stdout, done.stdout + done.stderr


def test_full_disks_leave_the_earlier_export(make_disk: Callable[[str], Path]) -> None:
    make_disk("size=1m")  # skips where none can be mounted
    done = campaign("disks", "--only", "export", "--count", "8", "--seed", "1")
    assert done.returncode == 0 and "8 disks" in done.stdout and "BROKEN" not in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("damage", ["half a file", "half a data set", "another file than the record names"])
def test_what_is_not_whole_is_noticed(tmp_path: Path, damage: str) -> None:
    head, views = ball_views(32)
    write_dataset(views, tmp_path / "dataset")
    data = splat_ply.encode(head, views.provenance)
    (tmp_path / "head.ply").write_bytes(data)
    (tmp_path / "dp360.json").write_text(f'{{"files": {{"head.ply": "{hashes(tmp_path)["head.ply"]}"}}}}')
    (tmp_path / ".dp360-1-abcd-x.tmp").write_bytes(b"not yet published")
    assert unreadable(tmp_path) == []
    if damage == "half a file":
        (tmp_path / "head.ply").write_bytes(data[: len(data) // 2])
    elif damage == "half a data set":
        (tmp_path / "dataset" / "images" / "view_003.png").unlink()
    else:
        (tmp_path / "head.ply").write_bytes(splat_ply.encode(head, views.provenance, metres_per_unit=1.0))
    assert unreadable(tmp_path)

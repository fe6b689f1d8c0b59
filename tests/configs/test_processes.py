"""Work in processes: the same results as without, an error comes through, work that has not begun is dropped."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dp360.configs.processes import in_processes


def test_results_are_those_of_one_process_and_come_from_others() -> None:
    numbers = list(range(5))
    assert dict(in_processes(math.factorial, numbers, 1)) == dict(in_processes(math.factorial, numbers, 2))
    assert os.getpid() not in dict(in_processes(os.getpgid, [0, 0], 2))


@pytest.mark.skipif(os.name == "nt", reason="a signal to a group of processes")
def test_ctrl_c_ends_all_of_them_with_one_line(tmp_path: Path) -> None:
    """One process works, one waits for work."""
    script = tmp_path / "command.py"
    script.write_text(
        "import time\n"
        "from dp360.configs.console import errors_for_people\n"
        "from dp360.configs.processes import in_processes\n"
        "if __name__ == '__main__':\n"
        "    with errors_for_people():\n"
        "        for item, _ in in_processes(time.sleep, [600, 0], 2):\n"
        "            print(item, flush=True)\n",
        "utf-8",
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == "0\n"
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and said == "dp360: stopped; files that were complete are kept\n"


def test_an_error_comes_through() -> None:
    with pytest.raises(ValueError, match="factorial"):
        list(in_processes(math.factorial, [3, -1, 4], 2))
    with pytest.raises(ValueError, match="factorial"):
        list(in_processes(math.factorial, [3, -1, 4], 1))

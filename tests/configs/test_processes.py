"""Work in processes: the same results as without, an error comes through, work that has not begun is dropped."""

from __future__ import annotations

import math
import os

import pytest

from dp360.configs.processes import in_processes


def test_results_are_those_of_one_process_and_come_from_others() -> None:
    numbers = list(range(5))
    assert dict(in_processes(math.factorial, numbers, 1)) == dict(in_processes(math.factorial, numbers, 2))
    assert os.getpid() not in dict(in_processes(os.getpgid, [0, 0], 2))


def test_an_error_comes_through() -> None:
    with pytest.raises(ValueError, match="factorial"):
        list(in_processes(math.factorial, [3, -1, 4], 2))
    with pytest.raises(ValueError, match="factorial"):
        list(in_processes(math.factorial, [3, -1, 4], 1))

"""Bytes of portraits and priors do not depend on how many threads torch would take."""

import threading

import numpy as np
import pytest
import torch

from dp360.configs.example import write_example_portrait
from dp360.generation.portrait import prepare_portrait
from dp360.generation.prior import build_head_prior
from dp360.generation.same_threads import TORCH_THREADS, same_threads


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_last_one_out_puts_back_what_was():
    torch.set_num_threads(3)
    counts: list[int] = []

    def pass_through() -> None:
        with same_threads():
            counts.append(torch.get_num_threads())
        counts.append(torch.get_num_threads())

    with same_threads():
        other = threading.Thread(target=pass_through)
        other.start()
        other.join()
        assert torch.get_num_threads() == TORCH_THREADS
    assert counts == [TORCH_THREADS, TORCH_THREADS], "somebody else was inside still"
    assert torch.get_num_threads() == 3


@pytest.mark.slow
def test_one_thread_makes_the_head_of_many(tmp_path):
    write_example_portrait(tmp_path / "face.png")
    meshes = []
    for count in (1, 4):
        torch.set_num_threads(count)
        meshes.append(build_head_prior(prepare_portrait(tmp_path / "face.png")).textured_mesh())
    one, many = meshes
    assert np.array_equal(one.vertices_world, many.vertices_world)
    assert np.array_equal(one.texture_rgb, many.texture_rgb)

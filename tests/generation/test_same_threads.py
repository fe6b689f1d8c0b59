"""Bytes of portraits and priors do not depend on how many threads torch would take."""

import threading

import numpy as np
import pytest
import threadpoolctl
import torch

from dp360.configs.example import write_example_portrait
from dp360.generation.portrait import prepare_portrait
from dp360.generation.prior import build_head_prior
from dp360.generation.same_threads import BLAS_THREADS, TORCH_THREADS, same_blas_threads, same_threads


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


def test_linear_algebra_keeps_to_one_thread_while_anybody_is_inside():
    """The setting is the process's: who leaves before others does not put it back."""

    def blas_threads() -> set[int]:
        return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}

    def pass_through() -> None:
        with same_threads():
            pass

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        several = blas_threads()
        assert max(several) == 2
        with same_blas_threads():
            other = threading.Thread(target=pass_through)
            other.start()
            other.join()
            assert blas_threads() == {BLAS_THREADS}
        assert blas_threads() == several


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

"""The hash encoding's kernels against nerfstudio's own tensors."""

from __future__ import annotations

import copy

import torch
from nerfstudio.field_components.encodings import HashEncoding

from dp360.reconstruction.hash_encoding_cpu import CpuHashEncoding, use_cpu_kernels


def test_kernels_equal_nerfstudios_encoding_and_its_gradient():
    """Small table, so that slots are shared; points on cell borders and corners of the cube included."""
    torch.manual_seed(0)
    theirs = HashEncoding(5, 4, 200, log2_hashmap_size=9, hash_init_scale=1.0, implementation="torch")
    ours = copy.deepcopy(theirs)
    use_cpu_kernels(torch.nn.Sequential(ours))
    assert isinstance(ours, CpuHashEncoding) and list(ours.state_dict()) == list(theirs.state_dict())
    points = torch.cat([torch.rand(40, 7, 3), torch.randint(0, 5, (40, 7, 3)) / 4])
    points[0, 0], points[0, 1] = 0.0, 1.0
    g = torch.randn(80, 7, 10)
    expected, got = theirs(points), ours(points)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    expected.backward(g)
    got.backward(g)
    torch.testing.assert_close(ours.hash_table.grad, theirs.hash_table.grad, atol=1e-4, rtol=1e-4)


def test_other_number_types_take_nerfstudios_way():
    encoding = HashEncoding(2, 4, 8, log2_hashmap_size=6, implementation="torch")
    use_cpu_kernels(encoding)
    assert encoding(torch.rand(3, 3, dtype=torch.float64)).shape == (3, 4)

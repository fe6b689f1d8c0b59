"""Weights that ship: each file read once, a damaged installation said in one sentence; the chart's closed blocks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dp360.generation import InputError, networks, weights
from dp360.generation.head_model import load_head_model
from dp360.generation.networks import ChartBlock, NetworkFile, mirrored_columns
from dp360.generation.portrait.landmark_network import FACE_LANDMARKS
from dp360.generation.prior.field.drawn_field import DRAWING_NETWORKS
from dp360.generation.prior.field.mean_network import FIELD_MEAN
from dp360.generation.prior.labels.segmenter import SEGMENTER
from dp360.generation.prior.texture.completion_network import COMPLETION

FILES = (SEGMENTER, FIELD_MEAN, *DRAWING_NETWORKS, COMPLETION, FACE_LANDMARKS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_weights_that_ship_are_read_once_and_named_with_their_hash(file: NetworkFile) -> None:
    loaded = file.load()
    assert loaded is file.load()
    assert file.provenance() == f"{file.name} (sha256 {loaded.sha256[:16]})"
    assert not loaded.network.training and not any(p.requires_grad for p in loaded.network.parameters())


@pytest.mark.parametrize(
    ("name", "load"),
    [*((file.file_name, file.load) for file in FILES), ("head_model.npz", load_head_model)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_installation_says_what_to_do(
    name: str, load: Callable[[], object], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = (networks._load, load_head_model)
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setattr(weights, "__file__", str(tmp_path / "__init__.py"))
    try:
        with pytest.raises(InputError, match=rf"weights/{name} is missing.*damaged; install dp360 again"):
            load()
    finally:
        for cache in caches:
            cache.cache_clear()


def test_chart_blocks_know_no_seam_and_no_left_and_right_at_the_crown() -> None:
    torch.manual_seed(0)
    block = ChartBlock(8, 8)
    x = torch.randn(1, 8, 6, 16)
    with torch.no_grad():
        torch.testing.assert_close(block(torch.roll(x, 5, -1)), torch.roll(block(x), 5, -1))
        alike = torch.randn(1, 8, 6, 1).expand(-1, -1, -1, 16)
        assert block(alike).std(dim=-1).max() < 1e-5


def test_mirrored_columns_keep_the_column_before_the_face() -> None:
    x = torch.arange(8.0)[None]
    assert mirrored_columns(x).tolist() == [[0, 7, 6, 5, 4, 3, 2, 1]]
    torch.testing.assert_close(mirrored_columns(mirrored_columns(x)), x)

"""Weights that ship: each file read once, a damaged installation said in one sentence; the chart's closed blocks."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dp360.generation import InputError, networks, weights
from dp360.generation.head_model import load_head_model
from dp360.generation.networks import ChartConv, NetworkFile
from dp360.generation.portrait.face_networks import FACE_MESH, FAR_DETECTOR, NEAR_DETECTOR
from dp360.generation.portrait.landmark_network import FACE_LANDMARKS
from dp360.generation.portrait.person_networks import SQUARE_SEGMENTER, WIDE_SEGMENTER
from dp360.generation.prior.field.drawn_field import DRAWING_NETWORKS
from dp360.generation.prior.field.field_denoiser import FIELD_DENOISER as DENOISER
from dp360.generation.prior.field.field_denoiser import FieldDenoiser, FieldDenoiserConfig
from dp360.generation.prior.field.mean_network import FIELD_MEAN
from dp360.generation.prior.labels.segmenter import SEGMENTER, Segmenter, SegmenterConfig

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"
FILES = (
    SEGMENTER, FIELD_MEAN, *DRAWING_NETWORKS, FACE_LANDMARKS,
    NEAR_DETECTOR, FAR_DETECTOR, FACE_MESH, SQUARE_SEGMENTER, WIDE_SEGMENTER,
)  # fmt: skip


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


def test_chart_convolutions_know_no_seam_and_no_left_and_right_at_the_crown() -> None:
    torch.manual_seed(0)
    block = ChartConv(8, 8)
    x = torch.randn(1, 8, 6, 16)
    with torch.no_grad():
        torch.testing.assert_close(block(torch.roll(x, 5, -1)), torch.roll(block(x), 5, -1))
        alike = torch.randn(1, 8, 6, 1).expand(-1, -1, -1, 16)
        assert block(alike).std(dim=-1).max() < 1e-5


def a_network(path: Path) -> bytes:
    """A small network's file; its bytes."""
    DENOISER.save(path, FieldDenoiser(FieldDenoiserConfig(latents=2, width=16, blocks=1, heads=2, hidden=1)), {})
    return path.read_bytes()


def with_header(data: bytes, change: Callable[[dict], None]) -> bytes:
    """A .safetensors file with its header changed."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def with_sizes(data: bytes, **sizes: object) -> bytes:
    def change(header: dict) -> None:
        config = json.loads(header["__metadata__"]["config"])
        header["__metadata__"]["config"] = json.dumps(config | sizes)

    return with_header(data, change)


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_a_header_whose_length_looks_like_a_pickle_is_none(start: bytes, tmp_path: Path) -> None:
    data = a_network(tmp_path / "a.safetensors")
    size = int.from_bytes(data[:8], "little")
    padded = int.from_bytes(start, "little") + (0 if len(start) == 2 else 256 * (size // 256 + 1))
    text = data[8 : 8 + size].ljust(padded)
    (tmp_path / "a.safetensors").write_bytes(padded.to_bytes(8, "little") + text + data[8 + size :])
    assert (tmp_path / "a.safetensors").read_bytes().startswith(start)
    assert DENOISER.read(tmp_path / "a.safetensors").network.config.width == 16


def a_pickle(data: bytes) -> bytes:
    buffer = io.BytesIO()
    torch.save({"place": torch.zeros(2)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: LFS_POINTER, "pointer of Git LFS.*git lfs pull"),
        (a_pickle, "a pickle of torch.save, which may run code and is not opened"),
        (lambda d: pickle.dumps({"place": 1}), "a pickle of torch.save"),
        (lambda d: d[: len(d) // 2], "damaged, cut off or no .safetensors"),
        (lambda d: b"", "damaged, cut off or no .safetensors"),
        (lambda d: d + b"0", "damaged, cut off or no .safetensors"),
        (lambda d: with_header(d, lambda h: h.pop("__metadata__")), "says no sizes of a network"),
        (lambda d: with_sizes(d, width=32), r"has the shape .*, expected"),
        (lambda d: with_sizes(d, width=10**9), "sizes in its header are damaged"),
        (lambda d: with_sizes(d, depth=3), "sizes are those of no such network"),
        (lambda d: with_sizes(d, blocks=2), r"another network: it lacks blocks\.1.* missing, 0 unknown"),
    ],
)  # fmt: skip
def test_weights_that_cannot_be_used_are_named(change: Callable[[bytes], bytes], told: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(change(a_network(path)))
    with pytest.raises(InputError, match=told) as caught:
        DENOISER.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_weights_of_another_network_and_missing_ones_are_named(tmp_path: Path) -> None:
    a_network(tmp_path / "denoiser.safetensors")
    with pytest.raises(InputError, match=r"as weights segmenter\.safetensors: its sizes are those of no such network"):
        SEGMENTER.read(tmp_path / "denoiser.safetensors")
    with pytest.raises(InputError, match="No such file"):
        SEGMENTER.read(tmp_path / "missing.safetensors")


def test_a_damaged_file_of_the_installation_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks._load.cache_clear()
    (tmp_path / SEGMENTER.file_name).write_bytes(LFS_POINTER)
    monkeypatch.setattr(weights, "__file__", str(tmp_path / "__init__.py"))
    try:
        with pytest.raises(InputError, match=r"pointer of Git LFS.*install dp360 again"):
            SEGMENTER.load()
    finally:
        networks._load.cache_clear()


def test_filters_stored_as_whole_numbers_come_back_within_half_a_step(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = Segmenter(SegmenterConfig((8, 16), (0, 1), 8))
    SEGMENTER.save(tmp_path / "small.safetensors", network, {})
    assert SEGMENTER.weight_levels is not None
    again = SEGMENTER.read(tmp_path / "small.safetensors").network.state_dict()
    for name, tensor in network.state_dict().items():
        step = tensor.abs().amax((1, 2, 3), keepdim=True) / SEGMENTER.weight_levels if tensor.ndim == 4 else 1e-3
        assert bool(((again[name] - tensor).abs() <= 0.51 * step + 1e-3 * tensor.abs()).all()), name


def test_further_residual_blocks_change_nothing_at_first() -> None:
    torch.manual_seed(4)
    plain, deeper = Segmenter(SegmenterConfig((8, 16), (), 8)), Segmenter(SegmenterConfig((8, 16), (1, 2), 8))
    deeper.load_state_dict(plain.state_dict(), strict=False)
    rgb = torch.rand(1, 3, 32, 32)
    assert len(deeper.state_dict()) > len(plain.state_dict()) and torch.equal(plain(rgb), deeper(rgb))

"""The segmenter: laws of the network, its training, and its weights."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dp360.generation.networks import LoadedNetwork
from dp360.generation.portrait import Portrait
from dp360.generation.prior.labels.segmenter import (
    BACKGROUND,
    CLASS_NAMES,
    CLOTH,
    FACE,
    HAIR,
    SEGMENTER,
    Segmenter,
    SegmenterConfig,
    segment,
)
from dp360.generation.synthetic.parts import Label
from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
from dp360.generation.training.head_samples import HeadSamplesConfig
from dp360.generation.training.loop import LoopConfig
from dp360.generation.training.segmenter_training import (
    IGNORED,
    PLAIN_PORTRAITS,
    calibrate_segmenter,
    classes_of,
    count_classes,
    evaluate_segmenter,
    segmentation_loss,
    segmenter_batches,
    train_segmenter,
)
from dp360.generation.training.shots import Shots, portrait_shots

HEADS = Path(__file__).resolve().parents[5] / "shared" / "data" / "heads"
SMALL = SegmenterConfig(channels=(8, 16, 16), more_blocks=(0, 1, 1), size_px=32)
NO_PANORAMAS = Backgrounds(())


@pytest.fixture(scope="module")
def small() -> LoadedNetwork[Segmenter]:
    torch.manual_seed(0)
    return LoadedNetwork(Segmenter(SMALL).eval(), "")


@pytest.fixture(scope="module")
def shots() -> Shots:
    """Drawn heads: a light disc for the face under a dark one for hair, and a green body."""
    y, x = np.mgrid[0:64, 0:64]
    labels = np.zeros((6, 64, 64), np.uint8)
    rgb = np.zeros((6, 64, 64, 3), np.uint8)
    for k in range(6):
        cx = 26 + 2 * k
        labels[k][(y > 48) & (abs(x - cx) < 24)] = Label.CLOTH
        labels[k][(x - cx) ** 2 + (y - 26) ** 2 < 15**2] = Label.HAIR
        labels[k][(x - cx) ** 2 + (y - 32) ** 2 < 11**2] = Label.FACE
    for label, colour in ((Label.CLOTH, (30, 120, 40)), (Label.HAIR, (50, 30, 20)), (Label.FACE, (230, 180, 150))):
        rgb[labels == label] = colour
    alpha = np.where(labels > 0, np.uint8(255), np.uint8(0))
    return Shots(rgb, alpha, labels, np.arange(6), np.tile(np.eye(4), (6, 1, 1)), np.full(6, 300.0))


def tiny_training(steps: int, minutes: float | None = None) -> dict[str, Any]:
    loop = LoopConfig(steps=steps, batch_size=4, learning_rate=5e-3, warmup_steps=5, save_every=7, ema_decay=0.9)
    stages = ((32, replace(loop, minutes=minutes)),)
    return {"network_config": SMALL, "look": PLAIN_PORTRAITS, "stages": stages}


def test_probabilities_sum_to_one_and_what_lies_outside_is_background(small: LoadedNetwork[Segmenter]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    inside = np.ones((80, 80), bool)
    inside[:, 70:] = False
    probability = segment(rgb, inside, small)
    np.testing.assert_allclose(probability.sum(-1), 1, atol=1e-5)
    assert (probability[:, 70:, BACKGROUND] == 1).all()


def test_the_mirror_image_has_the_mirrored_segmentation(small: LoadedNetwork[Segmenter]) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    inside = np.ones((64, 64), bool)
    mirrored = segment(np.ascontiguousarray(rgb[:, ::-1]), inside, small)
    np.testing.assert_allclose(mirrored[:, ::-1], segment(rgb, inside, small), atol=1e-5)


def test_weights_but_filters_survive_the_file_in_half_precision(
    small: LoadedNetwork[Segmenter], tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    SEGMENTER.save(path, small.network, {"seed": "0"})
    loaded = SEGMENTER.read(path)
    assert loaded.network.config == SMALL
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, tensor in small.network.state_dict().items():
        if tensor.ndim != 4:  # filters are whole numbers, see test_networks.py
            torch.testing.assert_close(loaded.network.state_dict()[name], tensor.half().float())


def test_every_label_has_a_class() -> None:
    labels = np.array([int(label) for label in Label], np.uint8)
    names = [CLASS_NAMES[k] for k in classes_of(labels)]
    assert names == [
        "background", "face", "neck", "hair", "beard", "cloth", "headgear", "accessory", "ear", "brow", "glasses",
    ]  # fmt: skip


def test_the_loss_is_small_only_for_the_truth_and_ignores_the_unknown() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 11, (2, 16, 16), generator=generator)
    right = 20.0 * torch.nn.functional.one_hot(truth, 11).permute(0, 3, 1, 2).float()
    wrong = right.roll(1, dims=1)

    def loss(logits: torch.Tensor, classes: torch.Tensor) -> float:
        return float(segmentation_loss(torch.nn.Identity(), {"rgb": logits, "classes": classes}))

    assert loss(right, truth) < 1e-3 < 5 < loss(wrong, truth)
    hidden = truth.clone()
    hidden[:, :8] = IGNORED
    half_wrong = torch.cat([wrong[:, :, :8], right[:, :, 8:]], dim=2)
    assert loss(half_wrong, hidden) < 1e-3


def test_intersection_over_union_of_a_known_case() -> None:
    truth = np.array([[0, 0, 1, 1], [2, 2, IGNORED, 1]], np.uint8)
    found = np.array([[0, 1, 1, 1], [2, 0, 0, 1]], np.uint8)
    shared, either = count_classes(found[:1], truth[:1]) + count_classes(found[1:], truth[1:])
    assert shared.tolist() == [1, 3, 1, *8 * [0]] and either.tolist() == [3, 4, 2, *8 * [0]]


def test_batches_depend_on_their_step_alone_and_every_pass_shows_every_shot(shots: Shots) -> None:
    batch_of = segmenter_batches(shots, NO_PANORAMAS, 32, 4, PLAIN_PORTRAITS, seed=5)
    third = batch_of(3)
    batch_of(0)
    again = batch_of(3)
    assert torch.equal(third["rgb"], again["rgb"]) and torch.equal(third["classes"], again["classes"])
    assert not torch.equal(
        third["rgb"], segmenter_batches(shots, NO_PANORAMAS, 32, 4, PLAIN_PORTRAITS, seed=6)(3)["rgb"]
    )


def test_a_small_network_learns_drawn_heads(shots: Shots, tmp_path: Path) -> None:
    losses: list[float] = []
    network = train_segmenter(
        shots, NO_PANORAMAS, tmp_path, **tiny_training(140), on_evaluation=lambda step, model, loss: losses.append(loss)
    )
    assert losses[-1] < 0.5 * losses[0]
    iou = evaluate_segmenter(LoadedNetwork(network, ""), shots, NO_PANORAMAS, PLAIN_PORTRAITS, size_px=64)
    assert iou[[BACKGROUND, FACE, HAIR, CLOTH]].min() > 0.5


def test_training_can_start_from_weights(shots: Shots, tmp_path: Path, small: LoadedNetwork[Segmenter]) -> None:
    still = replace(tiny_training(1)["stages"][0][1], learning_rate=0.0, weight_decay=0.0)
    network = train_segmenter(
        shots, NO_PANORAMAS, tmp_path, ((32, still),), start=small.network, look=PLAIN_PORTRAITS
    )  # fmt: skip
    assert network.config == SMALL
    for name, tensor in small.network.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor)


def test_calibration_finds_by_how_much_a_network_is_too_sure(shots: Shots, tmp_path: Path) -> None:
    network = train_segmenter(shots, NO_PANORAMAS, tmp_path, **tiny_training(60))
    calibrate_segmenter(network, shots, NO_PANORAMAS)
    right = float(network.get_buffer("temperature"))
    for parameter in network.head.parameters():
        parameter.data *= 1.5
    calibrate_segmenter(network, shots, NO_PANORAMAS)
    assert float(network.get_buffer("temperature")) == pytest.approx(1.5 * right, rel=0.08)


def test_training_that_was_stopped_goes_on_to_the_same_weights(shots: Shots, tmp_path: Path) -> None:
    whole = train_segmenter(shots, NO_PANORAMAS, tmp_path / "whole", **tiny_training(9)).state_dict()
    short = tiny_training(9, minutes=1e-9)
    for _ in range(9):
        broken = train_segmenter(shots, NO_PANORAMAS, tmp_path / "broken", **short).state_dict()
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


@pytest.mark.skipif(not HEADS.is_dir(), reason="needs the head assets")
def test_shots_are_rendered_once(tmp_path: Path) -> None:
    config = HeadSamplesConfig(heads=2, size_px=64, heads_per_file=1)
    first = portrait_shots(HEADS, "train", tmp_path, config)
    assert len(first) == 2 and {Label.FACE, Label.CLOTH} <= set(np.unique(first.labels).tolist())
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = portrait_shots(HEADS / "missing", "train", tmp_path, config)
    np.testing.assert_array_equal(first.rgb, again.rgb)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_shipped_weights_are_those_of_the_model_card() -> None:
    segmenter = SEGMENTER.load()
    card = (resources.files("dp360.generation.weights") / "MODEL_CARD_SEGMENTER.md").read_text("utf-8")
    assert segmenter.sha256 in card
    size = len((resources.files("dp360.generation.weights") / "segmenter.safetensors").read_bytes())
    assert size < 4_000_000 and re.search(r"\d\.\d\d", card)


def test_a_photograph_is_told_apart(portrait: Portrait) -> None:
    assert portrait.landmarks_px is not None
    found = segment(portrait.rgb, portrait.inside, SEGMENTER.load()).argmax(-1)
    nose, forehead = (portrait.landmarks_px[k, :2].astype(int) for k in (1, 10))
    assert found[nose[1], nose[0]] == FACE and found[forehead[1] - 50, forehead[0]] == HAIR
    assert (found[-10, 180:320] == CLOTH).mean() > 0.8 and (found[:20, :60] == BACKGROUND).mean() > 0.9
    foreground = portrait.alpha_unit > 0.5
    assert (foreground & (found != BACKGROUND)).sum() / (foreground | (found != BACKGROUND)).sum() > 0.9


@pytest.mark.skipif(not HEADS.is_dir(), reason="needs the head assets")
def test_heads_never_seen_in_training_are_told_apart(tmp_path: Path) -> None:
    segmenter = SEGMENTER.load()
    shots = portrait_shots(HEADS, "held_out", tmp_path, HeadSamplesConfig(heads=6, size_px=256))
    iou = evaluate_segmenter(segmenter, shots, Backgrounds.of_split(HEADS, "held_out"), PLAIN_PORTRAITS, size_px=256)
    assert iou[[BACKGROUND, FACE, CLOTH]].min() > 0.8 and iou[HAIR] > 0.6

"""The network that tells light from skin: laws of its windows, its training, and its weights."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from dp360.generation.cameras import Cameras, look_at_origin
from dp360.generation.networks import LoadedNetwork
from dp360.generation.portrait import Portrait
from dp360.generation.prior.light.shade_network import (
    SHADE,
    ShadeConfig,
    ShadeNetwork,
    shade_of_picture,
    window_from_crop,
)
from dp360.generation.synthetic.parts import Label
from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
from dp360.generation.training.head_samples import HeadSamplesConfig
from dp360.generation.training.loop import LoopConfig
from dp360.generation.training.shade_training import (
    PLAIN_LOOK,
    evaluate_shade_network,
    shade_batches,
    shade_loss,
    shade_sample,
    train_shade_network,
)
from dp360.generation.training.shots import LitShots, Shots, lit_shots

HEADS = Path(__file__).resolve().parents[5] / "shared" / "data" / "heads"
SMALL = ShadeConfig(channels=(8, 16, 16), more_blocks=(0, 0, 1), fine_channels=8, size_px=32)
NO_PANORAMAS = Backgrounds(())
LOOP = LoopConfig(steps=6, batch_size=2, learning_rate=5e-3, warmup_steps=2, save_every=3, ema_decay=0.9)


@pytest.fixture(scope="module")
def shots() -> LitShots:
    """Drawn heads whose right half gets half as much light as the left, in even light of one colour each."""
    y, x = np.mgrid[0:96, 0:96]
    labels, rgb = np.zeros((4, 96, 96), np.uint8), np.zeros((4, 96, 96, 3), np.uint8)
    labels[:, (x - 48) ** 2 + (y - 48) ** 2 < 30**2] = Label.FACE
    labels[:, y > 80] = Label.CLOTH
    for k in range(4):
        rgb[k] = (180 - 20 * k, 150 - 15 * k, 120)
    lit = np.where(x[..., None] > 48, rgb // 2, rgb)
    camera = look_at_origin([0.0], [0.0], size_px=96, focal_normalised=3.0)
    alpha = np.where(labels > 0, np.uint8(255), np.uint8(0))
    poses, focal = np.repeat(camera.T_world_camera.numpy(), 4, axis=0), np.full(4, float(camera.focal_px[0, 0]))
    return LitShots(Shots(lit, alpha, labels, np.arange(4), poses, focal), rgb)


def test_the_window_is_of_one_size_and_about_the_head_whatever_the_camera() -> None:
    near = look_at_origin([0.3], [0.1], size_px=512, radius=1.8, focal_normalised=4.2647 * 1.8 / 2.7)
    far = look_at_origin([0.3], [0.1], size_px=256)
    moved = Cameras(far.T_world_camera, far.focal_px, far.principal_px + 20.0, 256, 256)
    maps = [window_from_crop(camera, 64) for camera in (near, far, moved)]
    np.testing.assert_allclose(maps[0][:, :2], maps[1][:, :2] / 2, rtol=1e-6)
    for camera, A in zip((near, far, moved), maps):
        middle = camera.principal_px[0].numpy() - 0.5
        np.testing.assert_allclose(A @ [*middle, 1], [31.5, 31.5], atol=1e-4)


def test_a_sample_tells_what_the_light_does(shots: LitShots) -> None:
    made = shade_sample(
        shots, 0, NO_PANORAMAS, np.random.default_rng(0), 64, replace(PLAIN_LOOK, photographed=0.0, mirrored=0.0), 0.0
    )
    counted = made["worth"] == 1
    columns = np.nonzero(counted)[1]
    values = made["shade"][counted][:, 1]
    left, right = values[columns < columns.mean() - 6], values[columns > columns.mean() + 6]
    np.testing.assert_allclose(left, 0, atol=0.02)
    np.testing.assert_allclose(right, math.log(0.5), atol=0.04)


def test_a_portrait_brighter_on_the_whole_costs_nothing(shots: LitShots) -> None:
    batch = dict(shade_batches(shots, NO_PANORAMAS, 32, 2, PLAIN_LOOK, seed=0)(0))

    class Knows(torch.nn.Module):
        def __init__(self, tint: float) -> None:
            super().__init__()
            self.tint = tint

        def forward(self, rgb: torch.Tensor) -> torch.Tensor:
            return batch["shade"].permute(0, 3, 1, 2) + 0.7 + self.tint * torch.tensor([1.0, 0, -1])[:, None, None]

    assert float(shade_loss(Knows(0.0), batch)) < 1e-5
    assert float(shade_loss(Knows(0.1), batch)) > 0.05


def test_training_that_was_stopped_goes_on_to_the_same_weights(shots: LitShots, tmp_path: Path) -> None:
    def trained(folder: str, minutes: float | None) -> dict[str, torch.Tensor]:
        loop = replace(LOOP, minutes=minutes)
        return train_shade_network(shots, NO_PANORAMAS, tmp_path / folder, loop, network_config=SMALL).state_dict()

    whole = trained("whole", None)
    for _ in range(LOOP.steps):
        broken = trained("broken", 1e-9)
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_half_lit_faces_are_learned_in_a_moment(shots: LitShots, tmp_path: Path) -> None:
    loop = replace(LOOP, steps=120, batch_size=4, learning_rate=1e-2, warmup_steps=10)
    network = train_shade_network(shots, NO_PANORAMAS, tmp_path, loop, network_config=SMALL)
    before, after = (evaluate_shade_network(shade, shots, NO_PANORAMAS) for shade in (None, LoadedNetwork(network, "")))
    assert after["grey"] < 0.6 * before["grey"]


def test_shipped_weights_are_those_of_the_model_card() -> None:
    card = (resources.files("dp360.generation.weights") / "MODEL_CARD_SHADE.md").read_text("utf-8")
    assert SHADE.load().sha256 in card


def test_a_shadow_on_a_photographed_cheek_is_light(portrait: Portrait) -> None:
    camera, shade = portrait.head.camera, SHADE.load()
    x = np.linspace(-1, 1, portrait.size_px)[None, :, None]
    dark = 1 - 0.5 / (1 + np.exp(-(x - 0.05) / 0.02))
    shadowed = np.round(portrait.rgb * dark).astype(np.uint8)
    plain, found = (shade_of_picture(rgb, camera, shade) for rgb in (portrait.rgb, shadowed))
    assert portrait.landmarks_px is not None
    right, left = (portrait.landmarks_px[k, :2].astype(int) for k in (50, 280))  # the cheeks
    told = (found - plain).mean(-1)
    between = float(told[left[1], left[0]] - told[right[1], right[0]])
    assert between < 0.6 * math.log(0.5)


def test_the_mirrored_portrait_has_the_mirrored_light(portrait: Portrait) -> None:
    camera, shade = look_at_origin([0.0], [0.0], size_px=portrait.size_px), SHADE.load()
    straight = shade_of_picture(portrait.rgb, camera, shade)
    mirrored = shade_of_picture(np.ascontiguousarray(portrait.rgb[:, ::-1]), camera, shade)
    assert straight.std() > 0.02
    np.testing.assert_allclose(mirrored[:, ::-1], straight, atol=1e-3)


@pytest.mark.skipif(not HEADS.is_dir(), reason="needs the head assets")
def test_light_on_heads_never_seen_in_training_is_told(tmp_path: Path) -> None:
    shots = lit_shots(HEADS, "held_out", tmp_path, HeadSamplesConfig(heads=4, samples_per_head=2, size_px=192))
    backgrounds = Backgrounds.of_split(HEADS, "held_out")
    before, after = (evaluate_shade_network(shade, shots, backgrounds) for shade in (None, SHADE.load()))
    assert after["grey"] < 0.7 * before["grey"]


def test_an_untrained_network_says_even_light() -> None:
    assert not ShadeNetwork(SMALL)(torch.rand(1, 3, 32, 32)).any()

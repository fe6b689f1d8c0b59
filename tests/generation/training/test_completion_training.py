"""Training of the completion: variations change both sides alike, runs learn and resume, weights beat plain colours."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dp360.generation import InputError, look_at_origin
from dp360.generation.head_model import load_head_model
from dp360.generation.networks import LoadedNetwork
from dp360.generation.portrait import FaceNetworks
from dp360.generation.portrait.matte import PersonNetworks
from dp360.generation.prior import build_head_prior
from dp360.generation.prior.field.portrait_observation import field_of_portrait
from dp360.generation.prior.hair.flow_field import fit_hair_flow
from dp360.generation.prior.hair.hair_shell import fit_hair_shell
from dp360.generation.prior.hair.loose_strands import HairStrands
from dp360.generation.prior.texture.completion_network import (
    COLUMNS,
    GRID_CHANNELS,
    ROWS,
    CompletionConfig,
    CompletionNet,
    typical_in_chart,
)
from dp360.generation.prior.texture.prior_texture import paint_prior
from dp360.generation.synthetic.assets import asset_index
from dp360.generation.synthetic.compose import compose
from dp360.generation.synthetic.composed_recipe import sample_recipe
from dp360.generation.synthetic.fitted_composed_head import PHOTOGRAPHS, fitted_head
from dp360.generation.synthetic.portraits.backgrounds import Backgrounds
from dp360.generation.training import completion_training
from dp360.generation.training.completion_samples import COMPLETION_SAMPLES, CompletionSamples, completion_samples
from dp360.generation.training.completion_training import (
    evaluate_completion,
    train_completion,
    varied,
)
from dp360.generation.training.loop import LoopConfig

HEADS = Path(__file__).parents[4] / "shared" / "data" / "heads"
SMALL = CompletionConfig(channels=(8, 16, 16, 16))


@pytest.fixture(scope="module")
def samples() -> CompletionSamples:
    """Heads whose back is half as bright as what their portraits show of the front."""
    rng = np.random.default_rng(0)
    n, azimuth = 6, np.arange(COLUMNS) * (2 * np.pi / COLUMNS)
    light = (0.75 + 0.25 * np.cos(azimuth))[None, None, None, None]
    typical = rng.uniform(0.3, 0.8, (n, 3, 3)).astype(np.float32)
    middle = typical_in_chart(torch.from_numpy(typical)).numpy()
    truth = np.broadcast_to(middle * light, (n, 2, 3, ROWS, COLUMNS))
    chart = np.zeros((n, 2, GRID_CHANNELS, ROWS, COLUMNS), np.float32)
    front = (np.cos(azimuth) > 0.3).astype(np.float32)
    chart[:, :, 0], chart[:, :, 4], chart[:, :, 8] = 1, front, front
    chart[:, :, 1:4] = chart[:, :, 5:8] = truth * front
    weight = np.ones((n, 2, ROWS, COLUMNS))
    return CompletionSamples(
        chart.astype(np.float16), typical, truth.astype(np.float16), weight.astype(np.float16), np.arange(n)
    )


def test_variations_change_what_is_shown_and_what_is_true_alike(samples: CompletionSamples, monkeypatch) -> None:
    for amount in ("_NOISE", "_TYPICAL_NOISE", "_HIDDEN"):
        monkeypatch.setattr(completion_training, amount, 0.0)
    first = (samples.chart, samples.typical, samples.truth, samples.weight)
    chart, typical, truth, weight = (torch.from_numpy(a[0]).float() for a in first)
    made = [varied(chart, typical, truth, weight, np.random.default_rng(k)) for k in range(6)]
    for row in made:
        known = row["chart"][:, 4] > 0.5
        shown, true = row["chart"][:, 1:4].transpose(0, 1)[:, known], row["truth"].transpose(0, 1)[:, known]
        torch.testing.assert_close(shown, true, atol=2e-3, rtol=0)
    assert len({float(row["truth"].mean()) for row in made}) == 6
    monkeypatch.setattr(completion_training, "_HIDDEN", 1.0)
    hidden = [varied(chart, typical, truth, weight, np.random.default_rng(k)) for k in range(4)]
    assert all(row["chart"][:, 4].sum() <= chart[:, 4].sum() for row in hidden)


def test_a_run_learns_what_one_colour_cannot_say_and_resumes(samples: CompletionSamples, tmp_path: Path) -> None:
    loop = LoopConfig(steps=60, batch_size=3, learning_rate=1e-2, warmup_steps=3, ema_decay=0.9, save_every=20)
    network = train_completion(samples, tmp_path / "run", loop, SMALL)
    figures = evaluate_completion(LoadedNetwork(network, ""), samples)
    assert figures.count == len(samples)
    for part in ("hair_back", "skin_back", "cloth_back"):
        assert figures.learned[part] < 0.7 * figures.typical[part]
    again = train_completion(samples, tmp_path / "run", loop, SMALL)
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values()))


def test_samples_of_another_chart_are_refused(samples: CompletionSamples, tmp_path: Path) -> None:
    config = replace(COMPLETION_SAMPLES, heads=1)
    np.savez(tmp_path / "completion_train_256px_1x1_000000.npz", chart=samples.chart[:1, :, :5], head=np.arange(1))
    with pytest.raises(InputError, match="another chart"):
        completion_samples(tmp_path / "nowhere", "train", tmp_path, config)


@pytest.mark.skipif(not HEADS.is_dir(), reason="needs the head assets")
@pytest.mark.slow
def test_the_shipped_weights_beat_typical_colours_on_held_out_heads() -> None:
    model, backgrounds = load_head_model(), Backgrounds.of_split(HEADS, "held_out")
    look = replace(PHOTOGRAPHS, photographed=0.0)
    cameras = look_at_origin([math.radians(a) for a in (90, 135, 180, -135, -90)], [0.0] * 5, size_px=96)
    errors: dict[str, list[float]] = {"learned": [], "plain": []}
    untrained = LoadedNetwork(CompletionNet().eval(), "")  # it says the typical colours
    with FaceNetworks() as faces, PersonNetworks() as people:
        for number in range(3):
            head = compose(sample_recipe(number, asset_index(), "held_out"), HEADS)
            fitted = fitted_head(head, backgrounds, number, faces, people, look)
            assert fitted is not None
            truth = fitted.true_views(cameras)
            learned = build_head_prior(fitted.portrait, model=model)
            labels = learned.portrait_labels
            field, _ = field_of_portrait(fitted.portrait, labels, model)
            shell = fit_hair_shell(fitted.portrait, labels, model, field)
            flow = fit_hair_flow(fitted.portrait, labels, shell, field)
            plain = paint_prior(fitted.portrait, labels, model, learned.mesh, flow, completion=untrained)
            learned = replace(learned, strands=HairStrands.none())
            for prior, found in zip((learned, replace(learned, texture=plain)), errors.values()):
                ours = prior.render(cameras)
                both = (ours.alpha > 0.95) & (truth.alpha_unit > 0.95)
                found.append(float(np.abs(ours.rgb - truth.rgb_unit)[both].mean()))
    assert np.mean(errors["learned"]) < np.mean(errors["plain"])

"""The completion of the texture: laws of the chart and its network, of fills, and of the painted prior."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dp360.generation.head_model import load_head_model
from dp360.generation.networks import LoadedNetwork
from dp360.generation.portrait import Portrait
from dp360.generation.prior import HeadPrior, capsule
from dp360.generation.prior.field.portrait_observation import field_of_portrait
from dp360.generation.prior.hair.flow_field import fit_hair_flow
from dp360.generation.prior.hair.hair_shell import fit_hair_shell
from dp360.generation.prior.labels.skin_tone import SkinTone
from dp360.generation.prior.texture.atlas import BUST_TILE, SHELL_TILE
from dp360.generation.prior.texture.completion_network import (
    COLUMNS,
    COMPLETION,
    COVER,
    FEATURE_CHANNELS,
    GRID_CHANNELS,
    NOWHERE,
    ROWS,
    SKIN_BELOW,
    UPPER_ROWS,
    ChartPlace,
    CompletionConfig,
    CompletionNet,
    complete,
    from_log_ratio,
    log_ratio,
    mean_in_cells,
    mirrored_chart,
    place_on_body,
    place_on_head,
    sample_chart,
)
from dp360.generation.prior.texture.fills import diffuse_over_mesh, push_pull, wrapped_blur
from dp360.generation.prior.texture.prior_texture import PriorTexture, paint_prior

SMALL = CompletionConfig(channels=(8, 8, 16, 16))
BACKWARDS = (-np.arange(COLUMNS)) % COLUMNS


@pytest.fixture
def network() -> CompletionNet:
    torch.manual_seed(3)
    made = CompletionNet(SMALL).eval()
    torch.nn.init.normal_(made.head.weight, std=0.3)
    return made


@pytest.fixture
def chart() -> np.ndarray:
    rng = np.random.default_rng(2)
    made = rng.random((2, GRID_CHANNELS, ROWS, COLUMNS)).astype(np.float32)
    made[:, 9:12] = 2 * made[:, 9:12] - 1
    return made


TYPICAL = np.array([[0.2, 0.15, 0.1], [0.8, 0.6, 0.5], [0.1, 0.2, 0.4]])


def test_turning_the_features_turns_the_answer(network: CompletionNet) -> None:
    x = torch.randn(1, FEATURE_CHANNELS, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        after, before = torch.roll(network(x), 16, -1), network(torch.roll(x, 16, -1))
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)
    assert (after - network(x)).abs().max() > 1e-3


def test_the_mirrored_portrait_gets_the_mirrored_completion(network: CompletionNet, chart: np.ndarray) -> None:
    loaded = LoadedNetwork(network, "")
    straight = complete(chart, TYPICAL, loaded)
    turned = complete(mirrored_chart(torch.from_numpy(chart)[None])[0].numpy(), TYPICAL, loaded)
    np.testing.assert_allclose(turned, straight[:, :, BACKWARDS], atol=1e-5)
    assert np.abs(turned - straight).max() > 1e-3


def test_an_untrained_network_says_the_typical_colours(chart: np.ndarray) -> None:
    said = complete(chart, TYPICAL, LoadedNetwork(CompletionNet(SMALL).eval(), ""))
    expected = np.empty_like(said)
    expected[COVER, :UPPER_ROWS], expected[COVER, UPPER_ROWS:], expected[SKIN_BELOW] = TYPICAL[[0, 2, 1]]
    np.testing.assert_allclose(said, expected, atol=1e-6)


def test_log_ratios_have_an_inverse() -> None:
    rgb, typical = torch.rand(50, 3), torch.rand(50, 3)
    torch.testing.assert_close(from_log_ratio(log_ratio(rgb, typical), typical), rgb, atol=1e-5, rtol=1e-5)


def test_weights_read_back_with_their_size(network: CompletionNet, chart: np.ndarray, tmp_path: Path) -> None:
    COMPLETION.save(tmp_path / "c.safetensors", network, {"seed": "3"})
    loaded = COMPLETION.read(tmp_path / "c.safetensors")
    assert loaded.network.config == SMALL
    np.testing.assert_allclose(
        complete(chart, TYPICAL, loaded), complete(chart, TYPICAL, LoadedNetwork(network, "")), atol=5e-3
    )


def test_what_is_laid_into_cells_is_found_there_again() -> None:
    rows, columns = np.meshgrid(np.arange(4.0, 100), np.arange(0.0, capsule.COLUMNS), indexing="ij")
    origins, directions = capsule.cell_rays(rows.ravel(), columns.ravel())
    place = place_on_head((origins + 0.15 * directions).astype(np.float32), COVER)
    azimuth = columns.ravel() * (2 * np.pi / capsule.COLUMNS)
    values = np.stack([np.sin(azimuth), np.cos(azimuth), rows.ravel() / 100], axis=1)
    mean, mass = mean_in_cells(place, values, np.ones(len(values)))
    assert mass[SKIN_BELOW].max() == 0 and mass[COVER, UPPER_ROWS:].max() == 0
    found = sample_chart(mean.transpose(0, 2, 3, 1).copy(), place)
    inner = (rows.ravel() > 8) & (rows.ravel() < 96)
    np.testing.assert_allclose(found[inner], values[inner], atol=0.06)


def test_the_chart_is_closed_round_the_head() -> None:
    values = np.random.default_rng(0).random((2, ROWS, COLUMNS, 3)).astype(np.float32)

    def at(column: float, layer: int = COVER) -> np.ndarray:
        place = ChartPlace(np.array([7.3], np.float32), np.array([column], np.float32), np.array([layer], np.uint8))
        return sample_chart(values, place)[0]

    np.testing.assert_allclose(at(COLUMNS - 1e-3), at(0.0), atol=2e-3)
    np.testing.assert_allclose(at(COLUMNS - 0.5), (values[0, 7, -1] * 0.7 + values[0, 8, -1] * 0.3
        + values[0, 7, 0] * 0.7 + values[0, 8, 0] * 0.3) / 2, atol=0.02)  # fmt: skip
    assert not at(5.0, NOWHERE).any()


def test_the_bodys_front_lies_under_the_heads() -> None:
    front = place_on_head(np.array([[0.0, -0.1, 0.15]], np.float32), SKIN_BELOW)
    body = place_on_body(np.array([[0.0, 0.0, 0.1], [0.0, -0.15, -0.1]], np.float32), np.eye(4))
    assert front.column[0] == body.column[0] == 0 and body.column[1] == COLUMNS / 2
    assert front.row[0] < UPPER_ROWS - 0.5 < body.row[0] < body.row[1] < ROWS


def test_places_on_the_body_turn_with_it_and_do_not_depend_on_its_rows() -> None:
    points = np.random.default_rng(0).normal(0, 0.1, (50, 3)).astype(np.float32)
    straight = place_on_body(points, np.eye(4))
    turned = np.eye(4)
    turned[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # a quarter turn to the body's left
    turned[:3, 3] = 0.1, -0.2, 0.3
    moved = place_on_body((points @ turned[:3, :3].T + turned[:3, 3]).astype(np.float32), turned)
    np.testing.assert_allclose(moved.row, straight.row, atol=1e-3)
    difference = (moved.column - straight.column - COLUMNS / 4 + COLUMNS / 2) % COLUMNS - COLUMNS / 2
    np.testing.assert_allclose(difference, 0, atol=1e-3)


def test_collars_are_not_skin() -> None:
    rng = np.random.default_rng(0)
    face = np.array([0.8, 0.6, 0.5]) * rng.uniform(0.5, 1.1, (500, 1)) + rng.normal(0, 0.01, (500, 3))
    tone = SkinTone.of(face, np.array([0.8, 0.6, 0.5]))
    assert np.median(tone.belief(face)) > 0.8
    assert tone.belief(np.array([[0.15, 0.2, 0.45], [0.1, 0.5, 0.2]])).max() < 0.05


def test_push_pull_keeps_what_is_known_and_closes_the_seam() -> None:
    rng = np.random.default_rng(0)
    colour = rng.random((64, 128, 3)).astype(np.float32)
    weight = (rng.random((64, 128)) < 0.02).astype(np.float32)
    filled = push_pull(colour, weight)
    np.testing.assert_allclose(filled[weight > 0], colour[weight > 0], atol=1e-5)
    turned = push_pull(np.roll(colour, 32, 1), np.roll(weight, 32, 1))
    seam = np.abs(filled[:, 0] - filled[:, -1])[(weight[:, 0] + weight[:, -1]) == 0]
    assert seam.max() < 0.5 and np.abs(turned[:, 32] - filled[:, 0]).mean() < 0.1


def test_a_wrapped_blur_commutes_with_turning() -> None:
    image = np.random.default_rng(0).random((20, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(
        np.roll(wrapped_blur(image, 2.0, 5.0), 17, 1), wrapped_blur(np.roll(image, 17, 1), 2.0, 5.0), atol=1e-5
    )


def test_fills_over_a_mesh_stay_between_what_is_held() -> None:
    faces = np.array([[i, i + 1, i + 2] for i in range(48)])
    weight = np.zeros(50)
    weight[[0, 49]] = 1.0
    values = np.linspace(0, 1, 50)[:, None] * weight[:, None]
    filled = diffuse_over_mesh(values, weight, faces, np.array([0.5]), pull=1e-9)[:, 0]
    assert (np.diff(filled) > 0).all() and 0 <= filled[0] < 0.2 and 0.8 < filled[-1] <= 1


@pytest.fixture(scope="module")
def loaded() -> LoadedNetwork[CompletionNet]:
    torch.manual_seed(3)
    network = CompletionNet(SMALL).eval()
    torch.nn.init.normal_(network.head.weight, std=0.05)
    return LoadedNetwork(network, "")


def painted(
    portrait: Portrait, prior: HeadPrior, completion: LoadedNetwork[CompletionNet], seed: int = 0
) -> PriorTexture:
    labels, model = prior.portrait_labels, load_head_model()
    field, _ = field_of_portrait(portrait, labels, model)
    flow = fit_hair_flow(portrait, labels, fit_hair_shell(portrait, labels, model, field), field)
    return paint_prior(portrait, labels, model, prior.mesh, flow, seed=seed, completion=completion)


@pytest.fixture(scope="module")
def by_random_network(portrait: Portrait, prior: HeadPrior, loaded: LoadedNetwork[CompletionNet]) -> PriorTexture:
    return painted(portrait, prior, loaded)


def test_what_the_portrait_plainly_shows_stays(by_random_network: PriorTexture, prior: HeadPrior) -> None:
    shipped = prior.texture
    plain = (by_random_network.confidence > 0.999) & (shipped.confidence > 0.999)
    assert plain.mean() > 0.05
    difference = np.abs(by_random_network.rgb.astype(int) - shipped.rgb)
    assert difference[plain].max() <= 1
    assert difference[by_random_network.confidence < 0.1].mean() > 5  # the network does decide about the rest


def test_tiles_close_round_the_head(by_random_network: PriorTexture) -> None:
    for x, y, width, height in (SHELL_TILE, BUST_TILE):
        tile = by_random_network.rgb[y : y + height, x : x + width].astype(float)
        seam = np.abs(tile[:, 0] - tile[:, -1]).mean()
        within = np.abs(np.diff(tile[:, width // 4 : 3 * width // 4], axis=1)).mean()
        assert seam < 2 * within + 2


def test_the_same_seed_gives_the_same_bytes(
    portrait: Portrait, prior: HeadPrior, loaded: LoadedNetwork[CompletionNet], by_random_network: PriorTexture
) -> None:
    again = painted(portrait, prior, loaded)
    assert again.rgb.tobytes() == by_random_network.rgb.tobytes()
    other = painted(portrait, prior, loaded, seed=1)
    change = np.abs(other.rgb.astype(np.int16) - by_random_network.rgb).max(-1)
    assert (change > 0).mean() > 0.02 and change[by_random_network.confidence > 0.999].max() <= 1  # of 255, by rounding


def test_the_shipped_weights_are_small() -> None:
    assert sum(p.numel() for p in COMPLETION.load().network.parameters()) * 2 < 3e6

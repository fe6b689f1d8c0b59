"""The mean of fields: laws of the closed chart, mirrored portraits, and what is plainly seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dp360.generation.head_model.anatomy import centimetres
from dp360.generation.networks import LoadedNetwork, chart_padded
from dp360.generation.prior.field.chart import MIRRORED, cell_frames
from dp360.generation.prior.field.head_field import CHANNELS, HAIR, HEADGEAR, SKIN, THICKNESS_SCALE, HeadField
from dp360.generation.prior.field.known_cells import faded, meet_observation
from dp360.generation.prior.field.mean_network import (
    FIELD_MEAN,
    GLOBALS,
    FieldMeanConfig,
    FieldMeanNet,
    estimate_field,
    expected_field,
)
from dp360.generation.prior.field.observed_field import ObservedField

SMALL = FieldMeanConfig(channels=(8, 8, 16), embedding=8)


@pytest.fixture
def loaded() -> LoadedNetwork[FieldMeanNet]:
    torch.manual_seed(3)
    network = FieldMeanNet(SMALL).eval().requires_grad_(False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return LoadedNetwork(network, "")


def test_the_chart_goes_on_round_the_head_and_over_the_crown() -> None:
    chart = torch.arange(4.0 * 8).reshape(1, 1, 4, 8)
    wide = chart_padded(chart)[0, 0]
    assert wide.shape == (6, 10)
    assert (wide[1:-1, 0] == chart[0, 0, :, -1]).all() and (wide[1:-1, -1] == chart[0, 0, :, 0]).all()
    assert (wide[0, 1:-1] == torch.roll(chart[0, 0, 0], 4)).all() and (wide[-1, 1:-1] == chart[0, 0, -1]).all()


def test_only_the_place_tells_columns_apart(loaded: LoadedNetwork[FieldMeanNet]) -> None:
    network = loaded.network
    network.get_buffer("place")[:2] = 0
    network.get_buffer("outward").zero_()
    network.attend.place.zero_()
    seen, told = torch.randn(1, 16, 56, 64), torch.randn(1, GLOBALS)
    straight, tokens = network(seen, told)
    turned, same = network(torch.roll(seen, 24, -1), told)
    assert straight.shape == (1, len(CHANNELS), 56, 64) and straight.std() > 1e-3
    torch.testing.assert_close(turned, torch.roll(straight, 24, -1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(same, tokens, rtol=1e-3, atol=1e-4)


def test_the_mirrored_portrait_gets_the_mirrored_field(
    loaded: LoadedNetwork[FieldMeanNet], random_observation: ObservedField
) -> None:
    straight = estimate_field(random_observation, loaded).mirrored()
    other = estimate_field(random_observation.mirrored(), loaded)
    for name, values in vars(straight).items():
        np.testing.assert_allclose(getattr(other, name), values, atol=2e-4, err_msg=name)
    moved = expected_field(random_observation, loaded).thickness
    assert np.abs(moved - moved[:, MIRRORED]).max() > 1e-4


def test_plainly_seen_cells_are_as_seen(random_field: HeadField, random_observation: ObservedField) -> None:
    seen = np.zeros((56, 64), np.float32)
    seen[10:20, 5:30] = 1
    material = random_observation.material / random_observation.material.sum(0)
    observed = replace(
        random_observation, skull_radius=random_field.skull_radius, visibility=seen, thickness_certainty=seen,
        material=material,
    )  # fmt: skip
    met = meet_observation(random_field, observed)
    known = seen > 0
    np.testing.assert_allclose(met.material[:, known], material[:, known], atol=1e-5)
    np.testing.assert_allclose(met.thickness[known], observed.thickness[known], atol=1e-6)
    np.testing.assert_allclose(met.material[..., 40:, :], random_field.material[..., 40:, :], atol=1e-5)
    np.testing.assert_allclose(met.thickness[53:], random_field.thickness[53:], atol=2e-4)


@pytest.mark.parametrize(
    ("lowest_row", "hair_beside", "wraps"), [(38, False, True), (18, False, False), (38, True, False)]
)
def test_a_scarf_is_all_round_and_a_cap_is_not(
    random_field: HeadField, random_observation: ObservedField, lowest_row: int, hair_beside: bool, wraps: bool
) -> None:
    seen = np.zeros((56, 64), np.float32)
    seen[4:lowest_row, :16] = 1
    material = np.zeros((4, 56, 64), np.float32)
    material[HEADGEAR] = 1
    if hair_beside:
        material[:, 20:30] = np.eye(4, dtype=np.float32)[HAIR][:, None, None]  # rows of it
    observed = replace(
        random_observation, skull_radius=random_field.skull_radius, visibility=seen, material=material
    )  # fmt: skip
    behind = meet_observation(random_field, observed).material[:, :, 40:56]
    before = random_field.material[:, :, 40:56]
    np.testing.assert_allclose(behind[HEADGEAR], before[HEADGEAR] + wraps * before[HAIR], atol=1e-4)
    assert (behind[HAIR].max() < 1e-4) == wraps


@pytest.mark.parametrize(
    ("left", "right", "top", "behind", "crown"),
    [
        (HAIR, HAIR, HAIR, 1.0, 1.0),
        (HAIR, HAIR, SKIN, 1.0, 0.0),
        (SKIN, SKIN, SKIN, 0.0, 0.0),
        (SKIN, SKIN, HAIR, 0.0, 0.75),
        (HAIR, SKIN, SKIN, 1.0, 0.0),
        (SKIN, HAIR, SKIN, 1.0, 0.0),
    ],
)
def test_hair_above_the_ears_goes_on_behind(
    random_field: HeadField, random_observation: ObservedField, left: int, right: int, top: int, behind: float,
    crown: float,
) -> None:  # fmt: skip
    """A full head, a bald crown with a wreath, a bald head, one cropped at the sides, and wreaths of turned heads of
    which one side shows its temple alone; a network says of all that they are bald behind.
    """
    frames = cell_frames()
    skull = np.full((56, 64), 0.16, np.float32)
    height_cm = centimetres(frames.origins_world + frames.outward * skull[..., None])[..., 1]
    in_front = np.cos(np.arange(64) * (2 * np.pi / 64)) > -0.05
    seen = (in_front & (height_cm > -2)).astype(np.float32)
    sides = np.where(np.arange(64) < 32, left, right)
    kind = np.where(height_cm > 10, top, np.where(height_cm > 4, sides, SKIN))
    material = np.moveaxis(np.eye(4, dtype=np.float32)[kind], -1, 0)
    bare = np.zeros_like(material)
    bare[SKIN] = 1
    flat = replace(random_field, material=bare, skull_radius=skull, thickness=np.zeros_like(skull))
    observed = replace(
        random_observation, skull_radius=skull, visibility=seen, material=material,
        thickness_certainty=np.zeros_like(skull),
    )  # fmt: skip
    met = meet_observation(flat, observed)
    back = met.material[HAIR][:, 28:37]
    middle, upper, nape = (
        back[(height_cm[:, 28:37] > low) & (height_cm[:, 28:37] < high)] for low, high in ((2, 5), (11, 13), (-9, -4))
    )
    np.testing.assert_allclose([middle.mean(), upper.mean()], [behind, crown], atol=0.1)
    assert nape.max() < 0.05
    np.testing.assert_allclose(met.material.sum(0), 1, atol=1e-5)
    thick = met.thickness[:, 28:37][(height_cm[:, 28:37] > 2) & (height_cm[:, 28:37] < 5)]
    assert (thick.min() > 0.005) == (behind == 1)


def test_an_outline_shifts_the_field_and_a_tuft_does_not(
    random_field: HeadField, random_observation: ObservedField
) -> None:
    flat = replace(random_field, thickness=np.full((56, 64), 0.03, np.float32))
    rim = np.zeros((56, 64), np.float32)
    rim[10:30, 16] = 1

    def met(thickness: float) -> np.ndarray:
        seen = np.full((56, 64), thickness, np.float32)
        observed = replace(random_observation, skull_radius=flat.skull_radius, thickness=seen, thickness_certainty=rim)
        return meet_observation(flat, observed).thickness

    little, tuft = met(0.04), met(0.13)
    np.testing.assert_allclose(tuft[10:30, 16], 0.13, atol=1e-6)
    assert little[20, 22] - 0.03 > 0.004  # most of the shift, four centimetres from the outline
    assert (little[20, 16:32] <= 0.04 + 1e-6).all() and (np.diff(little[20, 16:32]) <= 1e-6).all()
    assert tuft[20, 22] - 0.03 < 0.02  # a fifth of the tuft


def test_corrections_fade_out_without_a_seam() -> None:
    weight = np.zeros((56, 64))
    weight[:, :10] = 1
    change = faded(np.full((1, 56, 64), 5.0), weight, 1.5)[0]
    assert (change[:, :10] == 5).all() and (change[:, 20:50] < 1e-2).all()
    assert np.abs(np.diff(change, axis=1)).max() < 2.5


def test_nothing_seen_changes_nothing(random_field: HeadField, random_observation: ObservedField) -> None:
    nothing = np.zeros((56, 64), np.float32)
    blind = replace(
        random_observation, visibility=nothing, thickness_certainty=nothing, orientation_certainty=nothing
    )  # fmt: skip
    met = meet_observation(random_field, blind)
    for name, values in vars(random_field).items():
        np.testing.assert_allclose(getattr(met, name), values, atol=1e-5, err_msg=name)


def test_directions_turn_to_orientations_and_keep_their_sign(random_observation: ObservedField) -> None:
    channels = np.zeros((len(CHANNELS), 56, 64), np.float32)
    channels[CHANNELS.index("flow_down")] = 1
    field = HeadField.unpack(channels, random_observation.skull_radius, random_observation.tokens)
    angle = np.radians(50.0)
    doubled = np.array([np.cos(2 * angle), np.sin(2 * angle)], np.float32)[:, None, None]
    observed = replace(
        random_observation, orientation=np.broadcast_to(doubled, (2, 56, 64)),
        orientation_certainty=np.ones((56, 64), np.float32),
    )  # fmt: skip
    flow = meet_observation(field, observed).flow
    np.testing.assert_allclose(flow[0], np.cos(angle), atol=1e-5)
    np.testing.assert_allclose(flow[1], np.sin(angle), atol=1e-5)


def test_weights_are_read_as_written(loaded: LoadedNetwork[FieldMeanNet], tmp_path: Path,
                                     random_observation: ObservedField) -> None:  # fmt: skip
    path = tmp_path / FIELD_MEAN.file_name
    FIELD_MEAN.save(path, loaded.network, {})
    again = FIELD_MEAN.read(path)
    assert again.network.config == SMALL
    ours, theirs = (expected_field(random_observation, n).thickness for n in (loaded, again))
    np.testing.assert_allclose(THICKNESS_SCALE.encode(ours), THICKNESS_SCALE.encode(theirs), atol=0.05)

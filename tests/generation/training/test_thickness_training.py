"""The hair thickness network: laws of the closed grid, truth by known answers, resumed training, shipped weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dp360.generation import look_at_origin
from dp360.generation.networks import LoadedNetwork
from dp360.generation.prior import capsule
from dp360.generation.prior.hair.thickness_network import (
    FEATURE_CHANNELS,
    HAIR_THICKNESS,
    LEVELS,
    HairThicknessConfig,
    HairThicknessNet,
    estimate_hair,
    mirrored,
    shell_features,
)
from dp360.generation.similarity import best_similarity
from dp360.generation.synthetic.hair.hair_truth import hair_truth
from dp360.generation.synthetic.parts import Label, Part, SyntheticHead
from dp360.generation.training.loop import LoopConfig
from dp360.generation.training.thickness_samples import HAIR_SAMPLES, HairSamples, hair_samples
from dp360.generation.training.thickness_training import (
    evaluate_hair_thickness,
    hair_batch,
    train_hair_thickness,
)

HEADS = Path(__file__).parents[4] / "shared" / "data" / "heads"
SMALL = HairThicknessConfig(channels=(8, 8, 16, 16))
BACKWARDS = (-np.arange(capsule.COLUMNS)) % capsule.COLUMNS
RADIUS = 0.15


@pytest.fixture
def network() -> HairThicknessNet:
    torch.manual_seed(5)
    made = HairThicknessNet(SMALL).eval()
    torch.nn.init.normal_(made.head.weight)
    return made


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(FEATURE_CHANNELS, capsule.ROWS, capsule.COLUMNS)).astype(np.float32)


def sphere(radius: float, label: Label, opacity: float) -> Part:
    """A ball of radius `radius` about the chart's centre."""
    import trimesh

    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    vertices = np.asarray(mesh.vertices) + np.array([0, capsule.CENTRE_Y, 0])
    texture = np.ones((1, 1, 4), np.float32)
    texture[..., 3] = opacity
    faces = np.asarray(mesh.faces, dtype=np.int64)
    return Part(
        "any", vertices, np.asarray(mesh.vertex_normals), faces, np.zeros((1, 2)), np.zeros_like(faces), texture,
        opacity < 1, labels=np.full((1, 1), int(label), np.uint8),
    )  # fmt: skip


def test_turning_the_input_turns_the_answer(network: HairThicknessNet, features: np.ndarray) -> None:
    x = torch.from_numpy(features)[None]
    with torch.no_grad():
        turned_after, turned_before = torch.roll(network(x), 32, -1), network(torch.roll(x, 32, -1))
    torch.testing.assert_close(turned_before, turned_after, rtol=1e-4, atol=1e-5)
    assert (turned_after - network(x)).abs().max() > 1e-3


def test_the_mirrored_portrait_gets_the_mirrored_answer(network: HairThicknessNet, features: np.ndarray) -> None:
    loaded = LoadedNetwork(network, "")
    straight = estimate_hair(features, loaded)
    other = estimate_hair(mirrored(torch.from_numpy(features)).numpy(), loaded)
    for name in ("presence", "thickness", "spread"):
        np.testing.assert_allclose(getattr(other, name), getattr(straight, name)[:, BACKWARDS], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mirrored(mirrored(torch.from_numpy(features))), torch.from_numpy(features))


def test_features_of_the_mirrored_picture_are_the_mirrored_features() -> None:
    rng = np.random.default_rng(2)
    hair = np.kron(rng.random((16, 16)) > 0.5, np.ones((16, 16))).astype(np.float32)
    inside = np.ones((256, 256), bool)
    inside[:, :20] = False
    skull = np.full((capsule.ROWS, capsule.COLUMNS), RADIUS) + 0.01 * np.cos(np.arange(capsule.COLUMNS) / 20)
    nothing = np.zeros_like(hair)
    left, right = look_at_origin([0.4], [0.1], size_px=256), look_at_origin([-0.4], [0.1], size_px=256)
    one = shell_features(hair, nothing, nothing, inside, left, skull)
    other = shell_features(hair[:, ::-1].copy(), nothing, nothing, inside[:, ::-1].copy(), right, skull[:, BACKWARDS])
    difference = np.abs(other - mirrored(torch.from_numpy(one)).numpy())
    assert np.quantile(difference, 0.999) < 1e-3


def test_the_outline_is_found_at_its_distance_from_the_skull() -> None:
    """Of a ball of hair seen from the front, the cells at the side are hair up to its radius and background beyond."""
    thickness, size = 0.04, 512
    camera = look_at_origin([0.0], [0.0], size_px=size)
    focal = float(camera.focal_px[0, 0])
    rows, columns = np.mgrid[:size, :size] + 0.5
    ball = np.hypot(columns - size / 2, rows - size / 2) < focal * (RADIUS + thickness) / 2.7
    hair, nothing = ball.astype(np.float32), np.zeros((size, size), np.float32)
    skull = np.full((capsule.ROWS, capsule.COLUMNS), RADIUS)
    seen = shell_features(hair, nothing, nothing, np.ones_like(ball), camera, skull)
    row = capsule.SPHERE_ROWS + 1
    for column in (capsule.COLUMNS // 4, 3 * capsule.COLUMNS // 4):
        for level, distance in enumerate(LEVELS[:-1]):  # the last lies outside the picture
            assert seen[level, row, column] == pytest.approx(float(distance < thickness), abs=0.05)
            assert seen[3 * len(LEVELS) + level, row, column] == pytest.approx(float(distance > thickness), abs=0.05)


def test_truth_is_where_half_of_the_light_stops() -> None:
    skin = sphere(0.10, Label.FACE, 1.0)
    half = capsule.SPHERE_ROWS  # below, rays start on the axis and meet the balls elsewhere

    def radius_of(*parts: Part) -> tuple[float, float]:
        truth = hair_truth(SyntheticHead("balls", (skin, *parts), ()))
        return float(truth.radius[:half].mean()), float(truth.presence[:half].mean())

    thin, inner, dense = (
        sphere(0.16, Label.HAIR, 0.3), sphere(0.14, Label.HAIR, 1.0), sphere(0.18, Label.HEADGEAR, 0.7),
    )  # fmt: skip
    assert radius_of(thin, inner) == pytest.approx((0.14, 1.0), rel=2e-3)
    assert radius_of(thin, inner, dense) == pytest.approx((0.18, 1.0), rel=2e-3)
    assert radius_of(thin) == (0.0, 0.0)
    assert radius_of(inner, sphere(0.2, Label.BEARD, 1.0)) == pytest.approx((0.14, 1.0), rel=2e-3)
    assert radius_of(inner, sphere(0.2, Label.CLOTH, 1.0)) == (0.0, 0.0)


def test_similarity_undoes_itself_and_finds_a_known_map() -> None:
    rng = np.random.default_rng(3)
    points = rng.normal(size=(30, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    found = best_similarity(points, 1.3 * points @ turn.T + [0.1, -0.2, 0.3])
    assert found.scale == pytest.approx(1.3)
    np.testing.assert_allclose(found.R, turn, atol=1e-9)
    np.testing.assert_allclose(found.inverse()(found(points)), points, atol=1e-9)


@pytest.fixture
def samples() -> HairSamples:
    """Six made-up portraits."""
    rng, n, size = np.random.default_rng(4), 6, 64
    camera = look_at_origin(list(rng.uniform(-0.5, 0.5, n)), [0.0] * n, size_px=size)
    grid = (n, capsule.ROWS, capsule.COLUMNS)
    skull = np.full(grid, 0.14, np.float16)
    return HairSamples(
        rng.integers(0, 8, (n, size, size)).astype(np.uint8),
        camera.T_world_camera.numpy(),
        camera.focal_px[:, 0].numpy(),
        camera.principal_px.numpy(),
        skull,
        skull + np.float16(0.03),
        rng.integers(0, 256, grid).astype(np.uint8),
        np.zeros(grid, np.uint8),
        np.arange(n),
    )


LOOP = LoopConfig(steps=6, batch_size=2, warmup_steps=2, save_every=2, learning_rate=1e-3)


class Killed(Exception):
    """Stands for a kill."""


def test_a_killed_training_goes_on_to_the_same_weights(samples: HairSamples, tmp_path: Path) -> None:
    whole = train_hair_thickness(samples, tmp_path / "whole", LOOP, SMALL)

    def kill(step: int, *_: object) -> None:
        if step == 4:
            raise Killed

    with pytest.raises(Killed):
        train_hair_thickness(samples, tmp_path / "broken", LOOP, SMALL, on_evaluation=kill)
    resumed = train_hair_thickness(samples, tmp_path / "broken", LOOP, SMALL)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_batch_depends_on_its_step_alone_and_epochs_differ(samples: HairSamples) -> None:
    once, again, later = (hair_batch(samples, LOOP, step) for step in (1, 1, 4))
    assert torch.equal(once["features"], again["features"]) and torch.equal(once["target"], again["target"])
    assert not torch.equal(once["features"], later["features"])


def test_weights_survive_the_file(network: HairThicknessNet, features: np.ndarray, tmp_path: Path) -> None:
    HAIR_THICKNESS.save(tmp_path / "w.safetensors", network, {"seed": "5"})
    loaded = HAIR_THICKNESS.read(tmp_path / "w.safetensors")
    before, after = (estimate_hair(features, x) for x in (LoadedNetwork(network, ""), loaded))
    np.testing.assert_allclose(after.thickness, before.thickness, atol=2e-3)
    assert loaded.network.config == SMALL and len(loaded.sha256) == 64


@pytest.mark.skipif(not HEADS.is_dir(), reason="needs the head assets")
def test_shipped_weights_reach_their_figures_on_held_out_heads(tmp_path: Path) -> None:
    loaded = HAIR_THICKNESS.load()
    assert loaded is not None
    config = replace(HAIR_SAMPLES, heads=6, samples_per_head=1)
    held_out = hair_samples(HEADS, "held_out", tmp_path, config)
    figures = evaluate_hair_thickness(loaded, held_out)
    assert figures.count >= 4
    assert figures.thickness_mae["crown"] < 0.025
    assert figures.presence_accuracy["back"] > 0.85
    untrained = LoadedNetwork(HairThicknessNet(replace(loaded.network.config)).eval(), "")
    assert figures.thickness_mae["back"] < 0.8 * evaluate_hair_thickness(untrained, held_out).thickness_mae.get(
        "back", np.inf
    )

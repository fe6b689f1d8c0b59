"""The bust of a portrait: closed, joined to the neck, alike for mirrored portraits, plain where nothing is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import KDTree

from dp360.generation import Cameras, look_at_origin
from dp360.generation.head_model import HeadModel, load_head_model
from dp360.generation.head_model.anatomy import NECK_CUT_Y_CM, centimetres, world_height
from dp360.generation.mesh_raster import rasterize_mesh
from dp360.generation.portrait import Portrait
from dp360.generation.prior import HeadPrior
from dp360.generation.prior.bust import bust as bust_module
from dp360.generation.prior.bust.bust import CUT_ROW, RIM_ROW, ROWS, Bust, fit_bust
from dp360.generation.prior.bust.outline import Outline
from dp360.generation.prior.bust.sections import COLUMNS
from dp360.generation.prior.field.portrait_observation import field_of_portrait
from dp360.generation.prior.hair.hair_shell import HairShell, fit_hair_shell
from dp360.generation.prior.labels.portrait_labels import PortraitLabels
from dp360.generation.prior.texture.atlas import MATERIAL_CLOTH, MATERIAL_SKIN, build_atlas_mesh


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head_model()


@pytest.fixture(scope="module")
def labels(prior: HeadPrior) -> PortraitLabels:
    return prior.portrait_labels


@pytest.fixture(scope="module")
def bust(portrait: Portrait, labels: PortraitLabels, model: HeadModel) -> Bust:
    return fit_bust(portrait, labels, model)


@pytest.fixture(scope="module")
def shell(portrait: Portrait, labels: PortraitLabels, model: HeadModel) -> HairShell:
    return fit_hair_shell(portrait, labels, model, field_of_portrait(portrait, labels, model)[0])


def without_body(labels: PortraitLabels) -> PortraitLabels:
    nothing = np.zeros_like(labels.cloth)
    return replace(labels, cloth=nothing, skin=labels.skin & (np.arange(len(nothing))[:, None] < len(nothing) // 2))


def seen_from(portrait: Portrait, camera: Cameras) -> Portrait:
    return replace(portrait, head=replace(portrait.head, camera=camera))


def tilted(camera: Cameras, roll_rad: float, pitch_rad: float = 0.0) -> Cameras:
    """The camera of a head that leans by these angles in an upright picture."""
    roll, pitch = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    roll[:2, :2] = torch.tensor([[np.cos(roll_rad), -np.sin(roll_rad)], [np.sin(roll_rad), np.cos(roll_rad)]])
    pitch[1:3, 1:3] = torch.tensor([[np.cos(pitch_rad), -np.sin(pitch_rad)], [np.sin(pitch_rad), np.cos(pitch_rad)]])
    T = pitch @ camera.T_world_camera @ roll
    return Cameras(T, camera.focal_px, camera.principal_px, camera.width, camera.height)


def shifted(portrait: Portrait, labels: PortraitLabels, by_px: tuple[int, int]) -> tuple[Portrait, PortraitLabels]:
    """The picture moved by rows and columns."""
    pictures = {k: np.roll(getattr(portrait, k), by_px, (0, 1)) for k in ("rgb", "alpha_unit", "foreground_unit")}
    maps = {k: np.roll(getattr(labels, k), by_px, (0, 1)) for k in ("probability", "skin", "hair", "cloth")}
    return replace(portrait, **pictures), replace(labels, **maps)


def mirrored(portrait: Portrait, labels: PortraitLabels) -> tuple[Portrait, PortraitLabels]:
    """What a mirror would show."""
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    camera = portrait.head.camera
    principal = camera.principal_px.clone()
    principal[:, 0] = camera.width - principal[:, 0]
    seen = Cameras(flip @ camera.T_world_camera @ flip, camera.focal_px, principal, camera.width, camera.height)
    head = replace(portrait.head, vertices_world=portrait.head.vertices_world * [-1, 1, 1], camera=seen)
    names = ("rgb", "alpha_unit", "foreground_unit", "inside")
    pictures = {name: np.ascontiguousarray(getattr(portrait, name)[:, ::-1]) for name in names}
    maps = {k: np.ascontiguousarray(getattr(labels, k)[:, ::-1]) for k in ("probability", "skin", "hair", "cloth")}
    return replace(portrait, head=head, **pictures), replace(labels, **maps)


def as_mesh(bust: Bust) -> trimesh.Trimesh:
    row, column = np.meshgrid(np.arange(ROWS - 1), np.arange(COLUMNS), indexing="ij")
    a = row * (COLUMNS + 1) + column
    faces = np.concatenate(
        [np.stack([a, a + COLUMNS + 1, a + 1], -1), np.stack([a + 1, a + COLUMNS + 1, a + COLUMNS + 2], -1)]
    )
    mesh = trimesh.Trimesh(bust.points_world.reshape(-1, 3), faces.reshape(-1, 3), process=False)
    mesh.merge_vertices(digits_vertex=9)
    mesh.update_faces(mesh.nondegenerate_faces())
    return mesh


def without_hair(shell: HairShell) -> HairShell:
    return replace(shell, thickness=np.full_like(shell.thickness, -0.03))


def test_it_is_closed_and_faces_outward(bust: Bust) -> None:
    mesh = as_mesh(bust)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0.02
    np.testing.assert_array_equal(bust.points_world[:, 0], bust.points_world[:, -1])
    assert np.isfinite(bust.points_world).all()


def test_the_atlas_keeps_it_closed_and_has_no_flat_triangles(prior: HeadPrior) -> None:
    mesh = prior.mesh
    faces = mesh.faces[mesh.material == MATERIAL_CLOTH]
    corners = mesh.vertices_world[faces]
    assert (np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) > 0).all()
    closed = trimesh.Trimesh(mesh.vertices_world, faces, process=False)
    closed.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=9)
    assert closed.is_watertight and closed.volume > 0.02


def test_the_same_portrait_gives_the_same_bytes(
    bust: Bust, portrait: Portrait, labels: PortraitLabels, model: HeadModel
) -> None:
    again = fit_bust(portrait, labels, model)
    assert again.points_world.tobytes() == bust.points_world.tobytes()
    assert again.stand_off.tobytes() == bust.stand_off.tobytes()


def test_a_mirrored_portrait_gives_the_mirrored_bust(
    bust: Bust, portrait: Portrait, labels: PortraitLabels, model: HeadModel
) -> None:
    other = fit_bust(*mirrored(portrait, labels), model)
    expected = bust.points_world[:, ::-1] * [-1, 1, 1]
    assert np.abs(expected - bust.points_world).max() > 0.02  # this portrait is not symmetric itself
    assert np.abs(other.points_world - expected).mean() < 2e-3


def test_without_a_visible_body_the_mean_bust_stands(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel, bust: Bust
) -> None:
    hidden = fit_bust(portrait, without_body(labels), model)
    fewer = replace(labels, cloth=np.zeros_like(labels.cloth), skin=np.zeros_like(labels.skin))
    assert fit_bust(portrait, fewer, model).points_world.tobytes() == hidden.points_world.tobytes()
    body = (hidden.points_world - hidden.T_world_body[:3, 3]) @ hidden.T_world_body[:3, :3]
    widest = np.abs(body[RIM_ROW + 4 : CUT_ROW]).max((0, 1))
    assert 0.28 < widest[0] < 0.45 and widest[2] < 0.25
    right = body[RIM_ROW + 4 : CUT_ROW, ::-1] * [-1, 1, 1]
    assert np.abs(right - body[RIM_ROW + 4 : CUT_ROW]).mean() < 0.005  # nearly symmetric: the neck need not be
    assert np.abs(hidden.points_world - bust.points_world).max() > 0.02


def test_strongly_turned_portraits_stay_near_the_mean_bust(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel
) -> None:
    everywhere = replace(labels, cloth=np.broadcast_to(np.arange(512)[:, None] > 380, (512, 512)).copy())
    for azimuth in (-0.8, 0.8):
        turned = seen_from(portrait, look_at_origin([azimuth], [0.0], size_px=512))
        wide, mean = (fit_bust(turned, seen, model) for seen in (everywhere, without_body(labels)))
        lower = slice(RIM_ROW + 8, CUT_ROW)
        away, _ = KDTree(mean.points_world[RIM_ROW:].reshape(-1, 3)).query(wide.points_world[lower])
        assert away.max() < 0.015  # rows lie elsewhere below another collar, the surface is the same


@pytest.mark.parametrize(("roll_deg", "pitch_deg"), [(0, 0), (25, 0), (-25, 0), (0, 20), (0, -20)])
def test_no_gap_at_the_neck_of_tilted_heads(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel, shell: HairShell, roll_deg: float, pitch_deg: float
) -> None:
    level = look_at_origin([0.0], [0.0], size_px=512)
    leaning = seen_from(portrait, tilted(level, *np.deg2rad([roll_deg, pitch_deg])))
    neck = torch.tensor([[0.0, world_height(NECK_CUT_Y_CM), 0.0]], dtype=torch.float64)
    before, after = (camera.project(neck)[0, 0, :2].numpy() for camera in (level, leaning.head.camera))
    moved = tuple(np.round(after - before).astype(int)[::-1])  # the body stays below the neck
    leaning, seen_body = shifted(leaning, labels, moved)
    for seen in (seen_body, without_body(labels)):
        bust = fit_bust(leaning, seen, model)
        mesh = build_atlas_mesh(model, portrait.head.vertices_world, without_hair(shell), bust)
        azimuth = torch.arange(12, dtype=torch.float64) * (np.pi / 6)
        elevation = torch.tensor([-0.3, 0.0, 0.5], dtype=torch.float64).repeat_interleave(12)
        cameras = look_at_origin(azimuth.repeat(3), elevation, size_px=192)
        assert_joined(mesh, cameras, bust)


def test_a_bust_that_hangs_too_low_would_be_noticed(
    portrait: Portrait, model: HeadModel, shell: HairShell, bust: Bust
) -> None:
    low = replace(bust, points_world=bust.points_world - [0, 0.12, 0])
    mesh = build_atlas_mesh(model, portrait.head.vertices_world, without_hair(shell), low)
    with pytest.raises(AssertionError):
        assert_joined(mesh, look_at_origin([0.0, 2.0], [-0.3, 0.0], size_px=192), bust)


def assert_joined(mesh, cameras: Cameras, bust: Bust) -> None:
    """About the neck no background is seen, and skin and cloth only from outside."""
    middle = bust.T_world_body[:3, 3]
    band = middle + np.outer([world_height(-9.0) - middle[1], -0.05], [0, 1, 0])
    corners = mesh.vertices_world[mesh.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    for camera in cameras:
        hit = rasterize_mesh(mesh.vertices_world, mesh.faces, camera)
        (column, upper, _), (_, lower, _) = camera.project(torch.from_numpy(band))[0].tolist()
        half = 0.03 * float(camera.focal_px[0, 0]) / 2.7
        box = np.s_[int(upper) : int(lower) + 1, int(column - half) : int(column + half) + 1]
        triangle = hit.triangle_index[box]
        assert (triangle >= 0).all()
        view = camera.position_world[0].numpy() - corners[triangle].mean(-2)
        outer = np.isin(mesh.material[triangle], (MATERIAL_SKIN, MATERIAL_CLOTH))
        inside = ((normal[triangle] * view).sum(-1) < 0) & outer
        assert inside.mean() < 0.035  # a pixel at a rim, or a collar that stands off, seen from above


def test_it_ends_higher_at_the_sides_and_without_an_edge(bust: Bust) -> None:
    body = (bust.points_world - bust.T_world_body[:3, 3]) @ bust.T_world_body[:3, :3]
    cut = body[CUT_ROW, :COLUMNS]
    quarter = COLUMNS // 4
    assert cut[[quarter, -quarter], 1].mean() > cut[0, 1] + 0.03
    radius = np.hypot(body[CUT_ROW:, :COLUMNS, 0], body[CUT_ROW:, :COLUMNS, 2] - body[CUT_ROW, :COLUMNS, 2].mean())
    assert (np.diff(radius, axis=0) < 1e-3).all() and (np.diff(body[CUT_ROW:-1, :COLUMNS, 1], axis=0) < 1e-6).all()


def test_a_collar_stands_off_the_neck_and_bare_shoulders_have_none(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel, bust: Bust
) -> None:
    assert (bust.stand_off > 0.004).mean() > 0.6
    dressed = labels.cloth | labels.skin
    naked = replace(labels, skin=dressed, cloth=np.zeros_like(dressed))
    assert (fit_bust(portrait, naked, model).stand_off > 0.003).mean() < 0.2


def test_an_open_neckline_comes_out_of_the_neck(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In front, where the neck is bare, its upper end lies well inside, and nothing else moves."""
    at_neck = portrait.head.vertices_world[np.abs(centimetres(model.neutral)[:, 1] - NECK_CUT_Y_CM) < 1]
    middle = (at_neck.min(0) + at_neck.max(0)) / 2
    ends = np.array([[middle[0], world_height(y), middle[2]] for y in (-8.0, NECK_CUT_Y_CM - 6.0)])
    (column, first), (_, last) = portrait.head.camera.project(torch.from_numpy(ends))[0, :, :2].tolist()
    row, at = np.indices(labels.skin.shape)
    bare = (row > first) & (row < last) & (np.abs(at - column) < 45 * (last - row) / (last - first))
    opened = replace(labels, skin=labels.skin | bare, cloth=labels.cloth & ~bare)
    with_bare_front = fit_bust(portrait, opened, model)
    monkeypatch.setattr(bust_module, "_INWARD", 0.0)
    moved = np.linalg.norm(with_bare_front.points_world - fit_bust(portrait, opened, model).points_world, axis=-1)
    assert as_mesh(with_bare_front).is_watertight
    assert moved[RIM_ROW, 0] > 0.012 and moved[RIM_ROW, COLUMNS // 3 : -COLUMNS // 3].max() < 1e-9


def test_a_collar_does_not_stand_before_the_background(
    portrait: Portrait, labels: PortraitLabels, model: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the portrait's body is narrow beside the neck a collar lies on it; in front and below it stays."""
    camera = portrait.head.camera
    at_neck = portrait.head.vertices_world[np.abs(centimetres(model.neutral)[:, 1] - NECK_CUT_Y_CM) < 1]
    middle = (at_neck.min(0) + at_neck.max(0)) / 2
    ends = np.array([[middle[0], world_height(y), middle[2]] for y in (-8.0, NECK_CUT_Y_CM + 0.5)])
    (column, first), (_, last) = camera.project(torch.from_numpy(ends))[0, :, :2].tolist()
    row, at = np.indices(labels.skin.shape)
    of_neck = (row > first) & (row < last)
    narrow = of_neck & (np.abs(at - column) <= 25)
    cloth = (labels.cloth & ~of_neck) | narrow
    seen = replace(labels, cloth=cloth, skin=labels.skin & ~of_neck, hair=labels.hair & ~of_neck)
    bound = fit_bust(portrait, seen, model)
    monkeypatch.setattr(Outline, "beyond_px", lambda _, uv_px: np.zeros(uv_px.shape[:-1]))
    moved = np.linalg.norm(bound.points_world - fit_bust(portrait, seen, model).points_world, axis=-1)
    quarter = COLUMNS // 4
    assert as_mesh(bound).is_watertight
    assert moved[RIM_ROW, [quarter, -quarter - 1]].max() > 0.004 and moved[RIM_ROW, 0] < 0.001
    assert moved[CUT_ROW - 10 :].max() < 1e-9


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_shoulders_of_the_head_model_do_not_stick_out_of_a_collar(
    portrait: Portrait, model: HeadModel, shell: HairShell, bust: Bust, side: float
) -> None:
    cm = centimetres(model.neutral)
    flared = portrait.head.vertices_world.copy()
    lowest = (cm[:, 1] < NECK_CUT_Y_CM + 0.6) & (cm[:, 0] * side > 2) & (cm[:, 2] < 1)
    flared[lowest, 0] += side * 0.06
    mesh = build_atlas_mesh(model, flared, without_hair(shell), bust)
    used = np.unique(mesh.faces[mesh.material == MATERIAL_SKIN])
    of_neck = used[cm[mesh.head_vertex[used], 1] < NECK_CUT_Y_CM + 0.6]
    assert not (lowest[mesh.head_vertex[of_neck]]).any()
    usual = build_atlas_mesh(model, portrait.head.vertices_world, without_hair(shell), bust)
    assert (usual.material == MATERIAL_SKIN).sum() > 0.97 * (mesh.material == MATERIAL_SKIN).sum()

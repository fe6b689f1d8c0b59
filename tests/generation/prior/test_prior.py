"""The prior of a real photograph: it looks like the portrait from the front and like a head from everywhere else."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from dp360.generation import Cameras, ViewSet, look_at_origin, orbit
from dp360.generation.head_model import load_head_model
from dp360.generation.portrait import Portrait, encode_portrait, read_portrait
from dp360.generation.portrait.landmark_network import FACE_LANDMARKS
from dp360.generation.prior import HeadPrior, PriorBasis, PriorGenerator, PriorRender, build_head_prior
from dp360.generation.prior.field import field_autoencoder, field_denoiser, field_grain, head_field, mean_network
from dp360.generation.prior.labels import segmenter
from dp360.generation.prior.light import shade_network
from dp360.generation.prior.prior_generator import portrait_rgba
from dp360.generation.prior.texture import skin_paint
from dp360.generation.prior.texture.atlas import MATERIAL_CLOTH, MATERIAL_EYE, MATERIAL_HAIR, MATERIAL_SKIN
from dp360.generation.weights import shipped_file

FRONT, LEFT, BACK, RIGHT = range(4)
DRAWING = ("field_autoencoder", "field_denoiser", "field_grain")
NECK_Y = -0.14
"""A height between chin and collar, world units."""


@pytest.fixture(scope="module")
def from_the_portraits_camera(portrait: Portrait, prior: HeadPrior) -> PriorRender:
    return prior.render(portrait.head.camera)


@pytest.fixture(scope="module")
def ring() -> Cameras:
    """From the front, the head's left, the back, its right."""
    return orbit(4, size_px=192)


@pytest.fixture(scope="module")
def around(prior: HeadPrior, ring: Cameras) -> PriorRender:
    return prior.render(ring)


@pytest.fixture(scope="module")
def views(portrait: Portrait, prior: HeadPrior, ring: Cameras) -> ViewSet:
    return PriorGenerator(surface_points=2000).generate(portrait, prior, ring, torch.Generator().manual_seed(11))


def psnr_db(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a - b)[where] ** 2)))


def test_labels_share_out_the_foreground(portrait: Portrait, prior: HeadPrior) -> None:
    labels = prior.portrait_labels
    times_labelled = sum(mask.astype(int) for mask in (labels.skin, labels.hair, labels.cloth))
    np.testing.assert_array_equal(times_labelled, portrait.alpha_unit > 0.5)
    np.testing.assert_allclose(labels.probability.sum(-1)[portrait.alpha_unit > 0.9], 1, atol=1e-3)
    assert portrait.landmarks_px is not None
    column, nose_row = portrait.landmarks_px[1, :2].astype(int)
    assert labels.skin[nose_row, column]
    assert labels.hair[nose_row - 180, column] and labels.cloth[-10, column]


def test_the_outline_is_the_portraits(portrait: Portrait, from_the_portraits_camera: PriorRender) -> None:
    matte, covered = portrait.alpha_unit > 0.5, from_the_portraits_camera.alpha[0] > 0.5
    assert (matte & covered).sum() / (matte | covered).sum() > 0.85


def test_the_front_is_the_portrait_the_right_way_round(
    portrait: Portrait, from_the_portraits_camera: PriorRender
) -> None:
    opaque = (portrait.alpha_unit > 0.99) & (from_the_portraits_camera.alpha[0] > 0.5)
    inside = cv2.erode(opaque.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert inside.mean() > 0.3
    shown = from_the_portraits_camera.rgb[0]
    assert psnr_db(shown, portrait.foreground_unit, inside) > 20
    either_way = inside & inside[:, ::-1]
    mirrored = psnr_db(shown, portrait.foreground_unit[:, ::-1], either_way)
    assert psnr_db(shown, portrait.foreground_unit, either_way) > mirrored + 6
    assert from_the_portraits_camera.validity[0][inside].mean() > 0.85


def test_maps_are_in_range(around: PriorRender) -> None:
    for name in ("rgb", "alpha", "validity"):
        values = getattr(around, name)
        assert values.min() >= 0 and values.max() <= 1 + 1e-6, name
    empty = around.alpha == 0
    assert (around.validity[empty] == 0).all() and (around.normals_world[empty] == 0).all()
    length = np.linalg.norm(around.normals_world, axis=-1)
    np.testing.assert_allclose(length[around.alpha > 0.5], 1, atol=1e-4)
    hit = np.isfinite(around.depth)
    np.testing.assert_array_equal(hit, around.labels > 0)
    assert 1.8 < around.depth[hit].min() and around.depth[hit].max() < 3.6
    assert around.alpha[:, :4].max() == 0.0  # room above the head


def test_every_side_faces_its_camera(around: PriorRender, ring: Cameras) -> None:
    for view in range(4):
        towards_camera = ring.position_world[view].numpy() / 2.7
        normals = around.normals_world[view][around.alpha[view] > 0.5]
        assert normals.mean(0) @ towards_camera > 0.5
        assert ((normals @ towards_camera) > -0.3).mean() > 0.97
    assert around.normals_world[LEFT][..., 0].mean() > 0 > around.normals_world[RIGHT][..., 0].mean()


def test_the_face_looks_left_in_the_view_from_the_left(around: PriorRender) -> None:
    for view, sign in ((LEFT, -1), (RIGHT, 1)):
        rows, columns = np.nonzero(around.labels[view] == MATERIAL_EYE + 1)
        middle = np.nonzero(around.alpha[view][: int(rows.mean())] > 0.5)[1].mean()
        assert sign * (columns.mean() - middle) > 10


def test_the_back_is_hair_without_a_face(around: PriorRender, ring: Cameras) -> None:
    neck_row = int(ring.project(torch.tensor([[0.0, NECK_Y, 0.0]]))[BACK, 0, 1])
    above = around.labels[BACK][:neck_row]
    assert (above == MATERIAL_HAIR + 1).sum() > 0.8 * (above > 0).sum()
    assert not (around.labels[BACK] == MATERIAL_EYE + 1).any()
    assert (around.labels[FRONT] == MATERIAL_EYE + 1).any()
    assert (around.labels[BACK][-2:] == MATERIAL_CLOTH + 1).any()
    assert (around.labels[FRONT] == MATERIAL_SKIN + 1).sum() > 3 * (around.labels[BACK] == MATERIAL_SKIN + 1).sum()


def test_what_the_portrait_does_not_show_is_said(around: PriorRender) -> None:
    shown = [around.validity[view][around.alpha[view] > 0.5].mean() for view in range(4)]
    assert shown[FRONT] > 0.7 and shown[BACK] < 0.3
    assert shown[FRONT] > shown[LEFT] > shown[BACK] and shown[FRONT] > shown[RIGHT] > shown[BACK]


def test_colour_is_straight_not_premultiplied(around: PriorRender) -> None:
    rim = (around.alpha > 0.2) & (around.alpha < 0.8)
    solid = around.alpha == 1.0
    assert rim.sum() > 100
    # Premultiplied, the rim would be about half as bright as what lies beside it.
    for view in range(4):
        near = cv2.dilate(rim[view].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert around.rgb[view][rim[view]].mean() > 0.8 * around.rgb[view][near & solid[view]].mean()


def test_hair_ends_softly_and_skin_and_cloth_do_not(prior: HeadPrior) -> None:
    views = prior.render(look_at_origin([0.7, math.pi], [0.0, 0.0], size_px=512), supersample=1)
    soft = (views.alpha > 0) & (views.alpha < 1)
    assert (views.labels[soft] == MATERIAL_HAIR + 1).all()
    for k in range(2):
        hair = views.alpha[k] * (views.labels[k] == MATERIAL_HAIR + 1)
        assert 0.002 < soft[k].sum() / (hair > 0).sum() < 0.15
        inner = cv2.erode((views.labels[k] > 0).astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
        assert (views.alpha[k][inner] > 0.97).mean() > 0.999  # where the outline bends in, the soft rim is wider


def test_a_larger_picture_shows_the_same(prior: HeadPrior, around: PriorRender, ring: Cameras) -> None:
    large = prior.render(ring[FRONT].resized(384, 384), supersample=1)
    halved = large.alpha[0].reshape(192, 2, 192, 2).mean((1, 3))
    assert np.abs(halved - around.alpha[FRONT]).mean() < 0.003


@contextlib.contextmanager
def networks_that_run() -> Iterator[set[str]]:
    """Names of the package's networks that compute something while the block runs."""
    sources = (segmenter, shade_network, mean_network, field_autoencoder, field_denoiser, field_grain)
    names = dict(zip((s.__name__ for s in sources), ("segmenter", "skin_shade", "field_mean", *DRAWING)))
    ran: set[str] = set()

    def note(module: nn.Module, *_: object) -> None:
        if type(module).__module__ in names:  # the whole, or one of the parts that its other methods call
            ran.add(names[type(module).__module__])

    hook = nn.modules.module.register_module_forward_hook(note)
    try:
        yield ran
    finally:
        hook.remove()


def networks_named(named: str) -> set[str]:
    """Names of the networks in a provenance, whose hashes are those of the files."""
    found = re.findall(r"\b([a-z_]+) \(sha256 ([0-9a-f]{16})\)", named)
    for name, digest in found:
        assert hashlib.sha256(shipped_file(f"{name}.safetensors").read_bytes()).hexdigest().startswith(digest)
    return {name for name, _ in found}


def test_the_same_seed_gives_the_same_bytes_and_every_network_that_ran_is_named(
    portrait: Portrait, prior: HeadPrior
) -> None:
    with networks_that_run() as ran:
        again = build_head_prior(portrait)
    assert again.texture.rgb.tobytes() == prior.texture.rgb.tobytes()
    assert again.texture.confidence.tobytes() == prior.texture.confidence.tobytes()
    for field in dataclasses.fields(prior.mesh):
        assert getattr(again.mesh, field.name).tobytes() == getattr(prior.mesh, field.name).tobytes(), field.name
    assert (
        networks_named(prior.weights_name)
        == ran | {"light_prior"}
        == {"segmenter", "skin_shade", "field_mean", "light_prior"}
    )
    assert prior.weights_name.startswith(load_head_model().weights_name)


def same_bytes(one: HeadPrior, other: HeadPrior) -> bool:
    pairs = [(getattr(one.mesh, f.name), getattr(other.mesh, f.name)) for f in dataclasses.fields(one.mesh)]
    pairs += [(one.texture.rgb, other.texture.rgb), (one.texture.confidence, other.texture.confidence)]
    ribbons = one.strands.ribbons(), other.strands.ribbons()
    pairs += [tuple(getattr(r, name) for r in ribbons) for name in ("start_world", "end_world", "values")]
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def depth_difference(one: HeadPrior, other: HeadPrior, camera: Cameras, where: np.ndarray | bool = True) -> float:
    """Median difference of depths where both heads are, world units."""
    a, b = (prior.render(camera, supersample=1).depth for prior in (one, other))
    both = np.isfinite(a) & np.isfinite(b) & where
    return float(np.median(np.abs(a[both] - b[both])))


def test_drawn_priors_are_chosen_by_the_seed_and_name_what_drew_them(
    fields_are_drawn: Path, portrait: Portrait, prior: HeadPrior
) -> None:
    basis = PriorBasis.of(portrait)
    with networks_that_run() as ran:
        first = build_head_prior(portrait, seed=0, drawn=True)
    assert same_bytes(first, basis.prior(seed=0, drawn=True))
    assert (
        networks_named(first.weights_name)
        == ran | {"light_prior"}
        == {"segmenter", "skin_shade", "field_mean", *DRAWING, "light_prior"}
    )
    other = basis.prior(seed=1, drawn=True)
    assert not same_bytes(first, other) and first.weights_name == other.weights_name

    front, back = portrait.head.camera.resized(128, 128), look_at_origin([math.pi], [0.0], size_px=128)
    seen = prior.render(front, supersample=1).validity > 0.9
    assert seen.mean() > 0.15
    for one, two in ((prior, first), (first, other)):  # from the expected prior of this seed the field alone differs
        near, far = depth_difference(one, two, front, seen), depth_difference(one, two, back)
        assert near < 0.001 and far > max(0.0005, near)


def test_a_bald_head_has_no_shell_and_skin_all_over(portrait: Portrait) -> None:
    basis = PriorBasis.of(portrait)
    labels, bare = basis.labels, np.zeros_like(basis.expected.material)
    bare[head_field.SKIN] = 1
    nothing = np.zeros_like(labels.hair)
    labels = dataclasses.replace(labels, skin=labels.skin | labels.hair, hair=nothing)
    field = dataclasses.replace(basis.expected, material=bare)
    bald = dataclasses.replace(basis, labels=labels, expected=field).prior()
    assert MATERIAL_HAIR not in bald.mesh.material and len(bald.strands.ribbons()) == 0
    behind = bald.render(look_at_origin([math.pi], [0.0], size_px=96), supersample=4)
    head = (behind.alpha[0] > 0.9) & (np.arange(96)[:, None] < 50)
    unlit = dataclasses.replace(bald, texture=dataclasses.replace(bald.texture, rgb=bald.texture.albedo))
    made_up = np.median(unlit.render(look_at_origin([math.pi], [0.0], size_px=96)).rgb[0][head], axis=0)
    skin, hair = (np.median(portrait.foreground_unit[m], axis=0) for m in (basis.labels.skin, basis.labels.hair))
    # without light, for that behind is of another colour and brightness
    assert np.linalg.norm(chroma(made_up) - chroma(skin)) < 0.5 * np.linalg.norm(chroma(made_up) - chroma(hair))
    steps = np.abs(np.diff(behind.rgb[0], axis=1))[head[:, 1:] & head[:, :-1]]
    assert np.quantile(steps, 0.99) < 0.08  # and no locks


def test_even_light_leaves_the_colours_and_takes_the_portraits_light(portrait: Portrait, prior: HeadPrior) -> None:
    even = PriorBasis.of(portrait).prior(light="even")
    assert even.texture.albedo.tobytes() == prior.texture.albedo.tobytes()
    assert even.look_settings == {"light": "even"} and not prior.look_settings
    assert prior.looks_as_portrait and not even.looks_as_portrait
    camera = portrait.head.camera.resized(96, 96)
    made = [
        PriorGenerator(surface_points=100).generate(portrait, p, camera, torch.Generator().manual_seed(0))
        for p in (prior, even)
    ]
    shown, relit = (views.rgba[0].numpy().astype(int) for views in made)
    assert (shown == portrait_rgba(portrait, 96).numpy()).all()
    both = (shown[..., 3] > 250) & (relit[..., 3] > 250)
    assert np.abs(shown - relit)[both][:, :3].mean() > 3
    assert np.abs(relit - made[1].rgba[1].numpy())[both].mean() < 1  # the same head as in the other views


def chroma(rgb: np.ndarray) -> np.ndarray:
    return rgb / rgb.mean()


@pytest.mark.slow
def test_skin_painted_in_pieces_is_the_skin_painted_at_once(portrait: Portrait, prior: HeadPrior, monkeypatch) -> None:
    monkeypatch.setattr(skin_paint, "_PIECE", 1 << 30)
    at_once = build_head_prior(portrait).texture
    assert np.array_equal(at_once.rgb, prior.texture.rgb) and np.array_equal(at_once.albedo, prior.texture.albedo)
    assert np.array_equal(at_once.confidence, prior.texture.confidence)


def test_networks_that_placed_the_head_are_named(portrait: Portrait, prior: HeadPrior, tmp_path: Path) -> None:
    assert portrait.weights == ()  # mediapipe saw the astronaut's face
    drawn = dataclasses.replace(portrait, weights=(FACE_LANDMARKS.provenance(),))
    (tmp_path / "portrait.npz").write_bytes(encode_portrait(drawn))
    kept = read_portrait(tmp_path / "portrait.npz")
    assert kept.weights == drawn.weights
    named = networks_named(build_head_prior(kept).weights_name)
    assert named == networks_named(prior.weights_name) | {"face_landmarks"}


def test_surface_samples_lie_on_the_visible_surface(prior: HeadPrior) -> None:
    def samples(seed: int):
        return prior.surface_samples(1500, torch.Generator().manual_seed(seed))

    first, again, other = samples(3), samples(3), samples(4)
    for name in ("points_world", "normals_world", "rgb_unit"):
        assert getattr(first, name).equal(getattr(again, name)), name
    assert not first.points_world.equal(other.points_world)
    assert first.rgb_unit.min() >= 0 and first.rgb_unit.max() <= 1
    torch.testing.assert_close(first.normals_world.norm(dim=-1), torch.ones(1500), atol=1e-4, rtol=0)
    # Seen from outside, none lies far behind what is rendered in every one of the views that face it.
    cameras = orbit(8, size_px=128)
    depth = prior.render(cameras, supersample=1).depth
    projected = cameras.project(first.points_world.double()).numpy()
    behind = np.full((8, 1500), np.inf)
    for view in range(8):
        column, row = np.clip(projected[view, :, :2].astype(int), 0, 127).T
        behind[view] = projected[view, :, 2] - depth[view, row, column]
    assert (behind.min(0) < 0.02).mean() > 0.95


def test_the_generator_gives_the_portrait_and_one_view_per_camera(
    portrait: Portrait, views: ViewSet, ring: Cameras
) -> None:
    assert len(views) == 1 + len(ring) and views.names[0] == "portrait"
    assert len(set(views.names)) == 5
    assert views.confidence[0] == 1.0
    made_up = views.confidence[1:]
    assert made_up.max() < 1.0 and made_up.min() > 0.0 and made_up.argmax() == FRONT and made_up.argmin() == BACK
    small = cv2.resize(portrait.alpha_unit, (192, 192), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(views.alpha_unit[0].numpy(), small, atol=1 / 255)
    torch.testing.assert_close(views.cameras[0].T_world_camera, portrait.head.camera.T_world_camera)
    torch.testing.assert_close(views.cameras[1:].T_world_camera, ring.T_world_camera)
    torch.testing.assert_close(views.cameras[1:].K_px, ring.K_px)
    # View 0 and the rendered front show the same head.
    assert (views.alpha_unit[0] - views.alpha_unit[1 + FRONT]).abs().mean() < 0.12
    assert views.surface.points_world.shape == (2000, 3)


def test_the_generator_says_where_its_views_come_from(portrait: Portrait, prior: HeadPrior, views: ViewSet) -> None:
    origin = views.provenance
    assert (origin.generator, origin.seed, origin.weights) == ("prior", 11, prior.weights_name)
    assert origin.input_sha256 == portrait.source_sha256
    assert origin.settings == {"supersample": 2, "surface_points": 2000, "name": "prior"}


def test_the_portraits_own_colours_are_kept_where_sizes_agree(portrait: Portrait, prior: HeadPrior) -> None:
    camera = look_at_origin([math.pi], [0.0], size_px=512)
    first = PriorGenerator(supersample=1, surface_points=10).generate(portrait, prior, camera, torch.Generator())
    expected = np.concatenate([portrait.foreground_unit, portrait.alpha_unit[..., None]], axis=-1)
    np.testing.assert_allclose(first.rgba[0].numpy() / 255, np.clip(expected, 0, 1), atol=0.51 / 255)


def test_the_mesh_for_exporters_faces_outward_and_is_textured(prior: HeadPrior) -> None:
    mesh = prior.textured_mesh()
    assert mesh.uv_unit.min() >= 0 and mesh.uv_unit.max() <= 1
    np.testing.assert_array_equal(np.unique(mesh.faces), np.arange(len(mesh.vertices_world)))
    np.testing.assert_allclose(np.linalg.norm(mesh.normals_world, axis=1), 1, atol=1e-4)
    corners = mesh.vertices_world[mesh.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normals, axis=1)
    agreeing = (normals * mesh.normals_world[mesh.faces].mean(1)).sum(1) > 0
    assert area[agreeing].sum() > 0.999 * area.sum()
    assert (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum() > 0  # positive volume: outward
    # The texture lies the right way up: the crown is hair-coloured, not skin or the collar's black.
    middle = mesh.vertices_world[:, 1].argmax()
    height, width, _ = mesh.texture_rgb.shape
    column, row = (mesh.uv_unit[middle] * [width, height]).astype(int)
    crown = mesh.texture_rgb[min(row, height - 1), min(column, width - 1)].astype(int)
    assert crown[0] >= crown[1] > crown[2] and 60 < crown[0] < 235


def test_a_texture_of_half_the_size_shows_the_same_head(portrait: Portrait, prior: HeadPrior) -> None:
    half = build_head_prior(portrait, texel_step=2)
    assert half.texture.step == 2
    assert 2 * np.array(half.texture.rgb.shape[:2]) == pytest.approx(prior.texture.rgb.shape[:2])
    cameras = orbit(6, size_px=128)
    seen, whole = half.render(cameras), prior.render(cameras)
    both = (seen.alpha > 0.9) & (whole.alpha > 0.9)
    assert np.abs(seen.alpha - whole.alpha).mean() < 0.003
    assert psnr_db(seen.rgb, whole.rgb, both) > 27
    assert np.abs((seen.rgb - whole.rgb)[both].mean(0)).max() < 0.005
    assert np.abs((seen.validity - whole.validity)[both]).mean() < 0.02
    again = build_head_prior(portrait, texel_step=2)
    np.testing.assert_array_equal(again.texture.rgb, half.texture.rgb)
    uv = half.textured_mesh().uv_unit
    np.testing.assert_array_equal(uv, prior.textured_mesh().uv_unit)

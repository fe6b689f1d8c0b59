"""The view generator `diffportrait360`: what the networks are given, and what becomes of what they draw."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch

from dp360.generation import Cameras, InputError, OrbitConfig, ViewSet, look_at_origin, orbit
from dp360.generation.cameras import PANOHEAD_FOCAL_NORMALISED, panohead_label_from_cameras
from dp360.generation.diffusion.architectures import COMPACT, OFFICIAL, Architecture
from dp360.generation.diffusion.conditions import (
    camera_behind_the_head,
    generic_head,
    generic_head_control,
    prior_over_white,
)
from dp360.generation.diffusion.diffportrait360_generator import DiffPortrait360Generator, weights_name_of
from dp360.generation.diffusion.drawn_views import reference_picture
from dp360.generation.diffusion.pipeline import DiffPortrait360Output, DiffPortrait360Pipeline
from dp360.generation.diffusion.release.aligned import AlignedPicture
from dp360.generation.diffusion.sampling import Sampling
from dp360.generation.diffusion.view_pictures import ViewPictures
from dp360.generation.portrait import Portrait
from dp360.generation.prior import HeadPrior
from dp360.generation.prior.prior_generator import portrait_rgba

SIZE = 64
QUICK = Sampling(steps=2)
RADIUS = 0.22


def toy(**changes: Any) -> Architecture:
    """The official architecture with one layer and 32 channels per level, clips of 4."""
    small = {"block_out_channels": (32, 32), "num_heads": (2, 2), "layers_per_block": 1}
    attends = {"attention_levels": (True, False), "context_dim": 16}
    return dataclasses.replace(
        OFFICIAL,
        unet=dataclasses.replace(OFFICIAL.unet, **small, **attends),
        camera_control=dataclasses.replace(OFFICIAL.camera_control, **small, **attends),
        view_consistency=dataclasses.replace(OFFICIAL.view_consistency, **small, clip_length=4, max_clip_length=6),
        autoencoder_options={**OFFICIAL.autoencoder_options, "block_out_channels": (32,) * 4, "layers_per_block": 1},
        context_tokens=3,
        **changes,
    )


def pipeline_of(architecture: Architecture, kind: type = DiffPortrait360Pipeline) -> DiffPortrait360Pipeline:
    torch.manual_seed(0)
    return kind(**architecture.components())


class Recording(DiffPortrait360Pipeline):
    """Draws nothing: gives the start views back and remembers what it was asked."""

    def __call__(self, portrait, cameras, control, **options):
        self.asked = {"portrait": portrait, "control": control, **options}
        return DiffPortrait360Output(options["start_views"], options["start_views"][0])


@pytest.fixture(scope="module")
def pipeline() -> DiffPortrait360Pipeline:
    return pipeline_of(toy())


@pytest.fixture
def recording() -> Recording:
    pipeline = pipeline_of(toy(), Recording)
    assert isinstance(pipeline, Recording)
    return pipeline


@pytest.fixture(scope="module", autouse=True)
def _head(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The generic head, built once for the process and kept out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        generic_head()


@pytest.fixture(scope="module")
def prior(ball_prior) -> HeadPrior:
    """A ball whose face side is light and whose back is dark brown."""
    return ball_prior((150, 130, 110))


@pytest.fixture(scope="module")
def portrait(portrait_of, prior: HeadPrior) -> Portrait:
    return portrait_of(prior)


def make(pipeline, portrait, prior, cameras: Cameras, *, seed: int = 0, **fields: Any) -> ViewSet:
    fields = {"sampling": QUICK, "surface_points": 200, **fields}
    generator = DiffPortrait360Generator(pipeline, "toy (sha256 00)", **fields)
    return generator.generate(portrait, prior, cameras, torch.Generator().manual_seed(seed))


def numbered(count: int) -> ViewPictures:
    frames = torch.zeros(count, SIZE, SIZE, 3, dtype=torch.uint8)
    frames[..., 0] = torch.arange(count, dtype=torch.uint8)[:, None, None]
    return ViewPictures(frames, f"{count} pictures")


def test_views_follow_the_portrait_with_their_origin(pipeline, portrait, prior):
    cameras = orbit(4, size_px=SIZE)
    views = make(pipeline, portrait, prior, cameras, seed=7)
    assert views.names == ("portrait", "view_000", "view_001", "view_002", "view_003")
    assert torch.equal(views.rgba[0], portrait_rgba(portrait, SIZE))
    assert torch.equal(views.cameras.T_world_camera[1:], cameras.T_world_camera)
    assert torch.equal(views.cameras.T_world_camera[:1], portrait.head.camera.T_world_camera)
    assert float(views.confidence[0]) == 1 and 0.5 <= float(views.confidence[1:].min())
    assert float(views.confidence[1]) > float(views.confidence[3]) and float(views.confidence.max()) <= 1
    assert len(views.surface.points_world) == 200
    origin = views.provenance
    assert (origin.generator, origin.seed, origin.input_sha256) == ("diffportrait360", 7, "ab" * 32)
    assert origin.weights == "toy (sha256 00); ball-1 (sha256 00)"
    sampling = origin.settings["sampling"]
    assert isinstance(sampling, dict) and sampling["steps"] == 2 and origin.settings["start_views_sha256"] is None
    assert json.loads(json.dumps(origin.settings)) == origin.settings


@pytest.mark.parametrize("count", [3, 5, 9], ids="less than a clip,a clip and one,two clips and one".split(","))
def test_any_number_of_views(pipeline, portrait, prior, count):
    views = make(pipeline, portrait, prior, orbit(count, size_px=SIZE))
    assert len(views) == count + 1 and views.rgba.shape[1:] == (SIZE, SIZE, 4)


def test_same_seed_same_bytes_from_several_elevations(pipeline, portrait, prior):
    cameras = OrbitConfig(3, 2, lower_count=1).cameras(SIZE)
    first, again, other = (make(pipeline, portrait, prior, cameras, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.rgba, again.rgba) and torch.equal(first.surface.points_world, again.surface.points_world)
    assert first.provenance == again.provenance
    assert not torch.equal(first.rgba[1:], other.rgba[1:])


@pytest.mark.parametrize("size", [48, 64, 200])
def test_a_portrait_of_another_size(recording, portrait_of, prior, size):
    portrait = portrait_of(prior, size)
    views = make(recording, portrait, prior, orbit(2, size_px=SIZE))
    assert recording.asked["portrait"].shape == (3, SIZE, SIZE) and views.rgba.shape == (3, SIZE, SIZE, 4)
    expected = prior_over_white(prior.render(portrait.head.camera.resized(SIZE, SIZE)))[0]
    assert float((recording.asked["portrait"] - expected).abs().mean()) < 0.02


def test_networks_see_a_wide_portrait_in_the_standard_frame(portrait_of, prior):
    standard, wide = portrait_of(prior, 256), portrait_of(prior, 256, focal_factor=1.35)
    assert float((reference_picture(wide, SIZE) - reference_picture(standard, SIZE)).abs().mean()) < 0.01
    expected = prior_over_white(prior.render(standard.head.camera))[0]
    assert float((reference_picture(standard, 256) - expected).abs().mean()) < 0.002
    assert torch.equal(reference_picture(wide, SIZE)[:, 0, 0], torch.ones(3))


def test_networks_are_given_our_own_control_and_start_views(recording, portrait, prior):
    cameras = orbit(3, size_px=SIZE)
    make(recording, portrait, prior, cameras)
    asked = recording.asked
    assert torch.equal(asked["control"], generic_head_control(cameras))
    assert torch.equal(asked["back_control"], generic_head_control(camera_behind_the_head(cameras))[0])
    assert torch.equal(asked["start_views"], prior_over_white(prior.render(cameras)))
    assert asked["back_image"] is None and asked["sampling"] == QUICK


def test_pictures_that_were_handed_in_take_their_place(recording, portrait, prior):
    cameras = orbit(8, size_px=SIZE)
    back = ViewPictures(torch.full((1, 128, 128, 3), 51, dtype=torch.uint8), "back.png")
    given: dict[str, Any] = {"condition_views": numbered(32), "start_views": numbered(8), "back_image": back}
    views = make(recording, portrait, prior, cameras, **given)
    asked = recording.asked
    assert torch.allclose((asked["control"][:, 0, 0, 0] + 1) * 127.5, torch.arange(0, 32, 4.0), atol=1e-3)
    assert torch.allclose((asked["back_control"][0] + 1) * 127.5, torch.tensor(16.0), atol=1e-3)
    assert torch.allclose(asked["start_views"][:, 0, 0, 0] * 255, torch.arange(8.0), atol=1e-3)
    assert torch.allclose(asked["back_image"], torch.tensor(0.2))
    settings = views.provenance.settings
    assert settings["condition_views_sha256"] == numbered(32).sha256 != settings["start_views_sha256"]


def test_without_a_control_picture_from_behind_the_generic_head_shows_it(recording, portrait, prior):
    cameras = look_at_origin([0.0, 0.5], [0.0, 0.0], size_px=SIZE)
    make(recording, portrait, prior, cameras, condition_views=numbered(2))
    behind = generic_head_control(camera_behind_the_head(cameras))[0]
    assert torch.equal(recording.asked["back_control"], behind)


def test_what_is_drawn_exactly_like_the_prior_is_cut_out_like_it(recording, portrait, prior):
    cameras = orbit(4, size_px=128)
    views = make(recording, portrait, prior, cameras)
    truth = torch.from_numpy(prior.render(cameras).alpha)
    assert float((views.alpha_unit[1:] - truth).abs().mean()) < 0.006
    over_white = views.rgb_unit()[1:].permute(0, 3, 1, 2)
    assert float((over_white - recording.asked["start_views"]).abs().mean()) < 0.006


def test_a_portrait_that_was_aligned_elsewhere_is_used_as_it_is(recording, portrait, prior):
    rgba = torch.zeros(96, 96, 4, dtype=torch.uint8)
    rgba[20:80, 20:80] = torch.tensor([200, 100, 50, 255], dtype=torch.uint8)
    camera = look_at_origin([0.3], [0.1], size_px=96)
    aligned = AlignedPicture(rgba, camera)
    views = make(recording, portrait, prior, orbit(2, size_px=SIZE), aligned=aligned)
    assert torch.equal(views.rgba[0], aligned.resized_rgba(SIZE))
    assert torch.equal(views.cameras.T_world_camera[0], camera.T_world_camera[0])
    assert torch.equal(recording.asked["portrait"], aligned.over_white(SIZE))
    assert views.provenance.settings["aligned"] == panohead_label_from_cameras(aligned.camera)[0].tolist()


@pytest.mark.parametrize(
    ("size", "fields", "message"),
    [
        (72, {}, "Cannot draw views of 72x72 pixels .* a multiple of 16; take --size-px 64"),
        (SIZE, {"condition_views": numbered(7)}, "7 pictures: expected 6 pictures, one per view, got 7"),
        (SIZE, {"start_views": numbered(5)}, "5 pictures: expected 6 pictures, one per view, got 5"),
        (SIZE, {"back_image": numbered(2)}, "2 pictures: expected one picture of the back of the head, got 2"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence_before_anything_is_rendered(
    pipeline, portrait, prior, monkeypatch, size, fields, message
):
    monkeypatch.setattr(HeadPrior, "render", lambda *args, **kwargs: pytest.fail("rendered"))
    with pytest.raises(InputError, match=message) as refusal:
        make(pipeline, portrait, prior, OrbitConfig(3, 2, lower_count=1).cameras(size), **fields)
    assert "\n" not in str(refusal.value)


def test_cameras_that_are_not_square_are_refused(pipeline):
    with pytest.raises(InputError, match="64x32 pixels with these weights: expected a square"):
        DiffPortrait360Generator(pipeline, "toy").check(orbit(2).resized(64, 32))


def test_the_official_size_is_a_multiple_of_64():
    with torch.device("meta"):
        networks = OFFICIAL.components()
    pipeline = DiffPortrait360Pipeline(**networks)
    assert DiffPortrait360Generator(pipeline, "official").size_multiple == 64


def test_weights_that_lack_a_model_are_named(pipeline):
    without_back = pipeline_of(toy(own_back=False))
    cameras = orbit(2, size_px=SIZE)
    with pytest.raises(InputError, match=r"no back-view model; give a picture of the back of the head \(--back-image"):
        DiffPortrait360Generator(without_back, "toy").check(cameras)
    DiffPortrait360Generator(without_back, "toy", back_image=numbered(1)).check(cameras)
    parts = {**without_back.components, "unet": None, "appearance": None, "camera_control": None}
    with pytest.raises(InputError, match="hold the back-view model only"):
        DiffPortrait360Generator(DiffPortrait360Pipeline(**parts), "toy").check(cameras)


def test_weights_with_other_control_pictures_are_named():
    small = {"block_out_channels": (32, 32, 32), "num_heads": (1, 1, 1)}
    compact = dataclasses.replace(
        COMPACT,
        unet=dataclasses.replace(COMPACT.unet, **small),
        camera_control=dataclasses.replace(COMPACT.camera_control, **small),
        view_consistency=dataclasses.replace(COMPACT.view_consistency, **small),
    )
    with pytest.raises(InputError, match="want control pictures of 7 channels; expected 3"):
        DiffPortrait360Generator(pipeline_of(compact), "toy").check(orbit(2, size_px=SIZE))


def test_weights_have_a_name_and_a_hash(pipeline, tmp_path):
    for name in ("a", "b"):
        pipeline.save_pretrained(tmp_path / name)
    first, same = (weights_name_of(tmp_path / name, str(tmp_path / name)) for name in ("a", "b"))
    assert first.startswith("a (sha256 ") and first[1:] == same[1:] and len(first) == len("a (sha256 )") + 16
    (file,) = (tmp_path / "b" / "context").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert weights_name_of(tmp_path / "b", "me/it").startswith("me/it (sha256 ")
    settings = tmp_path / "a" / "model_index.json"
    settings.write_text(settings.read_text().replace('"drawing_steps": null', '"drawing_steps": 3'))
    assert weights_name_of(tmp_path / "a", str(tmp_path / "a")) != first
    assert weights_name_of(tmp_path / "b", str(tmp_path / "b"))[1:] != same[1:]


def test_every_option_of_the_sampler_can_be_given_on_the_command_line():
    from dp360.configs.options import DiffusionOptions

    options = {field.name: field.default for field in dataclasses.fields(DiffusionOptions)}
    for field in dataclasses.fields(Sampling):
        depends_on_the_model = field.name == "guidance_scale"
        assert options[field.name] == (None if depends_on_the_model else field.default)


def test_the_ball_is_round(prior):
    """The toy prior is what the tests above take it for."""
    alpha = prior.render(orbit(2, size_px=SIZE)).alpha
    radius_px = PANOHEAD_FOCAL_NORMALISED * SIZE * RADIUS / 2.7
    assert alpha.sum((1, 2)) == pytest.approx(math.pi * radius_px**2, rel=0.05)

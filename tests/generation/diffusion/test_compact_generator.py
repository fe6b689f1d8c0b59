"""The view generator `compact`: weights that ship are checked, the rule of `auto`, and views of any size."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dp360.generation import Cameras, InputError, OrbitConfig, ViewSet, orbit
from dp360.generation.diffusion import compact
from dp360.generation.diffusion.architectures import COMPACT
from dp360.generation.diffusion.compact import HeldOut, held_out, load_compact, write_compact
from dp360.generation.diffusion.compact_generator import CompactConfig, CompactGenerator, compact_sampling
from dp360.generation.diffusion.control_pictures import ray_control
from dp360.generation.diffusion.diffportrait360_generator import DiffPortrait360Generator
from dp360.generation.diffusion.pipeline import DiffPortrait360Output, DiffPortrait360Pipeline
from dp360.generation.diffusion.sampling import Sampling
from dp360.generation.diffusion.view_pictures import ViewPictures
from dp360.generation.portrait import Portrait
from dp360.generation.prior import HeadPrior
from dp360.generation.prior.prior_generator import portrait_rgba

DRAWN = CompactConfig(size_px=64, views_per_chunk=3)
QUICK = Sampling(steps=1, guidance_scale=1.0)
BETTER = {"psnr_head": 20.0, "perceptual": 0.30}


def pipeline_of(kind: type = DiffPortrait360Pipeline) -> DiffPortrait360Pipeline:
    """Random networks of the compact architecture, 32 channels wide."""
    small = {"block_out_channels": (32, 32, 32), "num_heads": (1, 1, 1)}
    architecture = dataclasses.replace(
        COMPACT,
        unet=dataclasses.replace(COMPACT.unet, **small),
        camera_control=dataclasses.replace(COMPACT.camera_control, **small),
        view_consistency=dataclasses.replace(COMPACT.view_consistency, **small, clip_length=4),
    )
    torch.manual_seed(0)
    return kind(**architecture.components(), reference_timestep=0, start_shortcut=True)


class Recording(DiffPortrait360Pipeline):
    """Draws nothing: gives the start views back and remembers what it was asked."""

    def __call__(self, portrait, cameras, control, **options):
        self.asked = {"portrait": portrait, "cameras": cameras, "control": control, **options}
        return DiffPortrait360Output(options["start_views"], options["back_start"])


@pytest.fixture(scope="module")
def pipeline() -> DiffPortrait360Pipeline:
    return pipeline_of()


@pytest.fixture
def recording() -> Recording:
    pipeline = pipeline_of(Recording)
    assert isinstance(pipeline, Recording)
    return pipeline


@pytest.fixture(scope="module")
def prior(ball_prior) -> HeadPrior:
    """A ball with fine meridians, light and seen in front, dark and made up behind."""
    return ball_prior((120, 110, 100), meridians=0.15)


@pytest.fixture(scope="module")
def portrait(portrait_of, prior: HeadPrior) -> Portrait:
    return portrait_of(prior)


def make(pipeline, portrait, prior, cameras: Cameras, *, seed: int = 0, **fields: Any) -> ViewSet:
    fields = {"sampling": QUICK, "config": DRAWN, "surface_points": 200, **fields}
    generator = CompactGenerator(pipeline, "toy (sha256 00)", **fields)
    return generator.generate(portrait, prior, cameras, torch.Generator().manual_seed(seed))


def setting(views: ViewSet, name: str) -> dict[str, Any]:
    """Part of the provenance's settings."""
    found = views.provenance.settings[name]
    assert isinstance(found, dict)
    return found


def test_views_follow_the_portrait_with_their_origin(pipeline, portrait, prior):
    cameras = OrbitConfig(4, 2, lower_count=1).cameras(96)
    views, again = (make(pipeline, portrait, prior, cameras, seed=7) for _ in range(2))
    assert views.names == ("portrait", *(f"view_{i:03d}" for i in range(7))) and views.rgba.shape == (8, 96, 96, 4)
    assert torch.equal(views.rgba, again.rgba) and torch.equal(views.surface.points_world, again.surface.points_world)
    assert torch.equal(views.rgba[0], portrait_rgba(portrait, 96)) and len(views.surface.points_world) == 200
    assert torch.equal(views.cameras.T_world_camera[1:], cameras.T_world_camera)
    assert float(views.confidence[0]) == 1
    assert 0.4999 <= float(views.confidence[1:].min()) < float(views.confidence[1:].max()) <= 0.8001
    origin = views.provenance
    assert (origin.generator, origin.seed, origin.input_sha256) == ("compact", 7, "ab" * 32)
    assert origin.weights == "toy (sha256 00); ball-1 (sha256 00)" and origin == again.provenance
    sampling, compact_settings = setting(views, "sampling"), setting(views, "compact")
    assert sampling["steps"] == 1 and compact_settings["size_px"] == 64
    assert json.loads(json.dumps(origin.settings)) == origin.settings


def test_networks_are_given_the_prior_at_their_own_size(recording, portrait, prior):
    cameras = orbit(4, size_px=96)
    make(recording, portrait, prior, cameras)
    asked = recording.asked
    assert asked["portrait"].shape == (3, 64, 64) and asked["cameras"].width == 64
    assert torch.equal(asked["cameras"].T_world_camera, cameras.T_world_camera)
    control, start = asked["control"], asked["start_views"]
    assert control.shape == (4, 7, 64, 64) and torch.allclose(start, (control[:, :3] + 1) / 2, atol=1e-6)
    assert float(control[0, 3, 32, 32]) > 0.9 and float(control[2, 3, 32, 32]) < -0.9  # seen, and made up
    assert float(control[:, 6, 32, 32].max()) < -0.95 and not control[:, 4:, 0, 0].any()  # towards the camera; empty
    behind = asked["back_control"]
    assert torch.allclose(behind, control[2], atol=0.02) and torch.allclose(asked["back_start"], start[2], atol=0.02)
    assert asked["back_image"] is None


@pytest.mark.parametrize("size_px", [48, 64, 128])
def test_drawn_exactly_like_the_prior_views_are_the_prior_at_any_size(recording, portrait, prior, size_px):
    cameras = orbit(4, size_px=size_px)
    views = make(recording, portrait, prior, cameras)
    assert views.rgba.shape == (5, size_px, size_px, 4)
    seen = prior.render(cameras)
    truth = torch.from_numpy(seen.rgb * seen.alpha[..., None] + 1 - seen.alpha[..., None])
    assert float((views.rgb_unit()[1:] - truth).abs().mean()) < 0.02
    assert float((views.alpha_unit[1:] - torch.from_numpy(seen.alpha)).abs().mean()) < 0.02


def test_chunks_change_nothing(recording, portrait, prior):
    cameras = orbit(5, size_px=96)
    one, three = (
        make(recording, portrait, prior, cameras, config=dataclasses.replace(DRAWN, views_per_chunk=count))
        for count in (1, 5)
    )
    assert int((one.rgba.int() - three.rgba.int()).abs().max()) <= 1


def test_a_picture_of_the_back_and_rays_in_place_of_the_prior(recording, portrait, prior):
    back = ViewPictures(torch.full((1, 128, 128, 3), 51, dtype=torch.uint8), "back.png")
    cameras = orbit(2, size_px=64)
    rays = dataclasses.replace(DRAWN, control="rays")
    views = make(recording, portrait, prior, cameras, back_image=back, config=rays)
    asked = recording.asked
    assert asked["back_image"].shape == (3, 64, 64) and torch.allclose(asked["back_image"], torch.tensor(0.2))
    assert torch.allclose(asked["control"], ray_control(cameras.resized(64, 64)))
    assert float(asked["start_views"].std()) > 0.05
    assert views.provenance.settings["back_image_sha256"] == back.sha256
    assert setting(views, "compact")["control"] == "rays"


def test_steps_follow_what_is_asked_then_the_weights_then_the_device():
    weights, settled = pipeline_of(), pipeline_of()
    settled.register_to_config(drawing_steps=2)
    assert compact_sampling(weights) == Sampling(steps=8, guidance_scale=1.0)
    assert compact_sampling(weights.to("meta")) == Sampling(steps=16, guidance_scale=1.0)
    assert compact_sampling(settled) == Sampling(steps=2, guidance_scale=1.0)
    assert compact_sampling(settled, steps=3, guidance_scale=2.0) == Sampling(steps=3, guidance_scale=2.0)


def test_what_cannot_be_drawn_is_one_sentence(pipeline, portrait, prior, monkeypatch):
    monkeypatch.setattr(HeadPrior, "render", lambda *args, **kwargs: pytest.fail("rendered"))
    two = ViewPictures(torch.zeros(2, 64, 64, 3, dtype=torch.uint8), "two pictures")
    cases: tuple[tuple[dict[str, Any], Cameras, str], ...] = (
        ({}, orbit(2).resized(64, 32), "Cannot draw views of 64x32 pixels: expected a square"),
        ({"config": CompactConfig(size_px=40)}, orbit(2, size_px=64), "at 40 pixels .* expected a multiple of 32"),
        ({"sampling": Sampling("official")}, orbit(2, size_px=64), "expected schedule default, got official"),
        (
            {"back_image": two},
            orbit(2, size_px=64),
            "two pictures: expected one picture of the back of the head, got 2",
        ),
    )
    for fields, cameras, message in cases:
        with pytest.raises(InputError, match=message) as refusal:
            make(pipeline, portrait, prior, cameras, **fields)
        assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match=r"want control pictures of 7 channels; expected 3 .*--generator compact"):
        DiffPortrait360Generator(pipeline, "toy").check(orbit(2, size_px=64))


@pytest.fixture
def shipped(pipeline, tmp_path, monkeypatch) -> Iterator[Path]:
    """The installation's folder of weights with a compact model in it."""
    folder = tmp_path / "weights" / "compact"
    pipeline.save_pretrained(folder)
    write_held_out(folder, prior=BETTER, compact={"psnr_head": 22.5, "perceptual": 0.30})
    files = [file for file in folder.rglob("*") if file.is_file()]
    hashes = {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    (folder / "checksums.json").write_text(json.dumps(hashes))
    monkeypatch.setattr(compact, "resources", SimpleNamespace(files=lambda package: tmp_path / "weights"))
    yield folder


def write_held_out(folder: Path, **figures: Mapping[str, float | None]) -> None:
    (folder / "held_out.json").write_text(json.dumps({"heads": 48, "views": 72, "figures": figures}))


def test_weights_that_ship_are_loaded_under_their_name(shipped, pipeline, portrait, prior):
    loaded = load_compact(torch.float32)
    assert loaded is not None
    found, name = loaded
    assert name.startswith("compact-1 (sha256 ") and found.unet.dtype == torch.float32
    assert found.config["start_shortcut"] and found.config["reference_timestep"] == 0
    cameras = orbit(2, size_px=64)
    views, same = (make(networks, portrait, prior, cameras) for networks in (found, pipeline))
    assert int((views.rgba.int() - same.rgba.int()).abs().max()) <= 1


def test_what_is_shipped_is_whole_small_and_the_same_model(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(compact, "resources", SimpleNamespace(files=lambda package: tmp_path))
    folder = tmp_path / "compact"
    folder.mkdir()
    (folder / "MODEL_CARD.md").write_text("card")
    pipeline.save_pretrained(tmp_path / "trained")
    trained = DiffPortrait360Pipeline.from_pretrained(tmp_path / "trained", local_files_only=True)
    write_compact(trained, HeldOut(3, 4, BETTER, {"psnr_head": 1.0}), folder)
    loaded, figures = load_compact(torch.float32), held_out()
    assert loaded is not None and figures is not None and (figures.heads, figures.winner) == (3, "prior")
    assert (folder / "MODEL_CARD.md").read_text() == "card"
    half, whole = (networks.unet.state_dict() for networks in (loaded[0], pipeline))
    assert all(torch.equal(half[name], tensor.half().float()) for name, tensor in whole.items())
    assert not any("_name_or_path" in file.read_text() for file in folder.rglob("*.json"))
    bytes_each = 2 * sum(p.numel() for p in pipeline.unet.parameters())
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size < bytes_each + 100_000


def test_damaged_weights_are_refused(shipped):
    file = next(shipped.glob("unet/*.safetensors"))
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(InputError, match=r"is damaged: expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}; install dp360"):
        load_compact(torch.float32)
    file.unlink()
    with pytest.raises(InputError, match=r"unet.* is damaged: .* got no file; install dp360 again"):
        load_compact(torch.float32)
    file.write_bytes(good)
    for name in ("more.safetensors", "more.json"):
        (shipped / "vae" / name).write_bytes(good)
        with pytest.raises(InputError, match=rf"{name} is damaged: expected it in checksums\.json"):
            load_compact(torch.float32)
        (shipped / "vae" / name).unlink()
    settings = shipped / "vae" / "config.json"
    settings.write_text(settings.read_text() + " ")
    with pytest.raises(InputError, match=r"vae.config\.json is damaged: expected sha256"):
        load_compact(torch.float32)
    (shipped / "checksums.json").write_text("[")
    with pytest.raises(InputError, match=r"checksums\.json is damaged"):
        load_compact(torch.float32)


def test_an_installation_without_weights_takes_the_prior(tmp_path, monkeypatch):
    monkeypatch.setattr(compact, "resources", SimpleNamespace(files=lambda package: tmp_path))
    assert load_compact(torch.float32) is None and held_out() is None


@pytest.mark.parametrize(
    ("figures", "winner"),
    [
        ({"psnr_head": 20.1, "perceptual": 0.30}, "compact"),
        ({"psnr_head": 22.0, "perceptual": 0.25}, "compact"),
        ({"psnr_head": 22.0, "perceptual": 0.31}, "prior"),
        ({"psnr_head": 20.0, "perceptual": 0.25}, "prior"),
        ({"psnr_head": 19.0, "perceptual": 0.20}, "prior"),
        ({"psnr_head": 22.0}, "prior"),
        ({"perceptual": 0.2}, "prior"),
    ],
)
def test_auto_takes_compact_only_where_it_is_better_and_not_worse(shipped, figures, winner):
    assert HeldOut(48, 72, BETTER, figures).winner == winner
    write_held_out(shipped, prior=BETTER, compact={"perceptual": None, "psnr_head": None, **figures})
    measured = held_out()
    assert measured is not None and measured.winner == winner


def test_damaged_figures_are_named(shipped):
    write_held_out(shipped, prior=BETTER)
    with pytest.raises(InputError, match=r"held_out\.json is damaged"):
        held_out()
    (shipped / "held_out.json").unlink()
    assert held_out() is None

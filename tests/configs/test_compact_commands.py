"""The compact model from the command line: what auto takes, whose weights, and names of settings to be compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.utils import logging

from dp360.configs import cli
from dp360.configs.diffusion import open_diffusion_generator, sampling_of
from dp360.configs.evaluate import EvalHeadsCommand
from dp360.configs.evaluation_jobs import _results_folder
from dp360.configs.example import write_example_portrait
from dp360.configs.given_pictures import GivenPictures
from dp360.configs.options import DiffusionOptions, HeadOptions
from dp360.configs.portrait_trainer import views_key
from dp360.configs.recipe import head_recipe
from dp360.configs.variants import GENERATOR_VARIANTS, compact_weights_name, open_sources, source_name
from dp360.configs.view_generators import open_generator, settled
from dp360.generation import InputError, orbit
from dp360.generation.dataset.view_dataset import read_dataset
from dp360.generation.diffusion import compact
from dp360.generation.diffusion.architectures import COMPACT
from dp360.generation.diffusion.compact import load_pipeline
from dp360.generation.diffusion.compact_generator import CompactGenerator
from dp360.generation.diffusion.pipeline import DiffPortrait360Pipeline
from dp360.generation.diffusion.sampling import Sampling
from dp360.generation.prior import PriorGenerator
from dp360.reconstruction.evaluation.heads import FolderViews, GeneratedViews

FIGURES = {"prior": {"psnr_head": 20.0, "perceptual": 0.3}, "compact": {"psnr_head": 22.25, "perceptual": 0.28}}


@pytest.fixture(scope="module")
def toy_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random compact networks, 32 channels wide."""
    small = {"block_out_channels": (32, 32, 32), "num_heads": (1, 1, 1)}
    architecture = dataclasses.replace(
        COMPACT,
        unet=dataclasses.replace(COMPACT.unet, **small),
        camera_control=dataclasses.replace(COMPACT.camera_control, **small),
        view_consistency=dataclasses.replace(COMPACT.view_consistency, **small),
    )
    folder = tmp_path_factory.mktemp("weights") / "toy"
    torch.manual_seed(0)
    DiffPortrait360Pipeline(**architecture.components(), reference_timestep=0, start_shortcut=True).save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def shipped(toy_weights, tmp_path, monkeypatch) -> Iterator[Path]:
    """An installation with these weights in it."""
    folder = tmp_path / "installed" / "compact"
    folder.parent.mkdir()
    folder.symlink_to(toy_weights)
    (toy_weights / "held_out.json").write_text(json.dumps({"heads": 48, "views": 72, "figures": FIGURES}))
    hashes = {
        file.relative_to(toy_weights).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in toy_weights.rglob("*")
        if file.suffix in (".json", ".safetensors") and file.name != "checksums.json"
    }
    (toy_weights / "checksums.json").write_text(json.dumps(hashes))
    monkeypatch.setattr(compact, "resources", SimpleNamespace(files=lambda package: folder.parent))
    yield folder


@pytest.fixture
def bare(tmp_path, monkeypatch) -> None:
    """An installation without compact weights."""
    monkeypatch.setattr(compact, "resources", SimpleNamespace(files=lambda package: tmp_path / "nothing"))


def views_of(**changes: Any) -> HeadOptions:
    return HeadOptions((Path("a.png"),), **changes)


def test_auto_is_the_default_and_says_what_it_takes(shipped):
    said: list[str] = []
    chosen = settled(views_of(), said.append)
    assert views_of().generator == "auto" and chosen.generator == "compact"
    assert said == [
        "the views are drawn by the small diffusion model; --generator prior makes them by geometry alone"
    ]  # plain words; figures are for those who ask
    settled(views_of(verbose=True), said.append)
    assert said[1:] == [
        said[0],
        "figures on 48 held-out heads: PSNR in dB compact 22.25, prior 20.00, perceptual distance compact 0.280, prior "
        "0.300",
    ]
    worse = {**FIGURES, "compact": {**FIGURES["compact"], "perceptual": 0.31}}
    (shipped / "held_out.json").write_text(json.dumps({"heads": 48, "views": 72, "figures": worse}))
    assert settled(views_of()).generator == "prior"
    said.clear()
    assert settled(views_of(generator="compact"), said.append) == views_of(generator="compact") and said == []
    assert isinstance(open_generator(views_of(), GivenPictures(), orbit(2, size_px=64)), PriorGenerator)


def test_auto_without_weights_is_the_prior(bare):
    said: list[str] = []
    assert settled(views_of(), said.append).generator == "prior"
    assert said == [
        "the views are made by fitted geometry; --generator compact draws them with a small diffusion model"
    ]
    assert settled(views_of(verbose=True), said.append).generator == "prior"
    assert said[2] == "this installation has no compact weights"


def test_views_made_with_auto_and_with_the_name_of_what_it_takes_are_the_same_views(bare, tmp_path):
    face = tmp_path / "face.png"
    write_example_portrait(face)
    auto, prior = settled(HeadOptions((face,))), HeadOptions((face,), generator="prior")
    assert views_key(auto, head_recipe(auto)) == views_key(prior, head_recipe(prior))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--generator", "compact"],
            "no compact weights; install dp360 again, give a folder of your own with --weights",
        ),
        (
            ["--generator", "compact", "--weights", "w", "--start-views", "ring"],
            "--start-views ring is of no use to the",
        ),
        (["--generator", "compact", "--weights", "w", "--condition-views", "r"], "--condition-views r is of no use to"),
        (["--weights", "w"], "or --generator compact for the model that ships"),
        (["--generator", "prior", "--diffusion.steps", "4"], "options are for the diffusion model; add --generator"),
    ],
)
def test_contradictions_are_refused(bare, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        cli.main(["views", "--image", "a.png", "--output", "out", *words])
    assert left.value.code == 2 and message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_weights_decide_which_generator_draws(shipped, toy_weights):
    cameras = orbit(2, size_px=512)
    for command in (
        views_of(generator="compact", device="cpu"),
        views_of(generator="compact", weights=str(toy_weights), device="cpu"),
        views_of(generator="diffportrait360", weights=str(toy_weights), device="cpu"),
    ):
        generator = open_generator(command, GivenPictures(), cameras)
        assert isinstance(generator, CompactGenerator) and generator.name == "compact"
        assert generator.weights_name.startswith("compact-1 (" if command.weights is None else "toy (")
        assert generator.sampling == Sampling(steps=8, guidance_scale=1.0)
    pictures = DiffusionOptions(start_views=Path("ring"))
    with pytest.raises(InputError, match="--start-views ring is of no use to the compact model"):
        open_diffusion_generator(
            views_of(generator="diffportrait360", weights=str(toy_weights), device="cpu", diffusion=pictures),
            GivenPictures(),
            cameras,
        )


def test_options_reach_the_compact_sampler(toy_weights):
    options = DiffusionOptions(steps=5, guidance_scale=1.5, window_stride=4)
    pipeline = load_pipeline(toy_weights, torch.float32)
    assert sampling_of(options, pipeline) == Sampling(steps=5, guidance_scale=1.5, window_stride=4)
    assert sampling_of(DiffusionOptions(), pipeline) == Sampling(steps=8, guidance_scale=1.0)
    with pytest.raises(InputError, match="expected steps at least 1, got 0"):
        sampling_of(DiffusionOptions(steps=0), pipeline)


def test_loading_weights_is_quiet_and_leaves_the_bars_of_diffusers_on(toy_weights, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pipeline(toy_weights, torch.float32)
    assert capfd.readouterr() == ("", "") and logging.is_progress_bar_enabled()


def test_portrait_to_views_by_the_model_that_ships(shipped, tmp_path, capsys):
    face = tmp_path / "face.png"
    write_example_portrait(face)
    words = ["views", "--image", str(face), "--output", str(tmp_path / "out"), "--views", "4", "--rings", "level"]
    assert cli.main([*words, "--size-px", "64", "--quality", "fast"]) == 0
    views = read_dataset(tmp_path / "out" / "dataset")
    assert len(views) == 5 and views.rgba.shape[1:] == (64, 64, 4) and views.provenance.generator == "compact"
    assert views.provenance.weights.startswith("compact-1 (sha256 ") and "head_model-1" in views.provenance.weights
    record = json.loads((tmp_path / "out" / "dp360.json").read_text())
    assert record["command"]["generator"] == "compact"
    assert "drawn by the small diffusion model" in capsys.readouterr().err


def test_names_of_settings(tmp_path):
    assert source_name("compact") == "compact" and source_name("mine=a@b/c") == "mine"
    assert source_name("compact@runs/rays/") == "compact@rays" == source_name("compact@/x=y/rays")
    command = EvalHeadsCommand(output=Path("out"))
    assert _results_folder(command, "compact-rays@a/b/c") == Path("out/heads/compact-rays@c")
    compact_ones = {name: variant for name, variant in GENERATOR_VARIANTS.items() if name.startswith("compact")}
    assert len(compact_ones) == 6 and all(v.compact and v.diffusion for v in compact_ones.values())
    for wrong in ("prior@somewhere", "nobody@somewhere", "diffportrait360@somewhere"):
        with pytest.raises(InputError, match=f"Unknown generator {wrong}; expected one of prior, .* @FOLDER behind"):
            open_sources([wrong], None)
    with pytest.raises(InputError, match="holds no weights"):
        open_sources([f"compact@{tmp_path}"], None)


def test_settings_are_opened_with_their_weights(shipped, toy_weights, tmp_path):
    names = ["compact", "compact-without-v", f"compact-rays@{toy_weights}", "prior", f"other={tmp_path}"]
    drawn, alone, rays, prior, other = open_sources(names, None)
    assert isinstance(drawn, GeneratedViews) and isinstance(drawn.generator, CompactGenerator)
    assert isinstance(alone, GeneratedViews) and isinstance(alone.generator, CompactGenerator)
    assert isinstance(rays, GeneratedViews) and isinstance(rays.generator, CompactGenerator)
    assert isinstance(prior, GeneratedViews) and isinstance(other, FolderViews)
    assert alone.generator.sampling is not None
    assert drawn.generator.name == "compact" and drawn.generator.weights_name == compact_weights_name("compact")
    assert alone.generator.pipeline is drawn.generator.pipeline and not alone.generator.sampling.view_consistency
    assert rays.name == "compact-rays@toy" == rays.generator.name and rays.generator.config.control == "rays"
    assert rays.generator.weights_name == compact_weights_name(names[2]) and compact_weights_name("prior") is None
    assert isinstance(prior.generator, PriorGenerator)

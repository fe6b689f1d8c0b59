"""One word, one recipe: the dial means the same in every command, and each of its numbers can be set alone."""

import dataclasses
from pathlib import Path

import pytest
import tyro

from dp360.configs.options import FitOptions, HeadOptions, Quality
from dp360.configs.recipe import RECIPES, fit_recipe, head_recipe
from dp360.generation import InputError

QUALITIES: tuple[Quality, ...] = ("fast", "standard", "high")


def test_the_dial_goes_upwards():
    fast, standard, high = (RECIPES[q] for q in QUALITIES)
    for below, above in ((fast, standard), (standard, high)):
        assert below.size_px <= above.size_px and below.orbit.ring_count < above.orbit.ring_count
        assert below.field_iterations < above.field_iterations
        assert below.fit.densify.max_count < above.fit.densify.max_count
        for name in ("iterations", "start_count", "sh_degree"):
            assert getattr(below.fit, name) < getattr(above.fit, name)
        assert below.fit.losses == above.fit.losses and below.fit.robust == above.fit.robust


@pytest.mark.parametrize("quality", QUALITIES)
def test_rings_follow_the_level_ring(quality):
    """What help says: three eighths above, a quarter below; given by hand or by the dial."""
    dial = head_recipe(HeadOptions(quality=quality))
    assert head_recipe(HeadOptions(quality=quality, views=dial.orbit.ring_count)) == dial == RECIPES[quality]


def test_level_rings_are_all_there_is():
    recipe = head_recipe(HeadOptions(views=8, rings="level"))
    assert len(recipe.orbit.cameras(recipe.size_px)) == 8
    recipe = head_recipe(HeadOptions(views=8))
    assert len(recipe.orbit.cameras(recipe.size_px)) == 8 + 3 + 2


@pytest.mark.parametrize("field", dataclasses.fields(FitOptions), ids=lambda field: field.name)
def test_each_number_of_the_fit_can_be_set_alone(field):
    value = {"iterations": 7, "start_count": 900, "max_count": 30_001, "sh_degree": 2}.get(field.name, 0.25)
    for quality in QUALITIES:
        dial, changed = (
            RECIPES[quality].fit,
            fit_recipe(quality, dataclasses.replace(FitOptions(), **{field.name: value})),
        )
        inside = changed.densify if field.name in ("max_count", "grow_gradient") else changed
        assert getattr(inside, field.name) == value
        fields = [f.name for f in dataclasses.fields(dial) if getattr(dial, f.name) != getattr(changed, f.name)]
        follows = ["start_count"] if field.name == "max_count" and dial.start_count > 30_001 else []
        assert fields in ([field.name], [*follows, "densify"])


def test_fewer_gaussians_at_the_end_mean_fewer_at_the_start():
    assert fit_recipe("standard", FitOptions(max_count=2000)).start_count == 2000
    with pytest.raises(InputError, match=r"--fit\.start-count 3000 is above --fit\.max-count 2000"):
        fit_recipe("standard", FitOptions(start_count=3000, max_count=2000))


def test_small_views_take_a_smaller_texture():
    steps = {px: head_recipe(HeadOptions(size_px=px)).texel_step for px in (128, 256, 257, 512)}
    assert steps == {128: 2, 256: 2, 257: 1, 512: 1}
    assert head_recipe(HeadOptions(quality="fast")).texel_step == 2
    assert head_recipe(HeadOptions(quality="standard")).texel_step == 1


def test_official_weights_draw_at_their_own_size():
    assert head_recipe(HeadOptions(quality="fast", generator="diffportrait360")).size_px == 512
    assert head_recipe(HeadOptions(quality="fast", generator="diffportrait360", size_px=128)).size_px == 128


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (HeadOptions(views=3), "expected --views from 4 to 720, got 3"),
        (HeadOptions(size_px=9), "expected --size-px from 32 to 2048, got 9"),
        (HeadOptions(seed=-1), "expected --seed from 0 to 4294967295, got -1"),
        (HeadOptions(fit=FitOptions(iterations=0)), "expected --fit.iterations from 1 to 1e.06, got 0"),
        (HeadOptions(fit=FitOptions(sh_degree=4)), "expected --fit.sh-degree from 0 to 3, got 4"),
        (HeadOptions(fit=FitOptions(coarse_fraction=1.5)), "expected --fit.coarse-fraction from 0 to 1, got 1.5"),
    ],
)
def test_numbers_out_of_range_are_named(options, message):
    with pytest.raises(InputError, match=message):
        head_recipe(options)


def test_one_portrait_is_asked_for():
    assert HeadOptions(image=(Path("a.png"),)).portrait == Path("a.png")
    with pytest.raises(InputError, match="name a portrait"):
        _ = HeadOptions().portrait
    with pytest.raises(InputError, match=r"expected one portrait, got 2 \(a.png, b.png\)"):
        _ = HeadOptions(image=(Path("a.png"), Path("b.png"))).portrait


@pytest.mark.parametrize("parsed", [HeadOptions, tyro.conf.FlagConversionOff[HeadOptions]])
def test_switches_need_no_word_behind_them(parsed):
    """As in `dp360`, and as in nerfstudio's parser, which asks for one."""
    assert tyro.cli(parsed, args=["--no-face"]).no_face
    assert tyro.cli(parsed, args=["--no-glasses"]).no_glasses
    assert not tyro.cli(parsed, args=[]).no_face and not tyro.cli(parsed, args=[]).no_glasses


def test_switches_of_ns_train_may_have_a_word():
    parsed = tyro.conf.FlagConversionOff[HeadOptions]
    assert tyro.cli(parsed, args=["--no-face", "True"]).no_face
    assert not tyro.cli(parsed, args=["--diffusion.view-consistency", "False"]).diffusion.view_consistency

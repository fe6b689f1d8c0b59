"""The quality dial: one word stands for one recipe, whichever command is told it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from dp360.generation import InputError, OrbitConfig
from dp360.reconstruction.densify import DensifyConfig
from dp360.reconstruction.splat_fit import LearningRates, SplatFitConfig

from .options import FitOptions, HeadOptions, Quality

_SMALL_VIEW_PX = 256
"""A pixel of such views is as large as two texels of the prior's atlas."""


@dataclass(frozen=True)
class HeadRecipe:
    """Numbers that a head is made by."""

    orbit: OrbitConfig
    """Cameras of the views."""
    size_px: int
    """Side of the views, pixels."""
    fit: SplatFitConfig
    """The splat fit."""
    field_iterations: int
    """Steps of a radiance field on a CPU; ten times as many on a GPU."""

    @property
    def texel_step(self) -> int:
        """Texels of the prior's atlas per painted one along each axis: small views do not show them all."""
        return 2 if self.size_px <= _SMALL_VIEW_PX else 1


_MANY_STEPS = LearningRates(means=3e-4, scales=0.01, quats=0.004, features_dc=0.02, features_rest=0.001, opacities=0.05)
"""Step sizes for fits of thousands of steps."""
_FEW_STEPS = LearningRates(means=9e-4, scales=0.04, features_dc=0.025, opacities=0.3, final_means=0.05, final=0.3)
"""Step sizes for fits of little more than a hundred steps: larger, and falling less."""
RECIPES: dict[Quality, HeadRecipe] = {
    "fast": HeadRecipe(
        OrbitConfig(16, 6, lower_count=4),
        256,
        SplatFitConfig(
            iterations=100,
            start_count=25_000,
            coarse_fraction=0.0,
            sh_degree=0,
            densify=DensifyConfig(max_count=25_000, every=60),
            learning_rates=_FEW_STEPS,
        ),
        500,
    ),
    "standard": HeadRecipe(OrbitConfig(), 512, SplatFitConfig(), 1000),
    "high": HeadRecipe(
        OrbitConfig(48, 18, lower_count=12),
        512,
        SplatFitConfig(
            iterations=3000,
            start_count=60_000,
            sh_degree=3,
            densify=DensifyConfig(max_count=150_000, grow_gradient=1e-4),
            learning_rates=_MANY_STEPS,
        ),
        3000,
    ),
}
"""What each position of the dial stands for; README and `docs/performance.md` say what it costs."""

_DIFFUSION_SIZE_PX = 512
"""What the official weights were trained at."""
_RANGES: dict[str, tuple[float, float]] = {
    "views": (4, 720),
    "size_px": (32, 2048),
    "fit.iterations": (1, 1_000_000),
    "fit.start_count": (100, 2_000_000),
    "fit.max_count": (100, 2_000_000),
    "fit.sh_degree": (0, 3),
    "fit.coarse_fraction": (0, 1),
    "fit.grow_gradient": (1e-9, 1),
}


def fit_recipe(quality: Quality, options: FitOptions) -> SplatFitConfig:
    """The splat fit of one position of the dial, with numbers of one's own.

    Raises:
        InputError: a number is out of its range.
    """
    _refuse_out_of_range({f"fit.{f.name}": getattr(options, f.name) for f in fields(options)})
    given = {f.name: getattr(options, f.name) for f in fields(options) if getattr(options, f.name) is not None}
    fit = RECIPES[quality].fit
    start, most = given.get("start_count", fit.start_count), given.get("max_count", fit.densify.max_count)
    if start > most and "start_count" in given and "max_count" in given:
        raise InputError(f"Cannot start: --fit.start-count {start} is above --fit.max-count {most}")
    given["start_count"] = min(start, most)
    densify = {name: given.pop(name) for name in ("max_count", "grow_gradient") if name in given}
    return replace(fit, **given, densify=replace(fit.densify, **densify))


def head_recipe(options: HeadOptions) -> HeadRecipe:
    """The numbers in force: the dial's, replaced one by one by those that were given.

    Raises:
        InputError: a number, or the seed, is out of its range.
    """
    _refuse_out_of_range({"views": options.views, "size_px": options.size_px})
    refuse_bad_seed(options.seed)
    dial = RECIPES[options.quality]
    orbit = dial.orbit
    if options.views is not None:
        upper, lower = round(options.views * 3 / 8), round(options.views / 4)
        orbit = replace(orbit, ring_count=options.views, upper_count=upper, lower_count=lower)
    if options.rings == "level":
        orbit = replace(orbit, upper_count=0, lower_count=0)
    size_px = _DIFFUSION_SIZE_PX if options.generator == "diffportrait360" else dial.size_px
    fit = fit_recipe(options.quality, options.fit)
    return HeadRecipe(orbit, options.size_px or size_px, fit, dial.field_iterations)


def refuse_bad_seed(seed: int) -> None:
    """See that a seed can be used by every generator of random numbers.

    Raises:
        InputError: it cannot.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"Cannot start: expected --seed from 0 to {2**32 - 1}, got {seed}")


def _refuse_out_of_range(given: dict[str, Any]) -> None:
    for name, value in given.items():
        low, high = _RANGES[name]
        if value is not None and not low <= value <= high:
            option = "--" + name.replace("_", "-")
            raise InputError(f"Cannot start: expected {option} from {low:g} to {high:g}, got {value:g}")

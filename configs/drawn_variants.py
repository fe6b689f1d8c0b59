"""`--variants` of `dp360 run` and `dp360 views`: heads that may be behind one portrait, to choose a seed from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dp360.exporters import variants_sheet
from dp360.generation import InputError
from dp360.generation.files import write_bytes_atomically
from dp360.generation.prior import PriorBasis
from dp360.generation.prior.prior_generator import rendered_rgba
from dp360.generation.view_generator import provenance_of

from .console import Display
from .options import HeadOptions
from .portrait_to_head import aligned_portrait
from .recipe import refuse_bad_seed
from .run_folder import exclusive_run
from .view_generators import refuse_contradictions

VARIANTS_NAME = "variants.png"
MOST_VARIANTS = 16


def write_variants(options: HeadOptions, count: int, folder: Path, display: Display) -> Path:
    """Write variants.png: one row for each seed from that of the options on, as `--generator field` would draw it.

    What else is in the folder stays.

    Args:
        count: how many seeds.

    Raises:
        InputError: a count or a generator that makes no sense, a picture that cannot be used, missing weights, or a
            folder that cannot be written.
    """
    _refuse_nonsense(options, count)
    path, cameras = folder / VARIANTS_NAME, variants_sheet.variant_cameras()
    with exclusive_run(folder):
        basis = PriorBasis.of(aligned_portrait(options, track=display.track, notify=display.notify))
        rows, weights, look = [], "", {}
        seeds = range(options.seed, options.seed + count)
        for seed in display.track(seeds, total=count, description="Drawing heads"):
            prior = basis.prior(seed=seed, drawn=True, glasses=not options.no_glasses, light=options.light)
            rows.append(variants_sheet.SheetRow(seed, rendered_rgba(prior.render(cameras))))
            weights, look = prior.weights_name, prior.look_settings
        settings = {"variants": count, **look}
        origin = provenance_of("field", weights, options.seed, basis.portrait.source_sha256, settings)
        write_bytes_atomically(path, variants_sheet.encode(rows, origin))
    return path


def _refuse_nonsense(options: HeadOptions, count: int) -> None:
    if options.generator not in ("auto", "field"):
        raise InputError(
            f"Cannot start: --variants shows what --generator field draws, got --generator {options.generator}; leave "
            "one of them out"
        )
    if not 1 <= count <= MOST_VARIANTS:
        raise InputError(f"Cannot start: expected --variants from 1 to {MOST_VARIANTS}, got {count}")
    refuse_bad_seed(options.seed)
    refuse_bad_seed(options.seed + count - 1)
    refuse_contradictions(replace(options, generator="field"))

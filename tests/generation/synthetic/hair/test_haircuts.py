"""Drawn haircuts: names, splits, and what baldness and razors leave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dp360.generation.synthetic.assets import SPLITS
from dp360.generation.synthetic.hair.cuts import CUTS, Cut
from dp360.generation.synthetic.hair.haircuts import (
    FAMILIES,
    HAIRCUTS_PER_STYLE,
    choose_haircut,
    cut_named,
    haircut_names,
    haircut_split,
    style_of,
)

NAMES = [f"{style}_{k:03d}" for style in FAMILIES for k in range(HAIRCUTS_PER_STYLE)]


def test_every_haircut_is_in_one_split_and_every_split_has_every_style() -> None:
    assert len(NAMES) >= 300 and not set(FAMILIES) & set(NAMES)
    names = {split: {n for style in FAMILIES for n in haircut_names(split, style)} for split in SPLITS}
    assert sorted(n for found in names.values() for n in found) == sorted(NAMES)
    assert all(haircut_names(split, style) for split in SPLITS for style in FAMILIES)
    assert haircut_split("bob_017") == "train" and haircut_split("bob_017") == haircut_split("bob_017")
    assert 0.8 < len(names["train"]) / len(NAMES) < 0.9


def test_haircuts_follow_from_their_names_alone() -> None:
    before = cut_named("bob_017")
    cut_named.cache_clear()
    assert cut_named("bob_017") == before != cut_named("bob_018")
    assert cut_named("afro") is CUTS["afro"] and style_of("afro") == "afro" and style_of("long_wavy_004") == "long_wavy"
    with pytest.raises(KeyError):
        cut_named("bowl_cut_of_nobody")


def test_all_haircuts_are_different_and_make_sense() -> None:
    cuts = [cut_named(name) for name in NAMES]
    assert len(set(cuts)) == len(cuts)
    for name, cut in zip(NAMES, cuts):
        assert min(cut.lengths) > 0 and 0 <= cut.second_weight <= 0.4, name
        assert 0 < cut.lift <= 1.2 and cut.volume > 0 and cut.curl[0] >= 0 and 0 <= cut.fringe <= 1, name
        assert (cut.tie is None) == (cut.comb != "tie"), name


def test_a_split_draws_its_own_haircuts_and_no_style_too_often() -> None:
    for split in SPLITS:
        drawn = [choose_haircut(seed, split, float(seed % 2)) for seed in range(1500)]
        assert {haircut_split(name) for name in drawn} == {split}
        styles = [style_of(name) for name in drawn]
        assert max(styles.count(style) for style in FAMILIES) / len(styles) < 0.06


def test_hair_recedes_from_the_temples_to_a_wreath() -> None:
    top, temple, front = [0.0, 13.0, 0.0], [4.5, 10.0, 5.5], [0.0, 10.0, 7.5]
    crown, side, nape = [0.0, 12.0, -5.0], [7.0, 3.0, -2.0], [0.0, -4.6, -6.0]
    places = np.array([top, temple, front, crown, side, nape])
    full = Cut((4.0, 2.0, 2.0))
    assert (full.kept_share(places) == 1).all()
    temples = replace(full, temple_recess_cm=4.0).kept_share(places)
    assert temples[1] < 0.2 and temples[[0, 2, 3, 4, 5]].min() > 0.6
    assert replace(full, crown_bald_cm=3.0).kept_share(places) == pytest.approx([1, 1, 1, 0, 1, 1])
    wreath = replace(full, front_recess_cm=14.0, crown_bald_cm=4.0).kept_share(places)
    assert wreath[:4].max() < 0.1 and wreath[4:].min() == 1
    assert replace(full, thinning=0.6).kept_share(places)[[0, 4]] == pytest.approx([0.4, 1.0])
    assert replace(full, neckline_y=-3.0).kept_share(places)[[4, 5]] == pytest.approx([1, 0])
    assert replace(full, strip_cm=2.0).kept_share(places) == pytest.approx([1, 0, 1, 1, 0, 1])

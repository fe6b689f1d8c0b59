"""Which portraits a batch takes: patterns, a table that is checked as a whole, names that clash, shards."""

import pytest

from dp360.configs.jobs.manifest import part_of, plan_batch
from dp360.configs.options import HeadOptions
from dp360.generation import InputError

OPTIONS = HeadOptions(generator="prior", device="cpu", seed=5)


def test_a_table_gives_options_and_patterns_the_rest(make_pictures, tmp_path):
    pictures = make_pictures("ada.png", "bob.png", "eve.png")
    table = tmp_path / "list.csv"
    table.write_text(
        "﻿portrait, name, seed, crop, face, quality, no_glasses\n"
        "in/ada.png,,7,wide,,fast,yes\n"
        "in/bob.png,bob again,,,1,,\n"
        "\n"
        "in/bob.png,bob,,,0,,no\n"
    )
    items = {item.name: item.options for item in plan_batch([str(pictures / "*.png")], table, OPTIONS)}
    assert list(items) == ["ada", "bob", "bob again", "eve"]
    ada = items["ada"]
    assert (ada.seed, ada.crop, ada.quality, ada.no_glasses, ada.face_index) == (7, "wide", "fast", True, None)
    assert items["bob again"].face_index == 1 and items["bob"].face_index == 0 and items["bob"].seed == 5
    assert items["eve"].seed == 5 and items["eve"].portrait == pictures / "eve.png"


def test_all_faults_of_a_table_are_named_before_the_first_head(make_pictures, tmp_path):
    make_pictures("ada.png")
    table = tmp_path / "list.csv"
    rows = ["in/ada.png,x,,,", "in/none.png,1,,,", "in/ada.png,1,round,,", "in/ada.png,-1,,,", "in/ada.png,1,,,best"]
    table.write_text("\n".join(["portrait,seed,crop,name,quality", *rows, "in/ada.png,1,,../x,", "in/ada.png", ""]))
    with pytest.raises(InputError) as refusal:
        plan_batch([], table, OPTIONS)
    said = str(refusal.value)
    for part in (
        "line 2: seed: expected a whole number, got x",
        "line 3: no file at",
        "line 4: crop",
        "line 5: expected",
    ):
        assert part in said
    assert "line 6: quality" in said and "2 more" in said


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("picture,seed\n", "with the column portrait"),
        ("portrait,size\n", "got portrait, size"),
        ("portrait,name\nin/ada.png,a\nin/ada.png,A\n", "several portraits have the name a"),
        ("portrait,seed\nin/ada.png,1\nin/ada.png,1\n", "named twice"),
        ("portrait,name\nin/ada.png,table\n", "plain name of a folder"),
        ("portrait,name\nin/ada.png,Aux.1\n", "plain name of a folder"),
        ("portrait,generator\nin/ada.png,diffportrait360\n", "needs --weights"),
    ],
)
def test_what_is_wrong_with_a_table(make_pictures, tmp_path, text, part):
    make_pictures("ada.png")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=part):
        plan_batch([], tmp_path / "list.csv", OPTIONS)


def test_portraits_of_one_name_get_folders_of_their_own(make_pictures):
    pictures = make_pictures("ada.png", "ada.jpg", "table.png", "bob.png", ". .png")
    names = [item.name for item in plan_batch([str(pictures / "*"), str(pictures / ". .png")], None, OPTIONS)]
    assert len(set(names)) == len(names) == 5 and "bob" in names and "table" not in names and "ada" not in names
    assert all(name.strip(". ") for name in names)
    assert names == [item.name for item in plan_batch([str(pictures / "*"), str(pictures / ". .png")], None, OPTIONS)]


def test_nothing_to_do_is_said(tmp_path):
    for patterns, part in (
        ([], "name the portraits"),
        (["none/*.jpg"], "No picture matches"),
        ([str(tmp_path)], "No pict"),
    ):
        with pytest.raises(InputError, match=part):
            plan_batch(patterns, None, OPTIONS)


def test_shards_are_disjoint_and_complete(make_pictures):
    items = plan_batch([str(make_pictures(*(f"{k}.png" for k in range(10))))], None, OPTIONS)
    parts = [part_of(items, f"{k}/3") for k in (1, 2, 3)]
    assert sorted(item.name for part in parts for item in part) == [item.name for item in items]
    assert part_of(items, None) == items
    for wrong in ("0/3", "4/3", "3", "a/b", "1/0", "-1/2"):
        with pytest.raises(InputError, match="K/N"):
            part_of(items, wrong)

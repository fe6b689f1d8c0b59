"""Training sets in files: every head is made once, whatever the heads asked for and whoever was killed before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp360.generation import InputError
from dp360.generation.training.head_samples import HeadSamplesConfig, Sample, head_samples, in_new_order

CONFIG = HeadSamplesConfig(heads=5, first_head=10, samples_per_head=2, size_px=8, heads_per_file=2)


class Faces:
    """Samples that say whose they are; heads 11 and 14 have no face."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def samples(self, _: Any, number: int) -> list[Sample]:
        self.made.append(number)
        return [] if number in (11, 14) else [{"value": np.full(3, 10 * number + k)} for k in range(2)]


@pytest.fixture(autouse=True)
def nothing_is_composed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dp360.generation.training.head_samples.compose", lambda recipe, data: None)


def samples_of(folder: Path, faces: Faces, config: HeadSamplesConfig = CONFIG) -> dict[str, np.ndarray]:
    return head_samples("toy", folder, "train", folder / "samples", config, faces.samples)


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    faces = Faces()
    found = samples_of(tmp_path, faces)
    assert found["head"].tolist() == [10, 10, 12, 12, 13, 13]
    assert found["value"][:, 0].tolist() == [100, 101, 120, 121, 130, 131]
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == [f"toy_train_8px_{count}x2_0000{first}.npz" for count, first in ((1, 14), (2, 10), (2, 12))]
    (tmp_path / "samples" / names[1]).unlink()  # as if a kill had come before it was written
    again = samples_of(tmp_path, faces)
    assert faces.made == [10, 11, 12, 13, 14, 10, 11]
    assert all(np.array_equal(found[name], again[name]) for name in found)
    more = samples_of(tmp_path, faces, replace(CONFIG, heads=6))  # the short file does not stand for a full one
    assert faces.made[7:] == [14, 15] and more["head"].tolist() == [10, 10, 12, 12, 13, 13, 15, 15]


def test_sets_without_assets_or_faces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No head assets at .*docs/training\.md"):
        samples_of(tmp_path / "nowhere", Faces())
    with pytest.raises(InputError, match="No face was found"):
        samples_of(tmp_path, Faces(), replace(CONFIG, heads=1, first_head=11))


def test_every_pass_has_an_order_of_its_own() -> None:
    passes = [[in_new_order(7 * turn + k, 7, 3, 1) for k in range(7)] for turn in range(3)]
    assert all(sorted(order) == list(range(7)) for order in passes)
    assert passes[0] != passes[1] != passes[2]

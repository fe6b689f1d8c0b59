"""A field and an observation out of random numbers that keep the laws."""

from __future__ import annotations

import numpy as np
import pytest

from dp360.generation.prior.field.head_field import CHANNELS, HeadField
from dp360.generation.prior.field.observed_field import ObservedField


@pytest.fixture
def random_field() -> HeadField:
    rng = np.random.default_rng(0)
    channels = rng.normal(size=(len(CHANNELS), 56, 64)).astype(np.float32)
    tokens = np.array([0.2, np.nan, 0.5, 1.0], np.float32)
    return HeadField.unpack(channels, np.full((56, 64), 0.16, np.float32), tokens)


@pytest.fixture
def random_observation() -> ObservedField:
    rng = np.random.default_rng(1)

    def unit(*channels: int) -> np.ndarray:
        return rng.random((*channels, 56, 64), dtype=np.float32)

    turn = 2 * np.pi * unit()
    return ObservedField(
        unit(), unit(), unit(4), unit(3), np.stack([np.cos(turn), np.sin(turn)]), unit(), 0.1 * unit(), unit(),
        0.1 * unit(), unit(), np.array([0.1, np.nan, 0.3, np.nan], np.float32), np.array([0.6, 0, 0.8], np.float32),
    )  # fmt: skip

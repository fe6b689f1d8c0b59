"""Fields of a portrait that the networks that ship draw, one for each seed."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from ...weights import is_shipped
from .field_autoencoder import FIELD_AUTOENCODER, FieldAutoencoder
from .field_denoiser import FIELD_DENOISER, FieldDenoiser
from .field_grain import FIELD_GRAIN, FieldGrain
from .grown_hair import with_grown_hair
from .head_field import HeadField
from .mean_network import FIELD_MEAN, FieldMeanNet
from .observed_field import ObservedField
from .seen_cover import with_seen_cover

if TYPE_CHECKING:
    from .field_pipeline import FieldPipeline

DRAWING_NETWORKS = (FIELD_AUTOENCODER, FIELD_DENOISER, FIELD_GRAIN)
"""What draws, beside the network of the expected field."""


def fields_can_be_drawn() -> bool:
    """Whether this installation has the networks that draw."""
    return all(is_shipped(file.file_name) for file in DRAWING_NETWORKS)


def draw_field(observed: ObservedField, *, seed: int) -> HeadField:
    """A field that agrees with what the portrait shows; the same seed gives the same bytes on a CPU.

    Args:
        observed: what the portrait shows.
        seed: says which of the fields.

    Raises:
        InputError: this installation lacks the networks.
    """
    pipeline = _pipeline(
        FIELD_MEAN.load().network, FIELD_AUTOENCODER.load().network, FIELD_DENOISER.load().network,
        FIELD_GRAIN.load().network,
    )  # fmt: skip
    drawn = pipeline(observed, generator=torch.Generator().manual_seed(seed))[0]
    return with_grown_hair(with_seen_cover(drawn, observed), observed)


@functools.lru_cache(maxsize=1)
def _pipeline(
    mean: FieldMeanNet, autoencoder: FieldAutoencoder, denoiser: FieldDenoiser, grain: FieldGrain
) -> FieldPipeline:
    from .field_pipeline import FieldPipeline  # diffusers: seconds of imports

    return FieldPipeline.of(mean, autoencoder, denoiser, grain)

"""Composed heads through the real pipeline: what a drawn portrait shows on the fitted head, and the truth beside it.

The errors of `observation` are imitations; these are the true ones, of face detection, fit, matte and labels. A head
costs ten times as much, so that networks learn most from imitations and from these what they get wrong. Even numbers
are heads of `field_recipes`, odd ones those of `composed_recipe`: sculpted busts, toons, beards and drawings as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import ndimage

from ...head_model import load_head_model
from ...prior import capsule
from ...prior.field.chart import of_capsule
from ...prior.field.head_field import HeadField
from ...prior.field.observed_field import ObservedField
from ...prior.field.portrait_observation import fitted_skull, observe_portrait
from ...prior.labels.portrait_labels import label_portrait
from ...similarity import Similarity
from ..assets import Split, sub_seed
from ..bodies.compose_shape import dressed_body
from ..compose import compose
from ..composed_recipe import ComposedRecipe
from ..fitted_composed_head import FittedComposedHead, Studio, fitted_head
from ..parts import Part
from .field_recipes import drawn_recipe
from .field_truth import field_of_parts, hair_tokens

_BLUR_CELLS = 0.7
"""Strands make a surface uneven that a portrait is looked up on: deviation of a Gaussian."""


@dataclass(frozen=True)
class FittedField:
    """A head in the frame of its portrait's fit."""

    recipe: ComposedRecipe
    """What it was composed from."""
    field: HeadField
    """Truth, above the composed skull, or above the fitted one where the head has none of its own."""
    observed: ObservedField
    """What the portrait shows, above the fitted skull."""


class FittedFields:
    """Makes fields through the real pipeline; networks are loaded once, when the first is asked for."""

    def __init__(self, data: Path, split: Split, seed: int) -> None:
        """Load nothing yet.

        Args:
            data: folder of the head assets.
            split, seed: as of `field_recipes.field_recipe`.
        """
        self.data, self.seed = data, seed
        self.split: Split = split

    def make(self, numbers: Sequence[int]) -> Iterator[tuple[int, FittedField]]:
        """Heads with their numbers; those are left out in whose portraits no face is found.

        Raises:
            InputError: the assets are damaged.
        """
        backgrounds, faces, people = self._studio
        for number in numbers:
            recipe = drawn_recipe(number, self.split, self.seed)
            fitted = fitted_head(compose(recipe, self.data), backgrounds, sub_seed(recipe.seed, "real"), faces, people)
            if fitted is not None:
                yield number, self._field(recipe, fitted)

    def _field(self, recipe: ComposedRecipe, fitted: FittedComposedHead) -> FittedField:
        move, model = fitted.fit_from_true, load_head_model()
        labels, fitted_radius = label_portrait(fitted.portrait, model), fitted_skull(fitted.portrait, model)
        skull = fitted_radius
        if recipe.base == "shape" and recipe.exaggeration == 0:
            vertices, faces = dressed_body(recipe, self.data).bald
            skull = of_capsule(capsule.opened_skull_radius(move(vertices), faces)).astype(np.float32)
        parts = [_moved(part, move) for part in fitted.head.parts]
        field = field_of_parts(parts, skull, hair_tokens(recipe.hair))
        outer = ndimage.gaussian_filter(field.outer_radius, _BLUR_CELLS, mode=capsule.WRAPPED)
        observed = observe_portrait(fitted.portrait, labels, fitted_radius, outer)
        return FittedField(recipe, field, observed)

    @cached_property
    def _studio(self) -> Studio:
        return Studio.of_split(self.data, self.split)


def _moved(part: Part, move: Similarity) -> Part:
    """A part carried into another frame."""
    return replace(
        part,
        vertices_world=move(part.vertices_world),
        normals_world=part.normals_world @ move.R.T,
        tangents_world=None if part.tangents_world is None else part.tangents_world @ move.R.T,
        fibre_lengths=None if part.fibre_lengths is None else move.scale * part.fibre_lengths,
    )

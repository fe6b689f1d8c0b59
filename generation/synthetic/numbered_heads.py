"""Composed heads by number: the same number, split and seed give the same head, portrait and fit everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..head_model import HeadModel, load_head_model
from ..portrait.face_detection import FaceNetworks
from ..portrait.matte import PersonNetworks
from .assets import Split, asset_index, sub_seed
from .compose import compose
from .fitted_composed_head import FittedHead, fitted_head
from .portraits.backgrounds import Backgrounds
from .recipe import HeadRecipe, sample_recipe


@dataclass(frozen=True)
class NumberedHead:
    """A composed head that was photographed and fitted."""

    name: str
    """Split and number."""
    recipe: HeadRecipe
    """What it was composed from."""
    fitted: FittedHead
    """The head with its portrait."""
    seed: int
    """Of its cameras, surface samples and prior, 31 bits."""


class NumberedHeads:
    """Makes heads from the head assets; what all of them share is loaded once, when the first is asked for."""

    def __init__(self, data: Path, split: Split, seed: int) -> None:
        """Load nothing yet.

        Args:
            data: folder of the head assets.
            split: whose shapes, skins and hair.
            seed: of portraits and cameras; shapes follow from the number alone.
        """
        self.data, self.seed = data, seed
        self.split: Split = split

    @cached_property
    def model(self) -> HeadModel:
        """The head model that is fitted."""
        return load_head_model()

    def name(self, number: int) -> str:
        """Name of a head; data sets have it as their folder's."""
        return f"{self.split}_{number:06d}"

    def make(self, number: int) -> NumberedHead | None:
        """Compose, photograph and fit one head; None where no face is found in its portrait.

        Raises:
            InputError: the assets are damaged.
        """
        backgrounds, faces, people = self._studio
        recipe = sample_recipe(number, asset_index(), self.split)
        seed = sub_seed(self.seed, f"{self.split}/{number}")
        head = compose(recipe, self.data)
        fitted = fitted_head(head, backgrounds, seed, faces, people, model=self.model)
        return None if fitted is None else NumberedHead(self.name(number), recipe, fitted, seed % 2**31)

    @cached_property
    def _studio(self) -> tuple[Backgrounds, FaceNetworks, PersonNetworks]:
        return Backgrounds.of_split(self.data, self.split), FaceNetworks(), PersonNetworks()

"""What every view generator is: portrait, prior and cameras in, posed views out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from .cameras import Cameras
from .progress import Track, silent
from .views import ViewSet

if TYPE_CHECKING:  # training imports this package where OpenCV, numba and SciPy are missing
    from .portrait import Portrait
    from .prior.head_prior import HeadPrior


@runtime_checkable
class ViewGenerator(Protocol):
    """Makes views of a head. Everything it needs comes in; it reads no files and keeps no state."""

    @property
    def name(self) -> str:
        """Name on the command line and in provenance."""
        ...

    def generate(
        self,
        portrait: Portrait,
        prior: HeadPrior,
        cameras: Cameras,
        generator: torch.Generator,
        *,
        track: Track = silent,
    ) -> ViewSet:
        """Views of the portrait's head from `cameras`, view 0 being the portrait itself with its own camera.

        Args:
            portrait: the aligned portrait.
            prior: its geometric prior.
            cameras: where to look from; their picture size must be the portrait's.
            generator: source of randomness; the same state on a CPU gives the same bytes.
            track: progress.
        """
        ...

"""What every view generator is: portrait, prior and cameras in, posed views out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .cameras import Cameras, concatenate_cameras
from .progress import Track, silent
from .views import PointCloud, Provenance, ViewSet

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
        """Views of the portrait's head from `cameras`, view 0 being the portrait itself with its own camera, or the
        head as that camera sees it where it is to look otherwise (glasses taken off, other light).

        Args:
            portrait: the aligned portrait; of a wide crop, networks see the standard frame, which they know.
            prior: its geometric prior: outlines, surface samples, and what else a generator takes from it.
            cameras: where to look from: square cameras, of any picture size that `check` of the generator allows.
            generator: source of all randomness; the same state on a CPU gives the same bytes.

        Returns:
            `len(cameras) + 1` views. Confidence is 1 for the portrait and falls with what the portrait does not show.

        Raises:
            InputError: views that this generator cannot make.
        """
        ...


def views_with_portrait(
    portrait_rgba: UInt8[Tensor, "s s 4"],
    portrait_camera: Cameras,
    rgba: UInt8[Tensor, "n s s 4"],
    cameras: Cameras,
    confidence: Float[Tensor, " n"],
    surface: PointCloud,
    provenance: Provenance,
) -> ViewSet:
    """Made views as a set with the portrait, which is trusted fully, as view 0.

    Args:
        portrait_rgba: the cut-out portrait in the views' size.
        portrait_camera: its camera, of any picture size.
        rgba: straight colour and alpha of the other views.
        confidence: trust in them, [0, 1].
    """
    return ViewSet(
        rgba=torch.cat([portrait_rgba[None], rgba]),
        cameras=concatenate_cameras([portrait_camera.resized(cameras.width, cameras.height), cameras]),
        confidence=torch.cat([torch.ones(1), confidence]),
        names=("portrait", *(f"view_{i:03d}" for i in range(len(cameras)))),
        surface=surface,
        provenance=provenance,
    )


def provenance_of(name: str, weights: str, seed: int, input_sha256: str, settings: dict[str, object]) -> Provenance:
    """Origin of views of a portrait; `settings` are plain JSON data."""
    return Provenance(name, weights, seed, input_sha256, settings=settings)

"""`ViewSet`: pictures of one head with known cameras, and where they came from."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .cameras import Cameras

if TYPE_CHECKING:
    import open3d


@dataclass(frozen=True)
class Provenance:
    """Where a generated thing came from; travels with every file that leaves the package."""

    generator: str
    """Name of the view generator, for example `prior`."""
    weights: str
    """Name and hash of the weights used, for example `head_model-1 (sha256 0123...)`."""
    seed: int
    """Seed of the generator."""
    input_sha256: str
    """SHA-256 of the input file's bytes, hexadecimal."""
    version: str = field(default_factory=lambda: importlib.metadata.version("dp360"))
    """Version of dp360."""
    statement: str = "3D head, AI-generated from one image (dp360)"
    """One line for people."""
    settings: dict[str, object] = field(default_factory=dict)
    """The generator's settings as plain JSON data."""


@dataclass(frozen=True)
class PointCloud:
    """Coloured surface samples of the head: the start of a splat fit and `sparse_pc.ply`."""

    points_world: Float[Tensor, "p 3"]
    """World units."""
    normals_world: Float[Tensor, "p 3"]
    """Unit outward normals."""
    rgb_unit: Float[Tensor, "p 3"]
    """Colour in [0, 1]."""
    half_axes_world: Float[Tensor, "p 3"] | None = None
    """Of thin samples such as strands of hair, from the middle to an end, world units; zeros for samples of a surface.
    None where all samples are of surfaces."""

    def __getitem__(self, chosen: Tensor) -> PointCloud:
        """Some of the points, by numbers or a mask."""
        axes = None if self.half_axes_world is None else self.half_axes_world[chosen]
        return PointCloud(self.points_world[chosen], self.normals_world[chosen], self.rgb_unit[chosen], axes)

    def to_open3d(self) -> open3d.geometry.PointCloud:
        """The same points for open3d: distances, outliers, registration."""
        import open3d

        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(self.points_world.double().cpu().numpy()))
        cloud.normals = open3d.utility.Vector3dVector(self.normals_world.double().cpu().numpy())
        cloud.colors = open3d.utility.Vector3dVector(self.rgb_unit.double().cpu().numpy())
        return cloud


@dataclass(frozen=True)
class ViewSet:
    """Posed pictures of one head. View 0 is the portrait itself where the generator was given one."""

    rgba: UInt8[Tensor, "n h w 4"]
    """Straight (not premultiplied) colour and alpha, 8 bits: what the data set stores, bit for bit."""
    cameras: Cameras
    """One camera per picture, of the same size as the pictures."""
    confidence: Float[Tensor, " n"]
    """Trust in each view, [0, 1]: 1 for the portrait, less for views that were made up."""
    names: tuple[str, ...]
    """A file-system-safe name per view, for example `portrait`, `ring_000`."""
    surface: PointCloud
    """Samples of the head's surface."""
    provenance: Provenance
    """Origin of the views."""

    def __post_init__(self) -> None:
        n, height, width, _ = self.rgba.shape
        if not len(self.cameras) == len(self.names) == self.confidence.shape[0] == n:
            raise ValueError(
                f"ViewSet: expected as many cameras, names and confidences as pictures ({n}), "
                f"got {len(self.cameras)}, {len(self.names)} and {self.confidence.shape[0]}"
            )
        if (self.cameras.width, self.cameras.height) != (width, height):
            raise ValueError(
                f"ViewSet: pictures are {width}x{height} but the cameras say "
                f"{self.cameras.width}x{self.cameras.height}; call `cameras.resized`"
            )

    def __len__(self) -> int:
        return self.rgba.shape[0]

    def select(self, indices: Sequence[int]) -> ViewSet:
        """The views with these indices, in this order."""
        chosen = list(indices)
        names = tuple(self.names[i] for i in chosen)
        return ViewSet(
            self.rgba[chosen], self.cameras[chosen], self.confidence[chosen], names, self.surface, self.provenance
        )

    def rgb_unit(self, background_rgb_unit: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Float[Tensor, "n h w 3"]:
        """Pictures over a plain background, float32 in [0, 1]."""
        colour, alpha = self.rgba[..., :3].float() / 255, self.rgba[..., 3:].float() / 255
        return colour * alpha + torch.tensor(background_rgb_unit) * (1 - alpha)

    @property
    def alpha_unit(self) -> Float[Tensor, "n h w"]:
        """Opacity, float32 in [0, 1]."""
        return self.rgba[..., 3].float() / 255

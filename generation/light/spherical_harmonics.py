"""Distant light as spherical harmonics of order 2, and how much of it reaches the vertices of a mesh.

A matte surface answers to hardly more of distant light than the first nine spherical harmonics (Ramamoorthi and
Hanrahan 2001, "An Efficient Representation for Irradiance Environment Maps"). What a mesh itself keeps from its
vertices is one row of nine numbers for each (Sloan, Kautz, Snyder 2002, https://doi.org/10.1145/566654.566612).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from .shadows import DIRECTION_COUNT, sky_directions, visibility

COUNT = 9
"""Coefficients of order 0 to 2."""
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
"""Brightness of linear RGB (ITU-R BT.709)."""
COSINE_LOBE = np.array([1, *[2 / 3] * 3, *[1 / 4] * 5])
"""What a cosine leaves of each harmonic, over pi (Ramamoorthi and Hanrahan 2001, eq. 9)."""
MIRRORED = np.array([1, 1, 1, -1, -1, 1, 1, -1, 1.0])
"""Signs of the coefficients of light that is mirrored about the head's middle plane."""
_SHADOW_PX = 112
_LEAST_SEEN = 0.04
"""Share of each direction's light that reaches every surface round corners."""


def harmonics(directions: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 9"]:
    """Real orthonormal harmonics of unit vectors, by order and then as y, z, x; xy, yz, 3zz - 1, xz, xx - yy."""
    x, y, z = np.moveaxis(np.asarray(directions, np.float64), -1, 0)
    return np.stack(
        [
            np.full_like(x, 0.282095), 0.488603 * y, 0.488603 * z, 0.488603 * x, 1.092548 * x * y, 1.092548 * y * z,
            0.315392 * (3 * z * z - 1), 1.092548 * x * z, 0.546274 * (x * x - y * y),
        ],
        axis=-1,
    )  # fmt: skip


@functools.cache
def turn_about_y(azimuth_rad: float) -> Float[np.ndarray, "9 9"]:
    """The matrix that turns coefficients by an angle about y, from the front (+z) to the head's left (+x)."""
    directions = sky_directions()
    c, s = np.cos(azimuth_rad), np.sin(azimuth_rad)
    back = directions @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.linalg.lstsq(harmonics(directions), harmonics(back), rcond=None)[0]


@dataclass(frozen=True)
class Light:
    """Distant light that stays with the head."""

    coefficients: Float[np.ndarray, "9 3"]
    """Radiance in `harmonics`, linear RGB."""

    @staticmethod
    def even(level: float = 1.0) -> Light:
        """The same light from everywhere, under which a white wall is `level`."""
        coefficients = np.zeros((COUNT, 3))
        coefficients[0] = level / 0.282095
        return Light(coefficients)

    @staticmethod
    def of_directions(
        directions: Float[np.ndarray, "d 3"], radiance: Float[np.ndarray, "d 3"], solid_angle: float
    ) -> Light:
        """The light of distant sources.

        Args:
            directions: unit vectors towards them.
            radiance: of each, linear RGB.
            solid_angle: of each, steradian.
        """
        return Light(solid_angle * harmonics(directions).T @ radiance)

    @property
    def towards_world(self) -> Float[np.ndarray, " 3"]:
        """The direction that most light comes from; its length against `mean_radiance` says how much more."""
        return (self.coefficients @ LUMINANCE)[[3, 1, 2]]

    @property
    def azimuth_rad(self) -> float:
        """Of `towards_world`, from the front to the head's left."""
        x, _, z = self.towards_world
        return float(np.arctan2(x, z))

    def turned(self, azimuth_rad: float) -> Light:
        """The light turned about the head."""
        return Light(turn_about_y(azimuth_rad) @ self.coefficients)

    def mirrored(self) -> Light:
        """The light of the mirrored portrait."""
        return Light(self.coefficients * MIRRORED[:, None])

    def rotated(self, R: Float[np.ndarray, "3 3"]) -> Light:
        """The light carried into another frame by a rotation."""
        directions = sky_directions()
        matrix = np.linalg.lstsq(harmonics(directions), harmonics(directions @ R), rcond=None)[0]
        return Light(matrix @ self.coefficients)


def open_transfer(normals: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 9"]:
    """Light on surfaces with nothing in the way, as a factor on their colour: `open_transfer(n) @ coefficients`."""
    return COSINE_LOBE * harmonics(normals)


def shadowed_transfer(
    vertices_world: Float[np.ndarray, "v 3"], normals_world: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "v 9"]:
    """Light on the vertices of a mesh that keeps light from itself, as `open_transfer`.

    Args:
        vertices_world: world units.
        normals_world: unit normals.
        faces: triangles, all opaque.
    """
    transfer, opaque = open_transfer(normals_world), np.ones(len(faces), np.float32)
    for direction in sky_directions():
        seen = visibility(vertices_world, normals_world, faces, opaque, direction, resolution=_SHADOW_PX)
        lost = np.maximum(0, normals_world @ direction) * (1 - seen) * (1 - _LEAST_SEEN)
        transfer -= (4 / DIRECTION_COUNT) * lost[:, None] * harmonics(direction)
    return transfer

"""Light on a head that moves: the light stays where it is, and surfaces turn in it.

Each vertex of the surface keeps how light reaches it at rest (`transfer_of_head`: its normal, and what the head keeps
from it). A triangle that is turned by R sees the light turned back by R, so that nine numbers for each triangle are all
that a pose changes. Colours are multiplied by what their surface gets of the new light, and divided by what they got of
the one that they were painted in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import no_type_check

import cv2
import numba
import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64, UInt8

from dp360.generation.light.exposure import GAMMA, LEAST, MOST, TINT_SHARE, TINTLESS, TINTS, Exposure
from dp360.generation.light.spherical_harmonics import LUMINANCE, Light, open_transfer
from dp360.generation.mesh_raster import sample_texture
from dp360.generation.numba_pool import numba_pool
from dp360.generation.prior.light.head_light import softened, transfer_of_head, vertex_material
from dp360.generation.prior.texture.atlas import MATERIAL_EYE, MATERIAL_MOUTH, MATERIAL_SKIN, MATERIAL_TEETH
from dp360.reconstruction.rasterize.workspace import empty
from dp360.reconstruction.spherical_harmonics import SH_C0
from dp360.reconstruction.splats import Splats

from .carrying import Motion
from .poses import Pose
from .rig import Rig
from .welded import Welded

OPEN = Pose.of({"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0, "jawOpen": 0.5})
"""The pose that shows lids, lips and the inside of the mouth: what may come to light is not taken for shadow."""
_SOFT = {MATERIAL_EYE: 0.3, MATERIAL_MOUTH: 0.5, MATERIAL_TEETH: 0.5}
"""Share of the light on these that comes from everywhere: skin round them passes it on."""
_FREE, _LEAST_OPEN = 0.282095, 0.03
"""First number of a transfer with nothing in the way, and the least that is divided by."""
_BLUR_PX, _DARK = 3.0, 4.0
"""Fine detail of textures is no light; what is added to 8-bit colours so that black ones have a ratio."""
_LEAST_SHADE, _MOST_SHADE = 0.3, 2.0
_SEEN = 0.5
"""Skin that the portrait shows by this share or more says how bright it was."""
_CHUNKS = 64
_C1, _C2 = 0.546274, 0.315392
"""Of `harmonics` of order 2: xx - yy (half of xy, yz and xz), and 3zz - 1; as a symmetric matrix M they are d M d."""


@dataclass(frozen=True)
class SurfaceLight:
    """How light reaches a surface at rest, and what its colours hold of the light that they were painted in."""

    transfer: Float32[np.ndarray, "v 9"]
    """As of `open_transfer`, of each vertex at rest."""
    own_shade: Float32[np.ndarray, "v 3"]
    """Factor that sRGB colours hold already, 1 on the whole on the skin that the portrait shows."""
    seen: Float32[np.ndarray, " v"]
    """How far each vertex is skin that the portrait shows, [0, 1]: it says how bright a light is."""
    own_light: Light | None
    """The light that the colours were painted in, where it is known."""

    @classmethod
    def of(cls, rig: Rig, painted_in: Light | None) -> SurfaceLight:
        """The light on a rig, at rest as its portrait shows it.

        Args:
            rig: the head.
            painted_in: the light of its texture, where it is known.
        """
        uv_px = rig.uv_unit * np.array(rig.texture_rgb.shape[1::-1])
        lit, albedo, seen = (
            sample_texture(cv2.GaussianBlur(picture.astype(np.float32), (0, 0), _BLUR_PX), uv_px.astype(np.float32))
            for picture in (rig.texture_rgb, rig.albedo_rgb, np.repeat(rig.seen[..., None], 3, 2))
        )
        shade = (lit + _DARK) / (albedo + _DARK)
        material = vertex_material(len(rig.vertices_world), rig.faces, rig.material)
        weight = np.where(material == MATERIAL_SKIN, seen[:, 0] / 255, 0)
        if (weight > _SEEN).any():  # one gain: whatever the light, that skin is as bright as in the portrait
            shade /= np.median(shade[weight > _SEEN].mean(1))
        shade = np.clip(shade, _LEAST_SHADE, _MOST_SHADE)
        return cls(_transfer(rig, material), shade.astype(np.float32), weight.astype(np.float32), painted_in)

    def encoded(self) -> dict[str, np.ndarray]:
        """Arrays for a file."""
        own = np.zeros((0, 3)) if self.own_light is None else self.own_light.coefficients
        return {
            "light_transfer": self.transfer.astype(np.float16),
            "light_own_shade": self.own_shade.astype(np.float16),
            "light_seen": np.rint(self.seen * 255).astype(np.uint8),
            "own_light": own,
        }

    @classmethod
    def decoded(cls, arrays: Mapping[str, np.ndarray]) -> SurfaceLight:
        """What `encoded` gave.

        Raises:
            KeyError, ValueError: an array is missing, or of another shape.
        """
        transfer, shade = (arrays[name].astype(np.float32) for name in ("light_transfer", "light_own_shade"))
        seen, own = arrays["light_seen"].astype(np.float32) / 255, arrays["own_light"]
        if transfer.shape != (len(seen), 9) or shade.shape != (len(seen), 3) or own.shape not in ((0, 3), (9, 3)):
            raise ValueError("its light does not fit its surface")
        if not (np.isfinite(transfer).all() and np.isfinite(shade).all() and np.isfinite(own).all()):
            raise ValueError("its light is not finite")
        return cls(transfer, np.clip(shade, _LEAST_SHADE, _MOST_SHADE), seen, Light(own) if len(own) else None)


def _transfer(rig: Rig, material: UInt8[np.ndarray, " v"]) -> Float32[np.ndarray, "v 9"]:
    """How light reaches each vertex, with the normals of rest and the openness of `OPEN`."""
    welded = Welded.of(rig.vertices_world, rig.faces, rig.head_vertex)
    opened, rest = rig.posed(OPEN), rig.portrait_vertices_world.astype(np.float64)
    normals, of_welded = welded.normals(opened), material[welded.first]
    transfer = transfer_of_head(opened[welded.first], normals[welded.first], welded.faces, of_welded)
    eyes = of_welded == MATERIAL_EYE  # the lids are down on them
    transfer[eyes] = open_transfer(normals[welded.first][eyes])
    for which, share in _SOFT.items():
        inner = transfer[of_welded == which]
        inner *= _FREE / np.maximum(inner[:, :1], _LEAST_OPEN)  # the paint has the dark of the mouth already
        transfer[of_welded == which] = softened(inner, share)
    # back to rest: mean of what the triangles round each vertex make of it
    turn = Motion.of(np.arange(len(rig.faces)), rig.faces, opened, rest).turn
    a, b, c = (rest[rig.faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) + 1e-12
    total, mass = np.zeros_like(transfer), np.zeros(len(transfer))
    for corner in range(3):
        rows = welded.faces[:, corner]
        turned = turned_transfer(transfer[rows], turn)
        mass += np.bincount(rows, area, len(mass))
        for k in range(turned.shape[1]):
            total[:, k] += np.bincount(rows, area * turned[:, k], len(mass))
    total[mass > 0] /= mass[mass > 0, None]
    return total[welded.index].astype(np.float32)


def turned_transfer(transfer: Float[np.ndarray, "n 9"], turn: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, "n 9"]:
    """Transfers of surfaces after rotations, to posed from rest: coefficients turn as the light's do."""
    vector = np.einsum("nij,nj->ni", turn, transfer[:, [3, 1, 2]])
    M = turn @ _matrix(transfer) @ turn.transpose(0, 2, 1)
    second = [M[:, 0, 1] / _C1, M[:, 1, 2] / _C1, M[:, 2, 2] / (2 * _C2), M[:, 0, 2] / _C1]
    second.append((M[:, 0, 0] - M[:, 1, 1]) / (2 * _C1))
    return np.stack([transfer[:, 0], vector[:, 1], vector[:, 2], vector[:, 0], *second], axis=1)


def _matrix(coefficients: Float[np.ndarray, "n 9"]) -> Float[np.ndarray, "n 3 3"]:
    """Order 2 as symmetric matrices M of which d M d is the value in direction d."""
    a4, a5, a6, a7, a8 = coefficients[:, 4:].T
    xx, yy, zz = -_C2 * a6 + _C1 * a8, -_C2 * a6 - _C1 * a8, 2 * _C2 * a6
    rows = [[xx, _C1 * a4, _C1 * a7], [_C1 * a4, yy, _C1 * a5], [_C1 * a7, _C1 * a5, zz]]
    return np.moveaxis(np.array(rows), 2, 0)


@dataclass(frozen=True)
class Lighting:
    """A light on bound Gaussians."""

    light: Light
    """The light, which stays in the world."""
    exposure: Exposure
    """How bright it counts; it stays the same whatever the pose."""
    transfer: Float32[np.ndarray, "n 9"]
    """Of each Gaussian at rest."""
    before: Float32[np.ndarray, "n 3"]
    """Factor on sRGB colours that the Gaussians hold at rest."""

    def on(
        self,
        splats: Splats,
        triangle: Int64[np.ndarray, " n"],
        bearing: Int64[np.ndarray, " t"],
        turn: Float[np.ndarray, "f 3 3"],
    ) -> Splats:
        """Gaussians in the light.

        Args:
            splats: carried along with their triangles, in the colours that they have at rest.
            triangle: what each hangs on.
            bearing: these triangles, each once.
            turn: rotation of each triangle, to posed from rest.
        """
        sh0, sh_rest = splats.sh0.numpy().copy(), splats.sh_rest.numpy().copy()
        turned = empty((len(turn), 9, 3), np.float64)
        with numba_pool(64 * len(splats)):
            _light(
                np.ascontiguousarray(triangle), bearing, turn, self.light.coefficients, self.transfer, self.before,
                self.exposure.middle, self.exposure.top, self.exposure.white, turned, sh0, sh_rest,
            )  # fmt: skip
        return replace(splats, sh0=torch.from_numpy(sh0), sh_rest=torch.from_numpy(sh_rest))


def lighting_of(
    surface: SurfaceLight,
    corners: Int[np.ndarray, "n 3"],
    barycentric: Float32[np.ndarray, "n 3"],
    wanted: Light | None,
) -> Lighting | None:
    """A light on bound Gaussians.

    Args:
        surface: what they hang on.
        corners: vertices of the triangle that each hangs on.
        barycentric: weights of these.
        wanted: the light; None is the one that they were painted in, so that nothing changes at rest.

    Returns:
        None where that one is wanted and not known, or no skin is seen that would say how bright a light is.
    """
    light = surface.own_light if wanted is None else wanted
    if light is None or not surface.seen.any():
        return None
    on_seen = surface.transfer[surface.seen > 0] @ light.coefficients
    white = None if wanted is None else np.ones(3)
    exposure = Exposure.of(on_seen, surface.seen[surface.seen > 0], white)

    def bound(values: Float32[np.ndarray, "v c"]) -> Float32[np.ndarray, "n c"]:
        return np.einsum("nk,nkc->nc", barycentric, values[corners], dtype=np.float32)

    transfer = bound(surface.transfer)
    before = exposure.shade(transfer @ light.coefficients) if wanted is None else bound(surface.own_shade)
    return Lighting(light, exposure, transfer, before)


_RED, _GREEN, _BLUE = (float(share) for share in LUMINANCE)
_LEAST_TINT, _MOST_TINT = TINTS


@numba.njit(cache=True, nogil=True, parallel=True, error_model="numpy")
@no_type_check
def _light(triangle, bearing, turn, light, transfer, before, middle, top, white, turned, sh0, sh_rest):
    """Scale colours in place; `turned` is scratch for the light that each triangle sees."""
    n, count = triangle.shape[0], bearing.shape[0]
    for chunk in numba.prange(_CHUNKS):
        M, V = np.empty((3, 3)), np.empty((3, 3))
        for t in range(chunk * count // _CHUNKS, (chunk + 1) * count // _CHUNKS):
            f = bearing[t]
            R = turn[f]
            for c in range(3):  # turned back by R: vector R' v, matrix R' M R
                turned[f, 0, c] = light[0, c]
                x, y, z = light[3, c], light[1, c], light[2, c]
                turned[f, 3, c] = R[0, 0] * x + R[1, 0] * y + R[2, 0] * z
                turned[f, 1, c] = R[0, 1] * x + R[1, 1] * y + R[2, 1] * z
                turned[f, 2, c] = R[0, 2] * x + R[1, 2] * y + R[2, 2] * z
                M[0, 0] = -_C2 * light[6, c] + _C1 * light[8, c]
                M[1, 1] = -_C2 * light[6, c] - _C1 * light[8, c]
                M[2, 2] = 2 * _C2 * light[6, c]
                M[0, 1] = M[1, 0] = _C1 * light[4, c]
                M[1, 2] = M[2, 1] = _C1 * light[5, c]
                M[0, 2] = M[2, 0] = _C1 * light[7, c]
                for r in range(3):
                    for k in range(3):
                        V[r, k] = M[r, 0] * R[0, k] + M[r, 1] * R[1, k] + M[r, 2] * R[2, k]
                xx = R[0, 0] * V[0, 0] + R[1, 0] * V[1, 0] + R[2, 0] * V[2, 0]
                yy = R[0, 1] * V[0, 1] + R[1, 1] * V[1, 1] + R[2, 1] * V[2, 1]
                zz = R[0, 2] * V[0, 2] + R[1, 2] * V[1, 2] + R[2, 2] * V[2, 2]
                turned[f, 4, c] = (R[0, 0] * V[0, 1] + R[1, 0] * V[1, 1] + R[2, 0] * V[2, 1]) / _C1
                turned[f, 5, c] = (R[0, 1] * V[0, 2] + R[1, 1] * V[1, 2] + R[2, 1] * V[2, 2]) / _C1
                turned[f, 7, c] = (R[0, 0] * V[0, 2] + R[1, 0] * V[1, 2] + R[2, 0] * V[2, 2]) / _C1
                turned[f, 6, c] = zz / (2 * _C2)
                turned[f, 8, c] = (xx - yy) / (2 * _C1)
    low, most = 2 * LEAST * top, MOST * top
    for chunk in numba.prange(_CHUNKS):
        got = np.empty(3)
        for i in range(chunk * n // _CHUNKS, (chunk + 1) * n // _CHUNKS):
            f = triangle[i]
            for c in range(3):
                got[c] = 0.0
                for k in range(9):
                    got[c] += transfer[i, k] * turned[f, k, c]
            grey = _RED * got[0] + _GREEN * got[1] + _BLUE * got[2]
            held = grey if grey > low else low / 2 + max(grey, 0.0) ** 2 / (2 * low)
            if held > top:
                held = top + (most - top) * (1 - np.exp((top - held) / (most - top)))
            level = (held / middle) ** (1 / GAMMA)
            for c in range(3):
                factor = level / before[i, c]
                if grey > TINTLESS * top:
                    tint = min(max(got[c] / max(grey, 1e-3) / white[c], _LEAST_TINT), _MOST_TINT)
                    factor *= tint ** (TINT_SHARE / GAMMA)
                sh0[i, c] = factor * sh0[i, c] + (factor - 1) * 0.5 / SH_C0
                for k in range(sh_rest.shape[1]):
                    sh_rest[i, k, c] *= factor

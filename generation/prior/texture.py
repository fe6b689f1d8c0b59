"""Paint the prior: what the portrait shows, its mirror image where that is hidden, and a completion where both are.

Every texel looks itself up in the portrait, and its reflection about the head's middle plane as well. The mirrored
colour is corrected by the smooth difference between the two where both are seen, so that light from one side leaves
no seam. What neither shows is filled by class: skin from skin, hair from hair with strands of the measured contrast,
cloth row by row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import no_type_check

import cv2
import numba
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Float, Float32, Int, UInt8
from scipy import ndimage

from ..cameras import Cameras
from ..head_model import HeadModel
from ..head_model.model import PART_CRANIUM_NECK, PART_FACE
from ..mesh_raster import interpolate, rasterize_mesh
from ..portrait import Portrait
from .atlas import (
    ATLAS_HEIGHT,
    ATLAS_WIDTH,
    MATERIAL_CLOTH,
    MATERIAL_EYE,
    MATERIAL_HAIR,
    MATERIAL_MOUTH,
    MATERIAL_SKIN,
    MATERIAL_TEETH,
    SHELL_TILE,
    TORSO_TILE,
    AtlasMesh,
    AtlasTexels,
    atlas_texels,
    fill_uncovered,
)
from .labels import HAIR, SKIN, PortraitLabels, scalp_prior

_MIRROR = np.array([-1.0, 1.0, 1.0], np.float32)
_DEPTH_SUPERSAMPLE = 2


@dataclass(frozen=True)
class TextureConfig:
    """How the portrait is trusted and completed."""

    grazing_cosine: float = 0.12
    """Cosine between normal and view below which a texel does not count as seen."""
    frontal_cosine: float = 0.5
    """Cosine above which it is fully trusted."""
    depth_tolerance: float = 0.006
    """Slack of the visibility test, world units (about 4 mm)."""
    mirror_depth_tolerance: float = 0.015
    """The same for reflected points, because heads are not quite symmetric."""
    strand_strength: float = 0.65
    """Contrast of synthesised strands relative to the seen hair."""


@dataclass(frozen=True)
class PriorTexture:
    """The painted atlas."""

    rgb: UInt8[np.ndarray, "h w 3"]
    """Colour, sRGB."""
    confidence: Float32[np.ndarray, "h w"]
    """1 where the portrait shows the texel, about 0.5 where its mirror image does, 0 where it is made up."""


@dataclass(frozen=True)
class _PortraitView:
    """The portrait prepared for look-ups from the surface."""

    camera: Cameras
    image: Float32[np.ndarray, "s s c"]
    """Channels: foreground colour (3), class probabilities (3), trust in the pixel (1)."""
    depth: Float32[np.ndarray, "d d"]
    """Camera depth of the nearest surface, supersampled."""

    def look_up(
        self,
        points: Float[np.ndarray, "n 3"],
        normals: Float[np.ndarray, "n 3"],
        tolerance: float,
        config: TextureConfig,
    ) -> tuple[Float32[np.ndarray, "n 3"], Float32[np.ndarray, " n"], Float32[np.ndarray, "n 3"]]:
        """Colour, confidence and class probabilities that the portrait gives to surface points."""
        T_camera_world = self.camera.T_camera_world[0].numpy()
        values, confidence = _look_up(
            np.ascontiguousarray(points, dtype=np.float32),
            np.ascontiguousarray(normals, dtype=np.float32),
            T_camera_world,
            self.camera.focal_px[0].numpy(),
            self.camera.principal_px[0].numpy(),
            self.camera.position_world[0].numpy(),
            self.image,
            self.depth,
            tolerance,
            config.grazing_cosine,
            config.frontal_cosine,
        )
        return values[:, :3], confidence, values[:, 3:6]


@numba.njit(cache=True, parallel=True)
@no_type_check
def _look_up(points, normals, T, focal, principal, eye, image, depth, tolerance, grazing, frontal):
    """Project, test visibility against the depth map and sample bilinearly, point by point."""
    n = points.shape[0]
    size, channels = image.shape[0], image.shape[2]
    samples = depth.shape[0] // size
    values = np.zeros((n, channels), np.float32)
    confidence = np.zeros(n, np.float32)
    for i in numba.prange(n):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        cx = T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3]
        cy = T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3]
        cz = T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3]
        u = focal[0] * cx / cz + principal[0]
        v = focal[1] * cy / cz + principal[1]
        left = min(max(u - 0.5, 0.0), size - 1.001)
        top = min(max(v - 0.5, 0.0), size - 1.001)
        column, row = int(left), int(top)
        fu, fv = left - column, top - row
        for c in range(channels):
            upper = image[row, column, c] * (1 - fu) + image[row, column + 1, c] * fu
            lower = image[row + 1, column, c] * (1 - fu) + image[row + 1, column + 1, c] * fu
            values[i, c] = upper * (1 - fv) + lower * fv
        if u <= 1 or v <= 1 or u >= size - 1 or v >= size - 1:
            continue
        if cz >= depth[int(v * samples), int(u * samples)] + tolerance:
            continue
        dx, dy, dz = eye[0] - x, eye[1] - y, eye[2] - z
        cosine = normals[i, 0] * dx + normals[i, 1] * dy + normals[i, 2] * dz
        cosine /= math.sqrt(dx * dx + dy * dy + dz * dz)
        facing = min(max((cosine - grazing) / (frontal - grazing), 0.0), 1.0)
        confidence[i] = facing * values[i, channels - 1]
    return values, confidence


def _portrait_view(portrait: Portrait, labels: PortraitLabels, mesh: AtlasMesh) -> _PortraitView:
    size = portrait.rgb.shape[0]
    camera = portrait.head.camera
    depth = rasterize_mesh(mesh.vertices_world, mesh.faces, camera, supersample=_DEPTH_SUPERSAMPLE).depth
    solid = cv2.erode(portrait.alpha_unit.astype(np.float32), np.ones((size // 128 + 1,) * 2, np.uint8))
    inside = cv2.erode(portrait.inside.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1).astype(np.float32)
    trust = np.clip((solid - 0.6) / 0.3, 0.0, 1.0) * inside
    classes = np.stack([labels.skin, labels.hair, labels.cloth], axis=-1).astype(np.float32)
    image = np.concatenate([portrait.foreground_unit, classes, trust[..., None]], axis=-1).astype(np.float32)
    return _PortraitView(camera, image, depth)


def _push_pull(
    colour: Float32[np.ndarray, "h w c"], weight: Float32[np.ndarray, "h w"], *, wrap: bool
) -> Float32[np.ndarray, "h w c"]:
    """Fill by averages over ever larger neighbourhoods (Gortler et al. 1996, "The Lumigraph", Sec. 3.4)."""
    pad = colour.shape[1] // 2 if wrap else 0
    if wrap:
        colour, weight = (np.concatenate([a[:, -pad:], a, a[:, :pad]], axis=1) for a in (colour, weight))
    total, mass = (colour * weight[..., None]).astype(np.float32), weight.astype(np.float32)
    levels = []
    while min(mass.shape) > 2:
        levels.append((total, mass))
        smaller = (max(1, mass.shape[1] // 2), max(1, mass.shape[0] // 2))
        total = cv2.resize(total, smaller, interpolation=cv2.INTER_AREA).reshape(smaller[1], smaller[0], -1)
        mass = cv2.resize(mass, smaller, interpolation=cv2.INTER_AREA)
    filled = np.broadcast_to(total.sum((0, 1)) / max(float(mass.sum()), 1e-9), total.shape).astype(np.float32)
    for total, mass in reversed(levels):
        coarse = cv2.resize(np.ascontiguousarray(filled), mass.shape[::-1], interpolation=cv2.INTER_LINEAR)
        known = np.clip(4 * mass, 0.0, 1.0)[..., None]
        filled = total / np.maximum(mass, 1e-6)[..., None] * known + coarse.reshape(total.shape) * (1 - known)
    return filled[:, pad : filled.shape[1] - pad] if wrap else filled


def _diffuse_over_mesh(
    values: Float[np.ndarray, "v c"],
    weight: Float[np.ndarray, " v"],
    faces: Int[np.ndarray, "f 3"],
    default: Float[np.ndarray, " c"],
    stiffness: float = 0.05,
    pull: float = 1e-4,
) -> Float[np.ndarray, "v c"]:
    """Harmonic fill on a mesh: known values held by their weight, the rest smooth, far away slowly the default."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    n = len(values)
    adjacency = scipy.sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    adjacency = ((adjacency + adjacency.T) > 0).astype(np.float64)
    laplacian = scipy.sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency
    system = (stiffness * laplacian + scipy.sparse.diags(weight + pull)).tocsc()
    solve = scipy.sparse.linalg.factorized(system)
    right = weight[:, None] * values + pull * default
    return np.stack([solve(np.ascontiguousarray(right[:, c])) for c in range(values.shape[1])], axis=1)


def paint_prior(
    portrait: Portrait,
    labels: PortraitLabels,
    model: HeadModel,
    mesh: AtlasMesh,
    config: TextureConfig | None = None,
    *,
    seed: int = 0,
) -> PriorTexture:
    """Paint the atlas of a fitted prior from its portrait.

    Args:
        portrait: aligned portrait.
        labels: its classes.
        model: the head model.
        mesh: head, shell and torso with their texture layout.
        config: trust and completion.
        seed: seed of the synthesised strands.
    """
    config = config or TextureConfig()
    view = _portrait_view(portrait, labels, mesh)
    texels = atlas_texels(mesh)
    texture = np.zeros((ATLAS_HEIGHT, ATLAS_WIDTH, 3), np.float32)
    confidence = np.zeros((ATLAS_HEIGHT, ATLAS_WIDTH), np.float32)

    own = view.look_up(texels.points_world, texels.normals_world, config.depth_tolerance, config)
    mirrored = view.look_up(
        texels.points_world * _MIRROR, texels.normals_world * _MIRROR, config.mirror_depth_tolerance, config
    )
    skin_mean = _class_mean(portrait, labels.skin)
    hair_mean = _class_mean(portrait, labels.hair) if labels.hair.sum() > 50 else skin_mean
    parts = [
        _paint_head(labels, model, mesh, view, texels, own, mirrored, skin_mean, hair_mean, config),
        _paint_small_parts(texels, own, skin_mean),
    ]
    for selected, colour, trust in parts:
        texture[texels.rows[selected], texels.columns[selected]] = colour
        confidence[texels.rows[selected], texels.columns[selected]] = trust

    for material, tile, paint in (
        (MATERIAL_HAIR, SHELL_TILE, _paint_shell),
        (MATERIAL_CLOTH, TORSO_TILE, _paint_torso),
    ):
        selected = texels.material == material
        if not selected.any():
            continue
        x, y, width, height = tile
        place = (texels.rows[selected] - y, texels.columns[selected] - x)
        seen = _tile_images(place, own, selected, (height, width))
        reflected = _tile_images(place, mirrored, selected, (height, width))
        fallback = hair_mean if material == MATERIAL_HAIR else _cloth_colour(portrait, labels)
        colour, trust = paint(seen, reflected, fallback, config, seed)
        texture[y : y + height, x : x + width] = colour
        confidence[y : y + height, x : x + width] = trust

    covered = np.zeros(confidence.shape, bool)
    covered[texels.rows, texels.columns] = True
    for x, y, width, height in (SHELL_TILE, TORSO_TILE):
        covered[y : y + height, x : x + width] = True
    texture = fill_uncovered(texture, covered)
    return PriorTexture((np.clip(texture, 0, 1) * 255 + 0.5).astype(np.uint8), confidence)


def _class_mean(portrait: Portrait, mask) -> Float[np.ndarray, " 3"]:
    """Median colour of a class's solid pixels."""
    solid = mask & (portrait.alpha_unit > 0.9)
    if solid.sum() < 20:
        return np.median(portrait.foreground_unit[portrait.alpha_unit > 0.5].reshape(-1, 3), axis=0)
    return np.median(portrait.foreground_unit[solid], axis=0)


def _cloth_colour(portrait: Portrait, labels: PortraitLabels) -> Float[np.ndarray, " 3"]:
    """Typical colour of the clothes; where none are seen, that of the lowest pixels that are not skin."""
    if labels.cloth.sum() > 100:
        return _class_mean(portrait, labels.cloth)
    rows = np.nonzero((portrait.alpha_unit > 0.9).any(1))[0]
    lowest = np.arange(portrait.rgb.shape[0])[:, None] > rows[-1] - portrait.rgb.shape[0] // 12
    return _class_mean(portrait, lowest & ~labels.skin)


def _chroma(colour: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Colour relative to brightness, with brightness itself at a fifth of its weight."""
    brightness = colour.mean(1, keepdims=True)
    return np.concatenate([colour[:, :2] / np.maximum(brightness, 0.05) - 1, 0.2 * brightness], axis=1)


def _paint_head(labels, model, mesh, view, texels, own, mirrored, skin_mean, hair_mean, config):
    """Skin of face, ears, scalp and neck."""
    used = np.isin(model.part, (PART_FACE, PART_CRANIUM_NECK))
    split = np.nonzero((mesh.head_vertex >= 0) & used[np.maximum(mesh.head_vertex, 0)])[0]
    vertices, first = np.unique(mesh.head_vertex[split], return_index=True)
    points, normals = mesh.vertices_world[split[first]], mesh.normals_world[split[first]]
    index = np.full(len(model.neutral), -1)
    index[vertices] = np.arange(len(vertices))
    faces = index[model.faces]
    faces = faces[(faces >= 0).all(1)]

    v_own = view.look_up(points, normals, config.depth_tolerance, config)
    v_mirror = view.look_up(points * _MIRROR, normals * _MIRROR, config.mirror_depth_tolerance, config)

    def typical(colour: Float[np.ndarray, "n 3"], class_index: int) -> Float[np.ndarray, " n"]:
        """1 for colours that skin has, less for collars and ornaments that were taken for skin."""
        if class_index != SKIN:
            return np.ones(len(colour), np.float32)
        return np.exp(-((np.linalg.norm(_chroma(colour) - skin_chroma, axis=1) / skin_spread) ** 4))

    skin_pixels = _chroma(v_own[0][(v_own[1] > 0.7) & (v_own[2][:, SKIN] > 0.5)])
    skin_chroma = np.median(skin_pixels, axis=0) if len(skin_pixels) else _chroma(skin_mean[None])[0]
    deviation = np.linalg.norm(skin_pixels - skin_chroma, axis=1) if len(skin_pixels) else np.zeros(1)
    skin_spread = max(0.07, 1.8 * float(np.median(deviation)))

    # The correction compares like with like: a collar on one side says nothing about the light on the other.
    alike = (v_own[2] * v_mirror[2]).sum(1) * typical(v_own[0], SKIN) * typical(v_mirror[0], SKIN)
    both = (v_own[1] * v_mirror[1] * alike).astype(np.float64)
    correction = _diffuse_over_mesh(v_own[0] - v_mirror[0], both, faces, np.zeros(3), stiffness=0.3, pull=0.006)

    def class_fill(class_index: int, default: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "v 3"]:
        w_own = v_own[1] * v_own[2][:, class_index] * typical(v_own[0], class_index)
        w_mirror = v_mirror[1] * v_mirror[2][:, class_index] * typical(v_mirror[0], class_index) * (1 - w_own)
        weight = (w_own + w_mirror).astype(np.float64)
        colour = v_own[0] * w_own[:, None] + (v_mirror[0] + correction) * w_mirror[:, None]
        return _diffuse_over_mesh(colour / np.maximum(weight, 1e-6)[:, None], weight, faces, default)

    scalp = scalp_prior(model)[vertices][:, None] * (0.0 if labels.bald else 1.0)
    fill = class_fill(SKIN, skin_mean) * (1 - scalp) + class_fill(HAIR, hair_mean) * scalp
    fields = np.zeros((len(model.neutral), 7))
    fields[vertices] = np.concatenate([fill, correction, scalp], axis=1)

    selected = np.nonzero(texels.material == MATERIAL_SKIN)[0]
    at_vertex = np.where((mesh.head_vertex >= 0)[:, None], fields[np.maximum(mesh.head_vertex, 0)], 0.0)
    at_texel = interpolate(texels.fragments, at_vertex, mesh.faces)[texels.rows[selected], texels.columns[selected]]
    base, shift, on_scalp = at_texel[:, :3], at_texel[:, 3:6], at_texel[:, 6]
    colour, trust, _ = (a[selected] for a in own)
    m_colour, m_trust, m_classes = (a[selected] for a in mirrored)
    trust = trust * _soft_border(trust, texels, selected)
    # A mirrored texel is welcome where its class fits: no strand of hair on the cheek, no collar on the neck.
    fits = m_classes[:, SKIN] * typical(m_colour, SKIN) * (1 - on_scalp) + m_classes[:, HAIR] * on_scalp
    m_trust = m_trust * np.clip(fits, 0, 1)
    m_trust = m_trust * _soft_border(m_trust, texels, selected)
    hidden = base + (m_colour + shift - base) * m_trust[:, None]
    result = hidden + (colour - hidden) * trust[:, None]
    return selected, result, np.maximum(trust, 0.5 * m_trust)


def _soft_border(trust: Float32[np.ndarray, " n"], texels: AtlasTexels, selected) -> Float32[np.ndarray, " n"]:
    """A factor that lets trust end gently where visibility or the matte would cut it off."""
    image = np.zeros((ATLAS_HEIGHT, ATLAS_WIDTH), np.float32)
    covered = np.zeros_like(image)
    place = texels.rows[selected], texels.columns[selected]
    image[place], covered[place] = trust, 1.0
    around = cv2.GaussianBlur(image, (0, 0), 9) / np.maximum(cv2.GaussianBlur(covered, (0, 0), 9), 1e-3)
    return np.clip(1.6 * around[place] - 0.3, 0.0, 1.0)


def _paint_small_parts(texels, own, skin_mean):
    """Eyes, teeth and the inside of the mouth: seen where they are seen, plain elsewhere."""
    plain = {
        MATERIAL_MOUTH: skin_mean * np.array([0.45, 0.3, 0.3]),
        MATERIAL_TEETH: np.array([0.80, 0.76, 0.70]),
        MATERIAL_EYE: np.array([0.82, 0.80, 0.79]),
    }
    selected = np.nonzero(np.isin(texels.material, list(plain)))[0]
    base = np.zeros((len(selected), 3))
    for material, colour in plain.items():
        base[texels.material[selected] == material] = colour
    trust = own[1][selected]
    return selected, base + (own[0][selected] - base) * trust[:, None], trust


@dataclass(frozen=True)
class _Seen:
    """Look-ups of one tile as images."""

    colour: Float32[np.ndarray, "h w 3"]
    trust: Float32[np.ndarray, "h w"]
    classes: Float32[np.ndarray, "h w 3"]


def _tile_images(place, looked_up, selected, shape: tuple[int, int]) -> _Seen:
    images = []
    for values in looked_up:
        image = np.zeros((*shape, *values.shape[1:]), np.float32)
        image[place] = values[selected]
        image[:, -1] = image[:, 0]  # the seam column belongs to the next turn
        images.append(image)
    return _Seen(*images)


def _blur(image: Float32[np.ndarray, "h w c"], sigma_rows: float, sigma_columns: float) -> Float32[np.ndarray, "h w c"]:
    """Gaussian blur that wraps over columns."""
    return ndimage.gaussian_filter(image, (sigma_rows, sigma_columns, 0), mode=("nearest", "wrap", "nearest"))


def _paint_shell(seen: _Seen, reflected: _Seen, fallback: Float[np.ndarray, " 3"], config: TextureConfig, seed: int):
    """Hair: own pixels, mirrored ones, then smooth colour with strands."""
    hair_own = seen.trust**1.5 * seen.classes[..., HAIR]
    hair_mirror = reflected.trust**1.5 * reflected.classes[..., HAIR]
    difference = _push_pull(seen.colour - reflected.colour, hair_own * hair_mirror + 1e-6, wrap=True)
    m_colour = np.clip(reflected.colour + 0.7 * difference, 0, 1)

    known = hair_own + hair_mirror * (1 - hair_own)
    colour = (seen.colour * hair_own[..., None] + m_colour * (hair_mirror * (1 - hair_own))[..., None]) / np.maximum(
        known, 1e-6
    )[..., None]
    sure = np.where(known > 0.35, known, 0.0)
    if sure.sum() < 50:
        sure, colour = np.full_like(known, 1e-3), np.broadcast_to(fallback, colour.shape).astype(np.float32)
    # Far from anything seen the colour is the typical one, not that of the nearest highlight.
    mass = _blur(sure[..., None], 6.0, 6.0)
    smooth = _push_pull(_blur(colour * sure[..., None], 6.0, 6.0) / np.maximum(mass, 1e-4), mass[..., 0], wrap=True)
    distance = ndimage.distance_transform_edt(np.concatenate([sure <= 0] * 3, axis=1))
    distance = distance[:, sure.shape[1] : 2 * sure.shape[1]]
    typical = np.clip((distance - 60.0) / 240.0, 0.0, 0.7)[..., None]
    smooth = smooth * (1 - typical) + fallback * typical
    strands = _strands(colour, sure, seed)
    fill = smooth * np.exp(config.strand_strength * strands)[..., None]

    # What is plainly seen is kept whatever its class: an ear or a temple that the shell happens to cover.
    keep = np.maximum(hair_own, seen.trust * np.clip(2 * seen.trust - 1, 0, 1))
    mirror_keep = np.clip(1.5 * hair_mirror - 0.25, 0, 1)
    result = fill + (m_colour - fill) * mirror_keep[..., None]
    result = result + (seen.colour - result) * keep[..., None]
    return np.clip(result, 0, 1), np.maximum(keep, 0.5 * mirror_keep)


def _strands(colour: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"], seed: int):
    """Log-brightness of synthetic strands along the rows, with the contrast and the slant of the seen hair."""
    height, width = weight.shape
    luminance = np.log(np.clip(colour @ np.array([0.299, 0.587, 0.114], np.float32), 0.02, 1.0))
    solid = ndimage.binary_erosion(weight > 0.4, iterations=8)
    if solid.sum() < 400:
        contrast, ratio = 0.12, 4.0
    else:
        mass = np.maximum(ndimage.gaussian_filter((weight > 0.35).astype(np.float32), 8), 1e-3)
        low = ndimage.gaussian_filter(np.where(weight > 0.35, luminance, 0), 8) / mass
        contrast = float(np.clip(np.std((luminance - low)[solid]), 0.03, 0.35))
        d_rows, d_columns = np.gradient(luminance)
        ratio = float(np.sqrt((d_columns[solid] ** 2).mean() / max(float((d_rows[solid] ** 2).mean()), 1e-8)))
    stretch = float(np.clip(4.0 * ratio, 3.5, 18.0))
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width))
    for sigma, share in ((0.8, 0.6), (1.8, 0.7), (4.5, 0.4)):
        noise = rng.standard_normal((height, width))
        noise = ndimage.gaussian_filter(noise, (sigma * stretch, sigma), mode=("nearest", "wrap"))
        total += share * noise / noise.std()
    return (contrast * total / total.std()).astype(np.float32)


def _paint_torso(seen: _Seen, reflected: _Seen, fallback: Float[np.ndarray, " 3"], config: TextureConfig, seed: int):
    """Clothes: own pixels in front, the sides' colours carried round the back row by row."""
    del reflected, config, seed
    height, width = seen.trust.shape
    trust = seen.trust * (1 - seen.classes[..., HAIR])
    sideways = np.sin(np.arange(width) * (2 * np.pi / width)) ** 2 + 0.02
    weight = trust * sideways
    total = ndimage.gaussian_filter1d((seen.colour * weight[..., None]).sum(1), 10, axis=0, mode="nearest")
    mass = ndimage.gaussian_filter1d(weight.sum(1), 10, mode="nearest")[:, None] + 1e-3 * max(1.0, weight.sum(1).max())
    row_colour = (total + fallback * 1e-3 * max(1.0, weight.sum(1).max())) / mass
    fill = np.broadcast_to(row_colour[:, None], seen.colour.shape).astype(np.float32)
    near = _push_pull(seen.colour, np.where(trust > 0.5, trust, 0) + 1e-6, wrap=True)
    closeness = np.clip(_blur(trust[..., None], 12.0, 16.0) * 2.0, 0, 1)
    fill = fill + (near - fill) * closeness
    return np.clip(fill + (seen.colour - fill) * trust[..., None], 0, 1), trust

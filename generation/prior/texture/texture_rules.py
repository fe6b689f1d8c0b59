"""The unseen side by rules, for installations without the completion network's weights.

Every texel looks itself up in the portrait, and its reflection about the head's middle plane as well. The mirrored
colour is corrected by the smooth difference between the two where both are seen, so that light from one side leaves
no seam. What neither shows is filled by class: skin from skin, hair from hair with strands of the measured contrast,
cloth row by row.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage

from ...head_model import HeadModel
from ...mesh_raster import interpolate
from ..labels.portrait_labels import HAIR, SKIN, PortraitLabels, scalp_prior
from .atlas import MATERIAL_SKIN, AtlasMesh, AtlasTexels
from .completion_chart import COSINES, DEPTH_TOLERANCE, MIRROR_DEPTH_TOLERANCE, LookedUp
from .completion_network import HAIR_MATERIAL, SKIN_MATERIAL
from .fills import diffuse_over_mesh, push_pull, wrapped_blur
from .portrait_lookup import MIRROR, PictureOfMesh
from .skin_mesh import SkinMesh
from .tiles import Painted, SeenTile, soft_border

STRAND_STRENGTH = 0.65
"""Contrast of synthesised strands relative to the seen hair."""


def paint_skin_by_rules(
    labels: PortraitLabels, model: HeadModel, mesh: AtlasMesh, picture: PictureOfMesh, texels: AtlasTexels,
    looked_up: LookedUp,
) -> Painted:  # fmt: skip
    """Skin of face, ears, scalp and neck.

    Args:
        labels: the portrait's classes.
        model: the head model.
        mesh: the fitted mesh.
        picture: the portrait over it.
        texels: of the atlas.
        looked_up: what the portrait says about them.
    """
    skin = SkinMesh.of(model, mesh)
    tone, typical = looked_up.tone, looked_up.typical.rgb_unit
    v_own = picture.look_up(skin.points_world, skin.normals_world, DEPTH_TOLERANCE, COSINES)
    v_mirror = picture.look_up(skin.points_world * MIRROR, skin.normals_world * MIRROR, MIRROR_DEPTH_TOLERANCE, COSINES)

    # The correction compares like with like: a collar on one side says nothing about the light on the other.
    alike = (v_own.classes * v_mirror.classes).sum(1) * tone.belief(v_own.colour) * tone.belief(v_mirror.colour)
    both = (v_own.trust * v_mirror.trust * alike).astype(np.float64)
    difference = (v_own.colour - v_mirror.colour).astype(np.float64)
    correction = diffuse_over_mesh(difference, both, skin.faces, np.zeros(3), stiffness=0.3, pull=0.006)

    def class_fill(class_index: int, default: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "v 3"]:
        own_fits, mirror_fits = v_own.classes[:, class_index], v_mirror.classes[:, class_index]
        if class_index == SKIN:
            own_fits, mirror_fits = own_fits * tone.belief(v_own.colour), mirror_fits * tone.belief(v_mirror.colour)
        w_own = v_own.trust * own_fits
        w_mirror = v_mirror.trust * mirror_fits * (1 - w_own)
        weight = (w_own + w_mirror).astype(np.float64)
        colour = v_own.colour * w_own[:, None] + (v_mirror.colour + correction) * w_mirror[:, None]
        return diffuse_over_mesh(colour / np.maximum(weight, 1e-6)[:, None], weight, skin.faces, default)

    scalp = scalp_prior(model)[skin.vertices][:, None] * (0.0 if labels.bald else 1.0)
    fill = class_fill(SKIN, typical[SKIN_MATERIAL]) * (1 - scalp) + class_fill(HAIR, typical[HAIR_MATERIAL]) * scalp
    chosen = np.nonzero(texels.material == MATERIAL_SKIN)[0]
    at_vertex = skin.for_mesh(np.concatenate([fill, correction, scalp], axis=1), model, mesh)
    at_texel = interpolate(texels.fragments, at_vertex, mesh.faces)[texels.rows[chosen], texels.columns[chosen]]
    base, shift, on_scalp = at_texel[:, :3], at_texel[:, 3:6], at_texel[:, 6]
    own, mirrored = looked_up.own[chosen], looked_up.mirrored[chosen]
    trust = own.trust * soft_border(own.trust, texels, chosen)
    # A mirrored texel is welcome where its class fits: no strand of hair on the cheek, no collar on the neck.
    fits = mirrored.classes[:, SKIN] * tone.belief(mirrored.colour) * (1 - on_scalp)
    fits = fits + mirrored.classes[:, HAIR] * on_scalp
    m_trust = mirrored.trust * np.clip(fits, 0, 1)
    m_trust = m_trust * soft_border(m_trust, texels, chosen)
    hidden = base + (mirrored.colour + shift - base) * m_trust[:, None]
    result = hidden + (own.colour - hidden) * trust[:, None]
    return Painted(chosen, result, np.maximum(trust, 0.5 * m_trust))


def paint_shell_by_rules(
    seen: SeenTile, reflected: SeenTile, fallback: Float[np.ndarray, " 3"], seed: int
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Hair: own pixels, mirrored ones, then smooth colour with strands; colour and confidence.

    Args:
        seen: what the portrait shows.
        reflected: what it shows of the mirror images.
        fallback: typical hair.
        seed: of the strands.
    """
    hair_own = seen.trust**1.5 * seen.classes[..., HAIR]
    hair_mirror = reflected.trust**1.5 * reflected.classes[..., HAIR]
    difference = push_pull(seen.colour - reflected.colour, hair_own * hair_mirror + 1e-6, wrap=True)
    m_colour = np.clip(reflected.colour + 0.7 * difference, 0, 1)

    known = hair_own + hair_mirror * (1 - hair_own)
    colour = (seen.colour * hair_own[..., None] + m_colour * (hair_mirror * (1 - hair_own))[..., None]) / np.maximum(
        known, 1e-6
    )[..., None]
    sure = np.where(known > 0.35, known, np.float32(0.0))
    if sure.sum() < 50:
        sure, colour = np.full_like(known, 1e-3), np.broadcast_to(fallback, colour.shape).astype(np.float32)
    # Far from anything seen the colour is the typical one, not that of the nearest highlight.
    mass = wrapped_blur(sure, 6.0, 6.0)
    near = wrapped_blur((colour * sure[..., None]).astype(np.float32), 6.0, 6.0)
    smooth = push_pull(near / np.maximum(mass, 1e-4)[..., None], mass, wrap=True)
    distance = np.asarray(ndimage.distance_transform_edt(np.concatenate([sure <= 0] * 3, axis=1)))
    distance = distance[:, sure.shape[1] : 2 * sure.shape[1]]
    far = np.clip((distance - 60.0) / 240.0, 0.0, 0.7)[..., None]
    smooth = smooth * (1 - far) + fallback * far
    fill = smooth * np.exp(STRAND_STRENGTH * strands(colour, sure, seed))[..., None]

    # What is plainly seen is kept whatever its class: an ear or a temple that the shell happens to cover.
    keep = np.maximum(hair_own, seen.trust * np.clip(2 * seen.trust - 1, 0, 1))
    mirror_keep = np.clip(1.5 * hair_mirror - 0.25, 0, 1)
    result = fill + (m_colour - fill) * mirror_keep[..., None]
    result = result + (seen.colour - result) * keep[..., None]
    return np.clip(result, 0, 1).astype(np.float32), np.maximum(keep, 0.5 * mirror_keep)


def strands(
    colour: Float32[np.ndarray, "h w 3"], weight: Float32[np.ndarray, "h w"], seed: int
) -> Float32[np.ndarray, "h w"]:
    """Log-brightness of synthetic strands along the rows, with the contrast and the slant of the seen hair.

    Args:
        colour: seen hair.
        weight: trust in it.
        seed: of the strands.
    """
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


def paint_torso_by_rules(
    seen: SeenTile, fallback: Float[np.ndarray, " 3"]
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
    """Clothes: own pixels in front, the sides' colours carried round the back row by row; colour and confidence.

    Args:
        seen: what the portrait shows.
        fallback: typical clothes.
    """
    width = seen.trust.shape[1]
    trust = seen.trust * (1 - seen.classes[..., HAIR])
    sideways = np.sin(np.arange(width) * (2 * np.pi / width)) ** 2 + 0.02
    weight = trust * sideways
    total = ndimage.gaussian_filter1d((seen.colour * weight[..., None]).sum(1), 10, axis=0, mode="nearest")
    floor = 1e-3 * max(1.0, float(weight.sum(1).max()))
    mass = ndimage.gaussian_filter1d(weight.sum(1), 10, mode="nearest")[:, None] + floor
    fill = np.broadcast_to(((total + fallback * floor) / mass)[:, None], seen.colour.shape).astype(np.float32)
    near = push_pull(seen.colour, (np.where(trust > 0.5, trust, 0) + 1e-6).astype(np.float32), wrap=True)
    fill = fill + (near - fill) * np.clip(wrapped_blur(trust, 12.0, 16.0) * 2.0, 0, 1)[..., None]
    result = np.clip(fill + (seen.colour - fill) * trust[..., None], 0, 1)
    return result.astype(np.float32), trust

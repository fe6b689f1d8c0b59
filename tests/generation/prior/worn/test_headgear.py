"""Headgear: a mean head in a hat whose rim, form and brim are known."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from jaxtyping import Bool, Float, Float32, Int
from scipy import ndimage

from dp360.generation.cameras import UNITS_PER_CM, UNITS_PER_MM, look_at_origin
from dp360.generation.head_model import HeadFit, HeadModel, load_head_model
from dp360.generation.head_model.anatomy import centimetres
from dp360.generation.mesh_raster import rasterize_mesh
from dp360.generation.portrait import Portrait
from dp360.generation.prior import capsule
from dp360.generation.prior.field.chart import of_capsule
from dp360.generation.prior.field.head_field import HAIR, HEADGEAR, SKIN, HeadField
from dp360.generation.prior.field.observed_field import ObservedField
from dp360.generation.prior.field.portrait_observation import fitted_skull, observe_portrait
from dp360.generation.prior.hair.hair_shell import HairShell, grid_mesh
from dp360.generation.prior.labels.portrait_labels import PortraitLabels
from dp360.generation.prior.labels.segmenter import CLASS_NAMES
from dp360.generation.prior.texture.atlas import (
    MATERIAL_HEADGEAR,
    SHELL_TILE,
    TRIM_TILE,
    AtlasMesh,
    atlas_texels,
)
from dp360.generation.prior.texture.headgear_paint import paint_headgear
from dp360.generation.prior.texture.portrait_lookup import picture_of_portrait
from dp360.generation.prior.worn.brim import Brim, brim_of
from dp360.generation.prior.worn.headgear import Headgear, fit_headgear, headgear_pixels, without_headgear
from dp360.generation.prior.worn.headgear_mesh import TILE_SIZE, headgear_mesh, joined
from dp360.generation.prior.worn.rim import RimCurve, RimSeen, fitted_rim, level_of_rim, rim_rows

SIZE = 256
RIM = RimCurve(np.array([6.5, 1.6, 0.2, 0.0]))
HAT_CM, HAIR_CM = 1.6, 1.0
AZIMUTHS = np.arange(capsule.COLUMNS) * (2 * math.pi / capsule.COLUMNS)


@dataclass(frozen=True)
class Wearer:
    """A head with hair to the ears under a hat, from the front."""

    portrait: Portrait
    labels: PortraitLabels
    model: HeadModel
    field: HeadField
    observed: ObservedField
    shell: HairShell
    """Of hair and hat together."""
    hat: Headgear

    def fitted(self) -> tuple[Headgear | None, HairShell]:
        return fit_headgear(self.portrait, self.labels, self.model, self.field, self.observed, self.shell)


def rim_points(hat: Headgear, rim: RimCurve) -> Float[np.ndarray, "128 3"]:
    rows = rim_rows(rim, hat.radius)
    at = np.array([np.interp(row, np.arange(capsule.ROWS), hat.radius[:, j]) for j, row in enumerate(rows)])
    origins, outward = capsule.cell_rays(rows, np.arange(float(capsule.COLUMNS)))
    return origins + outward * at[:, None]


@functools.cache
def wearer(brim_cm: float = 0.0, slope: float = -0.3, worn: bool = True) -> Wearer:
    """Args: reach and slope of a brim; whether the hat counts as headgear, or is called hair."""
    model = load_head_model()
    vertices = model.neutral.astype(np.float64)
    skull = capsule.opened_skull_radius(vertices, model.skin_faces)
    level = level_of_rim(RIM, skull + HAT_CM * UNITS_PER_CM)
    heights = centimetres(capsule.surface_points(skull))[..., 1]
    hairy = (level <= 0) & (heights > -3) & (np.cos(AZIMUTHS) < 0.3)
    thickness = np.where(level > 0, HAT_CM * UNITS_PER_CM, np.where(hairy, HAIR_CM * UNITS_PER_CM, -0.025))
    shell = HairShell(thickness, skull + thickness)
    hat = Headgear(level, skull + HAT_CM * UNITS_PER_CM, skull)
    if brim_cm:
        hat = replace(hat, brim=brim_of("brim", rim_points(hat, RIM), brim_cm, slope))
    camera = look_at_origin([0.0], [0.0], size_px=SIZE)
    classes = seen_classes(vertices, model, shell, hat)
    hits = classes > 0
    alpha = hits.astype(np.float32)
    rgb = np.array([(0, 0, 0), (0.8, 0.6, 0.5), (0.3, 0.2, 0.1), (0.1, 0.2, 0.7)], np.float32)[classes]
    fit = HeadFit(np.zeros(0), np.zeros(0), vertices, camera, np.zeros(478))
    inside = np.ones((SIZE, SIZE), bool)
    portrait = Portrait((255 * rgb).astype(np.uint8), alpha, rgb, inside, None, fit, "standard", "drawn", "0" * 64, ())
    skin, cover = classes == 1, classes >= 2
    probability = np.stack([skin, cover, np.zeros_like(skin)], axis=-1).astype(np.float64)
    share = ((classes == 3) & worn).astype(np.float32)
    labels = PortraitLabels(
        probability, skin, cover, np.zeros_like(skin), share, np.zeros((SIZE, SIZE, len(CLASS_NAMES)), np.float32)
    )
    chart_skull = fitted_skull(portrait, model)
    on_hat, on_hair = of_capsule((level > 0).astype(float)) > 0.5, of_capsule(hairy.astype(float)) > 0.5
    material = np.zeros((4, 56, 64), np.float32)
    material[HEADGEAR], material[HAIR] = on_hat & worn, on_hair | (on_hat & (not worn))
    material[SKIN] = 1 - material.sum(0)
    nothing, grey = np.zeros((56, 64), np.float32), np.full((3, 56, 64), 0.5, np.float32)
    field = HeadField(
        chart_skull, np.maximum(of_capsule(thickness), 0).astype(np.float32), material,
        np.zeros((3, 56, 64), np.float32), nothing, nothing, nothing, grey, grey, grey, np.full(4, np.nan, np.float32),
    )  # fmt: skip
    observed = observe_portrait(portrait, labels, chart_skull, field.outer_radius)
    return Wearer(portrait, labels, model, field, observed, shell, hat)


def seen_classes(vertices: Float[np.ndarray, "v 3"], model: HeadModel, shell: HairShell, hat: Headgear) -> np.ndarray:
    """0 nothing, 1 skin, 2 hair, 3 hat at every pixel from the front."""
    shell_points, faces = grid_mesh(shell.radius)
    above = np.concatenate([hat.level, hat.level[:, :1]], axis=1).ravel()
    kind = np.where((above[faces] > 0).all(1), 3, 2)
    points, triangles = [vertices, shell_points], [model.skin_faces, faces + len(vertices)]
    kinds = [np.ones(len(model.skin_faces), int), kind]
    if hat.brim is not None:
        sheet = hat.brim.sheet_world()
        points.append(sheet.reshape(-1, 3))
        triangles.append(capsule.grid_faces(len(sheet), capsule.COLUMNS) + len(vertices) + len(shell_points))
        kinds.append(np.full(len(triangles[-1]), 3))
    camera = look_at_origin([0.0], [0.0], size_px=SIZE)
    fragments = rasterize_mesh(np.concatenate(points), np.concatenate(triangles), camera)
    return np.append(np.concatenate(kinds), 0)[fragments.triangle_index]


def height_behind(rim: RimCurve) -> float:
    return float(rim.heights_cm(np.array([math.pi]))[0])


def test_a_rim_is_carried_on_behind_and_mirrors() -> None:
    azimuth = np.radians(np.arange(-40.0, 100.0, 3.0))
    heights = RIM.heights_cm(azimuth)
    heights[5:8] -= 6.0  # a lock before the hat
    found = fitted_rim(RimSeen(azimuth, heights))
    np.testing.assert_allclose(found.heights_cm(azimuth[10:]), RIM.heights_cm(azimuth[10:]), atol=0.3)
    assert abs(height_behind(found) - height_behind(RIM)) < 0.8
    mirrored = fitted_rim(RimSeen(-azimuth, heights))
    np.testing.assert_allclose(mirrored.heights_cm(-AZIMUTHS), found.heights_cm(AZIMUTHS), atol=1e-9)


def test_a_hat_keeps_its_form_and_hair_goes_on_below_it() -> None:
    made = wearer()
    headgear, hair = made.fitted()
    assert headgear is not None and headgear.brim is None
    rim = rim_rows(RIM, made.hat.radius)
    found = np.array([np.interp(0.0, -headgear.level[:, j], np.arange(112.0)) for j in range(capsule.COLUMNS)])
    assert np.abs(found - rim).max() < 4, "rows, all round"
    well_inside = (made.hat.level > 4) & (np.arange(capsule.ROWS)[:, None] > 4)
    off_mm = np.abs(headgear.radius - made.hat.radius)[well_inside] / UNITS_PER_MM
    assert np.median(off_mm) < 2 and off_mm.max() < 6
    assert (hair.thickness[headgear.level > 3] < 0).all()
    at_rim = (headgear.level < 0) & (headgear.level > -1) & (hair.thickness > 0)
    assert at_rim.any() and (headgear.radius - hair.radius)[at_rim].min() > 3 * UNITS_PER_MM
    far_below = (headgear.level < -16) & (made.shell.thickness > 0)
    np.testing.assert_array_equal(hair.thickness[far_below], made.shell.thickness[far_below])


def test_the_rim_follows_the_seen_border_and_not_only_a_smooth_curve() -> None:
    made = wearer()
    hat = headgear_pixels(made.labels)
    notch = np.zeros_like(hat)
    notch[:, 140:165] = True  # the hat ends higher there
    lowest = SIZE - 1 - hat[::-1].argmax(0)
    notch &= (np.arange(SIZE)[:, None] > lowest - 9) & hat
    labels = replace(made.labels, skin=made.labels.skin | notch, hair=made.labels.hair & ~notch)
    headgear, hair = fit_headgear(made.portrait, labels, made.model, made.field, made.observed, made.shell)
    assert headgear is not None
    surface, trim = headgear_mesh(headgear, (1024, 768))
    parts = [made.portrait.head.vertices_world, grid_mesh(hair.radius)[0], surface.vertices_world, trim.vertices_world]
    faces = [made.model.skin_faces, grid_mesh(hair.radius)[1], surface.faces, trim.faces]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    whole = np.concatenate([f + start for f, start in zip(faces, starts)])
    kind = np.repeat([1, 2, 3, 3], [len(f) for f in faces])
    found = np.append(kind, 0)[rasterize_mesh(np.concatenate(parts), whole, made.portrait.head.camera).triangle_index]
    wanted = headgear_pixels(labels)
    assert ((found == 3) & wanted).sum() / ((found == 3) | wanted).sum() > 0.93
    assert (found == 3)[notch].mean() < 0.25


def test_what_is_called_hair_is_left_to_the_shell() -> None:
    made = wearer(worn=False)
    headgear, hair = made.fitted()
    assert headgear is None and hair is made.shell


def test_labels_without_headgear_keep_the_hair() -> None:
    labels = wearer().labels
    bare = without_headgear(labels)
    hat = headgear_pixels(labels)
    near = np.asarray(ndimage.binary_dilation(hat, np.ones((3, 3)), iterations=max(1, round(6 / 512 * SIZE))), bool)
    assert not (bare.hair & hat).any() and bare.hair.any()
    np.testing.assert_array_equal(bare.hair & ~near, labels.hair & ~near)
    assert (labels.hair & ~hat & ~bare.hair).sum() < hat.sum()


@pytest.mark.parametrize(("reach_cm", "slope"), [(5.0, -0.3), (8.5, 0.15)])
def test_a_brim_is_found_by_its_outline(reach_cm: float, slope: float) -> None:
    headgear, _ = wearer(reach_cm, slope).fitted()
    assert headgear is not None and headgear.brim is not None and headgear.brim.kind == "brim"
    away = headgear.brim.away_world / UNITS_PER_CM
    assert np.hypot(away[:, 0], away[:, 2]).mean() == pytest.approx(reach_cm, abs=1.8)
    assert (away[:, 1] / np.hypot(away[:, 0], away[:, 2])).mean() == pytest.approx(slope, abs=0.3)


def open_edges(points: Float[np.ndarray, "v 3"], faces: np.ndarray) -> int:
    """Edges that only one triangle has, corners at one place taken as one."""
    same = np.unique(np.round(points * 1e7).astype(np.int64), axis=0, return_inverse=True)[1].ravel()
    edges = np.sort(same[np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])], axis=1)
    edges = edges[edges[:, 0] != edges[:, 1]]
    return int((np.unique(edges, axis=0, return_counts=True)[1] == 1).sum())


def test_the_mesh_ends_in_one_hem_all_round() -> None:
    hat = wearer().hat
    surface, trim = headgear_mesh(hat, (1024, 768))
    row, _, radius = capsule.cell_coordinates(surface.vertices_world)
    rim = rim_rows(RIM, hat.radius)
    assert row.max() < rim.max() + 1 and (radius > 0.1).all()
    outward = (surface.normals_world * (surface.vertices_world - [0, capsule.CENTRE_Y, 0])).sum(1)
    assert (outward > 0).mean() > 0.99
    # the hem's upper ring is the surface's border: together only the wall's lower end, inside the head, is open
    edges = open_edges(surface.vertices_world, surface.faces)
    both = np.concatenate([surface.vertices_world, trim.vertices_world])
    together = open_edges(both, np.concatenate([surface.faces, trim.faces + len(surface.vertices_world)]))
    assert 0 < together <= edges
    ends = trim.vertices_world[trim.uv_px[:, 1] == trim.uv_px[:, 1].max()]
    end_row, end_column, end_radius = capsule.cell_coordinates(ends)
    skull = hat.skull_radius[np.rint(end_row).astype(int), np.rint(end_column).astype(int) % capsule.COLUMNS]
    assert (end_radius < skull).all()
    for part, size in ((surface, (1024, 768)), (trim, TILE_SIZE)):
        assert (part.uv_px >= 0.5).all() and (part.uv_px <= np.array(size) - 0.5).all()


def test_headgear_is_painted_in_its_own_colour_all_round() -> None:
    """A blue hat above dark hair and bright skin, seen from the front."""
    made = wearer(5.0)
    surface, trim = headgear_mesh(made.hat, SHELL_TILE[2:])
    parts = [
        part._replace(uv_px=part.uv_px + np.array(tile[:2]))
        for part, tile in ((surface, SHELL_TILE), (trim, TRIM_TILE))
    ]
    whole = joined(parts)
    mesh = AtlasMesh(
        whole.vertices_world, whole.normals_world, whole.uv_px, whole.faces,
        np.full(len(whole.faces), MATERIAL_HEADGEAR, np.uint8), np.full(len(whole.uv_px), -1), np.eye(4), np.zeros(64),
    )  # fmt: skip
    picture, texels = picture_of_portrait(made.portrait, without_headgear(made.labels), mesh), atlas_texels(mesh)

    def even(chosen: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n 3"]:
        return np.ones((len(chosen), 3), np.float32)

    painted = paint_headgear(made.hat, headgear_pixels(made.labels), picture, texels, even, even, 0)
    again = paint_headgear(made.hat, headgear_pixels(made.labels), picture, texels, even, even, 0)
    np.testing.assert_array_equal(painted.rgb_unit, again.rgb_unit)
    red, _, blue = painted.rgb_unit.T
    assert (blue > 1.5 * red).mean() > 0.98
    normals = texels.normals_world[painted.texels]
    seen, hidden = normals[:, 2] > 0.7, normals[:, 2] < -0.3
    assert np.median(painted.confidence[seen]) > 0.9 and painted.confidence[hidden].max() < 0.1


def test_brims_are_thin_closed_solids_and_peaks_lie_in_front() -> None:
    hat = wearer().hat
    base = rim_points(hat, RIM)

    def thickness_mm(brim: Brim) -> Float[np.ndarray, "8 129"]:
        sheet = brim.sheet_world()
        return np.linalg.norm(sheet[:8] - sheet[:7:-1], axis=-1) / UNITS_PER_MM

    brim, peak = brim_of("brim", base, 6.0, -0.2), brim_of("peak", base, 6.0, -0.2)
    assert 0.5 < thickness_mm(brim)[:-1].min() and thickness_mm(brim).max() < 4 and thickness_mm(brim)[-1].max() < 0.1
    behind = np.cos(AZIMUTHS) < 0.3
    assert (peak.away_world[behind] == 0).all() and peak.away_world[0, 2] == pytest.approx(6 * UNITS_PER_CM)
    mirrored: Bool[np.ndarray, " n"] = np.isclose(peak.away_world, peak.away_world[-np.arange(128)]).all(1)
    assert mirrored.all(), "the same on both sides"

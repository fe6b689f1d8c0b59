"""Heads over white come off the background, white hair and white collars included, where outlines are nearly right."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
import torch
from jaxtyping import Float32

from dp360.generation import orbit
from dp360.generation.diffusion.conditions import generic_head
from dp360.generation.diffusion.cutout import cut_out_views, edge_colour, has_plain_background
from dp360.generation.mesh import TexturedMesh
from dp360.generation.mesh_raster import box_downsample, interpolate, rasterize_mesh, sample_texture

SIZE = 256
WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Truth:
    """Pictures of which everything is known."""

    rgb: Float32[np.ndarray, "n h w 3"]
    alpha: Float32[np.ndarray, "n h w"]

    def over(self, background: tuple[float, float, float] = WHITE, noise: float = 0.0) -> torch.Tensor:
        a = self.alpha[..., None]
        mixed = self.rgb * a + np.array(background, np.float32) * (1 - a)
        mixed = mixed + np.random.default_rng(0).normal(0, noise, mixed.shape).astype(np.float32)
        return torch.from_numpy(mixed.clip(0, 1)).permute(0, 3, 1, 2)

    @property
    def silhouettes(self) -> torch.Tensor:
        return torch.from_numpy(self.alpha)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> TexturedMesh:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return generic_head()


@pytest.fixture(scope="module")
def renders(head: TexturedMesh) -> Truth:
    """The prior of a real photograph from four sides."""
    texture = head.texture_rgb.astype(np.float32) / 255
    uv_px = head.uv_unit * np.array(texture.shape[1::-1], np.float32)
    rgb, alpha = [], []
    for camera in orbit(4, size_px=SIZE):
        fragments = rasterize_mesh(head.vertices_world, head.faces, camera, supersample=2)
        hit = fragments.hit.astype(np.float32)
        colour = sample_texture(texture, interpolate(fragments, uv_px, head.faces)) * hit[..., None]
        coverage = box_downsample(hit, 2)
        rgb.append(box_downsample(colour, 2) / np.maximum(coverage, 1e-6)[..., None])
        alpha.append(coverage)
    return Truth(np.stack(rgb).astype(np.float32), np.stack(alpha).astype(np.float32))


def moved(truth: Truth, grow_px: int, shift_px: int) -> Truth:
    """The same pictures with an outline that is too large or too small and stands elsewhere."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(grow_px) + 1,) * 2)
    resize = cv2.dilate if grow_px > 0 else cv2.erode
    alpha = np.stack([resize(a, kernel) for a in truth.alpha])
    # colours of the head continue beyond its edge, as a larger prior's would
    known = [(a > 0.5).astype(np.uint8) for a in truth.alpha]
    rgb = np.stack([_continued(c, k) for c, k in zip(truth.rgb, known)])
    return Truth(np.roll(rgb, shift_px, axis=2), np.roll(alpha, shift_px, axis=2))


def _continued(rgb: np.ndarray, known: np.ndarray) -> np.ndarray:
    _, labels = cv2.distanceTransformWithLabels(1 - known, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    lookup = np.zeros((labels.max() + 1, 3), np.float32)
    lookup[labels[known > 0]] = rgb[known > 0]
    return lookup[labels]


def errors(cutout: torch.Tensor, truth: Truth) -> tuple[float, float]:
    """Mean alpha error, and IoU of what is more than half opaque."""
    alpha = cutout[..., 3].numpy() / 255
    a, b = alpha > 0.5, truth.alpha > 0.5
    return float(np.abs(alpha - truth.alpha).mean()), float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize(("grow_px", "shift_px"), [(0, 0), (6, 0), (-6, 0), (0, 6), (4, -5)])
def test_alpha_of_prior_renders_under_outlines_that_are_off(renders, grow_px, shift_px):
    prior = moved(renders, grow_px, shift_px)
    mean_error, iou = errors(cut_out_views(renders.over(noise=0.006), prior.silhouettes, prior.over()), renders)
    assert mean_error < 0.004 and iou > 0.988  # the outlines themselves: IoU 0.90 to 0.95


def whitened(truth: Truth, rows: slice, white: float) -> Truth:
    """Everything in some rows nearly as white as the background, with a trace of shading."""
    rgb = truth.rgb.copy()
    rgb[:, rows] = white + (1 - white) * rgb[:, rows]
    return replace(truth, rgb=rgb)


@pytest.mark.parametrize("rows", [slice(0, 90), slice(190, SIZE)], ids=["hair", "clothes"])
def test_white_hair_and_white_clothes_survive(renders, rows):
    white = whitened(renders, rows, 0.985)
    prior = moved(white, 3, 2)
    cutout = cut_out_views(white.over(), prior.silhouettes, prior.over())
    mean_error, iou = errors(cutout, white)
    assert mean_error < 0.02 and iou > 0.95
    deep = np.stack([cv2.erode((a > 0.99).astype(np.uint8), np.ones((25, 25), np.uint8)) > 0 for a in white.alpha])
    deep[:, :, :16] = deep[:, :, -16:] = False  # where the moved outline came round the picture's edge
    assert float(cutout[..., 3].numpy()[deep].min()) > 250
    without = cut_out_views(white.over())  # nobody says where white is head
    assert errors(without, white)[1] < iou - 0.02


def test_a_prior_that_is_too_large_adds_no_white_rim_where_the_head_is_not_white(renders):
    prior = moved(renders, 12, 0)
    cutout = cut_out_views(renders.over(), prior.silhouettes, prior.over())
    outside = np.stack([cv2.dilate((a > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0 for a in renders.alpha])
    assert float((cutout[..., 3].numpy()[outside] > 25).mean()) < 0.005


@pytest.mark.parametrize("background", [WHITE, (0.5, 0.5, 0.5), (0.1, 0.7, 0.2)])
def test_without_a_prior_the_colour_decides(renders, background):
    cutout = cut_out_views(renders.over(background), background_rgb_unit=background)
    mean_error, iou = errors(cutout, renders)
    assert mean_error < 0.01 and iou > 0.97


def test_colours_come_off_unmixed(renders):
    cutout = cut_out_views(renders.over(), renders.silhouettes, renders.over()).numpy().astype(np.float32) / 255
    edge = (renders.alpha > 0.3) & (renders.alpha < 0.9)
    assert np.abs(cutout[..., :3] - renders.rgb)[edge].mean() < 0.08
    back = torch.from_numpy(cutout[..., :3] * cutout[..., 3:] + 1 - cutout[..., 3:]).permute(0, 3, 1, 2)
    assert float((back - renders.over()).abs().mean()) < 0.004


def test_a_background_that_came_out_greyish_is_background(renders):
    grey = renders.over((0.96, 0.96, 0.95), noise=0.01)
    mean_error, iou = errors(cut_out_views(grey, renders.silhouettes, renders.over()), renders)
    assert mean_error < 0.005 and iou > 0.985


def test_specks_in_the_background_go(renders):
    picture = renders.over()
    picture[:, :, 4:9, 4:9] = 0.3
    cutout = cut_out_views(picture, renders.silhouettes, renders.over())
    assert int(cutout[:, 4:9, 4:9, 3].max()) == 0


def test_an_empty_picture_and_one_without_background():
    cutout = cut_out_views(torch.ones(1, 3, 64, 64))
    assert int(cutout[..., 3].max()) == 0
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.5
    assert float((cut_out_views(noise)[..., 3] == 255).float().mean()) > 0.95


def test_each_view_is_cut_out_by_itself_and_repeatably(renders):
    args = (renders.over(noise=0.006), renders.silhouettes, renders.over())
    together = cut_out_views(*args)
    alone = torch.cat([cut_out_views(*(x[i : i + 1] for x in args)) for i in range(len(renders.alpha))])
    assert torch.equal(together, alone)


def test_plain_backgrounds_are_told_from_others(renders):
    green = renders.over((0.1, 0.7, 0.2))
    assert edge_colour(green) == pytest.approx((0.1, 0.7, 0.2), abs=1e-3)
    assert has_plain_background(green[0], edge_colour(green))
    assert not has_plain_background(green[0])
    assert not has_plain_background(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert has_plain_background(renders.over(noise=0.01)[0])

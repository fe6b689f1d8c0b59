"""Laws of the data that the diffusion stages learn from: cameras and pictures agree whatever is done to a clip."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dp360.generation import Cameras, InputError, OrbitConfig, PointCloud, Provenance, ViewSet, look_at_origin, orbit
from dp360.generation.cameras import concatenate_cameras, opengl_from_opencv
from dp360.generation.diffusion.control_pictures import COLOUR, NORMALS, VALIDITY, prior_control, ray_control
from dp360.generation.training.diffusion import augment
from dp360.generation.training.diffusion.augment import (
    STILL,
    AugmentConfig,
    ColourJitter,
    augment_clip,
    mirrored_cameras,
    mirrored_clip,
)
from dp360.generation.training.diffusion.clips import (
    ClipConfig,
    angles_rad,
    closed_rings,
    continuous_views,
    sample_clip,
)
from dp360.generation.training.diffusion.head_pictures import HeadPictures, HeadSource, Reader
from dp360.generation.training.diffusion.sources import mixed_source, open_source

SIZE = 32
DOTS = np.array(
    [[-0.12, -0.03, 0.18], [-0.02, 0.21, 0.05], [0.17, 0.05, 0.1], [-0.15, 0.12, -0.13], [0.07, -0.2, -0.1]]
)
"""A head without any symmetry."""
DOTS_RGB = np.array([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.2, 0.1, 0.9], [0.8, 0.7, 0.1], [0.6, 0.1, 0.7]])
DOTS_NORMAL = DOTS / np.linalg.norm(DOTS, axis=1, keepdims=True)
MIRROR = np.array([-1.0, 1.0, 1.0])
NOTHING = AugmentConfig(0.0, STILL, 0.0, 0.0, 0.0, 0.0)


def drawn(
    cameras: Cameras, points: Float[np.ndarray, "p 3"], values: Float[np.ndarray, "p c"]
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n 1 h w"]]:
    """Discs at the points, the nearest on top, and where they are."""
    rows, columns = torch.meshgrid(torch.arange(cameras.height) + 0.5, torch.arange(cameras.width) + 0.5, indexing="ij")
    pictures = torch.zeros(len(cameras), values.shape[1], cameras.height, cameras.width)
    alpha = torch.zeros(len(cameras), 1, cameras.height, cameras.width)
    for i, uvz in enumerate(cameras.project(torch.from_numpy(points))):
        for k in torch.argsort(uvz[:, 2], descending=True).tolist():
            disc = (torch.hypot(columns - uvz[k, 0], rows - uvz[k, 1]) < 0.11 * cameras.width) * 1.0
            pictures[i] = pictures[i] * (1 - disc) + torch.from_numpy(values[k]).float()[:, None, None] * disc
            alpha[i, 0] = torch.maximum(alpha[i, 0], disc.float())
    return pictures, alpha


class DotsHead(HeadPictures):
    """The head of dots with a prior of its own; counts what is read of it."""

    def __init__(self, cameras: Cameras, name: str = "dots", mirror: bool = False) -> None:
        super().__init__(name, cameras, self._rgba, self._control)
        self.points, self.normals = (a * MIRROR if mirror else a for a in (DOTS, DOTS_NORMAL))
        self.reads = 0

    def _rgba(self, view: int, size_px: int) -> UInt8[Tensor, "h w 4"]:
        self.reads += 1
        return self.draw(self.cameras[view].resized(size_px, size_px))

    def draw(self, camera: Cameras) -> UInt8[Tensor, "h w 4"]:
        rgb, alpha = drawn(camera, self.points, DOTS_RGB)
        return (255 * torch.cat([rgb, alpha], dim=1)[0]).round().to(torch.uint8).permute(1, 2, 0)

    def _control(self, view: int, size_px: int) -> Float[Tensor, "7 s s"]:
        return self.control_of(self.cameras[view].resized(size_px, size_px))[0]

    def control_of(self, cameras: Cameras) -> Float[Tensor, "n 7 h w"]:
        rgb, alpha = drawn(cameras, self.points, DOTS_RGB)
        normals, _ = drawn(cameras, self.points, self.normals)
        return prior_control(rgb, alpha, 0.25 * alpha, normals, cameras)


def plain(*rgb: int) -> Reader:
    """Reads a picture of one colour."""
    return lambda *_: torch.tensor([*rgb, 255], dtype=torch.uint8).expand(4, 4, 4)


def numbered_head(cameras: Cameras, name: str = "numbers", extra: bool = True) -> HeadPictures:
    """Views of one grey, which is the number of the view; the portrait is red, the back picture blue."""
    head = HeadPictures(
        name,
        cameras,
        lambda view, size: plain(view, view, view)(view, size),
        lambda _, size: torch.zeros(7, size, size),
    )
    return replace(head, read_portrait=plain(255, 0, 0), read_back=plain(0, 0, 255)) if extra else head


def list_source(*heads: HeadPictures) -> HeadSource:
    """Heads that are there."""
    return HeadSource("list", lambda index: heads[index], len(heads))


def swinging(count: int, phase: float = 0.0) -> Cameras:
    azimuth = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    return look_at_origin(azimuth, 0.1 + 0.4 * torch.sin(2 * azimuth + phase), size_px=SIZE)


PORTRAIT_CAMERA = look_at_origin([-0.1], [0.05], size_px=SIZE)
SMALL = ClipConfig(size_px=SIZE)


def number_of(picture: Float[Tensor, "3 s s"]) -> int:
    """Which view of a `numbered_head` this is: -1 its portrait, -2 its back picture."""
    r, _, b = (255 * picture[:, 0, 0]).round().int().tolist()
    return r if r == b else -1 if r else -2


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_importing_needs_no_heavy_library():
    """Nothing but torch, diffusers and what they need: this is what a bare training machine has."""
    code = """
import importlib, pkgutil, sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in ABSENT else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
ABSENT = {"nerfstudio", "open3d", "mediapipe", "cv2", "numba", "scipy", "skimage", "h5py", "pymatting", "trimesh"}
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
try:
    import scipy
    raise SystemExit("the hook does not work")
except ModuleNotFoundError:
    pass
import dp360.generation.training.diffusion as package
names = [m.name for m in pkgutil.iter_modules(package.__path__)]
for name in names:
    importlib.import_module(f"{package.__name__}.{name}")
print(*names)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"clips", "augment", "sources", "head_pictures", "synthetic_heads"} <= set(done.stdout.split())


def test_normals_of_the_prior_face_the_camera():
    """A wall that looks at each camera has the normal (0, 0, -1) there; one that looks up has y < 0 from in front."""
    cameras = look_at_origin([0.0, 1.0, math.pi], [0.0, 0.4, -0.3], size_px=4)
    towards = torch.nn.functional.normalize(cameras.position_world, dim=-1).float()[:, :, None, None].expand(3, 3, 4, 4)
    ones = torch.ones(3, 1, 4, 4)
    control = prior_control(ones.expand(3, 3, 4, 4), ones, ones, towards, cameras)
    expected = torch.tensor([0.0, 0, -1]).view(1, 3, 1, 1).expand(3, 3, 4, 4)
    torch.testing.assert_close(control[:, NORMALS], expected, atol=1e-6, rtol=0)
    up = torch.tensor([0.0, 1, 0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    left = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    for normals, axis, sign in ((up, 5, -1.0), (left, 4, 1.0)):
        control = prior_control(ones[:1].expand(1, 3, 4, 4), ones[:1], ones[:1], normals, cameras[0])
        assert torch.allclose(control[:, axis], torch.tensor(sign))


def test_control_is_over_white_and_reduced_before_normals_are_unit():
    rgb = torch.zeros(1, 3, 4, 4)
    alpha = torch.zeros(1, 1, 4, 4)
    alpha[..., :3] = 1
    normals = torch.zeros(1, 3, 4, 4)
    normals[:, 2, :, 0], normals[:, 0, :, 1], normals[:, 2, :, 2] = 1, 1, 1
    control = prior_control(rgb, alpha, 0.5 * alpha, normals, look_at_origin([0.0], [0.0], size_px=4), size_px=2)
    torch.testing.assert_close(control[0, COLOUR, :, 0], torch.full((3, 2), -1.0))
    torch.testing.assert_close(control[0, COLOUR, :, 1], torch.full((3, 2), 0.0))  # half black, half white
    torch.testing.assert_close(control[0, VALIDITY, 0], torch.tensor([[0.0, -0.5]]))
    torch.testing.assert_close(control[0, NORMALS, 0, 0], torch.tensor([1.0, 0.0, -1.0]) / math.sqrt(2))
    torch.testing.assert_close(control[0, NORMALS, 0, 1], torch.tensor([0.0, 0.0, -1.0]))
    assert torch.equal(prior_control(rgb, 0 * alpha, alpha, 0 * normals, orbit(1, size_px=4))[:, NORMALS], 0 * rgb)


def test_rays_pass_through_the_points_that_their_pixels_show():
    cameras = look_at_origin([0.3, 2.0], [0.2, -0.4], size_px=64)
    rays = ray_control(cameras)
    assert rays.abs().max() <= 1.0 and bool((rays[:, 6] == 0).all())
    torch.testing.assert_close(rays[:, :3].norm(dim=1), torch.ones(2, 64, 64))
    reach = rays[:, 3:6].norm(dim=1).max()  # corners
    assert 0.9 < reach <= 1.0
    origin = cameras.position_world.float()
    ratio = torch.linalg.cross(origin[:, :, None, None].expand(2, 3, 64, 64), rays[:, :3], dim=1) / rays[:, 3:6]
    torch.testing.assert_close(ratio, ratio[0, 0, 0, 0].expand_as(ratio), rtol=1e-3, atol=1e-3)
    u, v, _ = cameras.project(torch.from_numpy(DOTS))[1, 0].tolist()
    direction = torch.nn.functional.normalize(torch.from_numpy(DOTS[0]) - cameras.position_world[1], dim=0).float()
    assert float(rays[1, :3, int(v), int(u)] @ direction) > 1 - 1e-4


@pytest.mark.parametrize("kind", ["prior", "other", "rays"])
def test_a_mirrored_clip_shows_the_mirrored_head_from_its_cameras(kind):
    cameras = swinging(24)
    off_centre = replace(cameras, principal_px=cameras.principal_px + torch.tensor([1.7, -0.6], dtype=torch.float64))
    head, other = DotsHead(off_centre), DotsHead(off_centre, "other")
    clip = sample_clip(list_source(head, other), 0, replace(SMALL, control=kind), rng(5))
    mirrored = mirrored_clip(clip)
    truth = DotsHead(mirrored.cameras, mirror=True)
    for i in range(len(clip)):
        expected = truth.draw(mirrored.cameras[i]).permute(2, 0, 1).float() / 255
        assert (mirrored.alpha[i] - expected[3:]).abs().mean() < 0.01
        assert (mirrored.views[i] - (expected[:3] * expected[3:] + 1 - expected[3:])).abs().mean() < 0.01
        assert (clip.views[i] - mirrored.views[i]).abs().mean() > 0.03  # the head is not symmetric
    if kind == "prior":
        control = truth.control_of(mirrored.cameras)
        assert (mirrored.control - control).abs().mean() < 0.01
        assert (mirrored.control[:, NORMALS] - clip.control.flip(0, -1)[:, NORMALS]).abs().mean() > 0.03
    elif kind == "rays":
        torch.testing.assert_close(mirrored.control, ray_control(mirrored.cameras))
    else:
        torch.testing.assert_close(mirrored.control, 2 * mirrored.start - 1)
    assert torch.equal(mirrored.front, clip.front.flip(-1)) and torch.equal(mirrored.back, clip.back.flip(-1))
    steps = torch.remainder(mirrored.cameras.azimuth_rad.diff(), 2 * math.pi)
    torch.testing.assert_close(steps, torch.remainder(clip.cameras.azimuth_rad.diff(), 2 * math.pi).flip(0))
    again = mirrored_clip(mirrored)
    torch.testing.assert_close(again.cameras.T_world_camera, clip.cameras.T_world_camera)
    torch.testing.assert_close(again.control, clip.control)
    assert torch.equal(again.views, clip.views)


def test_mirrored_cameras_project_mirrored_points_to_mirrored_pixels():
    cameras = replace(swinging(9), width=40)
    uvz = cameras.project(torch.from_numpy(DOTS))
    mirrored = mirrored_cameras(cameras).project(torch.from_numpy(DOTS * MIRROR))
    torch.testing.assert_close(mirrored[..., 0], 40 - uvz[..., 0])
    torch.testing.assert_close(mirrored[..., 1:], uvz[..., 1:])


@pytest.mark.parametrize("count", [72, 36, 32])
def test_views_go_on_in_even_steps_over_the_end_of_the_ring(count):
    """Strides are whole steps of 10 to 30 degrees, no view comes twice, and clips do cross the seam."""
    cameras = concatenate_cameras([PORTRAIT_CAMERA, swinging(count)])
    head = numbered_head(cameras)
    crossed, strides = 0, set()
    for seed in range(60):
        views = [number_of(v) for v in sample_clip(list_source(head), 0, SMALL, rng(seed)).views]
        assert len(set(views)) == 8 and 0 not in views  # the portrait's camera belongs to no ring
        steps = torch.remainder(cameras.azimuth_rad[views].diff(), 2 * math.pi)
        assert torch.allclose(steps, steps[0].expand_as(steps))
        assert 10 - 1e-6 <= math.degrees(float(steps[0])) <= 30 + 1e-6
        crossed += views[-1] < views[0]
        strides.add(round(math.degrees(float(steps[0])), 2))
    assert crossed > 10
    assert strides == {round(k * 360 / count, 2) for k in range(1, count) if 10 <= k * 360 / count <= 30}


def test_rings_are_found_as_generators_and_the_release_make_them():
    ours = concatenate_cameras([PORTRAIT_CAMERA, OrbitConfig().cameras(SIZE)])
    assert closed_rings(ours) == [list(range(1, 33)), list(range(33, 45)), list(range(45, 53))]
    grid = [look_at_origin(torch.arange(12) * math.pi / 6, torch.full((12,), e), size_px=SIZE) for e in (0.0, 0.5)]
    assert closed_rings(concatenate_cameras([PORTRAIT_CAMERA, *grid])) == [list(range(1, 13)), list(range(13, 25))]
    release = look_at_origin(2 * 3.14 * torch.arange(32, dtype=torch.float64) / 32, torch.zeros(32), size_px=SIZE)
    assert closed_rings(release) == [list(range(32))]
    backwards = swinging(20)[list(range(20))[::-1]]
    assert closed_rings(backwards) == [list(range(20))[::-1]]
    arc = look_at_origin(torch.linspace(-1, 1, 16), torch.zeros(16), size_px=SIZE)
    assert closed_rings(arc) == []


def test_cameras_without_rings_are_followed_as_near_as_can_be():
    generator = rng(4)
    azimuth, elevation = generator.uniform(-math.pi, math.pi, 500), generator.uniform(-0.4, 0.7, 500)
    cameras = look_at_origin(torch.from_numpy(azimuth), torch.from_numpy(elevation), size_px=SIZE)
    for seed in range(20):
        views = continuous_views(cameras, 8, (math.radians(20), math.radians(20)), rng(seed), "x")
        assert len(set(views)) == 8
        travelled = torch.remainder(cameras.azimuth_rad[views].diff() + math.pi, 2 * math.pi) - math.pi
        assert abs(math.degrees(float(travelled.sum())) - 140) < 21
        assert float(cameras.elevation_rad[views].diff().abs().max()) < 0.5


def test_references_lie_in_their_cones_and_the_portrait_is_taken_as_often_as_asked():
    cameras = concatenate_cameras([PORTRAIT_CAMERA, swinging(36)])
    head = numbered_head(cameras)
    source = list_source(head)
    front, back = set(), set()
    for seed in range(150):
        clip = sample_clip(source, 0, replace(SMALL, clip_length=1), rng(seed))
        front.add(number_of(clip.front))
        back.add(number_of(clip.back))
    from_front, from_back = angles_rad(cameras, (0.0, 0.0, 1.0)), angles_rad(cameras, (0.0, 0.0, -1.0))
    assert front - {-1} == set(torch.nonzero(from_front <= math.radians(45)).flatten().tolist())
    assert back - {-2} == set(torch.nonzero(from_back <= math.radians(40)).flatten().tolist())
    assert {-1} <= front and {-2} <= back
    for share, numbers in ((0.0, False), (1.0, True)):
        picked = [sample_clip(source, 0, replace(SMALL, portrait_share=share), rng(s)).front for s in range(10)]
        assert all((number_of(p) == -1) == numbers for p in picked)
    without = list_source(numbered_head(cameras, extra=False))
    assert number_of(sample_clip(without, 0, replace(SMALL, portrait_share=1.0), rng()).front) >= 0


def test_back_targets_are_single_views_from_straight_behind():
    cameras = concatenate_cameras([PORTRAIT_CAMERA, swinging(36)])
    for seed in range(30):
        clip = sample_clip(list_source(numbered_head(cameras)), 0, replace(SMALL, target="back"), rng(seed))
        assert len(clip) == 1
        assert float(angles_rad(clip.cameras, (0.0, 0.0, -1.0))) <= math.radians(20) + 1e-6


def test_random_order_takes_views_from_anywhere():
    head = numbered_head(swinging(36))
    views = [
        [number_of(v) for v in sample_clip(list_source(head), 0, replace(SMALL, order="random"), rng(s)).views]
        for s in range(20)
    ]
    assert all(len(set(v)) == 8 for v in views)
    assert len({b - a for v in views for a, b in itertools.pairwise(v)}) > 20
    assert set().union(*views) == set(range(36))


def test_other_control_is_another_head_from_the_nearest_camera():
    target = numbered_head(swinging(36), "target")
    other = numbered_head(orbit(18, size_px=SIZE), "other")
    clip = sample_clip(list_source(target, other, target), 0, replace(SMALL, control="other"), rng(3))
    assert clip.control.shape == (8, 3, SIZE, SIZE)
    torch.testing.assert_close(clip.control, 2 * clip.start - 1)
    for camera, picture in zip(clip.cameras, clip.start):
        error = other.cameras[number_of(picture)].azimuth_rad - camera.azimuth_rad
        assert abs(math.remainder(float(error), 2 * math.pi)) <= math.radians(10.1)
    with pytest.raises(InputError, match="second head"):
        sample_clip(list_source(target, target), 0, replace(SMALL, control="other"), rng())


def test_the_same_seed_gives_the_same_clip():
    source = list_source(DotsHead(swinging(36)), DotsHead(swinging(36, 1.0), "b"))
    first, again, another = (
        augment_clip(sample_clip(source, 0, SMALL, g), AugmentConfig(), g) for g in map(rng, [7, 7, 8])
    )
    for name in ("views", "alpha", "control", "start", "front", "back"):
        assert torch.equal(getattr(first[0], name), getattr(again[0], name)), name
    assert torch.equal(first[0].cameras.T_world_camera, again[0].cameras.T_world_camera) and first[1] == again[1]
    assert not torch.equal(first[0].views, another[0].views)
    fresh = list_source(DotsHead(swinging(36)), DotsHead(swinging(36, 1.0), "b"))  # nothing kept in memory
    assert torch.equal(sample_clip(fresh, 0, SMALL, rng(7)).control, sample_clip(source, 0, SMALL, rng(7)).control)


def test_nothing_changes_where_everything_is_zero():
    clip = sample_clip(list_source(DotsHead(swinging(36))), 0, SMALL, rng())
    same, keeps = augment_clip(clip, NOTHING, rng())
    for name in ("views", "alpha", "control", "start", "front", "back"):
        assert torch.equal(getattr(same, name), getattr(clip, name)), name
    assert keeps


def test_colours_change_alike_in_all_pictures_and_white_stays():
    clip = sample_clip(list_source(DotsHead(swinging(36))), 0, SMALL, rng(2))
    changed, _ = augment_clip(clip, replace(NOTHING, colours=ColourJitter()), rng(1))
    control = (clip.control[:, COLOUR] + 1) / 2
    before = torch.cat([clip.views, clip.front[None], clip.back[None], clip.start, control])
    control = (changed.control[:, COLOUR] + 1) / 2
    after = torch.cat([changed.views, changed.front[None], changed.back[None], changed.start, control])
    mapping: dict[tuple, list] = {}
    for old, new in zip(before.permute(0, 2, 3, 1).reshape(-1, 3), after.permute(0, 2, 3, 1).reshape(-1, 3)):
        mapping.setdefault(tuple((20 * old).round().int().tolist()), []).append(new)
    assert len(mapping) >= 6
    for old, news in mapping.items():
        spread = torch.stack(news).amax(0) - torch.stack(news).amin(0)
        assert float(spread.max()) < 0.02, old
    torch.testing.assert_close(mapping[(20, 20, 20)][0], torch.ones(3), atol=1e-5, rtol=0)
    assert (before - after).abs().mean() > 0.005
    assert torch.equal(changed.control[:, 3:], clip.control[:, 3:])


def test_each_augmentation_touches_its_own_pictures_only(monkeypatch):
    clip = sample_clip(list_source(DotsHead(swinging(36))), 0, SMALL, rng(2))
    portrait, _ = augment_clip(clip, replace(NOTHING, worse_portrait=1.0), rng(3))
    assert not torch.equal(portrait.front, clip.front) and torch.equal(portrait.back, clip.back)
    assert torch.equal(portrait.views, clip.views) and torch.equal(portrait.control, clip.control)
    assert float(portrait.front.amin()) >= 0 and float(portrait.front.amax()) <= 1
    monkeypatch.setattr(augment, "_JPEG_SHARE", 0.0)
    corner = augment_clip(clip, replace(NOTHING, worse_portrait=1.0), rng(3))[0].front[:, 0, 0]
    torch.testing.assert_close(corner, torch.ones(3))  # the background stays
    for name, share in (("_HIDDEN_VALIDITY", 1.0), ("_NO_VALIDITY", 0.0), ("_NO_NORMALS", 1.0)):
        monkeypatch.setattr(augment, name, share)
    control, _ = augment_clip(clip, replace(NOTHING, worse_control=1.0), rng(3))
    assert torch.equal(control.views, clip.views) and torch.equal(control.front, clip.front)
    assert not control.control[:, NORMALS].any()
    hidden = (control.control[:, VALIDITY] == -1) & (clip.control[:, VALIDITY] > -1)
    assert hidden.any() and bool((control.control[:, VALIDITY] <= clip.control[:, VALIDITY]).all())
    torch.testing.assert_close((control.control[:, COLOUR] + 1) / 2, control.start, atol=0.005, rtol=0)
    monkeypatch.setattr(augment, "_NO_VALIDITY", 1.0)
    blank = replace(NOTHING, worse_control=1.0)
    assert bool((augment_clip(clip, blank, rng())[0].control[:, VALIDITY] == -1).all())
    for shares, kept in (((0.0, 0.0), 40), ((1.0, 0.0), 0), ((0.0, 1.0), 0)):
        dropping = replace(NOTHING, drop_references=shares[0], drop_control=shares[1])
        assert sum(augment_clip(clip, dropping, rng(seed))[1] for seed in range(40)) == kept
    halves = replace(NOTHING, drop_references=0.5, drop_control=0.5)
    assert 3 < sum(augment_clip(clip, halves, rng(seed))[1] for seed in range(40)) < 17


def png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def posed_folder(folder: Path, head: DotsHead, *, prior: bool = True) -> Path:
    """A head as `dp360 data heads` writes it, as far as training reads it."""
    cameras, frames = head.cameras, []
    rgb, alpha = drawn(cameras, head.points, DOTS_RGB)
    normals, _ = drawn(cameras, head.points, head.normals)
    for i, pose in enumerate(opengl_from_opencv(cameras.T_world_camera).tolist()):
        rgba = head.draw(cameras[i]).numpy()
        png(folder / f"images/view_{i:03d}.png", rgba)
        frames.append({"file_path": f"images/view_{i:03d}.png", "transform_matrix": pose})
        if prior:
            n = normals[i].permute(1, 2, 0).numpy()
            stored = np.where(n.any(-1, keepdims=True), 127.5 * (n + 1) + 0.5, 0)
            png(folder / f"control/view_{i:03d}.png", rgba)
            png(folder / f"control_validity/view_{i:03d}.png", np.round(63.75 * alpha[i, 0].numpy()).astype(np.uint8))
            png(folder / f"control_normals/view_{i:03d}.png", stored.astype(np.uint8))
    focal, size = float(cameras.focal_px[0, 0]), cameras.width
    meta = {"w": size, "h": size, "fl_x": focal, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture
def posed(tmp_path: Path) -> Path:
    root = tmp_path / "posed"
    for k in range(2):
        posed_folder(root / f"head_{k}", DotsHead(swinging(12, float(k))))
    return root


def test_a_clip_from_disk_is_the_clip_from_memory(posed):
    config = replace(SMALL, clip_length=4, stride_deg=(25.0, 35.0))
    from_disk = sample_clip(open_source(posed), 0, config, rng(2))
    in_memory = sample_clip(list_source(DotsHead(swinging(12))), 0, config, rng(2))
    torch.testing.assert_close(from_disk.cameras.T_world_camera, in_memory.cameras.T_world_camera)
    for name in ("views", "alpha", "start", "front", "back"):
        torch.testing.assert_close(getattr(from_disk, name), getattr(in_memory, name), atol=0.006, rtol=0)
    torch.testing.assert_close(from_disk.control, in_memory.control, atol=0.02, rtol=0)


def middle_of(picture: Float[Tensor, "4 s s"] | None) -> list[float]:
    """Colour and alpha of a middle pixel, [0, 255]."""
    assert picture is not None
    return (255 * picture[:, 3, 3]).tolist()


def test_portrait_and_back_picture_come_from_their_files(posed):
    folder = posed / "head_0"
    png(folder / "portrait.png", np.full((64, 64, 3), (200, 10, 10), np.uint8))
    png(folder / "portrait_alpha.png", np.full((64, 64), 255, np.uint8))
    png(folder / "back.png", np.full((SIZE, SIZE, 4), (10, 10, 200, 255), np.uint8))
    head = open_source(posed).head(0)
    assert middle_of(head.picture("portrait", 16)) == pytest.approx([200, 10, 10, 255])
    assert middle_of(head.picture("back", 16)) == pytest.approx([10, 10, 200, 255])
    foreground = np.broadcast_to(np.array([0.2, 0.4, 0.6], np.float32), (64, 64, 3))
    np.savez(folder / "portrait.npz", foreground_unit=foreground, alpha_unit=np.ones((64, 64), np.float32))
    fresh = open_source(posed).head(0)  # colours free of the background come first
    assert middle_of(fresh.picture("portrait", 16)) == pytest.approx([51, 102, 153, 255])
    (folder / "portrait.npz").write_bytes(b"no")
    with pytest.raises(InputError, match="damaged"):
        open_source(posed).head(0).picture("portrait", 16)


def test_any_nerfstudio_data_set_serves_with_other_controls(tmp_path):
    folder = posed_folder(tmp_path / "one", DotsHead(swinging(12)), prior=False)
    source = open_source(folder)
    config = replace(SMALL, clip_length=4, stride_deg=(25.0, 35.0))
    assert len(source) == 1
    rays = sample_clip(source, 0, replace(config, control="rays"), rng())
    assert rays.control.shape == (4, 7, SIZE, SIZE) and bool((rays.start == 1).all())
    with pytest.raises(InputError, match="has no prior"):
        sample_clip(source, 0, config, rng())


def test_background_is_white(posed):
    clip = sample_clip(open_source(posed), 0, replace(SMALL, clip_length=1), rng())
    for picture in (clip.views[0], clip.front, clip.back, clip.start[0]):
        assert picture[:, 0, 0].tolist() == [1.0, 1.0, 1.0]


def grey(value: int) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), value, np.uint8)


def test_panohead_spherehead_and_unique3d_folders(tmp_path):
    for k in range(72):
        png(tmp_path / f"rings/PHsup_001/image/{k:07d}.png", grey(k))
    for k in range(36):
        png(tmp_path / f"rings/seed0004/{k:02d}.png", grey(100 + k))
    for k in range(4):
        png(tmp_path / f"quads/toon/{k}.png", grey(200 + k))
        png(tmp_path / f"quads/i07/images/{k}.png", grey(240 + k))
    rings, quads = open_source(tmp_path / "rings"), open_source(tmp_path / "quads")
    assert (len(rings), len(quads)) == (2, 2)
    ring = rings.head(0)
    assert float(ring.cameras[18].azimuth_rad) == pytest.approx(math.pi / 2)  # frame N/4 stands at +x
    assert float(ring.rgba(18, 8)[0, 0, 0]) == pytest.approx(18 / 255)
    clip = sample_clip(rings, 0, replace(SMALL, control="other"), rng(1))
    targets, drivers = ([number_of(v) for v in pictures] for pictures in (clip.views, clip.start))
    assert all(abs((d - 100) * 2 - t) % 72 in (0, 1, 71) for t, d in zip(targets, drivers))
    assert len({(b - a) % 72 for a, b in itertools.pairwise(targets)} - set(range(2, 7))) == 0
    names = [Path(quads.head(k).name).name for k in range(2)]
    toon = quads.head(names.index("toon"))
    assert toon.cameras.azimuth_rad.tolist() == pytest.approx([0, math.pi / 2, math.pi, -math.pi / 2])
    back = sample_clip(quads, names.index("toon"), replace(SMALL, target="back", control="rays"), rng())
    assert (number_of(back.views[0]), number_of(back.front), number_of(back.back)) == (202, 200, 202)
    with pytest.raises(InputError, match="rings of 4 views"):
        sample_clip(quads, 0, replace(SMALL, clip_length=3, control="rays"), rng())


def test_renderme360_folders_know_front_from_back_and_bring_their_drivers(tmp_path):
    for number in (16, 18, 48, 59, 7):
        png(tmp_path / f"0021/image_seg/{number:04d}.png", grey(number))
        png(tmp_path / f"0021/camera/{number:04d}.png", grey(number + 100))
    source = open_source(tmp_path)
    for seed in range(8):
        clip = sample_clip(source, 0, replace(SMALL, target="back", control="other"), rng(seed))
        assert number_of(clip.front) in (16, 18) and number_of(clip.back) in (48, 59)
        assert number_of(clip.start[0]) == number_of(clip.views[0]) + 100
    with pytest.raises(InputError, match="no cameras"):
        sample_clip(source, 0, SMALL, rng())
    (tmp_path / "0021/camera/0048.png").unlink()
    (tmp_path / "0021/camera/0059.png").unlink()
    with pytest.raises(InputError, match="folder camera"):
        sample_clip(open_source(tmp_path), 0, replace(SMALL, target="back", control="other"), rng())


def test_captures_are_opened_when_their_head_is_asked_for(tmp_path, monkeypatch):
    opened = []

    def read(path: Path, *, size_px: int) -> ViewSet:
        opened.append(path.name)
        cameras = orbit(12, size_px=size_px)
        none = PointCloud(*(torch.zeros(0, 3) for _ in range(3)))
        rgba = torch.full((12, size_px, size_px, 4), 128, dtype=torch.uint8)
        names = tuple(f"{k:02d}" for k in range(12))
        return ViewSet(rgba, cameras, torch.ones(12), names, none, Provenance("c", "none", 0, "", "0"))

    monkeypatch.setattr("dp360.generation.captures.read_renderme360", read)
    for name in ("0026_e0_raw.smc", "0026_e0_anno.smc", "0041_e0.smc"):
        (tmp_path / name).write_bytes(b"")
    source = open_source(tmp_path)
    assert (len(source), opened) == (2, [])
    head = source.head(1)
    assert head.rgba(0, 16).shape == (4, 16, 16)
    head.rgba(1, 16)
    assert opened == ["0041_e0.smc"]


def _unlink(name: str):
    return lambda folder: (folder / name).unlink()


def _write(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


DAMAGE = {
    "picture gone": (_unlink("images/view_003.png"), "does not exist"),
    "picture cut off": (_write("images/view_003.png", b"\x89PNG"), "Cannot read the picture"),
    "control gone": (_unlink("control/view_003.png"), "does not exist"),
    "normals of another size": (lambda f: png(f / "control_normals/view_003.png", grey(1)[:9]), "expected"),
    "validity damaged": (_write("control_validity/view_003.png", b"x"), "Cannot read the picture"),
    "no JSON": (_write("transforms.json", b"{"), "not valid JSON"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_folders_are_named(posed, name):
    change, message = DAMAGE[name]
    change(posed / "head_0")
    with pytest.raises(InputError, match=message) as caught:
        head = open_source(posed).head(0)
        for view in range(len(head.cameras)):
            head.rgba(view, 16)
            head.control(view, 16)
    assert "\n" not in str(caught.value) and "head_0" in str(caught.value)


def test_what_cannot_be_sampled_is_said(tmp_path, posed):
    with pytest.raises(InputError, match="does not exist"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no heads"):
        open_source(tmp_path / "empty")
    source = open_source(posed)
    with pytest.raises(InputError, match="12 views; expected at least 13"):
        sample_clip(source, 0, replace(SMALL, clip_length=13), rng())
    with pytest.raises(InputError, match="rings of 12 views"):
        sample_clip(source, 0, replace(SMALL, stride_deg=(5.0, 20.0)), rng())
    front_only = numbered_head(look_at_origin(torch.linspace(-0.5, 0.5, 9), torch.zeros(9), size_px=SIZE), extra=False)
    with pytest.raises(InputError, match="a back reference"):
        sample_clip(list_source(front_only), 0, replace(SMALL, clip_length=1), rng())
    with pytest.raises(InputError, match="behind the head"):
        sample_clip(list_source(front_only), 0, replace(SMALL, target="back"), rng())
    with pytest.raises(InputError, match="where a clip should go on"):
        sample_clip(list_source(front_only), 0, replace(SMALL, stride_deg=(30.0, 30.0)), rng())
    png(tmp_path / "gap/seed0001/00.png", grey(1))
    png(tmp_path / "gap/seed0001/02.png", grey(2))
    with pytest.raises(InputError, match="without a gap"):
        open_source(tmp_path / "gap").head(0)


def test_mixtures_are_even_and_miss_no_head():
    a, b = ([numbered_head(orbit(4, size_px=SIZE), f"{c}{k}") for k in range(n)] for c, n in (("a", 30), ("b", 10)))
    mixed = mixed_source([list_source(*a), list_source(*b)])
    names = [mixed.head(i).name for i in range(len(mixed))]
    assert sorted(names) == sorted(head.name for head in [*a, *b])
    assert all(sum(n[0] == "b" for n in names[k : k + 8]) == 2 for k in range(0, len(names), 8))
    with pytest.raises(IndexError):
        mixed.head(len(mixed))


def test_layouts_in_one_folder_become_one_source(posed):
    for k in range(4):
        png(posed / f"toon/{k}.png", grey(200 + k))
    source = open_source(posed)
    assert sorted(Path(source.head(k).name).name for k in range(len(source))) == ["head_0", "head_1", "toon"]


def test_recent_heads_are_kept_and_read_once():
    made: list[int] = []
    heads: dict[int, DotsHead] = {}

    def make(index: int) -> HeadPictures:
        made.append(index)
        heads[index] = DotsHead(orbit(4, size_px=SIZE), str(index))
        return heads[index]

    recent = HeadSource("dots", make, count=3, keep=2)
    for index in (0, 1, 0, 2, 0, 1):
        recent.head(index).rgba(0, SIZE)
    assert made == [0, 1, 2, 1]
    head = recent.head(0)
    assert isinstance(head, DotsHead) and head is heads[0] and head.reads == 1
    assert torch.equal(recent.head(0).control(1, SIZE), recent.head(0).control(1, SIZE))
    for index in (-1, 3):
        with pytest.raises(IndexError, match="dots has 3 heads"):
            recent.head(index)


ASSETS = Path(__file__).parents[3] / "../shared/data/heads"


@pytest.mark.slow
@pytest.mark.skipif(not ASSETS.is_dir(), reason="needs the head assets")
def test_heads_on_the_fly_are_those_on_disk(tmp_path):
    from dp360.configs.console import Display
    from dp360.configs.data import DataHeadsCommand, make_heads
    from dp360.generation.progress import silent
    from dp360.generation.training.diffusion.synthetic_heads import synthetic_heads

    command = DataHeadsCommand(ASSETS, tmp_path, count=1, views=12, size=64)
    make_heads(command, Display(silent, pytest.fail))
    config = ClipConfig(size_px=64, clip_length=3, stride_deg=(25.0, 35.0))
    on_disk, on_the_fly = open_source(tmp_path), synthetic_heads(ASSETS, 1, views=12)
    for seed in range(3):
        a, b = (sample_clip(source, 0, config, rng(seed)) for source in (on_disk, on_the_fly))
        torch.testing.assert_close(a.cameras.T_world_camera, b.cameras.T_world_camera)
        for name in ("views", "alpha", "front", "back"):
            assert (getattr(a, name) - getattr(b, name)).abs().max() < 0.01, name
        assert (a.control - b.control).abs().mean() < 0.01

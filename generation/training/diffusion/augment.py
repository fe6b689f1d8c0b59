"""Clips made more varied: mirrored, recoloured, with worse portraits and worse priors, and with conditions to drop.

Colours are changed by curves and matrices that leave black and white where they are, so that a plain white or black
background stays what it is without a matte.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...cameras import Cameras
from ...diffusion.control_pictures import COLOUR, NORMALS, VALIDITY, ray_control
from ...diffusion.upscale import blurred
from .clips import TrainingClip

_Pictures = Float[Tensor, "n 3 h w"]


@dataclass(frozen=True)
class ColourJitter:
    """How far colours are changed; every 0 leaves them."""

    brightness: float = 0.35
    """Largest g of the curve x + g x (1 - x) on all channels: 0.35 lifts the middle grey by 0.09."""
    tint: float = 0.12
    """The same for each channel by itself."""
    contrast: float = 0.3
    """Largest k of the S-curve x + k x (1 - x) (2 x - 1). Together the three stay below 1: then curves only rise."""
    saturation: float = 0.3
    """Largest change of the distance from grey, as a share."""
    hue_deg: float = 6.0
    """Largest turn about the grey axis, degrees."""


STILL = ColourJitter(0.0, 0.0, 0.0, 0.0, 0.0)
"""Leaves colours as they are."""
_PRIOR_COLOURS = ColourJitter(0.2, 0.1, 0.2, 0.2, 4.0)  # of the prior alone, in control and start views
_PRIOR_BLUR = 0.005  # largest standard deviation of a blur of the prior's colours, as a share of the side
_PRIOR_NOISE = 0.03  # largest standard deviation of noise on the prior's colours
_PORTRAIT_SHIFT = 0.02  # largest shift of a portrait along each axis, as a share of the side
_PORTRAIT_SCALE = 0.04  # largest logarithm of the change in its size
_PORTRAIT_TURN_DEG = 4.0  # largest turn in the picture
_PORTRAIT_COLOURS = ColourJitter(0.3, 0.08, 0.2, 0.15, 3.0)  # its exposure and colour cast
_PORTRAIT_BLUR, _PORTRAIT_NOISE = 0.005, 0.02  # largest standard deviations, of the blur as a share of the side
_JPEG_SHARE, _JPEG_QUALITY = 0.5, (30, 95)  # share of changed portraits that go through JPEG; least and greatest
_HIDDEN_VALIDITY = 0.3  # share of changed controls in which a rectangle counts as not shown by the portrait
_NO_VALIDITY, _NO_NORMALS = 0.1, 0.1  # shares in which nothing counts as shown, and without normals


@dataclass(frozen=True)
class AugmentConfig:
    """How clips are varied; with every share and every amount 0 they stay as they are."""

    mirrored: float = 0.5
    """Share of clips that show the mirrored head."""
    colours: ColourJitter = field(default_factory=ColourJitter)
    """Colours of the whole head, alike in all pictures of a clip."""
    worse_portrait: float = 0.8
    """Share of clips whose front reference is made worse: users' portraits are placed, lit and stored less well."""
    worse_control: float = 0.5
    """Share of clips whose control pictures and start views are: real portraits fit less well than composed ones."""
    drop_references: float = 0.1
    """Share of clips to be learned from without conditions: front and back reference, control and start views."""
    drop_control: float = 0.1
    """Share to be added to it, of what is left."""


def augment_clip(clip: TrainingClip, config: AugmentConfig, rng: np.random.Generator) -> tuple[TrainingClip, bool]:
    """A varied clip and whether it keeps its conditions (without, its pictures are there all the same).

    Args:
        clip: as sampled, on any device.
        rng: source of randomness; it moves on. The same state gives the same clip.
    """
    if rng.random() < config.mirrored:
        clip = mirrored_clip(clip)
    change = _colour_change(config.colours, rng)
    clip = replace(clip, views=change(clip.views), front=change(clip.front[None])[0], back=change(clip.back[None])[0])
    clip = clip if config.colours == STILL else _with_start(clip, change(clip.start))
    if rng.random() < config.worse_portrait:
        clip = replace(clip, front=_worse_portrait(clip.front, rng))
    if rng.random() < config.worse_control:
        clip = _worse_control(clip, rng)
    return clip, bool((rng.random(2) >= (config.drop_references, config.drop_control)).all())


def mirrored_clip(clip: TrainingClip) -> TrainingClip:
    """The clip of the head's mirror image, its views in reverse, so that azimuths that grew still grow."""
    cameras = mirrored_cameras(clip.cameras)[list(range(len(clip)))[::-1]]
    control = clip.control.flip(0, -1)
    if clip.control_kind == "prior":
        control[:, NORMALS.start] *= -1
    elif clip.control_kind == "rays":
        control = ray_control(cameras).to(control)
    return replace(
        clip,
        views=clip.views.flip(0, -1),
        alpha=clip.alpha.flip(0, -1),
        control=control,
        start=clip.start.flip(0, -1),
        front=clip.front.flip(-1),
        back=clip.back.flip(-1),
        cameras=cameras,
    )


def mirrored_cameras(cameras: Cameras) -> Cameras:
    """Cameras that see the mirror image of the world (x to -x) as the mirror image of what `cameras` see."""
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=cameras.T_world_camera.dtype))
    principal_px = cameras.principal_px.clone()
    principal_px[:, 0] = cameras.width - principal_px[:, 0]
    T_world_camera = mirror @ cameras.T_world_camera @ mirror
    return Cameras(T_world_camera, cameras.focal_px, principal_px, cameras.width, cameras.height)


def _colour_change(config: ColourJitter, rng: np.random.Generator) -> Callable[[_Pictures], _Pictures]:
    """A random change of colours; black and white stay."""
    draws = rng.uniform(-1, 1, 7)
    if config == STILL:
        return lambda rgb_unit: rgb_unit
    lift_of_channel = [float(config.brightness * draws[0] + config.tint * draw) for draw in draws[1:4]]
    contrast, turn = float(config.contrast * draws[4]), math.radians(config.hue_deg) * draws[5]
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)  # the grey axis as a cross product
    across = math.cos(turn) * (np.eye(3) - grey) + math.sin(turn) * cross
    mixing = torch.from_numpy(grey + (1 + config.saturation * draws[6]) * across)  # turns and stretches about grey

    def changed(rgb_unit: _Pictures) -> _Pictures:
        x = (mixing.to(rgb_unit) @ rgb_unit.flatten(2)).view_as(rgb_unit).clamp_(0, 1)
        lifts = torch.tensor(lift_of_channel).to(rgb_unit).view(1, 3, 1, 1)
        slope = (2 * contrast * x).add_(lifts - contrast)
        return torch.addcmul(x, slope, x - x * x).clamp_(0, 1)

    return changed


def _with_start(clip: TrainingClip, start: Float[Tensor, "f 3 s s"]) -> TrainingClip:
    """Other start views; the colours of prior and other control are theirs."""
    if clip.control_kind == "rays":
        return replace(clip, start=start)
    return replace(clip, start=start, control=torch.cat([2 * start - 1, clip.control[:, COLOUR.stop :]], dim=1))


def _worse_portrait(front: Float[Tensor, "3 s s"], rng: np.random.Generator) -> Float[Tensor, "3 s s"]:
    """A front reference with the faults of a user's picture; the background stays white."""
    size = front.shape[-1]
    draws = rng.uniform(-1, 1, 4)
    change = _colour_change(_PORTRAIT_COLOURS, rng)
    blur, noise = rng.uniform(0, 1, 2) * (_PORTRAIT_BLUR * size, _PORTRAIT_NOISE)
    turn, scale = math.radians(_PORTRAIT_TURN_DEG) * draws[0], math.exp(_PORTRAIT_SCALE * draws[1])
    cos, sin = math.cos(turn) / scale, math.sin(turn) / scale
    shift_x, shift_y = 2 * _PORTRAIT_SHIFT * draws[2], 2 * _PORTRAIT_SHIFT * draws[3]
    affine = torch.tensor([[[cos, -sin, shift_x], [sin, cos, shift_y]]], dtype=torch.float32).to(front)
    grid = F.affine_grid(affine, [1, 3, size, size], align_corners=False)
    picture = F.grid_sample(front[None], grid, padding_mode="border", align_corners=False)  # shoulders go on
    picture = blurred(change(picture), float(blur))
    grain = torch.from_numpy(rng.standard_normal((1, 3, size, size), np.float32)).to(front)
    not_white = (8 * (picture - 1).abs().amax(dim=1, keepdim=True)).clamp(0, 1)
    picture = (picture + float(noise) * grain * not_white).clamp(0, 1)
    quality = int(rng.integers(_JPEG_QUALITY[0], _JPEG_QUALITY[1] + 1))
    return _through_jpeg(picture[0], quality) if rng.random() < _JPEG_SHARE else picture[0]


def _worse_control(clip: TrainingClip, rng: np.random.Generator) -> TrainingClip:
    """A whole clip's control pictures and start views with the faults of a prior that fits less well."""
    change = _colour_change(_PRIOR_COLOURS, rng)
    size = clip.start.shape[-1]
    blur, noise = rng.uniform(0, 1, 2) * (_PRIOR_BLUR * size, _PRIOR_NOISE)
    corners = np.sort(rng.uniform(0, size, (2, 2)), axis=1).astype(int)
    hides, blanks, flattens = rng.random(3) < (_HIDDEN_VALIDITY, _NO_VALIDITY, _NO_NORMALS)
    grains = float(noise) * torch.from_numpy(rng.standard_normal((3, size, size), np.float32)).to(clip.start)
    places = rng.integers(0, size, (len(clip), 2)).tolist()
    soft = blurred(change(clip.start), float(blur))
    not_white = (8 * (1 - soft.amin(dim=1, keepdim=True))).clamp_(0, 1)
    grain = torch.stack([grains.roll(place, (1, 2)) for place in places])  # one field moved about: far faster than many
    clip = _with_start(clip, torch.addcmul(soft, grain, not_white).clamp_(0, 1))
    if clip.control_kind == "prior":
        control = clip.control.clone()
        (top, bottom), (left, right) = corners
        if hides:
            control[:, VALIDITY, top:bottom, left:right] = -1
        if blanks:
            control[:, VALIDITY] = -1
        if flattens:
            control[:, NORMALS] = 0
        clip = replace(clip, control=control)
    return clip


def _through_jpeg(rgb_unit: Float[Tensor, "3 s s"], quality: int) -> Float[Tensor, "3 s s"]:
    """What is left after a JPEG file."""
    file = io.BytesIO()
    pixels = (255 * rgb_unit).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    with Image.open(file) as picture:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(rgb_unit) / 255

"""What tells the diffusion model where to look from, without PanoHead: control pictures and start views.

Control pictures show *some other person* from the wanted camera; in the release they are 32 PanoHead renders of one
fixed identity (`sphere32`), from which the networks take the pose and nothing else. Here it is the geometric prior of
one public-domain photograph (Eileen Collins, NASA; it comes with scikit-image): photographic texture, hair and
shoulders in the same frame, and a collar that tells left from right even from behind.

Start views show *the portrait's own head*, roughly: the release starts the sampler from their latents under the noise
of t = 999 (a share of 0.068). The fitted prior's renders have the same place, pose and colours, which is all that is
left under that noise.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
import zipfile
from contextlib import suppress
from importlib import metadata, resources
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras import Cameras, look_at_origin
from ..errors import InputError
from ..files import cache_folder, write_bytes_atomically
from ..mesh import TexturedMesh
from ..mesh_raster import box_downsample, interpolate, rasterize_mesh, sample_texture
from ..portrait import prepare_portrait
from ..prior import PriorRender, build_head_prior
from ..progress import Track, silent
from .control_pictures import prior_control

_SUPERSAMPLE = 2
_SOURCES = ("*.py", "portrait/*.py", "prior/**/*.py", "head_model/*.py", "weights/*.npz", "weights/*.safetensors")
"""Files of this package that decide how the generic head looks: code, head model and networks of portrait and prior."""
_LIBRARIES = ("numpy", "scipy", "opencv-python-headless", "pymatting", "pillow", "scikit-image")
_ARRAYS = ("vertices_world", "normals_world", "uv_unit", "faces", "texture_rgb")


def generic_head_control(cameras: Cameras, *, track: Track = silent) -> Float[Tensor, "n 3 h w"]:
    """Control pictures: the generic head over white.

    Returns:
        Pictures in [-1, 1] (the release's control network wants that, not diffusers' usual [0, 1]).
    """
    head = generic_head()
    height, width = cameras.height, cameras.width
    texture = head.texture_rgb.astype(np.float32) / 255
    uv_px = head.uv_unit * np.array(texture.shape[1::-1], np.float32)
    pictures = np.empty((len(cameras), height, width, 3), np.float32)
    for i in track(range(len(cameras)), total=len(cameras), description="Control pictures"):
        fragments = rasterize_mesh(head.vertices_world, head.faces, cameras[i], supersample=_SUPERSAMPLE)
        colour = sample_texture(texture, interpolate(fragments, uv_px, head.faces))
        pictures[i] = box_downsample(np.where(fragments.hit[..., None], colour, np.float32(1)), _SUPERSAMPLE)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous() * 2 - 1


def prior_over_white(rendered: PriorRender) -> Float[Tensor, "n 3 h w"]:
    """Renders that are there already over white, [0, 1]: start views, and what a drawing is expected to show."""
    alpha = rendered.alpha[..., None]
    pictures = rendered.rgb * alpha + (1 - alpha)
    return torch.from_numpy(pictures.clip(0, 1)).permute(0, 3, 1, 2).contiguous()


def control_from_prior(
    rendered: PriorRender, cameras: Cameras, *, size_px: int | None = None
) -> Float[Tensor, "n 7 s s"]:
    """The control pictures of networks that are steered by the portrait's own prior: `prior_control` of its renders.

    Args:
        size_px: side of the result, pixels; None keeps the renders' size.
    """
    rgb, normals = (torch.from_numpy(a).permute(0, 3, 1, 2) for a in (rendered.rgb, rendered.normals_world))
    alpha, validity = (torch.from_numpy(a)[:, None] for a in (rendered.alpha, rendered.validity))
    return prior_control(rgb, alpha, validity, normals, cameras, size_px=size_px)


def camera_behind_the_head(cameras: Cameras) -> Cameras:
    """The level camera exactly behind the head, for F: frame 16 of 32 in the release.

    Args:
        cameras: give the picture size and nothing else.
    """
    return look_at_origin([math.pi], [0.0], size_px=cameras.width).resized(cameras.width, cameras.height)


@functools.lru_cache(maxsize=1)
def generic_head() -> TexturedMesh:
    """The one head that control pictures show, in the canonical frame: built once (about 15 s), then read from a file.

    The file lies in the user's cache folder under a name that changes with everything the head depends on, so that it
    never holds a head that the code would not build; where that folder cannot be written, the head is built in every
    process.

    Raises:
        InputError: scikit-image lacks its astronaut picture.
    """
    picture = resources.files("skimage.data").joinpath("astronaut.png")
    if not picture.is_file():
        raise InputError("scikit-image is installed without its astronaut picture; install scikit-image again")
    name = f"generic-head-{_what_decides(picture.read_bytes())}.npz"
    with suppress(InputError, OSError, ValueError, KeyError, zipfile.BadZipFile):  # none yet, or damaged: built again
        with np.load(cache_folder() / name, allow_pickle=False) as arrays:
            return TexturedMesh(**{array: arrays[array] for array in _ARRAYS})
    with resources.as_file(picture) as path:
        head = build_head_prior(prepare_portrait(path)).textured_mesh()
    file = io.BytesIO()
    np.savez_compressed(file, **{array: getattr(head, array) for array in _ARRAYS})
    with suppress(InputError, OSError):
        write_bytes_atomically(cache_folder() / name, file.getvalue())
    return head


def _what_decides(picture: bytes) -> str:
    """A hash of the picture, our code and models, and the libraries that decide how the generic head looks."""
    digest = hashlib.sha256(picture)
    package = Path(str(resources.files("dp360.generation")))
    for file in sorted(file for pattern in _SOURCES for file in package.glob(pattern)):
        digest.update(file.relative_to(package).as_posix().encode() + hashlib.sha256(file.read_bytes()).digest())
    for name in _LIBRARIES:
        digest.update(f"{name} {metadata.version(name)}\n".encode())
    return digest.hexdigest()[:16]

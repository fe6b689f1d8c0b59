"""What a stage can do so far: views of heads that it does not learn from, drawn, measured and laid out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from ...diffusion.pipeline import DiffPortrait360Pipeline
from ...diffusion.sampling import Sampling
from ...progress import silent
from .clips import ClipConfig, TrainingClip, psnr, sample_clip
from .head_pictures import HeadSource

_Pictures = Float[Tensor, "n 3 h w"]
_SEED = 0
"""Of the choice of views and of the noise."""


@dataclass(frozen=True)
class ValidationConfig:
    """How much is drawn at a checkpoint."""

    heads: int = 4
    """Heads, the first of the validation source."""
    views: int = 8
    """Views of each, in the order of azimuth."""
    sampling: Sampling = field(default_factory=lambda: Sampling(steps=8, guidance_scale=1.0))
    """How they are drawn."""


@torch.no_grad()
def validate(
    pipeline: DiffPortrait360Pipeline, source: HeadSource, clips: ClipConfig, config: ValidationConfig
) -> tuple[dict[str, float], Image.Image]:
    """Draw views of the first heads of `source`.

    Args:
        pipeline: networks, on the device where they shall run.
        source: heads that training does not see.

    Returns:
        Figures: psnr_head and psnr, dB, of the drawn views against the true ones, and `start_psnr_head` and
        `start_psnr` of the start views: what there was without drawing. Means over views; head: where the true view has
        alpha above a half.
        A sheet with three rows for each head: the true views, the start views and the drawn ones, behind the two
        references.
    """
    figures = defaultdict[str, list[float]](list)
    rows: list[Tensor] = []
    for index in range(min(config.heads, len(source))):
        clip = spread_clip(source, index, clips, config)
        drawn = draw_clip(pipeline, clip, config)
        for prefix, pictures in (("", drawn), ("start_", clip.start)):
            for each in zip(pictures, clip.views, clip.alpha):
                for name, value in psnr(*each).items():
                    figures[prefix + name].append(value)
        white = torch.ones_like(clip.front)
        for first, pictures in ((clip.front, clip.views), (clip.back, clip.start), (white, drawn)):
            rows.append(torch.cat([first, *pictures], dim=-1))
    picture = (torch.cat(rows, dim=-2).clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).numpy()
    return {name: float(np.mean(values)) for name, values in figures.items()}, Image.fromarray(picture)


def spread_clip(source: HeadSource, index: int, clips: ClipConfig, config: ValidationConfig) -> TrainingClip:
    """Views all round a head: the ring if there is one, with references as in training."""
    rng = np.random.default_rng([_SEED, index])
    count = min(config.views, len(source.head(index).cameras))
    even = ClipConfig(
        size_px=clips.size_px,
        clip_length=count,
        stride_deg=(180 / count, 360 / count),  # holds a whole step of every ring that is long enough
        control=clips.control,
        portrait_share=1.0,
    )
    return sample_clip(source, index, even, rng)


@torch.no_grad()
def draw_clip(pipeline: DiffPortrait360Pipeline, clip: TrainingClip, config: ValidationConfig) -> _Pictures:
    """The views of a clip as the pipeline draws them, [0, 1]; the back reference is the true one."""
    output = pipeline(
        clip.front,
        clip.cameras,
        clip.control,
        generator=torch.Generator().manual_seed(_SEED),
        back_image=clip.back,
        start_views=None if clip.control_kind == "other" else clip.start,
        sampling=config.sampling,
        track=silent,
    )
    return output.images

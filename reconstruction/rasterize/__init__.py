"""One call, `rasterize`, with gsplat's semantics for the variables of a fit: numba on the CPU, gsplat itself on CUDA.

Conventions: `viewmats` are to camera from world with OpenCV axes, pixel centres lie at +0.5, quaternions are wxyz and
need not be normalised, harmonics are basis-major.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import assert_never

from ..spherical_harmonics import MAX_SH_DEGREE, sh_basis_count
from .cpu import Blend, Project

RasterizeMode = Literal["classic", "antialiased"]
RenderMode = Literal["RGB", "RGB+D", "RGB+ED"]
Rendered = tuple[Float[Tensor, "c h w channels"], Float[Tensor, "c h w 1"], dict[str, Any]]
"""What `rasterize` returns: pictures, alphas, `info`."""


def rasterize(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    log_scales: Float[Tensor, "n 3"],
    opacity_logits: Float[Tensor, " n"],
    sh0: Float[Tensor, "n 3"],
    sh_rest: Float[Tensor, "n k 3"],
    viewmats: Float[Tensor, "c 4 4"],
    Ks: Float[Tensor, "c 3 3"],
    width: int,
    height: int,
    *,
    sh_degree: int,
    near_plane: float = 0.01,
    eps2d: float = 0.3,
    rasterize_mode: RasterizeMode = "classic",
    render_mode: RenderMode = "RGB",
    backgrounds: Float[Tensor, "c 3"] | None = None,
) -> Rendered:
    """Render Gaussians into `c` cameras; differentiable in all that describes the Gaussians.

    Args:
        means: Centres, world units; their device says who renders.
        quats: Rotations, wxyz, of any length but zero.
        log_scales: Natural logarithms of the standard deviations along the axes, world units.
        opacity_logits: Logits of opacities.
        sh0: Constant harmonic coefficients.
        sh_rest: Coefficients of the degrees above; those above `sh_degree` are not used and have zero gradients.
        viewmats: To camera from world.
        Ks: Intrinsics, pixels.
        sh_degree: Degree of spherical harmonics to evaluate, at most what `sh_rest` holds.
        near_plane: Gaussians nearer than this are not shown, world units.
        eps2d: Low-pass filter added to the projected covariance, px^2.
        rasterize_mode: `antialiased` lowers the opacity of Gaussians smaller than the low-pass filter.
        render_mode: `RGB+D` appends accumulated depth; `RGB+ED` appends depth divided by alpha.
        backgrounds: Colour behind everything, per camera; black if not given.

    Returns:
        Pictures with 3 or 4 channels, alphas, and `info`: `radii` [c n] (0 where not shown), `means2d` [c n 2] (part
        of the graph: call `retain_grad()` on it to read screen-space gradients), `width`, `height`, `n_cameras`,
        `gaussian_ids` (None: not packed). Enough for gsplat's `DefaultStrategy`.

    Raises:
        ValueError: shapes that do not fit together, or a harmonic degree that `sh_rest` does not hold.
        InputError: Gaussians that are not finite, or a GPU without a way to build gsplat's kernels.

    Source: https://github.com/nerfstudio-project/gsplat, 1.4.0, `gsplat.rasterization(packed=False)`.
    """
    n, c = means.shape[0], viewmats.shape[0]
    if not 0 <= sh_degree <= MAX_SH_DEGREE:
        raise ValueError(f"rasterize: expected sh_degree from 0 to {MAX_SH_DEGREE}, got {sh_degree}")
    k = max(sh_basis_count(sh_degree) - 1, sh_rest.shape[1])
    expected = {
        "means": (means, (n, 3)),
        "quats": (quats, (n, 4)),
        "log_scales": (log_scales, (n, 3)),
        "opacity_logits": (opacity_logits, (n,)),
        "sh0": (sh0, (n, 3)),
        "sh_rest": (sh_rest, (n, k, 3)),
        "viewmats": (viewmats, (c, 4, 4)),
        "Ks": (Ks, (c, 3, 3)),
        "backgrounds": (backgrounds, (c, 3)),
    }
    for name, (tensor, shape) in expected.items():  # kernels would read past what is smaller
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"rasterize: expected {name} of shape {shape}, got {tuple(tensor.shape)}")
    if means.is_cuda:
        from .cuda import rasterize_cuda

        colours = torch.cat([sh0[:, None], sh_rest[:, : sh_basis_count(sh_degree) - 1]], dim=1)
        activated = (means, quats, log_scales.exp(), opacity_logits.sigmoid(), colours)
        cameras = (viewmats.to(means), Ks.to(means), width, height)
        filters: dict[str, Any] = {"near_plane": near_plane, "eps2d": eps2d, "rasterize_mode": rasterize_mode}
        shown = {"sh_degree": sh_degree, "render_mode": render_mode, "backgrounds": backgrounds, "packed": False}
        return rasterize_cuda(*activated, *cameras, **filters, **shown)
    gaussians, how = (means, quats, log_scales, opacity_logits, sh0, sh_rest), (sh_degree, near_plane, eps2d)
    by_size = rasterize_mode == "antialiased"
    radii, means2d, records = Project.apply(*gaussians, viewmats, Ks, (width, height), (*how, by_size))  # type: ignore[misc]
    behind = means2d.new_zeros(c, 3) if backgrounds is None else backgrounds
    rgb, depth, alpha = Blend.apply(means2d, records, radii, behind, width, height, render_mode != "RGB")  # type: ignore[misc]
    renders, alphas = rgb, alpha[..., None]
    if render_mode == "RGB+D":
        renders = torch.cat([rgb, depth[..., None]], dim=-1)
    elif render_mode == "RGB+ED":
        renders = torch.cat([rgb, depth[..., None] / alphas.clamp_min(1e-10)], dim=-1)
    elif render_mode != "RGB":
        assert_never(render_mode)
    info = {"radii": radii, "means2d": means2d, "gaussian_ids": None, "n_cameras": c, "width": width, "height": height}
    return renders, alphas, info

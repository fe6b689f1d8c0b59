"""One call, `rasterize`, with gsplat's signature and semantics, and three machines behind it.

`cpu` (numba, the default for tensors on the CPU), `cuda` (gsplat itself) and `reference` (plain tensors, any floating
type, for tests). Conventions: `viewmats` are to camera from world with OpenCV axes, pixel centres lie at +0.5,
quaternions are wxyz and need not be normalised, harmonics are basis-major.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypedDict, Unpack, assert_never

from ..spherical_harmonics import MAX_SH_DEGREE, sh_basis_count
from .cpu import ProjectionSettings, rasterize_cpu

Backend = Literal["auto", "cpu", "cuda", "reference"]
RasterizeMode = Literal["classic", "antialiased"]
RenderMode = Literal["RGB", "RGB+D", "RGB+ED"]
Rendered = tuple[Float[Tensor, "c h w channels"], Float[Tensor, "c h w 1"], dict[str, Any]]
"""What `rasterize` returns: pictures, alphas, `info`."""


class RasterOptions(TypedDict, total=False):
    """What may be said beside the Gaussians and the cameras; the defaults are gsplat's."""

    near_plane: float
    """Gaussians nearer than this are not shown, world units; 0.01 by default."""
    eps2d: float
    """Low-pass filter added to the projected covariance, px^2; 0.3 by default."""
    rasterize_mode: RasterizeMode
    """`classic` by default; `antialiased` lowers the opacity of Gaussians smaller than the low-pass filter."""
    render_mode: RenderMode
    """`RGB` by default; `RGB+D` appends accumulated depth; `RGB+ED` appends depth divided by alpha."""
    backgrounds: Float[Tensor, "c 3"] | None
    """Colour behind everything, per camera; black by default."""
    backend: Backend
    """`auto`, the default, follows the device of the means."""


def rasterize(
    means: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colors: Float[Tensor, "n 3"] | Float[Tensor, "n k 3"],
    viewmats: Float[Tensor, "c 4 4"],
    Ks: Float[Tensor, "c 3 3"],
    width: int,
    height: int,
    *,
    sh_degree: int | None = None,
    **options: Unpack[RasterOptions],
) -> Rendered:
    """Render Gaussians into `c` cameras; differentiable in means, quats, scales, opacities and colors.

    Args:
        means: Centres, world units.
        quats: Rotations, wxyz, of any length but zero.
        scales: Standard deviations along the axes, world units (not logarithms).
        opacities: In [0, 1] (not logits).
        colors: Plain colours `[n 3]`, or coefficients `[n k 3]` where `sh_degree` is given.
        viewmats: To camera from world.
        Ks: Intrinsics, pixels.
        width: Picture width, pixels.
        height: Picture height, pixels.
        sh_degree: Degree of spherical harmonics to evaluate, at most what `colors` holds; None for plain colours.
        options: See `RasterOptions`.

    Returns:
        Pictures with 3 or 4 channels, alphas, and `info`: `radii` [c n] (0 where not shown), `means2d` [c n 2] (part
        of the graph: call `retain_grad()` on it to read screen-space gradients), `width`, `height`, `n_cameras`,
        `gaussian_ids` (None: not packed). Enough for gsplat's `DefaultStrategy`.

    Raises:
        ValueError: shapes that do not fit together, or a harmonic degree that `colors` does not hold.
        InputError: `cuda` without a way to build gsplat's kernels.

    Source: https://github.com/nerfstudio-project/gsplat, 1.4.0, `gsplat.rasterization(packed=False)`.
    """
    backgrounds = options.get("backgrounds")
    _check(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, sh_degree)
    backend = options.pop("backend", "auto")
    if backend == "auto":
        backend = "cuda" if means.is_cuda else "cpu"
    if backend == "cuda":
        from .cuda import rasterize_cuda

        cameras = viewmats.to(means), Ks.to(means), width, height
        return rasterize_cuda(
            means, quats, scales, opacities, colors, *cameras, sh_degree=sh_degree, packed=False, **options
        )
    settings = _settings(width, height, sh_degree, options)
    gaussians = (means, quats, scales, opacities, colors)
    if backend == "cpu":
        return _finish(*rasterize_cpu((*gaussians, None), viewmats, Ks, settings, backgrounds), options)
    if backend == "reference":
        from .reference import rasterize_reference

        rgb, depth, alpha, radii, means2d = rasterize_reference(*gaussians, viewmats, Ks, settings)
        if backgrounds is not None:
            rgb = rgb + (1 - alpha[..., None]) * backgrounds[:, None, None].to(rgb)
        return _finish(rgb, depth, alpha, radii, means2d, options)
    assert_never(backend)


def rasterize_splats(
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
    **options: Unpack[RasterOptions],
) -> Rendered:
    """`rasterize` for the variables of a fit; on the CPU the kernels apply exponential and sigmoid themselves.

    Args:
        means: As in `rasterize`, like all that is not named here.
        quats: Likewise.
        log_scales: Natural logarithms of the standard deviations, world units.
        opacity_logits: Logits of opacities.
        sh0: Constant harmonic coefficients.
        sh_rest: Coefficients of the degrees above; those above `sh_degree` are not used and have zero gradients.
        viewmats: Likewise.
        Ks: Likewise.
        width: Likewise.
        height: Likewise.
        sh_degree: Degree of spherical harmonics to evaluate.
        options: Likewise.

    Returns:
        As `rasterize`.

    Raises:
        ValueError: as `rasterize`.
        InputError: as `rasterize`.
    """
    backend, backgrounds = options.get("backend", "auto"), options.get("backgrounds")
    if backend == "cpu" or (backend == "auto" and not means.is_cuda):
        _check(means, quats, log_scales, opacity_logits, sh0, viewmats, Ks, backgrounds, None)
        _check_degree(sh_degree, sh_rest, means.shape[0], held=1)
        gaussians = (means, quats, log_scales, opacity_logits, sh0, sh_rest)
        settings = _settings(width, height, sh_degree, options, raw=True)
        return _finish(*rasterize_cpu(gaussians, viewmats, Ks, settings, backgrounds), options)
    coefficients = torch.cat([sh0[:, None], sh_rest[:, : sh_basis_count(sh_degree) - 1]], dim=1)
    activated = (means, quats, log_scales.exp(), opacity_logits.sigmoid(), coefficients)
    return rasterize(*activated, viewmats, Ks, width, height, sh_degree=sh_degree, **options)


def _settings(
    width: int, height: int, sh_degree: int | None, options: RasterOptions, *, raw: bool = False
) -> ProjectionSettings:
    if unknown := options.keys() - RasterOptions.__annotations__.keys():
        raise TypeError(f"rasterize: unknown options {', '.join(sorted(unknown))}")
    return ProjectionSettings(
        width=width,
        height=height,
        sh_degree=-1 if sh_degree is None else sh_degree,
        near_plane=options.get("near_plane", 0.01),
        eps2d=options.get("eps2d", 0.3),
        antialiased=options.get("rasterize_mode", "classic") == "antialiased",
        raw=raw,
        with_depth=options.get("render_mode", "RGB") != "RGB",
    )


def _finish(
    rgb: Tensor, depth: Tensor, alpha: Tensor, radii: Tensor, means2d: Tensor, options: RasterOptions
) -> Rendered:
    """What `rasterize` returns, from blended pictures."""
    renders, alphas, render_mode = rgb, alpha[..., None], options.get("render_mode", "RGB")
    if render_mode == "RGB+D":
        renders = torch.cat([rgb, depth[..., None]], dim=-1)
    elif render_mode == "RGB+ED":
        renders = torch.cat([rgb, depth[..., None] / alphas.clamp_min(1e-10)], dim=-1)
    elif render_mode != "RGB":
        assert_never(render_mode)
    info = {
        "radii": radii,
        "means2d": means2d,
        "gaussian_ids": None,
        "n_cameras": rgb.shape[0],
        "width": rgb.shape[2],
        "height": rgb.shape[1],
    }
    return renders, alphas, info


def _check(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    backgrounds: Tensor | None,
    sh_degree: int | None,
) -> None:
    """Refuse shapes that kernels would read past."""
    n, c = means.shape[0], viewmats.shape[0]
    if sh_degree is not None:
        _check_degree(sh_degree, colors, n, held=0)
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("means", means, (n, 3)),
        ("quats", quats, (n, 4)),
        ("scales", scales, (n, 3)),
        ("opacities", opacities, (n,)),
        ("viewmats", viewmats, (c, 4, 4)),
        ("Ks", Ks, (c, 3, 3)),
        ("backgrounds", backgrounds, (c, 3)),
        ("colors", colors, (n, 3) if sh_degree is None else (n, colors.shape[1], 3)),
    ]
    for name, tensor, shape in expected:
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"rasterize: expected {name} of shape {shape}, got {tuple(tensor.shape)}")


def _check_degree(sh_degree: int, coefficients: Tensor, n: int, *, held: int) -> None:
    """Refuse a degree that `coefficients` does not hold, beside the `held` ones kept elsewhere."""
    if not 0 <= sh_degree <= MAX_SH_DEGREE:
        raise ValueError(f"rasterize: expected sh_degree from 0 to {MAX_SH_DEGREE} or None, got {sh_degree}")
    needed = sh_basis_count(sh_degree) - held
    if coefficients.dim() != 3 or coefficients.shape[0] != n or not needed <= coefficients.shape[1]:
        raise ValueError(
            f"rasterize: sh_degree {sh_degree} needs colors of shape [n, k >= {needed}, 3], "
            f"got {tuple(coefficients.shape)}"
        )

"""Adding Gaussians where the picture asks for detail, dropping those that show nothing, keeping them in shape.

State is passed in: `params` and `optimizers` are dictionaries with the same keys (`means`, `scales`, `quats`,
`features_dc`, `features_rest`, `opacities`, as in nerfstudio's splatfacto and gsplat's strategies), one Adam per entry,
and both are changed in place. Randomness comes from a generator.

Source: Kerbl et al., "3D Gaussian Splatting", 2023, Sec. 5.1, with a cap on the count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import Parameter

from dp360.generation import Cameras
from dp360.generation.dataset.visual_hull import outside_votes

from .adam import HasMoments
from .losses import longest_and_middle

Parameters = MutableMapping[str, Parameter]
"""Named fit variables: log scales under `scales`, logits under `opacities`."""
Optimizers = MutableMapping[str, HasMoments]
"""One optimizer per entry of `Parameters`."""


_SILHOUETTE_PX = 256


@dataclass(frozen=True)
class DensifyConfig:
    """When and how the set of Gaussians changes."""

    start_fraction: float = 0.15
    """Share of the iterations before the first change."""
    stop_fraction: float = 0.7
    """Share of the iterations after which the set stays as it is."""
    every: int = 100
    """Iterations between changes."""
    grow_gradient: float = 2e-4
    """Mean gradient of the projected centre, in half pictures, above which a Gaussian is doubled."""
    split_above_scale: float = 0.01
    """Larger ones are split into two smaller, smaller ones duplicated; longest standard deviation, world units."""
    prune_opacity: float = 0.02
    """Gaussians below this opacity are dropped."""
    max_count: int = 60_000
    """The set never grows beyond this."""
    max_scale: float = 0.05
    """Longest standard deviation allowed, world units (0.05 is 3 cm)."""
    max_needle_ratio: float = 8.0
    """Longest axis divided by the middle one that is allowed at most."""
    hull_margin: float = 0.012
    """Gaussians whose centre stands further outside the silhouettes are dropped, picture widths; below 0 none are."""
    hull_outside_share: float = 0.06
    """Share of the views that may show nothing where a Gaussian stands before it is dropped."""

    def is_due(self, step: int, iterations: int) -> bool:
        """Whether the set changes after iteration `step` of `iterations`."""
        inside = self.start_fraction * iterations <= step < self.stop_fraction * iterations
        return inside and step > 0 and step % self.every == 0


@dataclass
class DensifyState:
    """Running sums since the last change."""

    gradient_sum: Float[Tensor, " n"]
    """Sum of the norms of the projected centres' gradients."""
    seen_count: Float[Tensor, " n"]
    """In how many pictures each Gaussian was shown."""

    @classmethod
    def zeros(cls, n: int, device: torch.device | str = "cpu") -> DensifyState:
        """The state before the first iteration."""
        return cls(torch.zeros(n, device=device), torch.zeros(n, device=device))


@torch.no_grad()
def accumulate(state: DensifyState, info: dict[str, Any]) -> None:
    """Add one backward pass to the sums.

    Args:
        state: Changed in place.
        info: What `rasterize` returned; `retain_grad()` was called on its `means2d` before the backward pass.
    """
    gradient = info["means2d"].grad
    assert gradient is not None, "call info['means2d'].retain_grad() before the backward pass"
    half_size = torch.tensor([info["width"] / 2, info["height"] / 2], device=gradient.device) * info["n_cameras"]
    shown = info["radii"] > 0
    state.gradient_sum += torch.where(shown, (gradient * half_size).norm(dim=-1), 0).sum(dim=0)
    state.seen_count += shown.sum(dim=0)


@torch.no_grad()
def densify(
    params: Parameters,
    optimizers: Optimizers,
    state: DensifyState,
    config: DensifyConfig,
    generator: torch.Generator,
    *,
    outside: Bool[Tensor, " n"] | None = None,
) -> DensifyState:
    """Drop what is transparent or `outside`, double what pulls hardest, up to the cap.

    Returns:
        Fresh sums for the new set.
    """
    opaque = params["opacities"].flatten().sigmoid() >= config.prune_opacity
    if outside is not None:
        opaque &= ~outside
    pull = torch.where(opaque, state.gradient_sum / state.seen_count.clamp_min(1), 0)
    room = max(0, config.max_count - int(opaque.sum()))
    grow = pull > config.grow_gradient
    if int(grow.sum()) > room:
        grow = torch.zeros_like(grow)
        grow[torch.sort(pull, descending=True, stable=True).indices[:room]] = True
        grow &= pull > config.grow_gradient
    large = params["scales"].max(dim=-1).values.exp() > config.split_above_scale
    _rebuild(params, optimizers, opaque & ~(grow & large), grow & ~large, grow & large, generator)
    return DensifyState.zeros(params["means"].shape[0], params["means"].device)


@torch.no_grad()
def keep_only(params: Parameters, optimizers: Optimizers, kept: Bool[Tensor, " n"]) -> None:
    """Drop all Gaussians but those in `kept`, with their optimizers' moments."""
    if bool(kept.all()):
        return
    for name in list(params):
        _replace(params, optimizers, name, params[name].data[kept], lambda old: old[kept])


def _rebuild(
    params: Parameters,
    optimizers: Optimizers,
    kept: Bool[Tensor, " n"],
    duplicated: Bool[Tensor, " n"],
    split: Bool[Tensor, " n"],
    generator: torch.Generator,
) -> None:
    """Kept Gaussians, then copies of the duplicated ones, then two smaller ones for each that is split."""
    kept_at, copied_at, split_at = (mask.nonzero()[:, 0] for mask in (kept, duplicated, split))
    children_of = split_at.repeat(2)
    quats = F.normalize(params["quats"][children_of], dim=-1)
    standard = torch.randn(children_of.shape[0], 3, generator=generator).to(quats)
    w, axis, offsets = quats[:, :1], quats[:, 1:], params["scales"][children_of].exp() * standard
    offsets = offsets + 2 * torch.linalg.cross(axis, torch.linalg.cross(axis, offsets) + w * offsets)

    def new_value(name: str, old: Tensor) -> Tensor:
        children = old[children_of]
        if name == "means":
            children = children + offsets
        elif name == "scales":
            children = children - torch.log(torch.tensor(1.6)).to(children)
        return torch.cat([old[kept_at], old[copied_at], children])

    def new_moment(old: Tensor) -> Tensor:
        return torch.cat([old[kept_at], old.new_zeros(copied_at.shape[0] + children_of.shape[0], *old.shape[1:])])

    for name in list(params):
        _replace(params, optimizers, name, new_value(name, params[name].data), new_moment)


def _replace(
    params: Parameters, optimizers: Optimizers, name: str, value: Tensor, new_moment: Callable[[Tensor], Tensor]
) -> None:
    """Put a new variable in place of an old one and carry its optimizer's moments over."""
    old, new = params[name], Parameter(value)
    params[name] = new
    optimizer = optimizers[name]
    (group,) = optimizer.param_groups
    group["params"] = [new]
    moments = optimizer.state.pop(old, None)
    if moments is not None:
        optimizer.state[new] = {
            key: new_moment(m) if isinstance(m, Tensor) and m.dim() > 0 else m for key, m in moments.items()
        }


@torch.no_grad()
def limit_shapes(params: Parameters, config: DensifyConfig) -> None:
    """Clip scales in place to the longest allowed axis and needle ratio."""
    log_scales = params["scales"]
    _, middle = longest_and_middle(log_scales)
    most = (middle + math.log(config.max_needle_ratio)).clamp_max(math.log(config.max_scale))
    log_scales.copy_(torch.minimum(log_scales, most[:, None]))


class Silhouettes:
    """Where the views show the head, in small, as a bound on where Gaussians may stand: inside the visual hull."""

    def __init__(self, pictures: Iterable[Tensor], cameras: Cameras) -> None:
        """Keep silhouettes of about `_SILHOUETTE_PX` on the longer side.

        Args:
            pictures: each `[h w 4]` with straight alpha or `[h w 3]`, which is opaque; 8 bits, or floats in [0, 1].
        """
        self._solid, self._cameras = torch.stack([_solid(picture) for picture in pictures]), cameras

    @torch.no_grad()
    def outside(
        self, means_world: Float[Tensor, "n 3"], config: DensifyConfig, trust: Float[Tensor, " v"]
    ) -> Bool[Tensor, " n"]:
        """Which centres stand where more trusted views than `config.hull_outside_share` allows show nothing.

        Centres in nobody's frame are not outside: nothing is known about them.
        """
        if not config.hull_margin >= 0:
            return torch.zeros(len(means_world), dtype=torch.bool, device=means_world.device)
        margin_px = round(config.hull_margin * self._solid.shape[2])
        outside, seen = outside_votes(means_world, self._solid, self._cameras, margin_px=margin_px, trust=trust.cpu())
        return (outside > config.hull_outside_share * seen).to(means_world.device)


def _solid(picture: Tensor) -> Bool[Tensor, "h w"]:
    """Where a picture's alpha, averaged down, is at least a half."""
    step = max(1, round(max(picture.shape[:2]) / _SILHOUETTE_PX))
    size = (max(1, picture.shape[0] // step), max(1, picture.shape[1] // step))
    if picture.shape[-1] < 4:
        return torch.ones(size, dtype=torch.bool)
    alpha = picture[..., 3].cpu().float() / (255 if picture.dtype == torch.uint8 else 1)
    return F.adaptive_avg_pool2d(alpha[None], size)[0] >= 0.5

"""The compact model's autoencoder: principal components of square patches, and networks that correct them.

Both directions are a linear map of patches plus a convolutional network whose last layer starts at zero. With the maps
set to the principal components of a sample of patches (`start_from_components`), training starts at the best that a
linear code can do and only gets better, which matters where there is little computing time: an autoencoder of the usual
kind needs hours to get that far.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

Pictures = Float[Tensor, "b 3 H W"]
Latents = Float[Tensor, "b c h w"]


@dataclass(frozen=True)
class PatchAutoencoderConfig:
    """Sizes of a `PatchAutoencoder`."""

    latent_channels: int = 16
    """Channels of the latents."""
    patch_px: int = 8
    """Side of a patch: how many times smaller latents are than pictures."""
    width: int = 160
    """Channels of the correcting networks."""
    blocks: int = 3
    """Residual blocks of each direction at the latents' size."""
    fine_width: int = 48
    """Channels of the layers at half the picture's size that smooth over the patches' edges."""
    scaling_factor: float = 1.0
    """Of latents, as other autoencoders of diffusers have it; statistics per channel stand in the pipeline."""


@dataclass(frozen=True)
class Encoded:
    """What `encode` returns."""

    latent: Latents
    """Latents, not normalised."""


@dataclass(frozen=True)
class Decoded:
    """What `decode` returns."""

    sample: Pictures
    """Pictures, about [-1, 1], not clipped."""


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Pictures in [-1, 1] to latents and back; deterministic. Fields as in `PatchAutoencoderConfig`."""

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        patch_px: int = 8,
        width: int = 160,
        blocks: int = 3,
        fine_width: int = 48,
        scaling_factor: float = 1.0,
    ) -> None:
        """Random orthonormal maps; see `start_from_components`."""
        super().__init__()
        values = 3 * patch_px**2
        if not 1 <= latent_channels <= values or patch_px % 2:
            raise ValueError(
                f"PatchAutoencoder: expected an even patch_px and 1 to {values} latent channels, got {patch_px} and "
                f"{latent_channels}"
            )
        self.to_latent = nn.Conv2d(values, latent_channels, 1)
        self.to_patch = nn.Conv2d(latent_channels, values, 1)
        nn.init.orthogonal_(self.to_latent.weight.flatten(1))
        with torch.no_grad():
            self.to_patch.weight.copy_(self.to_latent.weight.transpose(0, 1))
        self.encoder = _network(values, width, latent_channels, blocks)
        self.decoder = _network(latent_channels, width, values, blocks)
        half = 3 * (2**2)
        self.fine = nn.Sequential(
            nn.Conv2d(half, fine_width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(fine_width, fine_width, 3, padding=1),
            nn.SiLU(),
            _zero(nn.Conv2d(fine_width, half, 3, padding=1)),
        )

    def encode(self, pictures: Pictures) -> Encoded:
        """Latents of pictures whose sides are multiples of `patch_px`."""
        patches = F.pixel_unshuffle(pictures, self.config.patch_px)
        return Encoded(self.to_latent(patches) + self.encoder(patches))

    def decode(self, latents: Latents) -> Decoded:
        """Pictures of latents."""
        patches = self.to_patch(latents) + self.decoder(latents)
        halves = _halves(patches, self.config.patch_px)
        return Decoded(F.pixel_shuffle(halves + self.fine(halves), 2))

    def forward(self, pictures: Pictures) -> Pictures:
        """Encode and decode."""
        return self.decode(self.encode(pictures).latent).sample

    @torch.no_grad()
    def start_from_components(self, pictures: Pictures) -> Float[Tensor, " c"]:
        """Set the linear maps to the principal components of the patches of `pictures`.

        Returns:
            Variance along each component, largest first.
        """
        patches = F.pixel_unshuffle(pictures.double(), self.config.patch_px).movedim(1, -1).flatten(0, -2)
        mean = patches.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
        count = self.config.latent_channels
        components = vectors.flip(1)[:, :count].T
        self.to_latent.weight.copy_(components[..., None, None])
        self.to_latent.bias.copy_(-components @ mean)
        self.to_patch.weight.copy_(components.T[..., None, None])
        self.to_patch.bias.copy_(mean)
        return values.flip(0)[:count].float()


def _halves(patches: Float[Tensor, "b v h w"], patch_px: int) -> Float[Tensor, "b 12 _ _"]:
    """Patches to their pictures at half the size, 2 x 2 pixels in the channels."""
    pictures = F.pixel_shuffle(patches, patch_px)
    return F.pixel_unshuffle(pictures, 2)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(16, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, hidden: Latents) -> Latents:
        return hidden + self.layers(hidden)


def _network(inputs: int, width: int, outputs: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1),
        *(_ResidualBlock(width) for _ in range(blocks)),
        nn.SiLU(),
        _zero(nn.Conv2d(width, outputs, 3, padding=1)),
    )


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer

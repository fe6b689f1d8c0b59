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
from diffusers.models.autoencoders.vae import DecoderOutput, EncoderOutput
from jaxtyping import Float
from torch import Tensor, nn

from ..networks import zeroed
from .sized_network import Latents, ModelMixin, SizedNetwork  # noqa: F401 - diffusers looks for ModelMixin here

PictureBatch = Float[Tensor, "b 3 H W"]


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


class PatchAutoencoder(SizedNetwork):
    """Pictures in [-1, 1] to latents and back; deterministic."""

    sizes_type = PatchAutoencoderConfig
    sizes: PatchAutoencoderConfig

    def build(self) -> None:
        """Make the layers, with random orthonormal maps; see `start_from_components`."""
        config = self.sizes
        values, latents, fine = 3 * config.patch_px**2, config.latent_channels, config.fine_width
        assert 1 <= latents <= values and config.patch_px % 2 == 0
        self.to_latent = nn.Conv2d(values, latents, 1)
        self.to_patch = nn.Conv2d(latents, values, 1)
        nn.init.orthogonal_(self.to_latent.weight.flatten(1))
        with torch.no_grad():
            self.to_patch.weight.copy_(self.to_latent.weight.transpose(0, 1))
        self.encoder = _network(values, config.width, latents, config.blocks)
        self.decoder = _network(latents, config.width, values, config.blocks)
        half = 3 * (2**2)
        self.fine = nn.Sequential(
            nn.Conv2d(half, fine, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(fine, fine, 3, padding=1),
            nn.SiLU(),
            zeroed(nn.Conv2d(fine, half, 3, padding=1)),
        )

    def encode(self, pictures: PictureBatch) -> EncoderOutput:
        """Latents of pictures whose sides are multiples of `patch_px`."""
        patches = F.pixel_unshuffle(pictures, self.sizes.patch_px)
        return EncoderOutput(latent=self.to_latent(patches) + self.encoder(patches))

    def decode(self, latents: Latents) -> DecoderOutput:
        """Pictures of latents."""
        patches = self.to_patch(latents) + self.decoder(latents)
        halves = F.pixel_unshuffle(F.pixel_shuffle(patches, self.sizes.patch_px), 2)  # 2 x 2 pixels in the channels
        return DecoderOutput(sample=F.pixel_shuffle(halves + self.fine(halves), 2))

    def forward(self, pictures: PictureBatch) -> PictureBatch:
        """Encode and decode."""
        return self.decode(self.encode(pictures).latent).sample

    @torch.no_grad()
    def start_from_components(self, pictures: PictureBatch) -> Float[Tensor, " c"]:
        """Set the linear maps to the principal components of the patches of `pictures`.

        Returns:
            Variance along each component, largest first.
        """
        patches = F.pixel_unshuffle(pictures.double(), self.sizes.patch_px).movedim(1, -1).flatten(0, -2)
        mean = patches.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
        count = self.sizes.latent_channels
        components = vectors.flip(1)[:, :count].T
        for layer, weight, bias in (
            (self.to_latent, components, -components @ mean),
            (self.to_patch, components.T, mean),
        ):
            layer.load_state_dict({"weight": weight[..., None, None], "bias": bias})
        return values.flip(0)[:count].float()


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
        zeroed(nn.Conv2d(width, outputs, 3, padding=1)),
    )

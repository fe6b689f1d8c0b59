"""The constant context of the cross-attentions: the empty prompt's tokens, or learned ones."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn


class NullContext(ModelMixin, ConfigMixin):
    """One context for every picture. DiffPortrait360's prompt is always empty, so its text encoder runs once, when the
    checkpoint is converted; a compact model learns the tokens instead.
    """

    @register_to_config
    def __init__(self, tokens: int = 77, width: int = 768) -> None:
        """Room for `tokens` context tokens of `width` channels, zero at first."""
        super().__init__()
        self.context = nn.Parameter(torch.zeros(1, tokens, width))

    def forward(self) -> Float[Tensor, "1 n d"]:
        """The context."""
        return self.context

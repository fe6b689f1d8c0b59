"""Attention of the networks: reads tokens of reference pictures beside its own, and can write down what it was given.

DiffPortrait360 passes appearance on by self-attention: the reference network R writes the input of each of its
self-attentions (`norm1` of the transformer block); the denoising network reads them as further keys and values,
projected by its own weights (paper, Sec. 3.1 "dual appearance"; modes "write" and "read" in the release).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Reference:
    """Keys and values of all reference tokens of one picture batch at every self-attention, in execution order.

    A batch of one is shared by all pictures that read it.
    """

    keys: tuple[Float[Tensor, "_ _ _"], ...]
    """Projected keys per site, [1 or b, tokens, channels]."""
    values: tuple[Float[Tensor, "_ _ _"], ...]
    """Projected values per site, [1 or b, tokens, channels]."""


class ReferenceAttention:
    """Attention processor of diffusers for self- and cross-attention; it keeps no state.

    Context and reference batches of one are projected once and shared by all pictures.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "b t c"],
        encoder_hidden_states: Float[Tensor, "one_or_b n d"] | None = None,
        attention_mask: None = None,
        temb: None = None,
        reference: tuple[Float[Tensor, "one_or_many m c"], Float[Tensor, "one_or_many m c"]] | None = None,
        written: list[Tensor] | None = None,
    ) -> Float[Tensor, "b t c"]:
        """Attend from `hidden_states` to itself and `reference`, or to `encoder_hidden_states` where that is given.

        Args:
            attn: the layer: projections and heads.
            hidden_states: normalised tokens.
            encoder_hidden_states: context of a cross-attention; None in a self-attention.
            attention_mask: not used by these networks.
            temb: not used by these networks.
            reference: keys and values of reference tokens, read by self-attention only.
            written: self-attention appends its input here.
        """
        del attention_mask, temb
        batch = hidden_states.shape[0]
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = projected(attn, hidden_states, source)
        if encoder_hidden_states is None:
            if written is not None:
                written.append(hidden_states)
            if reference is not None:
                key = torch.cat([key, reference[0].expand(batch, -1, -1)], dim=1)
                value = torch.cat([value, reference[1].expand(batch, -1, -1)], dim=1)
        mixed = attend(query, key.expand(batch, -1, -1), value.expand(batch, -1, -1), attn.heads)
        linear, dropout = output_layers(attn)
        return dropout(linear(mixed))


def projected(attn: Attention, own: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of `own`, keys and values of `source`."""
    assert attn.to_k is not None and attn.to_v is not None  # None in diffusers' joint attentions only
    return attn.to_q(own), attn.to_k(source), attn.to_v(source)


def output_layers(attn: Attention) -> tuple[nn.Module, nn.Module]:
    """Linear layer and dropout after the attention."""
    assert attn.to_out is not None  # as above
    linear, dropout = attn.to_out
    return linear, dropout


def attend(
    query: Float[Tensor, "b q c"], key: Float[Tensor, "b k c"], value: Float[Tensor, "b k c"], heads: int
) -> Float[Tensor, "b q c"]:
    """Multi-head scaled dot-product attention over channels split into `heads`."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)

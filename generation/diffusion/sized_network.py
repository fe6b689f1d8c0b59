"""What all networks of the pipeline are: models of diffusers that are made from one frozen dataclass of sizes."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, ClassVar

from diffusers import ConfigMixin, ModelMixin
from jaxtyping import Float
from torch import Tensor

Latents = Float[Tensor, "b c h w"]
"""Pictures as the autoencoder codes them."""


class SizedNetwork(ModelMixin, ConfigMixin):
    """The constructor takes the fields of `sizes_type`, keeps them as `sizes`, and lets `build` make the layers.

    diffusers stores them in the network's config.json, and constructs the network from there. To load a pipeline it
    looks for the name `ModelMixin` in the module of each network: every such module has to import it.
    """

    sizes_type: ClassVar[type]
    """A frozen dataclass; its fields and defaults are the constructor's arguments."""
    sizes: Any
    """An instance of it; subclasses say of which type."""

    def __init__(self, *in_order: Any, **by_name: Any) -> None:
        """Layers of these sizes; what is not given is as in `sizes_type`. Lists, as JSON has them, become tuples."""
        super().__init__()
        positional = [tuple(value) if isinstance(value, list) else value for value in in_order]
        named = {name: tuple(value) if isinstance(value, list) else value for name, value in by_name.items()}
        self.sizes = self.sizes_type(*positional, **named)
        self.register_to_config(**asdict(self.sizes))
        self.build()

    def build(self) -> None:
        """Make the layers; `sizes` is set."""
        raise NotImplementedError

    @staticmethod
    def _get_init_keys(input_class: type[SizedNetwork]) -> set[str]:
        """What diffusers takes for the constructor's arguments."""
        return {"self", *(field.name for field in fields(input_class.sizes_type))}

"""The pipeline on shapes alone: its own code on the meta device, for counting what it does and what it keeps."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from typing import Any, no_type_check

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ..cameras import Cameras
from .architectures import Architecture
from .pipeline import DiffPortrait360Pipeline, Networks
from .sampling import Sampling

META = torch.device("meta")


class ShapesPipeline(DiffPortrait360Pipeline):
    """A pipeline whose networks have shapes only, while timesteps, clips and tables are computed on the CPU."""

    known_calls: dict[Hashable, tuple[Any, int, int]]
    """By what was called with which shapes: the answer, its operations, and those of V among them."""
    first_batch_only = False
    """Whether a step ends after its first batch of clips, which is where most memory is taken."""

    def clips_of_step(
        self, networks: Networks, cameras: Cameras | None, count: int, sampling: Sampling, step: int
    ) -> list[Tensor]:
        clips = super().clips_of_step(networks, cameras, count, sampling, step)
        return clips[: sampling.clips_per_batch] if self.first_batch_only else clips

    @property
    def _execution_device(self) -> torch.device:
        return torch.device("cpu")


def shapes_pipeline(architecture: Architecture, dtype: torch.dtype = torch.float32) -> ShapesPipeline:
    """A pipeline with networks on the meta device."""
    with ShapesOnly(), META:
        pipe = ShapesPipeline(**architecture.components(), reference_timestep=architecture.reference_timestep)
    pipe.known_calls = {}
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            nn.Module.to(part.requires_grad_(False).eval(), dtype)  # their own `to` warns of nothing
    return pipe


class ShapesOnly(TorchDispatchMode):
    """Runs code on shapes: what touches a meta tensor gives meta tensors, everything else is computed as ever.

    It also adds up the bytes of the meta tensors that are alive. Those made before it is entered do not count. What
    runs for every single operation is left out of the type check of the tests, for the sake of speed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self._seen: set[int] = set()
        self._attention = _FusedAttention()

    def __enter__(self) -> ShapesOnly:
        self._attention.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._attention.__exit__(*error)

    @no_type_check
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(tensor.is_meta for tensor in inputs):
            for tensor in inputs:
                if tensor.is_meta:
                    self._watch(tensor.untyped_storage(), counts=False)
            args, kwargs = tree_map_only(Tensor, lambda t: t if t.is_meta else t.to(META), (args, kwargs))
            if kwargs.get("device") is not None:
                kwargs = {**kwargs, "device": META}
        outputs = func(*args, **kwargs)
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self._watch(tensor.untyped_storage(), counts=True)
        return outputs

    @no_type_check
    def _watch(self, storage: torch.UntypedStorage, *, counts: bool) -> None:
        key, size = storage._cdata, storage.nbytes() if counts else 0
        if key in self._seen:
            return
        self._seen.add(key)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._forget, key, size).atexit = False

    @no_type_check
    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live_bytes -= size


class _FusedAttention(TorchFunctionMode):
    """Attention as the fused kernels of a GPU do it; on the meta device PyTorch would write down all the scores."""

    @no_type_check
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and args[0].is_meta and kwargs.get("attn_mask") is None:
            return torch.ops.aten._scaled_dot_product_efficient_attention(*args[:3], None, False)[0]
        return func(*args, **kwargs)

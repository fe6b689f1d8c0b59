"""The pipeline on shapes alone: its own loop on the meta device, for counting what it does and what it keeps."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, no_type_check

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ..cameras import orbit
from ..progress import Track, silent
from .architectures import Architecture
from .pipeline import DiffPortrait360Pipeline, Mode, Networks
from .sampling import Sampling

KnownCalls: TypeAlias = dict[object, tuple[Callable[[], Any], Counter[str]]]

META = torch.device("meta")
APPEARANCE, REFERENCES, CONTROL = "R", "reference keys and values", "C"
CONDITIONAL, UNCONDITIONAL = "UNet, conditional", "UNet, unconditional"


class ShapesPipeline(DiffPortrait360Pipeline):
    """A pipeline whose networks have shapes only, while timesteps, clips and tables are computed on the CPU."""

    known: KnownCalls
    """What `CallBook` has learnt about the networks."""

    @property
    def _execution_device(self) -> torch.device:
        return torch.device("cpu")


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
            args, kwargs = tree_map_only(Tensor, lambda t: t if t.is_meta else t.to("meta"), (args, kwargs))
            if kwargs.get("device") is not None:
                kwargs = {**kwargs, "device": torch.device("meta")}
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


class CallBook:
    """Books what the calls of networks cost, and runs each kind of call once only.

    A call of the same network with arguments of the same shapes costs the same; from the second one on it is booked
    without being run and answers with empty tensors. Fifty steps of a loop on shapes then take seconds.
    """

    def __init__(self, known: KnownCalls, total: Callable[[], int] = lambda: 0) -> None:
        """Nothing booked yet; `known` gathers the calls that were run, `total` reads the counter they run under."""
        self.spent: Counter[str] = Counter()
        self._known, self._total = known, total
        self._ran = 0
        self._branch = CONDITIONAL

    @contextmanager
    def watching(self, networks: Networks) -> Iterator[None]:
        """Book the calls of these networks."""
        unet, control, consistency = networks.unet, networks.camera_control, networks.view_consistency
        patches = [
            (unet, "forward", self._denoise),
            (unet, "read_reference", lambda *a, **k: self.call(REFERENCES, *a, **k)),
            (networks.appearance, "write_reference", lambda *a, **k: self.call(APPEARANCE, *a, **k)),
            (control, "forward", lambda *a, **k: self.call(CONTROL, *a, **k)),
            (control, "embed_control", lambda *a, **k: self.call(CONTROL, *a, **k)),
        ]
        if consistency is not None:
            patches += [(consistency, "after_down", self._mix), (consistency, "after_up", self._mix)]
        for owner, method, booked in patches:
            object.__setattr__(owner, method, functools.partial(booked, getattr(owner, method)))
        try:
            yield
        finally:
            for owner, method, _ in patches:
                object.__delattr__(owner, method)

    def call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call, and book under `name` what is not booked by calls inside."""
        signature = tuple(map(_signature, tree_leaves((args, kwargs))))
        key = (name, function.__name__, signature)
        if key not in self._known:
            before, within, booked = self._total(), self._ran, Counter(self.spent)
            result = function(*args, **kwargs)
            own = self._total() - before - (self._ran - within)
            self._ran += own
            self.spent[name] += own
            self._known[key] = _recipe(result), self.spent - booked
            return result
        answer, costs = self._known[key]
        self.spent += costs
        return answer()

    def _denoise(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._branch = UNCONDITIONAL if kwargs.get("reference") is None else CONDITIONAL
        return self.call(self._branch, function, *args, **kwargs)

    def _mix(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.call("V" + self._branch.removeprefix("UNet"), function, *args, **kwargs)


def _signature(leaf: object) -> object:
    """What of an argument decides what a call costs."""
    if isinstance(leaf, Tensor):
        return tuple(leaf.shape), leaf.dtype
    return leaf if isinstance(leaf, int | None) else type(leaf).__name__


def _recipe(result: Any) -> Callable[[], Any]:
    """Makes empty tensors in the structure and shapes of `result`, without keeping it."""
    if isinstance(result, Tensor):
        return functools.partial(torch.empty, tuple(result.shape), dtype=result.dtype, device=META)
    if isinstance(result, tuple):
        parts = [_recipe(part) for part in result]
        return lambda: tuple(part() for part in parts)
    type_ = type(result)
    fields = {field.name: _recipe(getattr(result, field.name)) for field in dataclasses.fields(result)}
    return lambda: type_(**{name: part() for name, part in fields.items()})


def shapes_pipeline(architecture: Architecture, dtype: torch.dtype = torch.float32) -> ShapesPipeline:
    """A pipeline with networks on the meta device."""
    with ShapesOnly(), torch.device("meta"):
        components = architecture.components()
    pipe = ShapesPipeline(**components)
    pipe.known = {}
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            nn.Module.to(part.requires_grad_(False).eval(), dtype)  # their own `to` warns of nothing
    return pipe


def run_loop(
    pipe: DiffPortrait360Pipeline,
    networks: Networks,
    references: int,
    views: int,
    size_px: int,
    sampling: Sampling,
    *,
    device: torch.device,
    track: Track = silent,
) -> Tensor:
    """Run the pipeline's loop on pictures of nothing.

    Args:
        pipe: the pipeline; its loop is `denoise`.
        networks: the 360 model or F.
        references: reference pictures.
        views: views, on one ring.
        size_px: side of a view.
        sampling: schedule, steps, guidance and clips.
        device: where latents are; on the meta device all of it is shapes.
        track: shows progress.

    Returns:
        Latents of the views.
    """
    control = networks.camera_control.config
    side = size_px // 2 ** (len(control.hint_channels) - 1)
    latents = torch.zeros(views, control.in_channels, side, side, device=device)
    return pipe.denoise(
        networks,
        latents.new_zeros(references, *latents.shape[1:]),
        orbit(views, size_px=size_px) if networks.mode == Mode.VIEWS else None,
        torch.zeros(views, control.control_channels, size_px, size_px, device="meta" if latents.is_meta else "cpu"),
        latents,
        None,
        sampling,
        torch.Generator().manual_seed(0),
        description="denoising",
        track=track,
    )


def encode_one(pipe: ShapesPipeline, size_px: int) -> Tensor:
    """Latent of one picture, on shapes."""
    picture = torch.empty(1, 3, size_px, size_px, device="meta")
    return pipe._encode(picture, Sampling(), torch.Generator())

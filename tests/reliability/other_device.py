"""A device that is not the CPU, on machines that have none: tensors on it have values, and do not mix with others.

    with OtherDevice():
        x = torch.ones(3, device=OTHER)  # or .to(OTHER)
        x + torch.ones(3)  # RuntimeError, as on a GPU

Tensors of `OTHER` keep a CPU tensor inside, which is what operations work on; autograd, optimizers and everything that
reads a value back run as they do on a GPU. Refused is what a GPU refuses: operations on tensors of two devices, but for
single numbers, copies and indices; a generator of another device; and `.numpy()`.

The device carries the name `meta`, the one name that PyTorch's autograd takes without a driver: with tensors named
`cuda`, those of `torch._subclasses.FakeTensorMode` too, it asks the CUDA runtime for a stream and ends the process.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

OTHER = torch.device("meta")
_CPU = torch.device("cpu")
_aten = torch.ops.aten
_TAKE_TWO_DEVICES = {
    *(_aten._to_copy.default, _aten.copy_.default, _aten._index_put_impl_.default, _aten.index.Tensor),
    *(_aten.index_put_.default, _aten.index_put.default),
}


class _There(Tensor):
    """A tensor of the other device; `here` holds its values."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> _There:
        made = Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype, device=OTHER
        )
        made.here = here
        return made

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"There({self.here!r})"

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a tensor of another device to numpy; use Tensor.cpu() first")

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _NumbersBecomeTensors(TorchFunctionMode):
    """Makes tensors out of Python's numbers on the CPU and copies them: PyTorch itself drops the values for `meta`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], _There):
            whole = args[1] if isinstance(args[1], tuple) else (args[1],)
            whole = tuple(torch.tensor(k, device=_CPU).to(OTHER) if isinstance(k, list) else k for k in whole)
            return func(args[0], whole if isinstance(args[1], tuple) else whole[0], *args[2:])
        if func not in (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor):
            return func(*args, **kwargs)
        device = kwargs.get("device") or (args[0].device if isinstance(args[0], Tensor) else None)
        if device is None or torch.device(device) != OTHER:
            return func(*args, **kwargs)
        if func is Tensor.new_tensor:
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs, "device": _CPU}).to(OTHER)
        return func(*args, **{**kwargs, "device": _CPU}).to(OTHER)


class OtherDevice(TorchDispatchMode):
    """While it is entered, tensors can be made on `OTHER`."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = _NumbersBecomeTensors()

    def __enter__(self) -> OtherDevice:
        self._numbers.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._numbers.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation, on the CPU tensors inside."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, _There)]
    if any(tensor.is_meta and not isinstance(tensor, _There) for tensor in tensors):
        raise AssertionError(f"{func} got a tensor whose values PyTorch has dropped; make it in _NumbersBecomeTensors")
    asked = kwargs.get("device")
    asked = None if asked is None else torch.device(asked)
    if there and func not in _TAKE_TWO_DEVICES:
        strangers = [tensor for tensor in tensors if not isinstance(tensor, _There) and tensor.dim() > 0]
        if strangers:
            raise RuntimeError(
                f"Expected all tensors to be on the same device: {func} got {tuple(strangers[0].shape)} from the CPU "
                f"beside {tuple(there[0].shape)} from elsewhere"
            )
    generator = kwargs.get("generator")
    if generator is not None and (asked or (OTHER if there else _CPU)) == OTHER:
        raise RuntimeError(f"Expected a generator of the device of the numbers it draws, got {generator.device}")
    if asked is not None:
        kwargs = {**kwargs, "device": _CPU}
    args_here, kwargs_here = tree_map_only(_There, lambda tensor: tensor.here, (args, kwargs))
    result = func(*args_here, **kwargs_here)
    if func is _aten._local_scalar_dense.default:
        return result
    changed = func._schema.is_mutable
    if changed and isinstance(args[0] if args else None, _There) and result is args_here[0]:
        return args[0]
    goes_there = asked == OTHER if asked is not None else bool(there)
    if func is _aten.copy_.default:
        goes_there = isinstance(args[0], _There)
    return tree_map_only(Tensor, _There, result) if goes_there else result

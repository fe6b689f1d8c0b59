"""Eight float32 in one register, for numba kernels: the type `f32x8`, masks, and what can be done with them.

LLVM's own vectoriser gives up on these kernels (indices that might be negative, sums that must keep their order), so
they say what they mean: `load8`, arithmetic with `+ - *`, `fma8`, comparisons that give masks, `select8`, and sums over
lanes in a fixed order. LLVM turns the code into AVX or NEON, whatever the machine has; nothing here is one machine's.

Also `next_index`, a shared counter from which threads draw their work.

Kernels that use these functions are cached by the time stamp of *their own* file: after a change here, touch them.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 8
"""Numbers per register."""
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_PIXELS = ir.VectorType(ir.FloatType(), 3 * LANES)
_I32 = ir.IntType(32)


class _Lanes(types.Type):
    """numba's name for eight values of one kind."""


class _Mask(_Lanes):
    """numba's name for eight truth values."""


f32x8 = _Lanes("f32x8")
mask8 = _Mask("mask8")


@register_model(_Lanes)
@register_model(_Mask)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: types.Type) -> None:
        super().__init__(manager, kind, _BITS if kind == mask8 else _FLOATS)


def _constant(value: float) -> ir.Constant:
    """A register of eight equal numbers known at compile time."""
    return ir.Constant(_FLOATS, [float(value)] * LANES)


def _shuffle(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """Lanes of `a` (0 to 7) and `b` (8 to 15) in a new order."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(lanes)), lanes))


def _address(context: Any, builder: Any, signature: Any, args: Any, kind: ir.Type) -> Any:
    """Where numbers of a kind lie from element `args[1]` on of the contiguous float32 array `args[0]`."""
    index = context.cast(builder, args[1], signature.args[1], types.intp)
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _call(builder: Any, name: str, *arguments: Any) -> Any:
    """Call LLVM's intrinsic `name` for eight floats."""
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"{name}.v8f32"), arguments)


def _is_flat(array: types.Type) -> bool:
    return isinstance(array, types.Array) and array.layout == "C" and array.dtype == types.float32


@intrinsic
def load8(typingctx, array, index):
    """Elements `index` to `index + 7`, counted over the flattened float32 array, which must be contiguous."""
    if not (_is_flat(array) and isinstance(index, types.Integer)):
        return None

    def codegen(context, builder, signature, args):
        return builder.load(_address(context, builder, signature, args, _FLOATS), align=4)

    return f32x8(array, index), codegen


@intrinsic
def store8(typingctx, array, index, value):
    """Write eight elements, as `load8` reads them."""
    if not (_is_flat(array) and isinstance(index, types.Integer) and value == f32x8):
        return None

    def codegen(context, builder, signature, args):
        builder.store(args[2], _address(context, builder, signature, args, _FLOATS), align=4)
        return context.get_dummy_value()

    return types.none(array, index, value), codegen


@intrinsic
def load_rgb8(typingctx, array, index):
    """Red, green and blue of eight pixels in a row, which lie as r, g, b, r, g, b, ... from `index` on."""
    if not (_is_flat(array) and isinstance(index, types.Integer)):
        return None

    def codegen(context, builder, signature, args):
        wide = builder.load(_address(context, builder, signature, args, _PIXELS), align=4)
        colours = [_shuffle(builder, wide, wide, list(range(c, 3 * LANES, 3))) for c in range(3)]
        return context.make_tuple(builder, signature.return_type, colours)

    return types.UniTuple(f32x8, 3)(array, index), codegen


@intrinsic
def store_rgb8(typingctx, array, index, red, green, blue):
    """Write eight pixels, as `load_rgb8` reads them."""
    if not (_is_flat(array) and isinstance(index, types.Integer)):
        return None

    def codegen(context, builder, signature, args):
        place = _address(context, builder, signature, args, _PIXELS)
        two = _shuffle(builder, args[2], args[3], list(range(2 * LANES)))
        third = _shuffle(builder, args[4], args[4], [*range(LANES), *range(LANES)])
        order = [channel * LANES + pixel for pixel in range(LANES) for channel in range(3)]
        builder.store(_shuffle(builder, two, third, order), place, align=4)
        return context.get_dummy_value()

    return types.none(array, index, red, green, blue), codegen


@intrinsic
def all8(typingctx, value):
    """One number in all eight lanes."""
    if not isinstance(value, (types.Float, types.Integer)):
        return None

    def codegen(context, builder, signature, args):
        single = context.cast(builder, args[0], signature.args[0], types.float32)
        first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), single, ir.Constant(_I32, 0))
        return _shuffle(builder, first, first, [0] * LANES)

    return f32x8(value), codegen


def _lanewise(name: str, emit: Callable, result: types.Type = f32x8) -> Any:
    """An intrinsic whose value `emit` builds, given LLVM's builder and the operands' registers."""

    def define(typingctx: Any, *operands: types.Type) -> Any:
        return result(*operands), lambda context, builder, signature, args: emit(builder, *args)

    define.__name__ = name
    define.__signature__ = inspect.signature(emit)  # pyright: ignore[reportFunctionMemberAccess] - numba counts by it
    return intrinsic(define)


lanes8 = _lanewise("lanes8", lambda builder: ir.Constant(_FLOATS, [float(i) for i in range(LANES)]))
"""The numbers 0 to 7."""


def _operator(function: Callable, left: types.Type, result: types.Type, emit: Callable) -> None:
    """Teach numba one operator between two equal types."""

    class Template(ConcreteTemplate):
        cases = [signature(result, left, left)]  # noqa: RUF012

    infer_global(function)(Template)  # pyright: ignore[reportOptionalCall] - without types it is a decorator
    lower_builtin(function, left, left)(lambda context, builder, signature, args: emit(builder, *args))


_operator(operator.add, f32x8, f32x8, lambda builder, a, b: builder.fadd(a, b))
_operator(operator.sub, f32x8, f32x8, lambda builder, a, b: builder.fsub(a, b))
_operator(operator.mul, f32x8, f32x8, lambda builder, a, b: builder.fmul(a, b))
_operator(operator.truediv, f32x8, f32x8, lambda builder, a, b: builder.fdiv(a, b))
_operator(operator.gt, f32x8, mask8, lambda builder, a, b: builder.fcmp_ordered(">", a, b))
_operator(operator.ge, f32x8, mask8, lambda builder, a, b: builder.fcmp_ordered(">=", a, b))
_operator(operator.and_, mask8, mask8, lambda builder, a, b: builder.and_(a, b))
_operator(operator.or_, mask8, mask8, lambda builder, a, b: builder.or_(a, b))


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return _call(builder, "llvm.fmuladd", a, b, c)


def _negative_where(builder: Any, mask: Any, a: Any) -> Any:
    signs = builder.select(mask, ir.Constant(_INTS, [-(1 << 31)] * LANES), ir.Constant(_INTS, [0] * LANES))
    return builder.bitcast(builder.or_(builder.bitcast(a, _INTS), signs), _FLOATS)


def _any(builder: Any, mask: Any) -> Any:
    byte = builder.bitcast(mask, ir.IntType(LANES))
    return builder.icmp_unsigned("!=", byte, ir.Constant(ir.IntType(LANES), 0))


def _exp2(builder: Any, x: Any) -> Any:
    power = _constant(_EIGHTH_POWER[-1])
    for coefficient in _EIGHTH_POWER[-2::-1]:
        power = _fma(builder, power, x, _constant(coefficient))
    for _ in range(3):
        power = builder.fmul(power, power)
    return power


def _sums(builder: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    def halve(x: Any, y: Any, even: list[int], odd: list[int]) -> Any:
        return builder.fadd(_shuffle(builder, x, y, even), _shuffle(builder, x, y, odd))

    def pair(x: Any, y: Any) -> Any:
        return halve(x, y, [0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15])

    first, second = pair(pair(a, b), pair(c, d)), pair(pair(e, f), pair(g, h))
    return halve(first, second, [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])


def _sum(builder: Any, total: Any) -> Any:
    for distance in (4, 2, 1):
        total = builder.fadd(total, _shuffle(builder, total, total, [i ^ distance for i in range(LANES)]))
    return builder.extract_element(total, ir.Constant(_I32, 0))


_EIGHTH_POWER = (
    0.9999999250739126,
    0.086642781593744,
    0.003752690467217806,
    0.00010796821023166677,
    2.2433135739803925e-06,
    2.864954984599033e-08,
)
"""2^(x/8) on [-8, 0] as a polynomial in x."""


fma8 = _lanewise("fma8", _fma)
"""a * b + c of (a, b, c), rounded once where the machine can."""
minus_product8 = _lanewise("minus_product8", lambda builder, a, b, c: _fma(builder, builder.fneg(a), b, c))
"""c - a * b of (a, b, c), rounded once where the machine can."""
min8 = _lanewise("min8", lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
"""The smaller of two, lane by lane."""
max8 = _lanewise("max8", lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
"""The larger of two, lane by lane."""
abs8 = _lanewise("abs8", lambda builder, a: _call(builder, "llvm.fabs", a))
"""Magnitudes."""
negative_where = _lanewise("negative_where", _negative_where)
"""Of (mask, a): `a` made negative in the lanes of the mask, whatever its sign was."""
select8 = _lanewise("select8", lambda builder, mask, a, b: builder.select(mask, a, b))
"""Of (mask, a, b): `a` in the lanes of the mask, `b` in the others."""
any8 = _lanewise("any8", _any, types.boolean)
"""Whether any lane of a mask is true."""
exp2_8 = _lanewise("exp2_8", _exp2)
"""2^x for x in [-8, 0], relative error below 3e-6; any numbers, perhaps not finite, outside."""
sums_of_8 = _lanewise("sums_of_8", _sums)
"""The sums over the lanes of eight registers, in the lanes of one; always in the same order."""
sum8 = _lanewise("sum8", _sum, types.float32)
"""The sum over the lanes, always in the same order."""


@intrinsic
def lane8(typingctx, a, lane):
    """One of the eight numbers."""

    def codegen(context, builder, signature, args):
        return builder.extract_element(args[0], context.cast(builder, args[1], signature.args[1], types.int32))

    return types.float32(a, lane), codegen


@intrinsic
def next_index(typingctx, counter):
    """The value of `counter[0]` (int64) before one is added to it, so that no two threads get the same."""
    if not (isinstance(counter, types.Array) and counter.dtype == types.int64):
        return None

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), codegen

"""Short vectors of numbers as values inside Numba kernels, so that speed does not depend on automatic vectorization.

Loops over small arrays go through memory, because the compiler must assume that arrays overlap. A vector in a variable
stays in registers.

- ``load(pointer, index, width)`` reads `width` (a constant) consecutive numbers after the `address` of an array,
  ``store`` writes them, ``prefetch`` requests them early;
- ``fill`` and ``repeat`` build vectors of equal numbers; ``total`` sums the numbers of a vector;
- ``clamp`` limits numbers, ``times_power_of_two`` scales them; ``vector_sqrt`` takes roots;
- ``+``, ``-``, ``*`` and ``/`` work number by number, between vectors or between a vector and a number, which is cast
  to the precision of the vector.

Products and sums are contracted to fused multiply-adds where the machine has them. The compiler splits vectors that are
wider than the registers. Indices are not checked.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

__all__ = [
    "SPARE",
    "address",
    "aligned_address",
    "clamp",
    "fill",
    "load",
    "native_width",
    "prefetch",
    "repeat",
    "store",
    "times_power_of_two",
    "total",
    "vector_sqrt",
]

SPARE = 64
"""Number of unused elements that an array for `aligned_address` must have."""
_FLAGS = ("contract",)  # no "reassoc", "nnan" or "ninf": sums keep their order, and NaN stays NaN
_intrinsic: Any = intrinsic(prefer_literal=True)  # kernels call these with other arguments than Python would


def native_width(itemsize: int, n_values: int) -> int:
    """Return the width of a vector: 64 bytes, or the largest power of two not above `n_values` if that is less."""
    width = 64 // itemsize
    while width > n_values:
        width //= 2
    return width


class _VectorType(types.Type):
    def __init__(self, dtype: types.Float, width: int) -> None:
        self.dtype, self.width = dtype, width
        super().__init__(name=f"vector({dtype}, {width})")


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: _VectorType) -> None:
        super().__init__(manager, fe_type, _llvm(fe_type))


def _llvm(kind: _VectorType) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType(), kind.width)


def _pointer(builder: Any, pointer: Any, index: Any, vector: ir.VectorType) -> Any:
    # arrays are arrays of numbers to LLVM: the address of one is cast to that of a vector
    return builder.bitcast(builder.gep(pointer, [index], inbounds=True), vector.as_pointer())


@_intrinsic
def address(typing: Any, array: Any) -> Any:
    """Return a pointer to the numbers of a contiguous array.

    The kernel must use the array once more after the last use of the pointer, which holds no reference to it. Unlike an
    array, a pointer can be passed on inside a loop without reference counting.
    """

    # Numba passes arrays as structures; `data` is the address of the first number
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_array(array)(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), emit


@_intrinsic
def aligned_address(typing: Any, array: Any) -> Any:
    """Return a pointer to the first number of an array at a multiple of 64 bytes, the length of a cache line.

    The array must have `SPARE` unused elements; otherwise as `address`.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = context.make_array(array)(context, builder, arguments[0]).data
        # round the address up to a multiple of 64
        integer = ir.IntType(64)
        number = builder.add(builder.ptrtoint(pointer, integer), integer(63))
        return builder.inttoptr(builder.and_(number, integer(-64)), pointer.type)

    return types.CPointer(array.dtype)(array), emit


@_intrinsic
def load(typing: Any, pointer: Any, index: Any, width: Any) -> Any:
    """Read a vector of `width` numbers from ``pointer[index]`` on."""
    if not isinstance(width, types.IntegerLiteral):
        return None  # no match: with `prefer_literal` constants come as literals
    vector = _VectorType(pointer.dtype, width.literal_value)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = _pointer(builder, arguments[0], arguments[1], _llvm(vector))
        # aligned as a single number: LLVM would assume the alignment of a whole vector, and the program could crash
        return builder.load(target, align=pointer.dtype.bitwidth // 8)

    return vector(pointer, index, width), emit


@_intrinsic
def store(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """Write a vector to ``pointer[index]`` and the following numbers."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = _pointer(builder, arguments[0], arguments[1], _llvm(value))
        builder.store(arguments[2], target, align=pointer.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, index, value), emit


@_intrinsic
def prefetch(typing: Any, pointer: Any, index: Any, writing: Any) -> Any:
    """Fetch the cache line of ``pointer[index]`` early; `writing` (a constant) is 1 if it will be written.

    An index outside the array is harmless, as nothing is read.
    """
    if not isinstance(writing, types.IntegerLiteral):
        return None

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, number, number, number]), "llvm.prefetch.p0"
        )
        target = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), byte)
        # 3: keep the line in all caches; 1: data, not instructions
        builder.call(function, [target, *map(number, (writing.literal_value, 3, 1))])
        return context.get_dummy_value()

    return types.void(pointer, index, writing), emit


@_intrinsic
def fill(typing: Any, number: Any, width: Any) -> Any:
    """Return a vector of `width` equal numbers."""
    if not isinstance(width, types.IntegerLiteral):
        return None
    vector = _VectorType(number, width.literal_value)
    return vector(number, width), lambda context, builder, signature, arguments: _repeat(builder, arguments[0], vector)


@_intrinsic
def repeat(typing: Any, pointer: Any, index: Any, width: Any) -> Any:
    """Return a vector that repeats the number ``pointer[index]`` `width` times."""
    if not isinstance(width, types.IntegerLiteral):
        return None
    vector = _VectorType(pointer.dtype, width.literal_value)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _repeat(builder, builder.load(builder.gep(arguments[0], [arguments[1]])), vector)

    return vector(pointer, index, width), emit


@_intrinsic
def vector_sqrt(typing: Any, value: Any) -> Any:
    """Return the square root of each number."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.call(_builtin(builder, "llvm.sqrt", value, _llvm(value), _llvm(value)), arguments)

    return value(value), emit


@_intrinsic
def clamp(typing: Any, value: Any, low: Any, high: Any) -> Any:
    """Return each number, or the nearest of the limits `low` and `high`; NaN stays NaN."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, *limits = arguments
        for operator_, kind, limit in zip("<>", signature.args[1:], limits, strict=True):
            bound = _repeat(builder, context.cast(builder, limit, kind, value.dtype), value)
            # ordered comparisons are false for NaN
            number = builder.select(builder.fcmp_ordered(operator_, number, bound), bound, number)
        return number

    return value(value, low, high), emit


@_intrinsic
def times_power_of_two(typing: Any, value: Any, exponent: Any) -> Any:
    """Return each number times two to the power n, with n the lowest bits of `exponent`, a vector of large numbers.

    A number of the size 1.5 * 2^23 (float32) or 1.5 * 2^52 (float64) holds in its lowest bits what is added to it.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = value.dtype.bitwidth
        integers = ir.VectorType(ir.IntType(bits), value.width)
        shift = ir.Constant(integers, [23 if bits == 32 else 52] * value.width)
        number, power = (builder.bitcast(each, integers) for each in arguments)
        # the exponent of a number stands above its mantissa
        return builder.bitcast(builder.add(number, builder.shl(power, shift)), _llvm(value))

    return value(value, exponent), emit


@_intrinsic
def total(typing: Any, value: Any) -> Any:
    """Return the sum of the numbers, added in pairs."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = _llvm(value).element
        function = _builtin(builder, "llvm.vector.reduce.fadd", value, number, number, _llvm(value))
        # without "reassoc" the definition of the intrinsic is a sum from left to right
        return builder.call(function, [ir.Constant(number, 0.0), *arguments], fastmath=["reassoc"])

    return value.dtype(value), emit


def _builtin(builder: Any, name: str, kind: _VectorType, result: ir.Type, *arguments: ir.Type) -> Any:
    """Return LLVM's intrinsic function for vectors of one type."""
    signature = ir.FunctionType(result, arguments)
    return cgutils.get_or_insert_function(builder.module, signature, f"{name}.v{kind.width}f{kind.dtype.bitwidth}")


def _repeat(builder: Any, number: Any, kind: _VectorType) -> Any:
    # the idiom that LLVM turns into one broadcast instruction: put the number into place 0, then shuffle 0 everywhere
    zero = ir.Constant(ir.IntType(32), 0)
    single = builder.insert_element(ir.Constant(_llvm(kind), ir.Undefined), number, zero)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), kind.width), [0] * kind.width)
    return builder.shuffle_vector(single, single, mask)


def _arithmetic(function: Any, instruction: str) -> None:
    # Numba asks twice: a typer for the type of the result, then a lowering for the instructions
    @type_callable(function)
    def typer_of(context: Any) -> Any:
        def typer(left: Any, right: Any) -> Any:
            # at least one vector, and no two of different widths or precisions
            vectors = [kind for kind in (left, right) if isinstance(kind, _VectorType)]
            if vectors and all(kind == vectors[0] or isinstance(kind, types.Float) for kind in (left, right)):
                return vectors[0]
            return None

        return typer

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = signature.return_type
        operands = []
        for kind, argument in zip(signature.args, arguments, strict=True):
            if not isinstance(kind, _VectorType):
                argument = _repeat(builder, context.cast(builder, argument, kind, vector.dtype), vector)
            operands.append(argument)
        return getattr(builder, instruction)(*operands, flags=_FLAGS)

    for kinds in ((_VectorType, _VectorType), (_VectorType, types.Float), (types.Float, _VectorType)):
        lower_builtin(function, *kinds)(emit)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")

"""Short vectors of the processor as values in Numba functions: `load`, `store`, `splat`, `multiply_add`, `total`.

Numba's loops over small arrays go through memory, because the compiler must assume that arrays overlap. A vector held
in a variable stays in a register. Widths are compile-time constants; the compiler maps them to what the processor has
(4 doubles with AVX2, 8 with AVX-512, 2 with NEON).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

__all__ = ["load", "multiply", "multiply_add", "splat", "store", "total"]


class _Vector(types.Type):
    """`width` numbers of one type."""

    def __init__(self, element: types.Float, width: int) -> None:
        self.element, self.width = element, width
        super().__init__(name=f"Vector({element}, {width})")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _Vector) -> None:
        element = manager.lookup(kind.element).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.width))


@intrinsic(prefer_literal=True)
def load(typing: Any, array: Any, index: Any, width: Any) -> Any:
    """Vector of `width` consecutive elements of a contiguous array's memory, from flat `index` on."""
    kind = _Vector(array.dtype, width.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, arguments, kind), align=_alignment(kind))

    return kind(array, index, width), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write a vector to consecutive elements of a contiguous array's memory, from flat `index` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature, arguments, vector)
        builder.store(arguments[2], pointer, align=_alignment(vector))
        return context.get_dummy_value()

    return types.void(array, index, vector), generate


@intrinsic(prefer_literal=True)
def splat(typing: Any, number: Any, width: Any) -> Any:
    """Vector that holds the same number in every place."""
    kind = _Vector(number, width.literal_value)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(context, builder, kind, arguments[0])

    return kind(number, width), generate


@intrinsic
def multiply(typing: Any, first: Any, second: Any) -> Any:
    """Product of two vectors, element by element; `second` may be a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        other = arguments[1] if isinstance(second, _Vector) else _splat(context, builder, first, arguments[1])
        return builder.fmul(arguments[0], other)

    return first(first, second), generate


@intrinsic
def multiply_add(typing: Any, first: Any, second: Any, third: Any) -> Any:
    """`first` * `second` + `third`, in one rounding where the processor can; `second` may be a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = context.get_value_type(first)
        other = arguments[1] if isinstance(second, _Vector) else _splat(context, builder, first, arguments[1])
        function = _builtin(builder, "llvm.fmuladd", first, ir.FunctionType(vector, [vector] * 3))
        return builder.call(function, [arguments[0], other, arguments[2]])

    return first(first, second, third), generate


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """Sum of a vector's elements."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, element = context.get_value_type(vector), context.get_value_type(vector.element)
        function = _builtin(builder, "llvm.vector.reduce.fadd", vector, ir.FunctionType(element, [element, kind]))
        # reassociation allows a tree of pairwise sums
        return builder.call(function, [ir.Constant(element, 0.0), arguments[0]], fastmath=["reassoc"])

    return vector.element(vector), generate


def _builtin(builder: Any, name: str, kind: _Vector, signature: Any) -> Any:
    """The compiler's own function for vectors of one kind."""
    return cgutils.get_or_insert_function(builder.module, signature, f"{name}.v{kind.width}f{kind.element.bitwidth}")


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any, kind: _Vector) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    place = cgutils.gep_inbounds(builder, array.data, arguments[1])
    return builder.bitcast(place, context.get_value_type(kind).as_pointer())


def _alignment(kind: _Vector) -> int:
    return kind.element.bitwidth // 8


def _splat(context: Any, builder: Any, kind: _Vector, number: Any) -> Any:
    vector = context.get_value_type(kind)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.width), [0] * kind.width)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zeros)

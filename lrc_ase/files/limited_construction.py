"""Limit on the memory of a model that is built from the settings in an untrusted file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["LargerThanFileError", "limited_construction"]

_COPIES = 6
"""Number of tensors that the initialization of a parameter allocates: parameter, random numbers, products."""
_SLACK = 2**22
"""Numbers that a model may allocate beside its parameters, 32 MiB at most."""


class LargerThanFileError(ValueError):
    """Error of a model that needs more numbers than the file holds."""


@contextmanager
def limited_construction(n_numbers: int) -> Iterator[None]:
    """Stop the construction of a model whose tensors need far more than `n_numbers` numbers.

    Functions of torch that take a size (`torch.empty`, `torch.randn`, ...) are counted before they allocate. PyTorch's
    meta device would give the shapes without memory, but its first arithmetic imports 800 modules (4 seconds).

    Raises
    ------
    LargerThanFileError
        The next allocation would exceed the limit.
    """
    with _Allowance(_COPIES * n_numbers + _SLACK):
        yield


class _Allowance(TorchFunctionMode):
    """Mode of torch that counts the numbers that calls allocate, and stops at the first that exceeds the allowance."""

    def __init__(self, n_numbers: int) -> None:
        super().__init__()
        self.left = n_numbers

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.left -= _size(args, kwargs or {})
        if self.left < 0:
            raise LargerThanFileError("the model is larger than the file that describes it")
        return function(*args, **(kwargs or {}))


def _size(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Return the count of numbers that a call allocates if its arguments or its `size` are dimensions; else 0."""
    size = kwargs.get("size", args)
    if size and isinstance(size[0], Tensor):  # a method, such as `new_zeros`
        size = size[1:]
    if size and isinstance(size[0], Sequence) and not isinstance(size[0], str):
        size = size[0]
    is_size = len(size) > 0 and all(isinstance(number, int) for number in size)
    return max(prod(size), 0) if is_size else 0  # torch replaces a length of -1

"""Sequences that create their items on access, so that memory holds a batch and not a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, overload

import numpy as np

__all__ = ["Lazy", "joined", "sample"]

Item = TypeVar("Item")


class Lazy(Sequence[Item], Generic[Item]):
    """Sequence of `length` items; each access creates item `index` anew by `make(index)`."""

    def __init__(self, length: int, make: Callable[[int], Item]) -> None:
        self.length = length
        self.make = make

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Lazy[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | Lazy[Item]:
        if isinstance(index, slice):
            indices = range(self.length)[index]
            return Lazy(len(indices), lambda number: self.make(indices[number]))
        return self.make(range(self.length)[index])  # `range` resolves negative indices and raises IndexError


def joined(parts: Sequence[Sequence[Item]]) -> Sequence[Item]:
    """Join sequences; the result is lazy if a part is.

    >>> list(joined([Lazy(2, lambda index: 10 * index), [5]]))
    [0, 10, 5]
    """
    if len(parts) == 1:
        return parts[0]
    if not any(isinstance(part, Lazy) for part in parts):
        return [item for part in parts for item in part]
    ends = np.cumsum([len(part) for part in parts])

    def make(index: int) -> Item:
        part = int(np.searchsorted(ends, index, side="right"))
        return parts[part][index - int(ends[part]) + len(parts[part])]

    return Lazy(int(ends[-1]), make)


def sample(items: Sequence[Item], largest: int) -> list[Item]:
    """Return all items, or `largest` of them, evenly spread."""
    if len(items) <= largest:
        return list(items)
    return [items[int(index)] for index in np.linspace(0, len(items) - 1, largest).round()]

"""Sequences whose items are made when they are asked for, so that memory holds a batch and not a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, overload

import numpy as np

__all__ = ["Lazy", "joined", "sample"]

Item = TypeVar("Item")


class Lazy(Sequence[Item], Generic[Item]):
    """`length` items, the one at a place made by `make(place)` each time anew."""

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
            places = range(self.length)[index]
            return Lazy(len(places), lambda place: self.make(places[place]))
        return self.make(range(self.length)[index])  # negative places, and IndexError beyond


def joined(parts: Sequence[Sequence[Item]]) -> Sequence[Item]:
    """Items of all parts in order; a part that is lazy stays so.

    >>> list(joined([Lazy(2, lambda place: 10 * place), [5]]))
    [0, 10, 5]
    """
    if len(parts) == 1:
        return parts[0]
    if not any(isinstance(part, Lazy) for part in parts):
        return [item for part in parts for item in part]
    ends = np.cumsum([len(part) for part in parts])

    def make(place: int) -> Item:
        part = int(np.searchsorted(ends, place, side="right"))
        return parts[part][place - int(ends[part]) + len(parts[part])]

    return Lazy(int(ends[-1]), make)


def sample(items: Sequence[Item], largest: int) -> list[Item]:
    """All items, or `largest` of them evenly spread."""
    if len(items) <= largest:
        return list(items)
    return [items[int(place)] for place in np.linspace(0, len(items) - 1, largest).round()]

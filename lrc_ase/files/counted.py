"""Numbers with their nouns in messages."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """Return a number and the noun in singular or plural.

    >>> counted(1, "epoch"), counted(2, "pair of near frames"), counted(0, "entry")
    ('1 epoch', '2 pairs of near frames', '0 entries')
    """
    first, _, rest = noun.partition(" ")
    if number != 1:
        first = f"{first[:-1]}ies" if first.endswith("y") else f"{first}s"
    return f"{number} {first}{' ' if rest else ''}{rest}"

"""Escaping of text from files (names, descriptions, keys), so that a terminal shows it and does not obey it."""

from __future__ import annotations

import unicodedata

__all__ = ["printable"]

_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that steer a terminal or reverse the direction of writing instead of showing a letter."""


def printable(text: object) -> str:
    r"""Return `text` on one line, with control and format characters written as their escapes.

    A terminal then shows an escape code instead of obeying it.

    >>> printable("run\x1b[2J\n1")
    'run\\x1b[2J\\n1'
    >>> printable("25 \N{DEGREE SIGN}C, \N{GREEK SMALL LETTER ALPHA}-quartz") == "25 °C, α-quartz"
    True
    """
    return "".join(
        letter.encode("unicode_escape", "surrogatepass").decode("ascii")
        if unicodedata.category(letter) in _INVISIBLE
        else letter
        for letter in str(text)
    )

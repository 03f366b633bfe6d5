"""Make reStructuredText of docstrings: shapes such as (*waves, 3) and norms such as |E| are no markup."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

_SHAPE = re.compile(r"(?<=[(, ])\*{1,2}(?=\w+[,.) ])")
_NORM = re.compile(r"\|(\w+)\|")


def escaped(line: str) -> str:
    r"""Escape stars and bars of mathematics outside of code.

    >>> print(escaped("`f(*a, b)` gives (*waves, 3) of |E|"))
    `f(*a, b)` gives (\*waves, 3) of \|E\|
    """
    pieces = re.split(r"(`[^`]*`)", line)
    pieces[::2] = [
        _NORM.sub(r"\\|\1\\|", _SHAPE.sub(lambda stars: "\\*" * len(stars[0]), piece)) for piece in pieces[::2]
    ]
    return "".join(pieces)


def escape_lines(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Escape the lines of a docstring in place."""
    lines[:] = [line if line.lstrip().startswith((">>>", "..")) else escaped(line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the function for all docstrings."""
    app.connect("autodoc-process-docstring", escape_lines)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

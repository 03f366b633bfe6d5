"""Style of all plots: colors, figures, logarithmic axes, and labels made of text from files.

Figures are built with matplotlib's object interface: no backend is chosen and no global state touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from lrc_ase.files.atomic import replacing
from lrc_ase.files.printable import printable

__all__ = [
    "ANGSTROM",
    "COLORS",
    "REFERENCE_COLOR",
    "colors",
    "new_figure",
    "plot_text",
    "save_figure",
    "say_in",
    "set_log_scale",
    "thinned",
]

ANGSTROM = "Å"
COLORS = ("#0b5fa5", "#c8501e", "#2a8f4f", "#7a4fa3", "#8a6d1b", "#b03a74", "#4d7f8c")
REFERENCE_COLOR = "#303030"
DPI = 160
LARGEST_SCATTER = 20000
"""Largest number of points in a panel; more make the file larger and look the same."""
LONGEST_LABEL = 44
"""Largest number of letters in a label; longer labels are shortened in the middle."""


def new_figure(width: float, height: float, *, equal_axes: bool = False) -> Figure:
    """Return an empty figure of a size in inches, at the resolution of all plots.

    Panels with `equal_axes` (the same unit length in both directions) move together, without wide gaps between them.
    """
    return Figure(figsize=(width, height), dpi=DPI, layout="compressed" if equal_axes else "constrained")


def colors(count: int) -> list[str]:
    """Return `count` colors, repeated when there are more than `COLORS`."""
    return [COLORS[index % len(COLORS)] for index in range(count)]


def plot_text(text: object, longest: int = LONGEST_LABEL) -> str:
    r"""Return text from outside (a file's name, a stage) in a form that matplotlib draws letter by letter.

    matplotlib reads dollar signs as mathematics, and leaves labels with a leading underscore out of legends. Every
    name that reaches a plot goes through this function.

    >>> plot_text("m$x_{$.xyz")
    'm\\$x_{\\$.xyz'
    >>> plot_text("a" * 20, 9)
    'aaaa…aaaa'
    """
    label = printable(text)
    if len(label) > longest:
        head = (longest - 1) // 2
        label = f"{label[:head]}…{label[head + 1 - longest :]}"
    label = label.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def thinned(n_points: int, largest: int = LARGEST_SCATTER) -> np.ndarray:
    """Return the indices of evenly spread points to draw, at most `largest` of `n_points`."""
    return np.linspace(0, n_points - 1, min(n_points, largest)).astype(int)


def say_in(axes: Axes, text: str) -> None:
    """Write a sentence into the middle of an empty panel."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.35")


def set_log_scale(axes: Axes, direction: Literal["x", "y"], values: Iterable[float]) -> None:
    """Make an axis logarithmic, from the smallest to the largest positive value, with few ticks as plain numbers.

    Zeros and negative values lie beyond the lower end of the axis.
    """
    array = np.asarray(list(values), dtype=float)
    positive = array[np.isfinite(array) & (array > 0)]
    low, high = (float(positive.min()), float(positive.max())) if positive.size else (1.0, 10.0)
    margin = max((high / low) ** 0.06, 1.1)
    low, high = low / margin, high * margin
    if direction == "x":
        axes.set(xscale="log", xlim=(low, high))
    else:
        axes.set(yscale="log", ylim=(low, high))
    axis = axes.xaxis if direction == "x" else axes.yaxis
    decades = math.log10(high / low)
    if decades < 1:  # a decade would show one tick, or none
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def save_figure(figure: Figure, path: str | Path, *, tight: bool = False) -> None:
    """Write a figure atomically, in the format that the suffix of `path` names; PNG without one.

    `tight` extends the figure to texts that stand beyond its edges.
    """
    box = "tight" if tight else None
    with replacing(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix[1:] or "png", bbox_inches=box)

"""Errors over the epochs of training runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lrc_ase.evaluation.error_tables import ERROR_UNITS
from lrc_ase.report.metrics import read_metrics
from lrc_ase.report.style import colors, new_figure, plot_text, save_figure, say_in, set_log_scale

__all__ = ["plot_learning_curve"]

_PANELS = (
    ("forces", "Force error (RMSE)"),
    ("energy", "Energy error (RMSE)"),
    ("stress", "Stress error (RMSE)"),
    ("dipole", "Dipole error (RMSE)"),
    ("born_effective_charges", "Born charge error (RMSE)"),
)
_CURVES = (
    ("train", "training", {"lw": 0.9, "ls": "--"}),
    ("validation", "validation", {"lw": 2.0}),
    ("watched", "watched frames", {"lw": 1.2, "ls": ":"}),
)
"""Prefix in metrics.csv, name in the legend, style."""
_LETTER_WIDTH = 5.6
"""Points that a letter of a stage's name takes, about."""
_LINE_HEIGHT = 12.0
"""Points between lines of names."""


def plot_learning_curve(metrics: str | Path | Mapping[str, str | Path], path: str | Path) -> None:
    """Draw the errors of every epoch from the metrics table of a run, or of several runs by name.

    Each label has a panel if it was trained or validated on. Curves are interrupted between
    stages, as stages may differ in their training and validation frames.
    """
    runs = {"": metrics} if isinstance(metrics, (str, Path)) else dict(metrics)
    tables = {name: read_metrics(table) for name, table in runs.items()}
    panels = [
        (quantity, title)
        for quantity, title in _PANELS
        if any(_values(columns, prefix, quantity).size for columns in tables.values() for prefix, _, _ in _CURVES)
    ]
    figure = new_figure(8.0, 0.6 + 2.8 * max(len(panels), 1))
    axes = list(figure.subplots(max(len(panels), 1), 1, sharex=True, squeeze=False)[:, 0])
    if not panels:
        say_in(axes[0], "the table holds no errors")
    for axis, (quantity, title) in zip(axes, panels, strict=False):
        for color, (name, columns) in zip(colors(len(tables)), tables.items(), strict=True):
            for prefix, kind, style in _CURVES:
                label: str | None = plot_text(f"{name} {kind}".strip())
                for first, last in _stages(columns["stage"]):
                    errors = _column(columns, prefix, quantity)[first:last]
                    known = np.flatnonzero(np.isfinite(errors) & (errors > 0))
                    if known.size:
                        marker = "o" if known.size == 1 else "." if known.size < 4 else ""
                        epochs = first + known + 1
                        axis.plot(epochs, errors[known], marker=marker, ms=5, color=color, label=label, **style)
                        label = None  # one entry of the legend for all stages
        set_log_scale(axis, "y", [value for line in axis.get_lines() for value in np.asarray(line.get_ydata())])
        axis.set_ylabel(f"{title}\n{ERROR_UNITS[quantity].symbol}")
        axis.grid(alpha=0.3)
    n_epochs = max(len(columns["stage"]) for columns in tables.values())
    n_stages = max(len(set(columns["stage"])) for columns in tables.values())
    axes[-1].set(xlabel="Epoch (all stages)" if n_stages > 1 else "Epoch", xlim=(0.5, n_epochs + 0.5))
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    _mark_stages(axes, [columns["stage"] for columns in tables.values()])
    if panels:
        axes[0].legend(frameon=False)
    save_figure(figure, path)


def _column(columns: Mapping[str, Sequence[str]], prefix: str, quantity: str) -> np.ndarray:
    """Return the errors of all epochs, NaN where an epoch has none; (n_epochs,)."""
    values = columns.get(f"{prefix}_{quantity}_rmse", ["nan"] * len(columns["stage"]))
    return np.array(values, dtype=float)


def _values(columns: Mapping[str, Sequence[str]], prefix: str, quantity: str) -> np.ndarray:
    """Return the errors that are finite."""
    errors = _column(columns, prefix, quantity)
    return errors[np.isfinite(errors)]


def _stages(names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the first epoch of each stage and the first epoch after the stage, both counted from zero."""
    begins = [index for index, name in enumerate(names) if index == 0 or name != names[index - 1]]
    yield from zip(begins, [*begins[1:], len(names)], strict=True)


def _mark_stages(axes: Sequence[Axes], runs: Sequence[Sequence[str]]) -> None:
    """Draw a line where a stage begins in any run, and the names of the stages above it."""
    begun: dict[int, list[str]] = {}
    for stages in runs:
        for first, _ in _stages(stages):
            begun.setdefault(first, []).append(stages[first])
    if len(begun) < 2:
        return
    low, high = axes[0].get_xlim()
    points_per_epoch = 72 * 6.8 / (high - low)  # 6.8 inches of the figure's 8 are the axes
    ends: list[float] = []  # of the last name in each line
    for first in sorted(begun):
        for axis in axes:
            if first:
                axis.axvline(first + 0.5, color="0.5", lw=1, ls="--")
        text = plot_text(" / ".join(dict.fromkeys(begun[first])), 30)
        begin = first * points_per_epoch
        # the first line whose last name ends before this one begins, or a new line above
        line = next((number for number, end in enumerate(ends) if end <= begin), len(ends))
        ends[line : line + 1] = [begin + _LETTER_WIDTH * (len(text) + 2)]
        axes[0].annotate(
            text,
            (first + 0.5, 1.0),
            xycoords=axes[0].get_xaxis_transform(),
            xytext=(2, 3 + _LINE_HEIGHT * line),
            textcoords="offset points",
            fontsize=9,
        )

"""Plots of the tables, of the two training strategies and of the layer's cost, by matplotlib's object interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lrc_ase.files.atomic import replacing

__all__ = ["plot_curve", "plot_table", "plot_timing"]

_PAPER, _OURS, _SHORT = "#c8501e", "#0b5fa5", "#8a8a8a"
_DPI = 130


def plot_table(rows: Sequence[Mapping[str, Any]], title: str, row_label: str, path: Path) -> None:
    """Plot the errors of the paper beside ours, full-range and short-range."""
    figure, axes = _figure(title)
    names = list(dict.fromkeys(row["row"] for row in rows))
    for model, color, filled in (("short-range", _SHORT, False), ("full-range", None, True)):
        for who, key, full_color, marker in (("paper", "paper_error", _PAPER, "s"), ("ours", "error", _OURS, "o")):
            chosen = [row for row in rows if row["model"] == model and row["recipe"] == "ours" and row[key] is not None]
            if chosen:
                at = [names.index(row["row"]) for row in chosen]
                shade = full_color if filled else color
                face = shade if filled else "none"
                values = [row[key] for row in chosen]
                axes.plot(at, values, marker, color=shade, mfc=face, ms=8, label=f"{model}, {who}")
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel(row_label)
    axes.set_ylabel("Relative error of the forces")
    _finish(figure, axes, path, x_log=False)


def plot_curve(points: Mapping[str, Mapping[int, Sequence[float]]], title: str, path: Path) -> None:
    """Plot errors against the number of large snapshots; bars are one standard deviation of logarithms over seeds."""
    figure, axes = _figure(title)
    for (strategy, errors), color in zip(points.items(), (_SHORT, _OURS), strict=True):
        if errors:
            numbers = sorted(errors)
            logs = [np.log(errors[n]) for n in numbers]
            middle = np.exp([log.mean() for log in logs])
            spread = np.array([log.std() for log in logs])
            bars = np.stack([middle - middle * np.exp(-spread), middle * np.exp(spread) - middle])
            axes.errorbar(numbers, middle, bars, color=color, marker="o", capsize=3, label=f"{strategy}, ours")
    axes.set_xscale("symlog", linthresh=1)  # which has a place for none
    axes.set_xlabel("Large snapshots")
    axes.set_ylabel("Relative error of the forces")
    _finish(figure, axes, path, x_log=False)


def plot_timing(times: Mapping[str, Mapping[str, float]], title: str, path: Path) -> None:
    """Plot the time of one evaluation over that of the fewest points, against the number of points, as in the paper."""
    figure, axes = _figure(title)
    for name, label, color in (("layer", "layer", _OURS), ("direct", "direct all-to-all", _PAPER)):
        numbers = sorted(int(n) for n in times[name])
        first = times[name][str(numbers[0])]
        axes.plot(numbers, [times[name][str(n)] / first for n in numbers], "o-", color=color, label=label)
    axes.set_xlabel("Points")
    axes.set_ylabel("Time over that of the smallest")
    _finish(figure, axes, path)


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.2), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=7)
    return figure, axes


def _finish(figure: Figure, axes: Axes, path: Path, *, x_log: bool = True) -> None:
    axes.set_yscale("log")
    if x_log:
        axes.set_xscale("log")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})

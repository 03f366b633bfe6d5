"""Plots on active learning: errors on fresh labels, explored structures, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lrc_ase.dataset import Atoms, elements_of
from lrc_ase.evaluation.error_tables import ERROR_UNITS
from lrc_ase.report.style import ANGSTROM, COLORS, REFERENCE_COLOR, new_figure, plot_text, save_figure, set_log_scale
from lrc_ase.structures.domain import summarize
from lrc_ase.structures.neighbors import neighbor_graph

if TYPE_CHECKING:
    from lrc_ase.learning.state import IterationRecord

__all__ = ["Explored", "explored_of", "plot_agreement", "plot_errors", "plot_explored", "plot_shortest", "plot_time"]

_RANGE = 4.0
"""Range in which shortest distances are looked for, Angstrom."""
_UNIT = ERROR_UNITS["forces"].symbol
_MOST_NUMBERS = 10
"""Number of iterations up to which each has its number on an axis."""


@dataclass(frozen=True)
class Explored:
    """Snapshots of the exploration of an iteration."""

    temperatures: np.ndarray
    """Temperature of the thermostat, K, (n_snapshots,)."""
    volumes: np.ndarray
    """Volume, Angstrom^3 per atom, (n_snapshots,); NaN unless periodic in all directions."""
    shortest: dict[str, float]
    """Shortest distance of each pair of elements over all snapshots, Angstrom."""


def explored_of(snapshots: Sequence[Atoms]) -> Explored:
    """Measure snapshots."""
    elements = elements_of(snapshots)
    graphs = [neighbor_graph(atoms, elements, _RANGE) for atoms in snapshots]
    return Explored(
        np.array([float(atoms.info["temperature"]) for atoms in snapshots]),
        np.array([atoms.get_volume() / len(atoms) if atoms.pbc.all() else np.nan for atoms in snapshots]),
        summarize(graphs, elements)["shortest_distances"],
    )


def plot_errors(records: Sequence[IterationRecord], calls: Sequence[int], path: str | Path) -> None:
    """Draw the errors on fresh labels, and those that were expected, over the teacher calls of the potential."""
    figure = new_figure(5.4, 3.8)
    axis = figure.subplots()
    curves = (("random", "random frames", "o-"), ("chosen", "chosen frames", "s-"), ("all", "all, expected", "^--"))
    values: list[float] = []
    for color, (origin, label, style) in zip(COLORS, curves, strict=False):
        points = [
            (count, each.forces_predicted if origin == "all" else each.forces_rmse)
            for record, count in zip(records, calls, strict=True)
            if (each := record.fresh.get(origin)) is not None
        ]
        known = [(count, value) for count, value in points if value is not None]
        if known:
            axis.plot(*zip(*known, strict=True), style, color=color, label=label)
            values += [value for _, value in known]
    set_log_scale(axis, "y", values)
    axis.set(xlabel="Teacher calls", ylabel=f"Force error (RMSE)\n{_UNIT}", xlim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    save_figure(figure, path)


def plot_agreement(records: Sequence[IterationRecord], path: str | Path) -> None:
    """Draw the actual over the expected error of each iteration's fresh labels."""
    figure = new_figure(4.4, 3.8)
    axis = figure.subplots()
    values: list[float] = []
    for color, origin in zip(COLORS, ("random", "chosen"), strict=False):
        points = [
            (each.forces_predicted, each.forces_rmse, record.iteration)
            for record in records
            if (each := record.fresh.get(origin)) is not None and each.forces_predicted is not None
        ]
        if points:
            expected, actual, _ = zip(*points, strict=True)
            axis.plot(expected, actual, "o", color=color, label=f"{origin} frames")
            for x, y, number in points:
                axis.annotate(f"{number}", (x, y), xytext=(4, 3), textcoords="offset points", fontsize="small")
            values += [*expected, *actual]
    set_log_scale(axis, "x", values)
    set_log_scale(axis, "y", values)
    axis.axline((1, 1), (10, 10), color=REFERENCE_COLOR, lw=1)
    axis.set(xlabel=f"Expected error ({_UNIT})", ylabel=f"Actual error ({_UNIT})")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    save_figure(figure, path)


def plot_explored(explored: Mapping[int, Explored], path: str | Path) -> None:
    """Draw volume over temperature of the snapshots, one color for each iteration; a histogram without volumes."""
    figure = new_figure(5.4, 3.8)
    axis = figure.subplots()
    has_volumes = any(np.isfinite(each.volumes).any() for each in explored.values())
    for number, each in explored.items():
        color = COLORS[number % len(COLORS)]
        if has_volumes:
            axis.plot(each.temperatures, each.volumes, ".", color=color, ms=5, alpha=0.7, label=f"{number}")
        else:
            axis.hist(each.temperatures, bins=20, color=color, histtype="step", label=f"{number}")
    axis.set(xlabel="Temperature (K)", ylabel=f"Volume ({ANGSTROM}³/atom)" if has_volumes else "Snapshots")
    axis.grid(alpha=0.3)
    _legend(axis)
    save_figure(figure, path)


def plot_shortest(explored: Mapping[int, Explored], path: str | Path) -> None:
    """Draw the shortest distance of each pair of elements over the iterations."""
    figure = new_figure(4.4, 3.8)
    axis = figure.subplots()
    pairs = sorted({pair for each in explored.values() for pair in each.shortest})
    for index, pair in enumerate(pairs):
        points = [(number, each.shortest[pair]) for number, each in explored.items() if pair in each.shortest]
        style = "o-" if index < len(COLORS) else "s--"
        axis.plot(*zip(*points, strict=True), style, color=COLORS[index % len(COLORS)], label=plot_text(pair))
    axis.set(xlabel="Iteration", ylabel=f"Shortest distance ({ANGSTROM})")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    _legend(axis)
    save_figure(figure, path)


def plot_time(records: Sequence[IterationRecord], final_seconds: float, path: str | Path) -> None:
    """Draw the time of the phases of each iteration, and of the final training."""
    figure = new_figure(6.4, 3.4)
    axis = figure.subplots()
    numbers = [record.iteration for record in records]
    base = np.zeros(len(records))
    for color, (label, attribute) in zip(
        COLORS,
        (("labels", "label_seconds"), ("training", "train_seconds"), ("exploration", "explore_seconds")),
        strict=False,
    ):
        seconds = np.array([getattr(record, attribute) for record in records])
        axis.bar(numbers, seconds, bottom=base, color=color, label=label)
        base += seconds
    named = numbers[:: max(len(numbers) // _MOST_NUMBERS, 1)]
    ticks, names = list(named), [f"{number}" for number in named]
    if final_seconds:
        last = max(numbers) + 1
        axis.bar([last], [final_seconds], color=COLORS[3], label="final training")
        ticks, names = [*ticks, last], [*names, "final"]
    axis.set(xlabel="Iteration", ylabel="Time (s)")
    axis.set_xticks(ticks, names)
    axis.grid(alpha=0.3, axis="y")
    axis.legend(frameon=False)
    save_figure(figure, path)


def _legend(axis: Axes) -> None:
    """Add a legend beside the panel, which may have many entries."""
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")

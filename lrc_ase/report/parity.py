"""Plots of predicted over reference values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lrc_ase.evaluation.electric import COMPARED
from lrc_ase.evaluation.error_tables import ERROR_UNITS, error_text
from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.report.style import REFERENCE_COLOR, colors, new_figure, plot_text, save_figure, say_in, thinned

__all__ = ["plot_parity", "plot_parity_by_element"]

_LARGEST_LEGEND = 6
"""Largest number of entries of a legend; the least frequent sets share the last color."""
_TITLES = {
    "energy": "Energy per atom - mean",
    "forces": "Force component",
    "stress": "Stress component",
    "dipole": "Dipole component",
    "born_effective_charges": "Born effective charge",
}
_FEWEST_COLUMNS_TO_WRAP = 4
"""Panels of a single evaluation from which they stand in two rows."""


def plot_parity(evaluations: Mapping[str, Evaluation], path: str | Path) -> None:
    """Draw predictions over references: a column per evaluation, a row for each quantity that has labels.

    Axes and errors of a panel have the same unit. The mean reference is subtracted from energies per atom.
    """
    if not evaluations:
        raise ValueError("`evaluations` must hold at least one, got none")
    rows: dict[str, list[np.ndarray]] = {quantity: [] for quantity in _TITLES}
    for evaluation in evaluations.values():
        per_atom = np.array([evaluation.reference_energy, evaluation.energy]) / evaluation.n_atoms
        known = np.isfinite(per_atom[0])
        # the mean of several evaluations on the same frames is the same: their axes agree
        rows["energy"].append(per_atom - (per_atom[0, known].mean() if known.any() else 0.0))
        rows["forces"].append(np.array([evaluation.reference_forces.ravel(), evaluation.forces.ravel()]))
        rows["stress"].append(np.array([evaluation.reference_stress.ravel(), evaluation.stress.ravel()]))
        for label in COMPARED:
            each = evaluation.electric.get(label)
            pair = np.empty((2, 0)) if each is None else np.array([each.reference.ravel(), each.predicted.ravel()])
            rows[label].append(pair)
    for pairs in rows.values():
        pairs[:] = [pair[:, np.isfinite(pair).all(axis=0)] for pair in pairs]
    rows = {quantity: pairs for quantity, pairs in rows.items() if any(pair.size for pair in pairs)}
    if not rows:
        raise ValueError("`evaluations` hold no labels: there is nothing to compare predictions with")
    if len(evaluations) == 1:  # side by side: a page is wider than high
        n_lines = 1 if len(rows) < _FEWEST_COLUMNS_TO_WRAP else 2
        n_columns = -(-len(rows) // n_lines)
        figure = new_figure(4.2 * n_columns, 4.4 * n_lines, equal_axes=True)
        panels = figure.subplots(n_lines, n_columns, squeeze=False).ravel()
        for axis in panels[len(rows) :]:
            axis.set_visible(False)
        grid = panels[: len(rows), None]
    else:
        figure = new_figure(4.2 * len(evaluations), 0.4 + 4.0 * len(rows), equal_axes=True)
        grid = figure.subplots(len(rows), len(evaluations), squeeze=False, sharex="row", sharey="row")
    for axes, (quantity, pairs) in zip(grid, rows.items(), strict=True):
        unit = ERROR_UNITS[quantity]
        scaled = [unit.per_ase_unit * pair for pair in pairs]
        limits = _limits(scaled)
        for axis, (reference, predicted), color in zip(axes, scaled, colors(len(evaluations)), strict=True):
            _frame(axis, limits)
            axis.set_xlabel(f"{_TITLES[quantity]}, reference\n{unit.symbol}")
            if not reference.size:
                say_in(axis, "no labels")
                continue
            drawn = thinned(reference.size)
            size, alpha = (7, 0.8) if quantity in ("energy", "dipole") else (3, 0.4)
            axis.plot(reference[drawn], predicted[drawn], ".", color=color, ms=size, alpha=alpha, rasterized=True)
            rmse = np.sqrt(np.mean((predicted - reference) ** 2))
            text = f"RMSE {error_text(rmse)} {unit.symbol}"
            if quantity in COMPARED and reference.var() > 0:
                text += f"\nR² {1 - np.mean((predicted - reference) ** 2) / reference.var():.3f}"
            axis.text(0.04, 0.95, text, transform=axis.transAxes, va="top")
        axes[0].set_ylabel(f"{_TITLES[quantity]}, predicted\n{unit.symbol}")
    if len(evaluations) > 1:
        for axis, name in zip(grid[0], evaluations, strict=True):
            axis.set_title(plot_text(name, 30), fontsize="medium")
    save_figure(figure, path, tight=True)


def plot_parity_by_element(evaluations: Mapping[str, Evaluation], path: str | Path) -> None:
    """Draw predicted over reference forces: a panel per evaluation and element, a color per set."""
    symbols = [str(symbol) for symbol in np.unique(np.concatenate([each.symbols for each in evaluations.values()]))]
    n_columns = min(len(symbols), 4)
    rows_each = -(-len(symbols) // n_columns)
    figure = new_figure(max(3.4 * n_columns, 4.8), 0.3 + 3.6 * rows_each * len(evaluations), equal_axes=True)
    grid = figure.subplots(rows_each * len(evaluations), n_columns, squeeze=False)
    unit = ERROR_UNITS["forces"]
    sets = _most_frequent([name for evaluation in evaluations.values() for name in evaluation.sets])
    for number, (name, evaluation) in enumerate(evaluations.items()):
        panels = grid[number * rows_each : (number + 1) * rows_each].ravel()
        set_of_atom = np.array([sets.index(each) if each in sets else len(sets) for each in evaluation.sets])
        set_of_component = np.repeat(set_of_atom[evaluation.frame], 3)
        reference, predicted = (
            unit.per_ase_unit * forces.ravel() for forces in (evaluation.reference_forces, evaluation.forces)
        )
        element = np.repeat(evaluation.symbols, 3)
        known = np.isfinite(reference) & np.isfinite(predicted)
        for axis, symbol in zip(panels, symbols, strict=False):
            chosen = known & (element == symbol)
            title = symbol if len(evaluations) == 1 else f"{plot_text(name, 22)}: {symbol}"
            axis.set_title(title, fontsize="medium")
            _frame(axis, _limits([np.array([reference[chosen], predicted[chosen]])]))
            if not chosen.any():
                say_in(axis, "no labels" if (element == symbol).any() else "no atoms")
                continue
            for index, (set_name, color) in enumerate(zip([*sets, "other sets"], colors(len(sets) + 1), strict=True)):
                of_set = np.flatnonzero(chosen & (set_of_component == index))
                if of_set.size:
                    rmse = error_text(np.sqrt(np.mean((predicted[of_set] - reference[of_set]) ** 2)))
                    title = "" if len(sets) == 1 else f"{plot_text(set_name, 22)}: "
                    drawn = of_set[thinned(of_set.size, 5000)]
                    axis.plot(
                        reference[drawn],
                        predicted[drawn],
                        ".",
                        ms=3,
                        alpha=0.4,
                        color=color,
                        rasterized=True,
                        label=f"{title}RMSE {rmse} {unit.symbol}",
                    )
            layout = {"loc": "upper left", "handletextpad": 0.1, "framealpha": 0.75, "edgecolor": "none"}
            axis.legend(fontsize="x-small", markerscale=3, **layout)
        for axis in panels[len(symbols) :]:
            axis.set_visible(False)
    figure.supxlabel(f"Force component, reference ({unit.symbol})", fontsize="medium")
    figure.supylabel(f"Force component, predicted ({unit.symbol})", fontsize="medium")
    save_figure(figure, path, tight=True)


def _frame(axis: Axes, limits: tuple[float, float]) -> None:
    """Set equal axes with limits and grid, and draw the diagonal."""
    axis.axline((0, 0), slope=1, color=REFERENCE_COLOR, lw=1)
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    for each in (axis.xaxis, axis.yaxis):
        each.set_major_locator(MaxNLocator(5))
    axis.grid(alpha=0.3)


def _limits(pairs: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return limits that hold references and predictions, with a margin; a single value gets one too."""
    shown = np.concatenate([pair.ravel() for pair in pairs])
    if not shown.size:
        return -1.0, 1.0
    margin = 0.06 * np.ptp(shown) or 0.06 * abs(shown[0]) or 1.0
    return float(shown.min() - margin), float(shown.max() + margin)


def _most_frequent(names: Sequence[str]) -> list[str]:
    """Return the names that get a color each, in the order of their first appearance."""
    distinct = list(dict.fromkeys(names))
    if len(distinct) <= _LARGEST_LEGEND:
        return distinct
    frequent = sorted(distinct, key=names.count, reverse=True)[: _LARGEST_LEGEND - 1]
    return [name for name in distinct if name in frequent]

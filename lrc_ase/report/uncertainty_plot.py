"""Plot of the predicted deviations of ensembles against actual errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from lrc_ase.evaluation.error_tables import ERROR_UNITS
from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.evaluation.uncertainty import coverage
from lrc_ase.report.style import (
    COLORS,
    REFERENCE_COLOR,
    new_figure,
    plot_text,
    save_figure,
    say_in,
    set_log_scale,
    thinned,
)

__all__ = ["plot_uncertainty"]

_LEVELS = np.linspace(0.02, 0.98, 25)
"""Probabilities of the intervals whose coverage is drawn."""
_SMALLEST_SHOWN = 1e-3
"""Smaller errors, relative to the largest, are drawn at the lower edge: a logarithmic axis has no zero."""


def plot_uncertainty(evaluations: Mapping[str, Evaluation], path: str | Path, *, title: str = "") -> None:
    """Draw coverage and calibration of the deviations of ensembles, a row for each evaluation that has deviations.

    The left panel shows the fraction of errors within normal intervals over the probability of the interval. The right
    panel shows errors of force components over their deviations, and the root mean squares of both in ten groups of
    equal size. `title` names the frames and the frames that the deviations were calibrated on.
    """
    rows = {name: evaluation for name, evaluation in evaluations.items() if evaluation.forces_std is not None}
    if not rows:
        raise ValueError("`evaluations` must hold at least one of an ensemble, got none")
    figure = new_figure(9.0, 0.4 + 4.2 * len(rows))
    grid = figure.subplots(len(rows), 2, squeeze=False)
    for (left, right), (name, evaluation) in zip(grid, rows.items(), strict=True):
        assert evaluation.energy_std is not None
        assert evaluation.forces_std is not None
        energy_std = ERROR_UNITS["energy"].per_ase_unit * evaluation.energy_std / evaluation.n_atoms
        forces_std = ERROR_UNITS["forces"].per_ase_unit * evaluation.forces_std
        left.axline((0, 0), slope=1, color=REFERENCE_COLOR, lw=1)
        _draw_coverage(left, "force components", evaluation.force_errors, forces_std, COLORS[0])
        _draw_coverage(left, "energies", evaluation.energy_errors, energy_std, COLORS[1])
        left.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="Probability of the interval")
        left.set_ylabel("Part of the errors inside")
        left.legend(frameon=False, loc="upper left", fontsize="small")
        left.set_title(plot_text(name, 36), fontsize="medium")
        _draw_errors(right, evaluation.force_errors, forces_std)
        right.set_title(f"rank correlation {evaluation.uncertainty()['forces'].correlation:.2f}")
        right.set_xlabel(f"Deviation of a force component ({ERROR_UNITS['forces'].symbol})")
        right.set_ylabel(f"Absolute error ({ERROR_UNITS['forces'].symbol})")
        for axis in (left, right):
            axis.grid(alpha=0.3)
    if title:
        figure.suptitle(plot_text(title, 110), fontsize="medium")
    save_figure(figure, path)


def _draw_coverage(axis: Axes, quantity: str, errors: np.ndarray, deviations: np.ndarray, color: str) -> None:
    """Draw the fraction of errors inside intervals of each probability."""
    known = np.isfinite(errors) & np.isfinite(deviations)
    if not known.any():
        axis.plot([], [], color=color, lw=2, label=f"{quantity}: too few to calibrate")
        return
    observed = [coverage(errors, deviations, level) for level in _LEVELS]
    label = f"90% interval: {coverage(errors, deviations):.0%} of {known.sum()} {quantity}"
    axis.plot(_LEVELS, observed, color=color, lw=2, label=label)


def _draw_errors(axis: Axes, errors: np.ndarray, deviations: np.ndarray) -> None:
    """Draw errors over deviations, as points and as root mean squares of ten groups, on logarithmic axes."""
    known = np.isfinite(errors) & (deviations > 0)
    sizes, expected = np.abs(errors[known]), deviations[known]
    if not sizes.any():
        say_in(axis, "too few errors")
        return
    shown = np.maximum(sizes, _SMALLEST_SHOWN * sizes.max())
    drawn = thinned(sizes.size)
    axis.plot(expected[drawn], shown[drawn], ".", color=COLORS[0], ms=2, alpha=0.25, rasterized=True)
    groups = np.array_split(np.argsort(expected), min(10, sizes.size))
    means = [[np.sqrt(np.mean(values[group] ** 2)) for group in groups] for values in (expected, sizes)]
    axis.plot(*means, "o-", color=COLORS[1], lw=2, label="RMS of tenths")
    set_log_scale(axis, "x", expected)
    set_log_scale(axis, "y", shown)
    axis.axline((1, 1), (10, 10), color=REFERENCE_COLOR, lw=1)
    axis.legend(frameon=False, loc="lower right", fontsize="small")

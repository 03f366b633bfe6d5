"""Plots of a training run, an evaluation and a simulation, as PNG files.

Figures are built with matplotlib's object interface: no backend is chosen and no global state touched.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.evaluation.uncertainty import coverage

__all__ = [
    "COLORS",
    "LARGEST_SCATTER",
    "REFERENCE_COLOR",
    "new_figure",
    "plot_energy_conservation",
    "plot_learning_curve",
    "plot_parity",
    "plot_rdf",
    "plot_uncertainty",
    "read_metrics",
]

COLORS = ("#0b5fa5", "#c8501e", "#2a8f4f", "#7a4fa3", "#8a6d1b")
REFERENCE_COLOR = "#303030"
DPI = 160
LARGEST_SCATTER = 20000  # points drawn; more only make the file larger


def read_metrics(path: str | Path) -> dict[str, list[str]]:
    """Columns of a CSV table by name."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path} holds no rows: nothing to plot")
    return {name: [row[name] or "nan" for row in rows] for name in rows[0]}


def plot_learning_curve(metrics: str | Path | Mapping[str, str | Path], path: str | Path) -> None:
    """Draw errors per epoch of every stage, from the metrics table of a run folder, or of several runs by name.

    Errors of forces (above) and energies (below) on the validation frames, and thin those of the training batches.
    """
    runs = {"": metrics} if isinstance(metrics, (str, Path)) else dict(metrics)
    tables = {name: read_metrics(table) for name, table in runs.items()}
    figure = new_figure(8.0, 6.2)
    axes = figure.subplots(2, 1, sharex=True)
    for axis, quantity, label in (
        (axes[0], "forces_rmse", "Force error (RMSE)\nmeV/\N{ANGSTROM SIGN}"),
        (axes[1], "energy_rmse", "Energy error (RMSE)\nmeV/atom"),
    ):
        for color, (name, columns) in zip(_colors(len(tables)), tables.items(), strict=True):
            for kind, style in (("training", {"lw": 0.9, "ls": "--"}), ("validation", {"lw": 2.0})):
                values = np.array(columns[f"{'train' if kind == 'training' else kind}_{quantity}"], dtype=float)
                known = np.flatnonzero(np.isfinite(values))
                marker = "." if known.size < 3 else None
                axis.plot(known + 1, values[known], marker=marker, color=color, label=f"{name} {kind}".strip(), **style)
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(LogFormatter())
        axis.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
        axis.set_ylabel(label)
        axis.grid(alpha=0.3, which="both")
    _mark_stages(axes, [columns["stage"] for columns in tables.values()])
    axes[0].legend(frameon=False)
    axes[1].set_xlabel("Epoch (all stages)")
    axes[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path)


def _mark_stages(axes: Sequence[Axes], runs: Sequence[Sequence[str]]) -> None:
    """Draw a line where a stage begins in any run, and the names of the stages above it."""
    begun: dict[int, list[str]] = {}
    for stages in runs:
        for index, stage in enumerate(stages):
            if index == 0 or stage != stages[index - 1]:
                begun.setdefault(index, []).append(stage)
    for index, names in begun.items():
        for axis in axes:
            if index:
                axis.axvline(index + 0.5, color="0.5", lw=1, ls="--")
        if len(begun) > 1:
            text = " / ".join(dict.fromkeys(names))
            axes[0].text(index + 0.6, 1.02, text, transform=axes[0].get_xaxis_transform(), ha="left", va="bottom")


def plot_parity(evaluations: Mapping[str, Evaluation], path: str | Path) -> None:
    """Prediction over reference of energies (above) and forces (below), one column per evaluation, equal axes."""
    if not evaluations:
        raise ValueError("`evaluations` must hold at least one, got none")
    names = list(evaluations)
    energies, forces = [], []
    for evaluation in evaluations.values():
        per_atom = np.array([evaluation.reference_energy, evaluation.energy]) / evaluation.n_atoms
        energies.append(1000 * (per_atom - np.nanmean(per_atom[0])))
        forces.append(np.array([evaluation.reference_forces.ravel(), evaluation.forces.ravel()]))
    rows = [
        ("Energy - mean", "meV/atom", "meV/atom", 1.0, energies, {"ms": 7, "alpha": 0.8}),
        ("Force component", "eV/\N{ANGSTROM SIGN}", "meV/\N{ANGSTROM SIGN}", 1000.0, forces, {"ms": 3, "alpha": 0.4}),
    ]
    figure = new_figure(max(4.0 * len(names), 4.5), 7.8)
    grid = figure.subplots(2, len(names), squeeze=False, sharex="row", sharey="row")
    for axes, (quantity, unit, error_unit, scale, pairs, marks) in zip(grid, rows, strict=True):
        shown = np.concatenate([pair[:, np.isfinite(pair).all(axis=0)].ravel() for pair in pairs])
        margin = 0.05 * np.ptp(shown) + 1e-9 if shown.size else 1.0
        limits = (shown.min() - margin, shown.max() + margin) if shown.size else (-1.0, 1.0)
        for axis, pair, color in zip(axes, pairs, _colors(len(names)), strict=True):
            reference, predicted = pair[:, np.isfinite(pair).all(axis=0)]
            axis.axline((0, 0), slope=1, color=REFERENCE_COLOR, lw=1)
            axis.set_xlabel(f"{quantity}, reference ({unit})")
            axis.set(xlim=limits, ylim=limits, aspect="equal")
            axis.grid(alpha=0.3)
            if not reference.size:
                axis.text(0.5, 0.5, "no labels", transform=axis.transAxes, ha="center")
                continue
            rmse = scale * np.sqrt(np.mean((predicted - reference) ** 2))
            drawn = np.linspace(0, reference.size - 1, min(reference.size, LARGEST_SCATTER)).astype(int)
            axis.plot(reference[drawn], predicted[drawn], ".", color=color, rasterized=True, **marks)
            axis.text(0.04, 0.95, f"RMSE {rmse:.3g} {error_unit}", transform=axis.transAxes, va="top")
        axes[0].set_ylabel(f"{quantity}, predicted ({unit})")
    for axis, name in zip(grid[0], names, strict=True):
        axis.set_title(name)
    figure.savefig(path)


def plot_uncertainty(evaluations: Mapping[str, Evaluation], path: str | Path) -> None:
    """Draw how far the deviations of ensembles can be trusted, a row for each evaluation that has them.

    Left, the part of the errors within normal intervals over what it should be; right, the root mean square error over
    the deviation, of force components in ten groups of the same size.
    """
    rows = {name: evaluation for name, evaluation in evaluations.items() if evaluation.forces_std is not None}
    if not rows:
        raise ValueError("`evaluations` must hold at least one of an ensemble, got none")
    levels = np.linspace(0.02, 0.98, 25)
    figure = new_figure(8.6, 4.2 * len(rows))
    for (left, right), (name, evaluation) in zip(
        figure.subplots(len(rows), 2, squeeze=False), rows.items(), strict=True
    ):
        assert evaluation.energy_std is not None
        assert evaluation.forces_std is not None
        pairs = {
            "forces": (evaluation.forces - evaluation.reference_forces, evaluation.forces_std),
            "energies": (evaluation.energy - evaluation.reference_energy, evaluation.energy_std),
        }
        left.axline((0, 0), slope=1, color=REFERENCE_COLOR, lw=1)
        for color, (quantity, (errors, deviations)) in zip(COLORS, pairs.items(), strict=False):
            observed = [coverage(errors, deviations, level) for level in levels]
            left.plot(
                levels, observed, color=color, lw=2, label=f"{quantity}, {coverage(errors, deviations):.0%} in 90%"
            )
        left.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="Probability of the interval")
        left.set_ylabel("Part of the errors inside")
        left.legend(frameon=False, loc="upper left")
        errors = 1000 * (evaluation.forces - evaluation.reference_forces)
        deviations = 1000 * evaluation.forces_std
        known = np.isfinite(errors) & (deviations > 0)
        if known.any():
            found, expected = np.abs(errors[known]), deviations[known]
            drawn = np.linspace(0, found.size - 1, min(found.size, LARGEST_SCATTER)).astype(int)
            right.plot(expected[drawn], found[drawn], ".", color=COLORS[0], ms=2, alpha=0.25, rasterized=True)
            groups = np.array_split(np.argsort(expected), min(10, found.size))
            means = [[np.sqrt(np.mean(values[group] ** 2)) for group in groups] for values in (expected, found)]
            right.plot(*means, "o-", color=COLORS[1], lw=2, label="RMS of tenths")
            right.set(xscale="log", yscale="log", xlim=(expected.min() / 1.5, expected.max() * 1.5))
            right.set(ylim=(max(found.max() * 1e-4, 1e-3), found.max() * 1.5))
            right.axline((1, 1), (10, 10), color=REFERENCE_COLOR, lw=1)
            correlation = evaluation.uncertainty()["forces"].correlation
            right.set_title(f"{name}: rank correlation {correlation:.2f}".removeprefix(": "))
            right.legend(frameon=False)
        right.set_xlabel("Deviation of a force component (meV/\N{ANGSTROM SIGN})")
        right.set_ylabel("Error (meV/\N{ANGSTROM SIGN})")
        for axis in (left, right):
            axis.grid(alpha=0.3)
    figure.savefig(path)


def plot_energy_conservation(
    times: np.ndarray, total: np.ndarray, kinetic: np.ndarray, n_atoms: int, path: str | Path, *, title: str = ""
) -> None:
    """Total energy of a run at constant energy, beside the kinetic energy that it exchanges.

    `times` in ps, energies in eV, all (n_samples,).
    """
    times = np.asarray(times, dtype=float)
    deviation = 1000 * (np.asarray(total, dtype=float) - total[0]) / n_atoms
    exchanged = 1000 * (np.asarray(kinetic, dtype=float) - np.mean(kinetic)) / n_atoms
    figure = new_figure(8.0, 6.2)
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(times, exchanged, color=COLORS[1], lw=1, label="kinetic energy - mean")
    above.plot(times, deviation, color=COLORS[0], lw=2, label="total energy - start")
    above.set_ylabel("meV/atom")
    above.legend(frameon=False, ncols=2, loc="upper right")
    below.plot(times, deviation, color=COLORS[0], lw=1)
    if len(times) > 1:
        line = np.polyfit(times, deviation, 1)
        below.plot(
            times,
            np.polyval(line, times),
            color=REFERENCE_COLOR,
            ls="--",
            label=f"drift {1000 * line[0]:+.2g} \N{MICRO SIGN}eV/atom per ps",
        )
        below.legend(frameon=False)
    below.set_ylabel("Total energy - start\nmeV/atom")
    below.set_xlabel("Time (ps)")
    for axis in (above, below):
        axis.grid(alpha=0.3)
    if title:
        above.set_title(title)
    figure.savefig(path)


def plot_rdf(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    path: str | Path,
    *,
    reference: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    reference_name: str = "reference",
    title: str = "",
) -> None:
    """Radial distributions by pair, each with the reference's of the same name, if any.

    A curve is r in Angstrom and g(r), both (n_bins,).
    """
    figure = new_figure(8.0, 5.0)
    axis = figure.subplots()
    for color, (name, (r, g)) in zip(_colors(len(curves)), curves.items(), strict=True):
        axis.plot(r, g, color=color, lw=2, label=name)
        if reference is not None and name in reference:
            axis.plot(*reference[name], "o", color=color, ms=3.5, mfc="none", label=f"{name}, {reference_name}")
    axis.axhline(1, color="0.6", lw=1)
    axis.set_xlabel("Distance r (\N{ANGSTROM SIGN})")
    axis.set_ylabel("Radial distribution g(r)")
    axis.set_xlim(0, max(float(np.max(r)) for r, _ in curves.values()))
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    if title:
        axis.set_title(title)
    figure.savefig(path)


def new_figure(width: float, height: float) -> Figure:
    """Figure of so many inches, at the resolution of all plots."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _colors(count: int) -> list[str]:
    return [COLORS[index % len(COLORS)] for index in range(count)]

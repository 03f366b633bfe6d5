"""The plot of a thermodynamic log."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

__all__ = ["plot_log"]

QUANTITIES = {
    "temperature_K": "Temperature\nK",
    "potential_eV": "Potential energy\neV",
    "total_eV": "Total energy\neV",
    "pressure_GPa": "Pressure\nGPa",
    "volume_A3": "Volume\n\N{ANGSTROM SIGN}\N{SUPERSCRIPT THREE}",
}
COLOR = "#0b5fa5"
DPI = 120


def plot_log(log: str | Path, path: str | Path) -> None:
    """Draw every quantity of a run's log that is a number and changes, over time; ValueError for a log without rows.

    Energies are shown against the first row.
    """
    with open(log, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"{log} holds no rows: nothing to plot")
    columns = {name: np.array([float(row[name]) for row in rows]) for name in ("time_ps", *QUANTITIES)}
    shown = [name for name in QUANTITIES if np.isfinite(columns[name]).any()]
    shown = [name for name in shown if np.ptp(columns[name]) > 0] or shown
    figure = Figure(figsize=(8.0, 1.7 * len(shown) + 0.6), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, shown, strict=True):
        values = columns[name] - (columns[name][0] if name.endswith("_eV") else 0.0)
        axis.plot(columns["time_ps"], values, color=COLOR, lw=1, marker="." if len(rows) == 1 else "")
        axis.set_ylabel(f"{QUANTITIES[name]}, start = 0" if name.endswith("_eV") else QUANTITIES[name])
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("Time (ps)")
    figure.savefig(path)

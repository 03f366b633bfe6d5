"""Plots of the demo: conserved energy and radial distributions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lrc_ase.report.style import ANGSTROM, COLORS, REFERENCE_COLOR, colors, new_figure, plot_text, save_figure

__all__ = ["plot_energy_conservation", "plot_rdf"]


def plot_energy_conservation(
    times: np.ndarray, total: np.ndarray, kinetic: np.ndarray, n_atoms: int, path: str | Path, *, title: str
) -> None:
    """Draw the total energy of a run at constant energy, above it the kinetic energy for comparison.

    `times` in ps, energies in eV, all (n_samples,). The slope of a straight line is given as the drift.
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
    above.set_title(plot_text(title, 80))
    save_figure(figure, path)


def plot_rdf(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    path: str | Path,
    *,
    reference: Mapping[str, tuple[np.ndarray, np.ndarray]],
    title: str,
) -> None:
    """Draw radial distributions by pair, each beside the reference of the same name.

    A curve consists of distances r in Angstrom and g(r), both (n_bins,).
    """
    figure = new_figure(8.0, 5.0)
    axis = figure.subplots()
    for color, (name, (r, g)) in zip(colors(len(curves)), curves.items(), strict=True):
        axis.plot(r, g, color=color, lw=2, label=plot_text(name))
        axis.plot(*reference[name], "o", color=color, ms=3.5, mfc="none", label=plot_text(f"{name}, reference"))
    axis.axhline(1, color="0.6", lw=1)
    axis.set_xlabel(f"Distance r ({ANGSTROM})")
    axis.set_ylabel("Radial distribution g(r)")
    axis.set_xlim(0, max(float(np.max(r)) for r, _ in curves.values()))
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    axis.set_title(plot_text(title, 80))
    save_figure(figure, path)

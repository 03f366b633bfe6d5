"""Plot of a thermodynamic log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lrc_ase.report.style import ANGSTROM, COLORS, new_figure, save_figure
from lrc_ase.simulation.output import ThermodynamicLog

__all__ = ["plot_log"]

QUANTITIES = {
    "temperature_K": "Temperature\nK",
    "potential_eV": "Potential energy\neV",
    "total_eV": "Total energy\neV",
    "conserved_eV": "Conserved energy\neV",
    "pressure_GPa": "Pressure\nGPa",
    "volume_A3": f"Volume\n{ANGSTROM}\N{SUPERSCRIPT THREE}",
}


def plot_log(log: str | Path, path: str | Path, targets: Mapping[str, float] | None = None) -> None:
    """Draw the quantities of a run's log over time.

    A quantity that is never a number, or never changes, is left out. Energies are shown relative to the first row.
    Where the total energy is the conserved one, as with velocity Verlet, one panel shows both.

    Parameters
    ----------
    targets
        Target values by the name of the column (``temperature_K``, ``pressure_GPa``); drawn as dashed lines.

    Raises
    ------
    ValueError
        The log has no rows, or is no log of lrc-ase.
    """
    columns = ThermodynamicLog.read(Path(log))
    n_rows = len(columns["time_ps"])
    if n_rows == 0:
        raise ValueError(f"{log} holds no rows: nothing to plot")
    labels = dict(QUANTITIES)
    if np.array_equal(columns["total_eV"], columns["conserved_eV"]):
        labels["total_eV"] = "Total energy\n(conserved)\neV"
        del labels["conserved_eV"]
    finite = [name for name in labels if np.isfinite(columns[name]).any()]
    shown = [name for name in finite if np.nanmax(columns[name]) > np.nanmin(columns[name])] or finite
    figure = new_figure(8.0, 1.7 * len(shown) + 0.6)
    axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, shown, strict=True):
        is_energy = name.endswith("_eV")  # total energies are so large that labels of ticks would need an offset
        values = columns[name] - (columns[name][np.isfinite(columns[name])][0] if is_energy else 0.0)
        axis.plot(columns["time_ps"], values, color=COLORS[0], lw=1, marker="." if n_rows == 1 else "")
        axis.set_ylabel(f"{labels[name]}, start = 0" if is_energy else labels[name])
        axis.grid(alpha=0.3)
        if targets and name in targets:
            axis.axhline(targets[name], color=COLORS[1], ls="--", lw=1, label=f"target {targets[name]:g}")
            axis.legend(loc="best", fontsize="small", frameon=True)
    figure.align_ylabels(axes)
    axes[-1].set_xlabel("Time (ps)")
    save_figure(figure, path)

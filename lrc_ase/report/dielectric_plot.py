"""Plot of a dielectric constant: does its estimate settle?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lrc_ase.report.style import COLORS, REFERENCE_COLOR, new_figure, plot_text, save_figure
from lrc_ase.simulation.dielectric import DielectricConstant

__all__ = ["plot_dielectric"]


def plot_dielectric(constant: DielectricConstant, path: str | Path, *, title: str = "") -> None:
    """Draw the running estimate over the time used, with the final value and its error band."""
    figure = new_figure(8.0, 4.0)
    axis = figure.subplots()
    axis.plot(constant.times, constant.running, color=COLORS[0], lw=1.4, label="estimate from the time up to here")
    label = f"all: {constant.value:.4g}"
    if np.isfinite(constant.error):
        low, high = constant.value - constant.error, constant.value + constant.error
        axis.axhspan(low, high, color=REFERENCE_COLOR, alpha=0.15, lw=0)
        label += f" \N{PLUS-MINUS SIGN} {constant.error:.2g} (standard error of {constant.n_blocks} blocks)"
    axis.axhline(constant.value, color=REFERENCE_COLOR, ls="--", lw=1, label=label)
    axis.set_xlabel("Time of each run (ps)")
    axis.set_ylabel(f"Dielectric constant\nby {constant.method}")
    axis.set_xlim(left=0)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize="small")
    axis.set_title(plot_text(title, 100), fontsize="medium")
    save_figure(figure, path)

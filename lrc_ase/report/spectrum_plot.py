"""Plot of spectra from molecular dynamics: infrared absorption and vibrational density of states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from lrc_ase.report.style import COLORS, REFERENCE_COLOR, colors, new_figure, plot_text, save_figure
from lrc_ase.simulation.bands import Band
from lrc_ase.simulation.infrared import InfraredSpectrum
from lrc_ase.simulation.vibrational_states import VibrationalStates

__all__ = ["plot_spectra"]


def plot_spectra(
    infrared: InfraredSpectrum | None,
    states: VibrationalStates | None,
    path: str | Path,
    *,
    bands: Sequence[Band] = (),
    largest: float = 4500.0,
    title: str = "",
) -> None:
    """Draw the infrared spectrum with its error band, below it the density of states; either may be None.

    Parameters
    ----------
    bands
        Bands of the infrared spectrum to name.
    largest
        End of the axis, cm^-1.
    """
    n_panels = (infrared is not None) + (states is not None)
    if n_panels == 0:
        raise ValueError("expected an infrared spectrum or a density of states to plot, got neither")
    figure = new_figure(8.0, 0.8 + 3.2 * n_panels)
    axes = list(figure.subplots(n_panels, 1, sharex=True, squeeze=False)[:, 0])
    axes[0].set_title(plot_text(title, 100), fontsize="medium")
    if infrared is not None:
        _draw_infrared(axes[0], infrared, bands)
    if states is not None:
        _draw_states(axes[-1], states)
    for axis in axes:
        axis.set_xlim(0, largest)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("Wave number (cm$^{-1}$)")
    save_figure(figure, path)


def _draw_infrared(axis: Axes, infrared: InfraredSpectrum, bands: Sequence[Band]) -> None:
    """Draw absorption with its error band and the names of its bands."""
    x, y, error = infrared.wavenumbers, infrared.absorption, infrared.error
    axis.plot(x, y, color=COLORS[0], lw=1.4)
    if np.isfinite(error).all():
        label = f"\N{PLUS-MINUS SIGN} standard error of {infrared.n_blocks} blocks"
        axis.fill_between(x, np.maximum(y - error, 0), y + error, color=COLORS[0], alpha=0.25, lw=0, label=label)
        axis.legend(frameon=False, fontsize="small")
    for band in bands:
        axis.annotate(
            f"{band.position:.0f}",
            (band.position, band.height + (band.error if np.isfinite(band.error) else 0)),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize="small",
            color=REFERENCE_COLOR,
        )
    axis.set_ylim(0, 1.12 * float((y + np.nan_to_num(error)).max()) or 1.0)
    if infrared.unit == "cm^-1":
        axis.set_ylabel("Infrared absorption\n\N{GREEK SMALL LETTER ALPHA} n (cm$^{-1}$)")
    else:
        axis.set_ylabel("Molar infrared absorption\n(km/mol per cm$^{-1}$)")


def _draw_states(axis: Axes, states: VibrationalStates) -> None:
    """Draw the density of states of all atoms and of each element."""
    total = states.total
    axis.plot(states.wavenumbers, total, color=REFERENCE_COLOR, lw=1.2, label="all atoms")
    if np.isfinite(states.error).all():
        low, high = np.maximum(total - states.error, 0), total + states.error
        axis.fill_between(states.wavenumbers, low, high, color=REFERENCE_COLOR, alpha=0.2, lw=0)
    if len(states.density) > 1:
        for color, (symbol, density) in zip(colors(len(states.density)), states.density.items(), strict=True):
            axis.plot(states.wavenumbers, density, color=color, lw=1.2, label=symbol)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("Vibrational states\n(modes per cm$^{-1}$)")
    axis.legend(frameon=False, fontsize="small")

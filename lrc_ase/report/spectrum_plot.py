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

__all__ = ["end_of_signal", "plot_spectra"]

_END = 4500.0
"""Largest end of the axis that is chosen, cm^-1: behind the stretching of bonds of hydrogen."""


def plot_spectra(
    infrared: InfraredSpectrum | None,
    states: VibrationalStates | None,
    path: str | Path,
    *,
    bands: Sequence[Band] = (),
    largest: float | None = None,
    title: str = "",
) -> None:
    """Draw the infrared spectrum with its error band, below it the density of states; either may be None.

    Parameters
    ----------
    bands
        Bands of the infrared spectrum to name.
    largest
        End of the axis, cm^-1. None: behind the last of the signal, 4500 at most.
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
    curves = [] if infrared is None else [(infrared.wavenumbers, infrared.absorption)]
    curves += [] if states is None else [(states.wavenumbers, states.total)]
    end = max(end_of_signal(*curve) for curve in curves) if largest is None else largest
    for axis in axes:
        axis.set_xlim(0, end)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("Wave number (cm$^{-1}$)")
    save_figure(figure, path)


def end_of_signal(wavenumbers: np.ndarray, density: np.ndarray) -> float:
    """Return a round wave number behind 99.8% of the sum of a spectrum, with a fifth to spare, cm^-1.

    >>> x = np.arange(0.0, 8000.0, 10.0)
    >>> end_of_signal(x, np.exp(-(((x - 150) / 60) ** 2)))
    500.0
    """
    sums = np.cumsum(np.maximum(density, 0))
    last = wavenumbers[np.searchsorted(sums, 0.998 * sums[-1])] if sums[-1] > 0 else _END
    return float(min(500 * np.ceil(1.2 * last / 500), _END))


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

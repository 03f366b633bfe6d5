"""Bands of a spectrum: where its maxima lie, how high and how wide they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks, peak_widths

__all__ = ["Band", "bands"]

PROMINENCE = 0.03
SIGNIFICANCE = 2.0


@dataclass(frozen=True)
class Band:
    """One maximum of a spectrum."""

    position: float
    """cm^-1."""
    height: float
    error: float
    """Standard error of the height; NaN where blocks gave none."""
    width: float
    """Full width at half of the height above the neighboring minima, cm^-1."""


def bands(wavenumbers: np.ndarray, values: np.ndarray, error: np.ndarray) -> list[Band]:
    """Find the bands of a spectrum on equidistant `wavenumbers`, all arrays (n_wavenumbers,).

    A maximum counts if it rises above the minima beside it by `PROMINENCE` times the largest value, and by
    `SIGNIFICANCE` times its standard error. Positions come from a parabola through the three highest points.
    """
    if len(values) < 3 or not values.max() > 0:
        return []
    noise = np.where(np.isfinite(error), SIGNIFICANCE * error, 0.0)
    least = np.maximum(PROMINENCE * values.max(), noise)
    # a maximum at the first or last point counts, so zeros are put around
    padded = np.pad(values, 1)
    peaks, _ = find_peaks(padded, prominence=np.pad(least, 1, mode="edge"))
    widths = peak_widths(padded, peaks, rel_height=0.5)[0]
    spacing = wavenumbers[1] - wavenumbers[0]
    result = []
    for peak, width in zip(peaks - 1, widths, strict=True):
        shift = 0.0
        if 0 < peak < len(values) - 1:
            left, middle, right = values[peak - 1 : peak + 2]
            curvature = left - 2 * middle + right
            shift = 0.5 * (left - right) / curvature if curvature else 0.0
        result.append(
            Band(
                position=float(wavenumbers[peak] + shift * spacing),
                height=float(values[peak]),
                error=float(error[peak]),
                width=float(width * spacing),
            )
        )
    return result

r"""Tables of the kernel of a long-range part by distance, for sums over pairs.

Each octave :math:`2^{e-1} \le r < 2^e` is divided into equal intervals. On each the kernel and its derivative over r
are polynomials through their values at Chebyshev's points. Kernels are smooth on the scale of r or of the smearing,
whichever is larger, so that few terms are exact to rounding.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from lrc_ase.compiled.compilation import inlined
from lrc_ase.layer.kernels import Multiplier

__all__ = ["FIRST_OCTAVE", "N_INTERVALS", "interval_of", "radial_table"]

N_INTERVALS = 8
"""Intervals of an octave."""
FIRST_OCTAVE = -20
"""Exponent e of the first octave, which ends at 1e-6 Angstrom: closer atoms count as being at one position."""
_N_TERMS = 12


def radial_table(multiplier: Multiplier, longest: float) -> np.ndarray:
    """Return polynomials of the kernel up to a distance (Angstrom), (n_intervals, n_terms, 2 * n_channels).

    The first columns are those of the kernel's channels, the others those of their derivatives over the distance.
    Terms stand highest power first, in a variable that runs from -1 to 1 on each interval.
    """
    octaves = np.arange(FIRST_OCTAVE, max(math.frexp(longest)[1], FIRST_OCTAVE) + 1)
    nodes = np.cos(np.pi * (np.arange(_N_TERMS) + 0.5) / _N_TERMS)
    # (n_octaves, n_intervals of an octave, n_terms): mantissas from 1/2 to 1
    mantissas = 0.5 + (np.arange(N_INTERVALS)[:, None] + 0.5 * (nodes + 1)) / (2 * N_INTERVALS)
    distances = torch.from_numpy(np.ldexp(mantissas, octaves[:, None, None]).reshape(-1))
    with torch.no_grad():
        values, slopes = multiplier.radial(distances), multiplier.radial_slope(distances, multiplier.n_channels)
    at_nodes = torch.cat([values, slopes], dim=1).numpy().reshape(-1, _N_TERMS, 2 * multiplier.n_channels)
    # in two steps: the last terms of the series are small, and their large factors in powers do no harm
    to_series, to_powers = _conversions()
    return np.ascontiguousarray(to_powers @ (to_series @ at_nodes))


@lru_cache(maxsize=1)
def _conversions() -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices from values at Chebyshev's points to his series, and to powers, highest first."""
    n = _N_TERMS
    angles = np.pi * (np.arange(n) + 0.5) / n
    to_series = 2 / n * np.cos(np.arange(n)[:, None] * angles)
    to_series[0] /= 2
    powers = np.zeros((n, n))
    for degree in range(n):
        series = np.polynomial.chebyshev.cheb2poly(np.eye(n)[degree])
        powers[: len(series), degree] = series
    return to_series, powers[::-1]


@inlined
def interval_of(distance):
    """Return the interval of a distance, the variable on it, and the derivative of the variable by the distance."""
    mantissa, exponent = math.frexp(distance)
    position = (mantissa - 0.5) * (2 * N_INTERVALS)
    index = int(position)
    interval = (exponent - FIRST_OCTAVE) * N_INTERVALS + index
    return interval, 2 * (position - index) - 1, 4 * N_INTERVALS * mantissa / distance

"""Radial distributions of all pairs of elements."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms

from lrc_ase.checks import runs
from lrc_ase.checks.blocks import block_error
from lrc_ase.checks.crystal_cells import cell_widths
from lrc_ase.checks.results import CheckResult, Curve, Figure, NotApplicable, Quantity
from lrc_ase.checks.subject import Subject
from lrc_ase.simulation.observables import radial_distribution
from lrc_ase.simulation.output import ThermodynamicLog

__all__ = ["first_peak", "radial_distributions"]

N_FRAMES = 150
BIN = 0.05
"""Width of a bin, Angstrom."""
LARGEST_DISTANCE = 10.0
N_BLOCKS = 3
SMALLEST_PEAK = 1.0
TOP = 0.85


def radial_distributions(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Compute the radial distributions of the run at constant energy, and place and height of their first peaks."""
    if not subject.is_periodic:
        raise NotApplicable("Radial distributions need a density, and so three periodic directions")
    files = runs.production(subject)
    frames = runs.frames(files, N_FRAMES)
    pressures = ThermodynamicLog.read(files.log)["pressure_GPa"]
    cutoff = min(LARGEST_DISTANCE, 0.5 * float(cell_widths(frames[0]).min()))
    n_bins = int(cutoff / BIN)
    quantities, curves = [], []
    for pair in combinations_with_replacement(subject.elements, 2):
        subject.progress("-".join(pair))
        if pair[0] == pair[1] and subject.structure.get_chemical_symbols().count(pair[0]) < 2:
            continue
        distances, g = radial_distribution(frames, pair, cutoff=n_bins * BIN, n_bins=n_bins)
        curves.append(Curve.of("-".join(pair), distances, g))
        blocks = np.array([_peak_of(block, pair, n_bins) for block in _blocks(frames)])
        errors = blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks))
        place, height = first_peak(distances, g)
        if np.isfinite(place):
            name = "-".join(pair)
            quantities += [
                Quantity(f"{name}: first peak", place, "Angstrom", error=float(errors[0]), is_main=True),
                Quantity(f"{name}: height of the first peak", height, error=float(errors[1])),
            ]
    if np.isfinite(pressures).all():
        quantities.append(Quantity("mean pressure", float(pressures.mean()), "GPa", error=block_error(pressures)))
    figure = Figure("Radial distributions", "Distance (Angstrom)", "g(r)", tuple(curves))
    sentence = f"{len(frames)} frames of {len(frames[0])} atoms, distances up to {n_bins * BIN:.3g} Angstrom."
    return CheckResult.judged("radial distributions", sentence, quantities, [figure])


def first_peak(distances: np.ndarray, g: np.ndarray) -> tuple[float, float]:
    """Return place and height of the first peak above 1 that ends in a valley below it; NaN without such a peak.

    Both are those of a parabola through the bins about the highest one that reach `TOP` of its height.

    >>> r = np.linspace(0, 6, 121)
    >>> place, height = first_peak(r, np.exp(-((r - 2.72) ** 2)) * 3 + (r > 3.5))
    >>> f"{place:.2f} {height:.1f}"
    '2.72 3.0'
    """
    above = g > SMALLEST_PEAK
    if not above.any():
        return float("nan"), float("nan")
    begin = int(np.argmax(above))
    below = np.flatnonzero(~above[begin:])
    end = begin + int(below[0]) if len(below) else len(g)
    highest = begin + int(np.argmax(g[begin:end]))
    if not 0 < highest < len(g) - 1:
        return float("nan"), float("nan")
    low = np.flatnonzero(g < TOP * g[highest])
    left = max(int(low[low < highest].max(initial=-1)) + 1, 0)
    right = int(low[low > highest].min(initial=len(g)))
    top = slice(min(left, highest - 1), max(right, highest + 2))
    x = distances[top] - distances[highest]
    curvature, slope, height = np.polyfit(x, g[top], 2)
    if curvature >= 0:
        return float("nan"), float("nan")
    shift = -0.5 * slope / curvature
    return float(distances[highest] + shift), float(height + 0.5 * slope * shift)


def _blocks(frames: list[Atoms]) -> list[list[Atoms]]:
    """Return the frames in consecutive blocks."""
    return [[frames[index] for index in part] for part in np.array_split(np.arange(len(frames)), N_BLOCKS)]


def _peak_of(frames: list[Atoms], pair: tuple[str, str], n_bins: int) -> tuple[float, float]:
    """Return place and height of the first peak of a block."""
    return first_peak(*radial_distribution(frames, pair, cutoff=n_bins * BIN, n_bins=n_bins))

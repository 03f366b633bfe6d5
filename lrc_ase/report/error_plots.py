"""Plots of errors in space: along pairs of atoms, and on the atoms of the hardest frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.colors import Normalize
from matplotlib.ticker import FixedLocator, NullLocator

from lrc_ase.dataset import Atoms
from lrc_ase.evaluation.error_tables import ERROR_UNITS, error_text
from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.evaluation.pair_errors import PairErrors
from lrc_ase.files.counted import counted
from lrc_ase.report.projection import Projection, project
from lrc_ase.report.style import ANGSTROM, REFERENCE_COLOR, colors, new_figure, plot_text, save_figure

__all__ = ["plot_hardest_frames", "plot_pair_errors"]

_LARGEST_NUMBER_OF_PANELS = 15
_FORCE_UNIT = ERROR_UNITS["forces"].symbol
_COLORMAP = "YlOrRd"
_UNKNOWN_COLOR = (0.8, 0.8, 0.8, 1.0)
"""Color of atoms without a force label, red, green, blue and opacity."""
_MOST_LETTERED = 150
"""Largest number of atoms in a frame whose symbols are written on them."""
_MOST_POWERS = 3
"""Number of powers of ten on an axis from which no other numbers stand between them."""
_SHOWN_VACUUM = 2.0
"""Vacuum around the atoms that a drawing shows, Angstrom."""


def plot_pair_errors(errors: Mapping[str, Mapping[str, PairErrors]], cutoff: float, path: str | Path) -> None:
    """Draw mean force errors along pairs over their distance: a panel for each pair of elements, a color per potential.

    `errors` holds the result of `pair_errors` for each potential. A dashed line marks `cutoff` (Angstrom). Every mean
    lies within its panel. Where the largest error is many times the typical one, the axis is linear up to twice the
    typical error and logarithmic beyond.
    """
    n_pairs: dict[str, int] = {}
    for curves in errors.values():
        for pair, curve in curves.items():
            n_pairs[pair] = n_pairs.get(pair, 0) + curve.n_pairs
    if not n_pairs:
        raise ValueError("`errors` must hold at least one pair of elements, got none")
    frequent = sorted(n_pairs, key=lambda pair: -n_pairs[pair])[:_LARGEST_NUMBER_OF_PANELS]
    pairs = [pair for pair in n_pairs if pair in frequent]
    n_columns = min(len(pairs), 3)
    n_rows = -(-len(pairs) // n_columns)
    figure = new_figure(max(1.0 + 3.6 * n_columns, 5.5), 1.0 + 2.7 * n_rows)
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True).ravel()
    for axis, pair in zip(axes, pairs, strict=False):
        axis.axhline(0, color=REFERENCE_COLOR, lw=1)
        axis.axvline(cutoff, color="0.6", lw=1, ls="--")
        for color, (name, curves) in zip(colors(len(errors)), errors.items(), strict=True):
            if pair in curves:
                curve = curves[pair]
                bars = 2 * np.nan_to_num(curve.uncertainty)
                # markers and bars: a bin between empty ones has no line
                style = {"fmt": ".-", "ms": 4, "lw": 1.2, "elinewidth": 0.8, "capsize": 1.5}
                axis.errorbar(curve.distances, curve.mean, bars, color=color, label=plot_text(name, 28), **style)
        shown = [curves[pair] for curves in errors.values() if pair in curves]
        _set_error_scale(axis, shown)
        axis.set_title(f"{pair}, {counted(n_pairs[pair], 'pair')}", fontsize="medium")
        axis.grid(alpha=0.3)
    for axis in axes[len(pairs) :]:
        axis.set_visible(False)
    if len(errors) > 1:
        axes[0].legend(frameon=False, fontsize="x-small")
    label = f"Distance ({ANGSTROM}); dashed: the cutoff"
    if len(pairs) < len(n_pairs):
        label += f"; the {len(pairs)} of {len(n_pairs)} pairs of elements with most data"
    figure.supxlabel(label, fontsize="medium")
    figure.supylabel(f"Mean force error along the pair ({_FORCE_UNIT})", fontsize="medium")
    save_figure(figure, path)


def _set_error_scale(axis: Axes, curves: Sequence[PairErrors]) -> None:
    """Set limits that hold all means and bars, and a logarithmic scale where the largest would hide the others."""
    typical = float(np.nanmedian(np.abs(np.concatenate([curve.mean for curve in curves]))))
    reach = [np.abs(curve.mean) + 2 * np.nan_to_num(curve.uncertainty) for curve in curves]
    largest = float(np.nanmax(np.concatenate(reach)))
    if typical > 0 and largest > 12 * typical:
        axis.set_yscale("symlog", linthresh=2 * typical, linscale=1.0)
        # zero and steps of the logarithmic part; ticks of the narrow linear part would overlap
        ticks = _steps_between(2 * typical, 1.1 * largest)
        axis.yaxis.set_major_locator(FixedLocator([*-ticks, 0.0, *ticks]))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter("{x:g}")
    axis.set_ylim(-1.1 * largest or -1.0, 1.1 * largest or 1.0)  # errors that are all zero need limits too


def _steps_between(low: float, high: float) -> np.ndarray:
    """Return 1, 2 and 5 times powers of ten between two positive numbers, powers alone where those are three or more.

    >>> _steps_between(0.7, 9.0).tolist(), _steps_between(0.5, 200.0).tolist()
    ([1.0, 2.0, 5.0], [1.0, 10.0, 100.0])
    """
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.floor(np.log10(high)) + 1)
    inside = powers[powers >= low]
    if len(inside) >= _MOST_POWERS:
        return inside
    steps = np.outer(powers, [1.0, 2.0, 5.0]).ravel()
    return steps[(steps >= low) & (steps <= high)]


def plot_hardest_frames(
    frames: Sequence[Atoms],
    names: Sequence[str],
    evaluation: Evaluation,
    hardest: Sequence[tuple[int, float]],
    path: str | Path,
) -> None:
    """Draw the `hardest` frames, each from the side that shows most of its atoms, colored by force error.

    `frames` and `names` belong to `evaluation`; `hardest` comes from `Evaluation.hardest_frames`.
    """
    n_columns = min(len(hardest), 2)
    n_rows = -(-len(hardest) // n_columns)
    figure = new_figure(1.5 + 4.2 * n_columns, 4.3 * n_rows, equal_axes=True)
    first_atoms = np.concatenate([[0], np.cumsum(evaluation.n_atoms)])
    errors = np.linalg.norm(evaluation.force_errors, axis=1)
    errors_of_frames = [errors[first_atoms[index] : first_atoms[index + 1]] for index, _ in hardest]
    largest = max(np.nanmax(values, initial=0.0) for values in errors_of_frames) or 1.0
    scale = ScalarMappable(Normalize(0.0, largest), colormaps[_COLORMAP])
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axis in axes[len(hardest) :]:
        axis.set_visible(False)
    for axis, values, (index, error) in zip(axes, errors_of_frames, hardest, strict=False):
        projection = project(frames[index])
        _draw_atoms(axis, projection, frames[index].get_chemical_symbols(), values, scale)
        # three lines, as slabs are narrow
        title = f"{plot_text(names[index], 30)}\nRMSE {error_text(error)} {_FORCE_UNIT}\n{projection.view}"
        axis.set_title(title, fontsize="medium")
    figure.colorbar(scale, ax=list(axes), label=f"Norm of the force error of an atom ({_FORCE_UNIT})", shrink=0.8)
    save_figure(figure, path, tight=True)


def _draw_atoms(
    axis: Axes, projection: Projection, symbols: Sequence[str], errors: np.ndarray, scale: ScalarMappable
) -> None:
    """Draw circles from the back to the front, the cell's edges, and symbols on atoms that are not hidden."""
    for edge in projection.cell_edges:
        axis.plot(*edge.T, color="0.75", lw=0.8, zorder=0)
    order = np.argsort(projection.depths)  # from the back, so that near atoms cover far ones
    fills = np.array(scale.to_rgba(np.nan_to_num(errors)))
    fills[~np.isfinite(errors)] = _UNKNOWN_COLOR
    diameters = 2 * projection.radii[order]
    circles = EllipseCollection(
        diameters,
        diameters,
        np.zeros(len(order)),
        units="xy",
        offsets=projection.positions[order],
        offset_transform=axis.transData,
        facecolors=fills[order],
        edgecolors="0.3",
        linewidths=0.5,
    )
    axis.add_collection(circles)
    margin = 1.3 * float(projection.radii.max())
    corners = np.concatenate([projection.positions, *projection.cell_edges])
    # of the vacuum beside a slab or molecule only the beginning: all of it would leave the atoms small
    low, high = projection.positions.min(axis=0) - _SHOWN_VACUUM, projection.positions.max(axis=0) + _SHOWN_VACUUM
    low_x, low_y = np.maximum(corners.min(axis=0), low) - margin
    high_x, high_y = np.minimum(corners.max(axis=0), high) + margin
    axis.set(xlim=(low_x, high_x), ylim=(low_y, high_y), aspect="equal")
    axis.set(xlabel=ANGSTROM, ylabel=ANGSTROM)
    if len(order) > _MOST_LETTERED:
        return
    # the axes are 3.2 inches wide, about
    size = float(np.clip(0.9 * 72 * 3.2 * np.median(projection.radii) / max(high_x - low_x, high_y - low_y), 3.0, 10.0))
    luminance = fills[:, :3] @ (0.2126, 0.7152, 0.0722)  # weights of ITU-R BT.709
    for index in np.flatnonzero(~projection.hidden).tolist():
        axis.annotate(
            symbols[index],
            projection.positions[index],
            ha="center",
            va="center",
            fontsize=size,
            color="black" if luminance[index] > 0.45 else "white",
        )

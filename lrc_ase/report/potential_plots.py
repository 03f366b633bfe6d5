"""Plots of what a potential has learned and where it errs, one column or color for each potential compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from lrc_ase.dataset import Atoms
from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.evaluation.pair_errors import PairErrors
from lrc_ase.files.potential_file import Potential
from lrc_ase.models.ensemble import members_of
from lrc_ase.models.model import FullRangeModel
from lrc_ase.report.plots import COLORS, LARGEST_SCATTER, REFERENCE_COLOR, new_figure

__all__ = ["plot_charges", "plot_hardest_frames", "plot_kernels", "plot_pair_errors", "plot_parity_by_element"]

_ANGSTROM = "\N{ANGSTROM SIGN}"
_LARGEST_DISTANCE = 20.0
"""Angstrom, of the kernels drawn."""


def plot_kernels(potentials: Mapping[str, Potential], path: str | Path) -> None:
    """Draw the kernels of the long-range channels over distance beside 1/r, one column for each potential."""
    models = {
        name: [member for member in members_of(potential.model) if isinstance(member, FullRangeModel)]
        for name, potential in potentials.items()
    }
    models = {name: members for name, members in models.items() if members}
    if not models:
        raise ValueError("`potentials` must hold at least one with a long-range part, got none")
    distances = np.linspace(0.05, _LARGEST_DISTANCE, 400)
    figure = new_figure(max(4.6 * len(models), 5.5), 4.4)
    axes = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
    for axis, (name, members) in zip(axes, models.items(), strict=True):
        axis.plot(distances, 1 / distances, color=REFERENCE_COLOR, ls="--", lw=1.2, label="1/r")
        for number, member in enumerate(members):
            multiplier = member.long_range.convolution.multiplier
            with torch.no_grad():
                values = multiplier.radial(torch.tensor(distances, dtype=torch.float64)).double().numpy()
            for channel, kernel in enumerate(values.T):
                electrostatic = member.long_range.settings.electrostatics and channel == 0
                latent = channel + 1 - int(member.long_range.settings.electrostatics)
                label = "charges (Coulomb)" if electrostatic else f"latent channel {latent}"
                axis.plot(
                    distances,
                    kernel,
                    color=COLORS[channel % len(COLORS)],
                    lw=2 if number == 0 else 0.8,
                    label=label if number == 0 else None,
                )
        axis.axvline(members[0].settings.cutoff, color="0.6", lw=1)
        axis.text(members[0].settings.cutoff, 1.01, "cutoff", transform=axis.get_xaxis_transform(), ha="center")
        axis.set(yscale="log", ylim=(1e-4, 3), xlim=(0, _LARGEST_DISTANCE), xlabel=f"Distance r ({_ANGSTROM})")
        axis.set_title(name, pad=16)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    axes[0].set_ylabel(f"Kernel \N{GREEK SMALL LETTER PHI}(r) (1/{_ANGSTROM})")
    figure.savefig(path)


def plot_charges(evaluations: Mapping[str, Evaluation], path: str | Path) -> None:
    """Draw the distribution of latent charges by element, one row for each potential that has them."""
    rows = {name: evaluation for name, evaluation in evaluations.items() if evaluation.charges is not None}
    if not rows:
        raise ValueError("`evaluations` must hold at least one with latent charges, got none")
    figure = new_figure(7.0, 1.2 + 2.2 * len(rows))
    axes = figure.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (name, evaluation) in zip(axes, rows.items(), strict=True):
        assert evaluation.charges is not None
        low, high = evaluation.charges.min(), evaluation.charges.max()
        edges = np.linspace(low - 0.01, high + 0.01, 81)
        for number, symbol in enumerate(np.unique(evaluation.symbols)):
            own = evaluation.charges[evaluation.symbols == symbol]
            axis.hist(
                own,
                edges,
                weights=np.full(len(own), 1 / len(own)),
                color=COLORS[number % len(COLORS)],
                alpha=0.75,
                label=f"{symbol} {own.mean():+.3f} \N{PLUS-MINUS SIGN} {own.std():.3f}",
            )
        axis.set_title(name)
        axis.set_ylabel("Part of the atoms")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, title="mean and spread")
    axes[-1].set_xlabel("Latent charge (e)")
    figure.savefig(path)


def plot_parity_by_element(evaluations: Mapping[str, Evaluation], path: str | Path) -> None:
    """Draw predicted over reference forces of each element, a color for each set, a row for each potential."""
    symbols = [str(symbol) for symbol in np.unique(np.concatenate([each.symbols for each in evaluations.values()]))]
    sets = list(dict.fromkeys(name for evaluation in evaluations.values() for name in evaluation.sets))
    figure = new_figure(max(3.3 * len(symbols), 4.5), 1.0 + 3.3 * len(evaluations))
    grid = figure.subplots(len(evaluations), len(symbols), squeeze=False)
    limits = {symbol: _force_limits(symbol, evaluations.values()) for symbol in symbols}
    for axes, (name, evaluation) in zip(grid, evaluations.items(), strict=True):
        set_of_atom = np.array([sets.index(own) for own in evaluation.sets])[evaluation.frame]
        for axis, symbol in zip(axes, symbols, strict=True):
            axis.axline((0, 0), slope=1, color=REFERENCE_COLOR, lw=1)
            for number in range(len(sets)):
                own = (evaluation.symbols == symbol) & (set_of_atom == number)
                reference, predicted = evaluation.reference_forces[own].ravel(), evaluation.forces[own].ravel()
                known = np.isfinite(reference)
                if not known.any():
                    continue
                rmse = 1e3 * np.sqrt(np.mean((predicted[known] - reference[known]) ** 2))
                step = max(known.sum() // (LARGEST_SCATTER // (4 * len(sets))), 1)
                axis.plot(
                    reference[known][::step],
                    predicted[known][::step],
                    ".",
                    ms=3,
                    alpha=0.4,
                    color=COLORS[number % len(COLORS)],
                    rasterized=True,
                    label=f"{sets[number]}: {rmse:.3g}" if len(sets) > 1 else f"RMSE {rmse:.3g}",
                )
            axis.set(xlim=limits[symbol], ylim=limits[symbol], aspect="equal")
            axis.grid(alpha=0.3)
            axis.legend(frameon=False, fontsize="small", markerscale=3, title=f"{symbol}, meV/{_ANGSTROM}")
        axes[0].set_ylabel(f"{name}\npredicted (eV/{_ANGSTROM})")
    for axis in grid[-1]:
        axis.set_xlabel(f"Force, reference (eV/{_ANGSTROM})")
    figure.savefig(path)


def _force_limits(symbol: str, evaluations: Iterable[Evaluation]) -> tuple[float, float]:
    """Smallest and largest force component on atoms of an element, with a margin."""
    shown = [
        forces[evaluation.symbols == symbol].ravel()
        for evaluation in evaluations
        for forces in (evaluation.forces, evaluation.reference_forces)
    ]
    values = np.concatenate(shown)
    values = values[np.isfinite(values)]
    margin = 0.05 * np.ptp(values) + 1e-9
    return float(values.min() - margin), float(values.max() + margin)


def plot_pair_errors(errors: Mapping[str, Mapping[str, PairErrors]], cutoff: float, path: str | Path) -> None:
    """Draw mean force errors along pairs over their distance: a panel for each pair of elements, a color per potential.

    `errors` are those of `pair_errors`, by potential; `cutoff` (Angstrom) is marked.
    """
    pairs = list(dict.fromkeys(pair for own in errors.values() for pair in own))
    n_columns = min(len(pairs), 3)
    n_rows = -(-len(pairs) // n_columns)
    figure = new_figure(1.0 + 3.6 * n_columns, 0.8 + 2.7 * n_rows)
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True).ravel()
    for axis, pair in zip(axes, pairs, strict=False):
        axis.axhline(0, color=REFERENCE_COLOR, lw=1)
        axis.axvline(cutoff, color="0.6", lw=1, ls="--")
        for number, (name, own) in enumerate(errors.items()):
            if pair in own:
                curve, color = own[pair], COLORS[number % len(COLORS)]
                axis.plot(curve.distances, curve.mean, color=color, lw=1.8, label=name)
                low, high = curve.mean - 2 * curve.uncertainty, curve.mean + 2 * curve.uncertainty
                axis.fill_between(curve.distances, low, high, color=color, alpha=0.2, lw=0)
        axis.set_title(pair)
        axis.grid(alpha=0.3)
        # pairs that hardly ever come so close would hide all others
        known = [np.abs(own[pair].mean[np.isfinite(own[pair].mean)]) for own in errors.values() if pair in own]
        limit = 1.5 * np.quantile(np.concatenate(known), 0.95) + 1e-9
        axis.set_ylim(-limit, limit)
    for axis in axes[len(pairs) :]:
        axis.set_visible(False)
    if len(errors) > 1:
        axes[0].legend(frameon=False, fontsize="small")
    figure.supxlabel(f"Distance ({_ANGSTROM}); dashed: the cutoff")
    figure.supylabel(f"Mean force error along the pair (meV/{_ANGSTROM})")
    figure.savefig(path)


def plot_hardest_frames(
    frames: Sequence[Atoms],
    names: Sequence[str],
    evaluation: Evaluation,
    hardest: Sequence[tuple[int, float]],
    path: str | Path,
) -> None:
    """Draw frames seen along z, atoms colored by their force error.

    `frames` and their `names` are those of `evaluation`, `hardest` is made by `Evaluation.hardest_frames`.
    """
    n_rows = -(-len(hardest) // 2)
    figure = new_figure(9.0, 4.2 * n_rows)
    first_atoms = np.concatenate([[0], np.cumsum(evaluation.n_atoms)])
    errors = 1e3 * np.linalg.norm(evaluation.forces - evaluation.reference_forces, axis=1)
    shown = [errors[first_atoms[index] : first_atoms[index + 1]] for index, _ in hardest]
    largest = max(np.nanmax(values, initial=0.0) for values in shown)
    axes = figure.subplots(n_rows, min(len(hardest), 2), squeeze=False).ravel()
    for axis in axes[len(hardest) :]:
        axis.set_visible(False)
    for axis, values, (index, error) in zip(axes, shown, hardest, strict=False):
        positions = frames[index].positions
        order = np.argsort(positions[:, 2])
        size = float(np.clip(6000 / len(positions), 12, 400))
        points = axis.scatter(
            positions[order, 0],
            positions[order, 1],
            c=np.nan_to_num(values[order]),
            s=size,
            cmap="inferno_r",
            vmin=0,
            vmax=largest or 1.0,
            edgecolors="0.3",
            linewidths=0.4,
        )
        if len(positions) <= 64:
            for symbol, (x, y, _) in zip(frames[index].get_chemical_symbols(), positions, strict=True):
                axis.annotate(symbol, (x, y), ha="center", va="center", fontsize="x-small", color="0.2")
        axis.set_aspect("equal")
        axis.set_title(f"{names[index]}: {error:.4g} meV/{_ANGSTROM}")
        axis.set_xlabel(f"x ({_ANGSTROM})")
        axis.set_ylabel(f"y ({_ANGSTROM})")
    figure.colorbar(points, ax=list(axes), label=f"Force error (meV/{_ANGSTROM})")
    figure.savefig(path)

"""Plots of what a potential has learned: kernels of its long-range channels, and latent charges."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.files.potential_file import Potential
from lrc_ase.models.ensemble import members_of
from lrc_ase.models.model import FullRangeModel
from lrc_ase.report.style import ANGSTROM, COLORS, REFERENCE_COLOR, colors, new_figure, plot_text, save_figure

__all__ = ["plot_charges", "plot_kernels"]

_LARGEST_DISTANCE = 20.0
"""Distance up to which kernels are drawn, Angstrom."""
_SMALLEST_KERNEL = 1e-4
"""Lower end of the axis of kernels, 1/Angstrom."""


def plot_kernels(potentials: Mapping[str, Potential], path: str | Path) -> None:
    """Draw the kernels of the long-range channels and 1/r over distance, one column for each potential.

    The axis is logarithmic. Negative values are drawn by their magnitude, as a dotted line.
    """
    models = {
        name: [member for member in members_of(potential.model) if isinstance(member, FullRangeModel)]
        for name, potential in potentials.items()
    }
    models = {name: members for name, members in models.items() if members}
    if not models:
        raise ValueError("`potentials` must hold at least one with a long-range part, got none")
    distances = np.linspace(0.05, _LARGEST_DISTANCE, 400)
    figure = new_figure(max(4.6 * len(models), 5.5), 4.6)
    axes = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
    for axis, (name, members) in zip(axes, models.items(), strict=True):
        axis.plot(distances, 1 / distances, color=REFERENCE_COLOR, ls="--", lw=1.2, label="1/r")
        for number, member in enumerate(members):
            # a copy on the CPU, wherever the potential was trained
            multiplier = deepcopy(member.long_range.convolution.multiplier).cpu()
            with torch.no_grad():
                values = multiplier.radial(torch.tensor(distances, dtype=torch.float64)).double().numpy()
            for channel, kernel in enumerate(values.T):
                electrostatic = member.long_range.settings.electrostatics and channel == 0
                latent = channel + 1 - int(member.long_range.settings.electrostatics)
                label = "latent charges (Coulomb)" if electrostatic else f"latent channel {latent}"
                style = {"color": COLORS[channel % len(COLORS)], "lw": 2 if number == 0 else 0.8}
                # NaN interrupts a line
                positive, negative = np.where(kernel > 0, kernel, np.nan), np.where(kernel < 0, -kernel, np.nan)
                axis.plot(distances, positive, **style, label=label if number == 0 else None)
                if (kernel < 0).any():
                    axis.plot(distances, negative, **style, ls=":", label=f"{label}, negative" if number == 0 else None)
        cutoff = members[0].settings.cutoff
        axis.axvline(cutoff, color="0.6", lw=1)
        axis.text(cutoff, 1.01, "cutoff", transform=axis.get_xaxis_transform(), ha="center", fontsize="small")
        axis.set(yscale="log", ylim=(_SMALLEST_KERNEL, 3), xlim=(0, _LARGEST_DISTANCE))
        axis.set_xlabel(f"Distance r ({ANGSTROM})")
        axis.set_title(plot_text(name), pad=16)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize="small")
    axes[0].set_ylabel(f"Kernel \N{GREEK SMALL LETTER PHI}(r) (1/{ANGSTROM})")
    save_figure(figure, path)


def plot_charges(evaluations: Mapping[str, Evaluation], path: str | Path) -> None:
    """Draw the distribution of latent charges by element, one row for each potential that has them.

    Latent charges are variables of the model, fitted to energies and forces, as the label of the axis says.
    """
    rows = {name: evaluation for name, evaluation in evaluations.items() if evaluation.charges is not None}
    if not rows:
        raise ValueError("`evaluations` must hold at least one with latent charges, got none")
    figure = new_figure(8.4, 0.9 + 2.4 * len(rows))
    axes = figure.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
    for axis, (name, evaluation) in zip(axes, rows.items(), strict=True):
        assert evaluation.charges is not None
        low, high = evaluation.charges.min(), evaluation.charges.max()
        edges = np.linspace(low - 0.01, high + 0.01, 81)
        symbols = np.unique(evaluation.symbols)
        for symbol, color in zip(symbols, colors(len(symbols)), strict=True):
            charges = evaluation.charges[evaluation.symbols == symbol]
            axis.hist(
                charges,
                edges,
                weights=np.full(len(charges), 1 / len(charges)),
                histtype="stepfilled",
                color=color,
                alpha=0.6,
                label=f"{symbol} {charges.mean():+.3f} \N{PLUS-MINUS SIGN} {charges.std():.3f}",
            )
        axis.set_title(plot_text(name))
        axis.set_ylabel("Part of the\nelement's atoms")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, title="mean \N{PLUS-MINUS SIGN} spread (e)", loc="upper left", bbox_to_anchor=(1, 1))
    axes[-1].set_xlabel("Latent charge (e): a variable of the model, not the charge of an ion")
    save_figure(figure, path)

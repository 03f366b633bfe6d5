"""Element references: the part of the energy that only depends on the composition, subtracted before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lrc_ase.dataset import LabelledFrame

__all__ = ["References", "fit_references", "isolated_references"]


@dataclass(frozen=True)
class References:
    """Energy of each element, subtracted before training."""

    values: Tensor
    """eV, float64 (n_elements,)."""
    rank: int
    """Number of independent compositions. Below the number of elements the values are those of minimum norm."""

    @property
    def rank_deficient(self) -> bool:
        """Whether the compositions do not determine each element's energy."""
        return self.rank < len(self.values)


def fit_references(
    frames: Sequence[LabelledFrame], elements: Sequence[str], known: Mapping[str, float] | None = None
) -> References:
    r"""Energy of each element by least squares, :math:`\min_e \sum_s (E_s - n_s \cdot e)^2 / N_s^2`, in float64.

    Where compositions leave the solution open (Na = Cl in every frame) it is the one of minimum norm. Frames of a
    single atom take part only if there are no others: an isolated atom's energy is no mean of the condensed phase.
    Elements in `known` keep the energy given there, in eV.
    """
    known = known or {}
    rows = [(frame.energy, _composition(frame, elements)) for frame in frames if np.isfinite(frame.energy)]
    rows = [row for row in rows if sum(row[1]) > 1] or rows
    if not rows:
        return References(torch.zeros(len(elements), dtype=torch.float64), 0)
    counts = np.array([composition for _, composition in rows], dtype=np.float64)
    sizes = counts.sum(axis=1)
    energies = np.array([energy for energy, _ in rows])
    values = np.array([known.get(element, 0.0) for element in elements])
    free = np.array([element not in known for element in elements])
    rank = 0
    if free.any():
        rest = energies - counts @ values
        values[free], _, rank, _ = np.linalg.lstsq(counts[:, free] / sizes[:, None], rest / sizes, rcond=1e-8)
    return References(torch.tensor(values, dtype=torch.float64), int(rank) + int((~free).sum()))


def isolated_references(frames: Sequence[LabelledFrame], elements: Sequence[str]) -> References:
    """Energy of each element from frames of a single atom; `ValueError` names an element without such a frame."""
    energies = {frame.atoms.get_chemical_symbols()[0]: frame.energy for frame in frames if len(frame.atoms) == 1}
    missing = [element for element in elements if not np.isfinite(energies.get(element, np.nan))]
    if missing:
        raise ValueError(f"element references from isolated atoms need a one-atom frame with energy for {missing}")
    return References(torch.tensor([energies[element] for element in elements], dtype=torch.float64), len(elements))


def _composition(frame: LabelledFrame, elements: Sequence[str]) -> list[int]:
    symbols = frame.atoms.get_chemical_symbols()
    return [symbols.count(element) for element in elements]

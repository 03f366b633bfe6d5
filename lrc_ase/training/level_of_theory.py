"""Element references of a training that goes on from a potential of another level of theory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lrc_ase.dataset import LabelledFrame, collate_labelled, labelled_graph, sample
from lrc_ase.files.potential_file import Potential
from lrc_ase.models.derivatives import evaluate
from lrc_ase.training.references import fit_references

__all__ = ["shifted_references"]

_COMPARED = 50
"""Largest number of frames whose energies are compared with those of the potential."""
_ANOTHER_LEVEL = 0.1
"""Shift of the element references from which labels count as those of another level of theory, eV/atom."""
_NO_BOND = 10.0
"""The same where frames hold elements that the potential cannot predict: more than bonds can explain, eV/atom."""
_BATCH = 4


def shifted_references(
    start: Potential, frames: Sequence[LabelledFrame], elements: Sequence[str], references: Tensor
) -> tuple[Tensor, str | None]:
    r"""Return element references under which `start` predicts the energies of `frames`, and a remark if they differ.

    Two methods differ above all by a constant for each element, thousands of eV between an all-electron and a
    semi-empirical one. Training would have to undo weights that are right to learn such constants. The shift is that of
    smallest norm among those that minimize :math:`\sum_s (E_s - E^{start}_s - n_s \cdot \Delta e)^2 / N_s^2`. Where it
    changes energies by less than 0.1 eV/atom the references stay: the potential is then of the same level, and only
    unsure about new frames. If all frames have elements that `start` does not know, their energies are compared with
    the references alone, and the limit is 10 eV/atom.

    `references` (n_elements,) are those of `start` and of new elements, in the order of `elements`, eV.
    """
    candidates = [frame for frame in frames if np.isfinite(frame.energy) and len(frame.atoms) > 1]
    known = [frame for frame in candidates if set(frame.atoms.symbols) <= set(start.settings.elements)]
    compared = sample(known or candidates, _COMPARED)
    if not compared:
        return references, None
    predicted = _predicted(start, compared) if known else [0.0] * len(compared)
    unexplained = [
        replace(frame, energy=frame.energy - _of_references(frame, elements, references) - energy)
        for frame, energy in zip(compared, predicted, strict=True)
    ]
    shift = fit_references(unexplained, elements).values
    largest = max(abs(_of_references(frame, elements, shift)) / len(frame.atoms) for frame in compared)
    if largest < (_ANOTHER_LEVEL if known else _NO_BOND):
        return references, None
    return references + shift, (
        f"energies of the frames differ from those of the potential to start from by up to {largest:.3g} eV/atom, as "
        "between levels of theory: the element references were shifted"
    )


def _of_references(frame: LabelledFrame, elements: Sequence[str], references: Tensor) -> float:
    """Return the sum of the references of the atoms of a frame, eV."""
    index = {element: number for number, element in enumerate(elements)}
    return float(references[[index[symbol] for symbol in frame.atoms.get_chemical_symbols()]].sum())


def _predicted(start: Potential, frames: Sequence[LabelledFrame]) -> list[float]:
    """Return the energies beyond the references that the potential predicts, eV."""
    settings, parameter = start.settings, next(start.model.parameters())
    energies: list[float] = []
    start.model.eval()
    for first in range(0, len(frames), _BATCH):
        graphs = [
            labelled_graph(frame, settings.elements, settings.cutoff, start.references)
            for frame in frames[first : first + _BATCH]
        ]
        batch = collate_labelled(graphs).to(parameter.device)
        with torch.no_grad():
            energies += evaluate(start.model, batch.graph, forces=False).energy.double().tolist()
    return energies

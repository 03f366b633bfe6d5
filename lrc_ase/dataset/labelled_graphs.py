"""Labelled graphs, the input of training: a graph with its labels, one by one and in batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor

from lrc_ase.dataset.labels import ELECTRIC_LABELS, Label, LabelledFrame
from lrc_ase.structures.graph import Graph, collate
from lrc_ase.structures.neighbors import neighbor_graph

__all__ = [
    "LabelledGraph",
    "batch_indices",
    "collate_labelled",
    "electric_tensors",
    "elements_of",
    "force_rms",
    "labelled_graph",
    "split_indices",
]


@dataclass(frozen=True)
class LabelledGraph:
    """Graph of one structure or a batch of several, with labels in float64."""

    graph: Graph
    energy: Tensor
    """Energy without element references in eV, (n_structures,); NaN without label."""
    forces: Tensor
    """Forces, eV/Angstrom, (n_atoms, 3); NaN without label."""
    stress: Tensor
    """Stress, eV/Angstrom^3, (n_structures, 3, 3); NaN without label."""
    weight: Tensor
    """Weight of each structure in the loss, (n_structures,)."""
    dipole: Tensor | None = None
    """Dipole about the origin of the coordinates, e Angstrom, (n_structures, 3); NaN without label, None without
    any."""
    born_effective_charges: Tensor | None = None
    """Born effective charges, e, (n_atoms, 3, 3), polarization first; NaN without label. None without any."""
    polarizability: Tensor | None = None
    """Polarizability, e^2 Angstrom^2/eV, (n_structures, 3, 3); NaN without label. None without any."""

    def to(self, device: torch.device | str) -> LabelledGraph:
        """Return a copy on `device`."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in values.items() if value is not None})


def labelled_graph(
    frame: LabelledFrame,
    elements: Sequence[str],
    cutoff: float,
    references: Tensor,
) -> LabelledGraph:
    """Return graph and labels of a frame, in float64.

    The element `references` (n_elements,) in eV are subtracted from the energy.
    """
    try:
        graph = neighbor_graph(frame.atoms, elements, cutoff)
    except ValueError as error:
        raise ValueError(f"{frame.name}: {error}") from error
    energy = torch.tensor([frame.energy], dtype=torch.float64) - references.to(torch.float64)[graph.species].sum()
    return LabelledGraph(
        graph,
        energy,
        torch.tensor(frame.forces, dtype=torch.float64),
        torch.tensor(frame.stress, dtype=torch.float64)[None],
        torch.tensor([frame.weight], dtype=torch.float64),
        **electric_tensors({label: getattr(frame, label) for label in ELECTRIC_LABELS}),
    )


def electric_tensors(labels: Mapping[Label, np.ndarray | None]) -> dict[Label, Tensor]:
    """Return those of dipole, Born effective charges and polarizability that a frame has as labels of its graph."""
    tensors = {label: torch.tensor(value, dtype=torch.float64) for label, value in labels.items() if value is not None}
    # labels of structures get a dimension for the structures of a batch
    return {label: value if label == "born_effective_charges" else value[None] for label, value in tensors.items()}


def collate_labelled(graphs: Sequence[LabelledGraph]) -> LabelledGraph:
    """Join labelled graphs into one batch."""
    sizes: dict[Label, list[tuple[int, ...]]] = {
        "dipole": [(item.graph.n_structures, 3) for item in graphs],
        "born_effective_charges": [(item.graph.n_atoms, 3, 3) for item in graphs],
        "polarizability": [(item.graph.n_structures, 3, 3) for item in graphs],
    }
    return LabelledGraph(
        collate([item.graph for item in graphs]),
        torch.cat([item.energy for item in graphs]),
        torch.cat([item.forces for item in graphs]),
        torch.cat([item.stress for item in graphs]),
        torch.cat([item.weight for item in graphs]),
        **{label: _joined([getattr(item, label) for item in graphs], sizes[label]) for label in ELECTRIC_LABELS},
    )


def _joined(labels: Sequence[Tensor | None], sizes: Sequence[tuple[int, ...]]) -> Tensor | None:
    """Join labels of graphs with the shapes `sizes`, NaN for a graph without label; None if no graph has the label."""
    known = next((label for label in labels if label is not None), None)
    if known is None:
        return None
    return torch.cat(
        [known.new_full(size, torch.nan) if label is None else label for label, size in zip(labels, sizes, strict=True)]
    )


def elements_of(frames: Iterable[Atoms]) -> tuple[str, ...]:
    """Return the chemical symbols that occur in the frames, ordered by atomic number."""
    numbers = sorted({int(number) for atoms in frames for number in atoms.numbers})
    return tuple(chemical_symbols[number] for number in numbers)


def force_rms(frames: Sequence[LabelledFrame]) -> float:
    """Return the root mean square of the labelled force components, eV/Angstrom; 0 without labels."""
    squares = counts = 0.0
    for frame in frames:
        known = frame.forces[np.isfinite(frame.forces)]
        squares += float((known**2).sum())
        counts += known.size
    return (squares / counts) ** 0.5 if counts else 0.0


def split_indices(n_frames: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Divide the indices of frames at random into training and validation, a `fraction` of them for validation.

    A `fraction` above zero takes at least one frame, and leaves at least one for training.

    >>> split_indices(5, 0.4, seed=0)
    ([0, 1, 3], [2, 4])
    """
    n_validation = min(max(round(fraction * n_frames), 1), n_frames - 1) if fraction > 0 and n_frames > 1 else 0
    order = np.random.default_rng([seed, 0x5B11]).permutation(n_frames)
    return sorted(order[n_validation:].tolist()), sorted(order[:n_validation].tolist())


def batch_indices(n_frames: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the indices of the frames of each batch, in an order that depends on `seed` and `epoch` alone."""
    order = np.random.default_rng([seed, epoch]).permutation(n_frames).tolist()
    return [order[start : start + batch_size] for start in range(0, n_frames, batch_size)]

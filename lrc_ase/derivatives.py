"""Energies, forces and stress of a graph: the one place that differentiates a model."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .graph import Graph
from .lattice import volume
from .model import ShortRangeModel

__all__ = ["Results", "evaluate"]


@dataclass(frozen=True)
class Results:
    """Energies without the elements' references, and their derivatives, in ASE's units and signs."""

    energy: Tensor
    """(n_structures,), eV."""
    atomic_energies: Tensor
    """(n_atoms,), eV; sum to `energy`."""
    forces: Tensor | None = None
    """:math:`-dE/dx`, (n_atoms, 3), eV/Angstrom."""
    stress: Tensor | None = None
    """:math:`(1/V)\\, dE/d\\epsilon`, (n_structures, 3, 3), eV/Angstrom^3; of use where all directions are periodic."""
    charges: Tensor | None = None
    """Latent charges, (n_atoms,), e."""


def evaluate(
    model: ShortRangeModel, graph: Graph, *, forces: bool = True, stress: bool = False, training: bool = False
) -> Results:
    """Evaluate a model and differentiate its total energy.

    Parameters
    ----------
    forces, stress
        What to compute besides energies.
    training
        Keep the graph, so that losses on energy, forces and stress can be differentiated by the parameters.
    """
    strain = None
    if forces:
        graph = replace(graph, positions=graph.positions.detach().requires_grad_())
    if stress:
        strain = torch.zeros_like(graph.cell, requires_grad=True)
        symmetric = 0.5 * (strain + strain.transpose(-1, -2))
    with torch.set_grad_enabled(forces or stress or training):
        output = model(graph, strain=symmetric if stress else None)
        atomic_energies = output.atomic_energies.double()
        energy = atomic_energies.new_zeros(graph.n_structures).index_add(0, graph.structure, atomic_energies)
    inputs = ([graph.positions] if forces else []) + ([strain] if strain is not None else [])
    gradients: list[Tensor] = []
    if inputs:
        gradients = list(torch.autograd.grad(energy.sum(), inputs, create_graph=training, materialize_grads=True))
    results = Results(
        energy=energy,
        atomic_energies=atomic_energies,
        forces=-gradients[0] if forces else None,
        stress=gradients[-1] / volume(graph.cell)[:, None, None] if stress else None,
        charges=output.charges,
    )
    return results if training else _detached(results)


def _detached(results: Results) -> Results:
    values = {field.name: getattr(results, field.name) for field in fields(results)}
    return replace(results, **{name: value.detach() for name, value in values.items() if value is not None})

"""The stress of each atom: a division of the stress of a structure between its atoms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lrc_ase.layer.convolution import FieldAndEnergy
from lrc_ase.layer.lattice import volume
from lrc_ase.layer.mesh.evaluation import sum_by_structure
from lrc_ase.models.derivatives import recordable
from lrc_ase.models.ensemble import Ensemble, members_of
from lrc_ase.models.long_range import LatentWeights, LongRangePart
from lrc_ase.models.model import FullRangeModel, ShortRangeModel
from lrc_ase.models.torch_state import undisturbed
from lrc_ase.structures.graph import Graph

__all__ = ["atomic_stresses"]


@undisturbed()
def atomic_stresses(model: ShortRangeModel, graph: Graph) -> Tensor:
    r"""Compute the stress of each atom, (n_atoms, 3, 3) in eV/Angstrom^3; their sum is the stress of the structure.

    .. math:: \sigma_i = \frac1V \mathrm{sym}\Big[\sum_k \frac{\partial E}{\partial r_{ik}} \otimes r_{ik}
                        + \sum_c \lambda_{ic} \frac{\partial u_{ic}}{\partial\epsilon}\Big]

    The stress of an atom has two parts: the virial of the edges to its neighbors, whichever atom's energy depends on
    the edge, and the virial of the long-range field u at the atom. The latter is the derivative of the field by strain
    at fixed weights f, times :math:`\lambda = \partial E/\partial u`. For a pair potential, each atom of a pair gets
    half of the virial. The division of a stress between atoms is a convention; the stress of an atom is not a
    derivative of the energy of the atom.
    """
    if isinstance(model, Ensemble):
        return torch.stack([atomic_stresses(member, graph) for member in members_of(model)]).mean(dim=0)
    graph = recordable(graph)
    # at zero strain: the hooks change no value and add the derivatives by the strain of each atom
    strains = graph.positions.new_zeros(graph.n_atoms, 3, 3, requires_grad=True)
    with _strained_atom_by_atom(model, graph, strains):
        energy = model(graph).energies(graph.of_local(graph.structure), graph.n_structures).sum()
    virial = torch.autograd.grad(energy, strains)[0]  # (n_atoms, 3, 3)
    if model.dispersion is not None:  # in equal shares, as its energy
        counts = torch.bincount(graph.structure, minlength=graph.n_structures)
        known = torch.from_numpy(np.stack([each.virial for each in model.dispersion.evaluate(graph)])).to(virial)
        virial = virial + (known / counts[:, None, None])[graph.structure]
    return 0.5 * (virial + virial.transpose(-1, -2)) / volume(graph.cell)[graph.structure, None, None]


@contextmanager
def _strained_atom_by_atom(model: ShortRangeModel, graph: Graph, strains: Tensor) -> Iterator[None]:
    """Apply a separate strain per atom, `strains` (n_atoms, 3, 3), to neighbor vectors and field, to first order."""

    def strain_vectors(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        vectors, *others = inputs
        # (n_atoms, n_neighbors, 3) @ (n_atoms, 3, 3)
        return vectors + torch.matmul(vectors, strains.to(vectors)), *others

    def strain_field(long_range: LongRangePart, inputs: tuple[LatentWeights, FieldAndEnergy]) -> tuple[Any, ...]:
        latent, (field, energy, potential, gradient) = inputs
        weights = latent.values
        slopes = _field_by_strain(long_range, weights, graph).to(field)  # constants: first order in the strain
        change = torch.einsum("nab,ncab->nc", strains.to(field), slopes)  # (n_atoms, n_channels)
        if gradient is not None:
            change, of_gradient = change.split([weights.shape[1], gradient[0].numel()], dim=1)
            gradient = gradient + of_gradient.reshape(gradient.shape)
        n_energies = energy.shape[1]
        # the energy channels come first; the layer's output 1/2 sum f u changes by f du / 2 with their field
        of_energies = 0.5 * weights.detach()[:, :n_energies] * change[:, :n_energies]
        energy = energy + sum_by_structure(of_energies, graph.structure, graph.n_structures)
        return latent, FieldAndEnergy(field + change[:, n_energies:], energy, potential, gradient)

    # the core repulsion hands vectors on to the descriptor
    first = model.descriptor if model.core_repulsion is None else model.core_repulsion
    hooks = [first.register_forward_pre_hook(strain_vectors)]
    if isinstance(model, FullRangeModel):
        hooks.append(model.long_range.register_forward_pre_hook(strain_field))
        part = model.long_range
        for each in (part.transfers, part.response, part.orientations):
            if each is not None:
                hooks.append(each.register_forward_pre_hook(strain_vectors))
    try:
        yield
    finally:  # the model is the caller's: no hook may stay on it
        for hook in hooks:
            hook.remove()


def _field_by_strain(long_range: LongRangePart, weights: Tensor, graph: Graph) -> Tensor:
    """Differentiate the field of all weights by a strain of its structure, weights and fractional coordinates fixed.

    Return (n_atoms, n_channels, 3, 3), with three channels more where dipoles need the gradient of the first. Reverse
    mode gives the gradient of field times v by the strain, for a tensor v of the field's shape. This gradient is linear
    in v. Its derivative by v is one row of the Jacobian: one component of the strain for all atoms, in 9 backward
    passes instead of one per atom and channel.
    """
    arguments, options = long_range.arguments(weights, graph, None)
    weights, fractional, cell = (value.detach() for value in arguments)
    strain = torch.zeros_like(cell, requires_grad=True)  # coordinates are fractional: the cell alone is strained
    inputs = weights, fractional, cell + torch.matmul(cell, strain)
    field = long_range.convolution(*inputs, **options)
    if long_range.response is not None:
        sums = long_range.convolution.field_and_energy(*inputs, n_energies=1, gradient=True, **options)
        assert sums.gradient is not None
        field = torch.cat([field, sums.gradient.flatten(1)], dim=1)
    v = torch.zeros_like(field, requires_grad=True)  # any value serves: the gradient is linear in v
    by_strain = torch.autograd.grad(field, strain, v, create_graph=True)[0].sum(dim=0)
    rows = [torch.autograd.grad(entry, v, retain_graph=True)[0] for entry in by_strain.flatten()]
    return torch.stack(rows, dim=-1).reshape(*field.shape, 3, 3).detach()

"""Energies, forces, stress and Born charges of a graph: the one place that differentiates a model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from lrc_ase.layer.convolution import FieldAndEnergy
from lrc_ase.layer.lattice import fractional_coordinates, volume
from lrc_ase.layer.mesh.evaluation import sum_by_structure
from lrc_ase.models.ensemble import Ensemble, members_of
from lrc_ase.models.long_range import LongRangePart
from lrc_ase.models.model import FullRangeModel, ShortRangeModel
from lrc_ase.models.torch_state import undisturbed
from lrc_ase.structures.graph import Graph

__all__ = ["Results", "atomic_stresses", "born_effective_charges", "evaluate"]


@dataclass(frozen=True)
class Results:
    """Energies without the elements' references, and their derivatives, in ASE's units and signs.

    Where processes share the structure, energy, stress and the forces on an atom sum over them (and its ghosts) to the
    whole.
    """

    energy: Tensor
    """(n_structures,), eV."""
    atomic_energies: Tensor
    """(n_own,), eV; sum to `energy`."""
    forces: Tensor | None = None
    """:math:`-dE/dx`, (n_atoms, 3), eV/Angstrom."""
    stress: Tensor | None = None
    """:math:`(1/V)\\, dE/d\\epsilon`, (n_structures, 3, 3), eV/Angstrom^3; of use where all directions are periodic."""
    charges: Tensor | None = None
    """Latent charges, (n_own,), e."""
    energy_std: Tensor | None = None
    """Standard deviation of `energy` as an ensemble sees it, (n_structures,), eV; None for a single model."""
    forces_std: Tensor | None = None
    """Standard deviation of each force component, (n_atoms, 3), eV/Angstrom."""


@undisturbed()
def evaluate(
    model: ShortRangeModel, graph: Graph, *, forces: bool = True, stress: bool = False, training: bool = False
) -> Results:
    """Evaluate a model and differentiate its total energy; of an ensemble the mean and the standard deviations.

    Parameters
    ----------
    forces, stress
        What to compute besides energies.
    training
        Keep the graph, so that losses on energy, forces and stress can be differentiated by the parameters.
    """
    graph = _recordable(graph)
    if isinstance(model, Ensemble):
        own = [evaluate(each, graph, forces=forces, stress=stress, training=training) for each in members_of(model)]
        return _mean(own, model)
    strain = None
    if forces:
        graph = replace(graph, positions=graph.positions.detach().requires_grad_())
    if stress:
        strain = torch.zeros_like(graph.cell, requires_grad=True)
        symmetric = 0.5 * (strain + strain.transpose(-1, -2))
    with torch.set_grad_enabled(forces or stress or training):
        output = model(graph, strain=symmetric if stress else None)
        energy = output.energies(graph.of_own(graph.structure), graph.n_structures)
    inputs = ([graph.positions] if forces else []) + ([strain] if strain is not None else [])
    gradients: list[Tensor] = []
    if inputs:
        gradients = list(torch.autograd.grad(energy.sum(), inputs, create_graph=training, materialize_grads=True))
    results = Results(
        energy=energy,
        atomic_energies=output.atomic_energies.double(),
        forces=-gradients[0] if forces else None,
        stress=gradients[-1] / volume(graph.cell)[:, None, None] if stress else None,
        charges=output.charges,
    )
    return results if training else _detached(results)


def _recordable(graph: Graph) -> Graph:
    """Copy tensors that were made under `torch.inference_mode`: gradients cannot be recorded through them."""
    copies: dict[str, Any] = {}
    for field in fields(graph):
        value = getattr(graph, field.name)
        if isinstance(value, Tensor) and value.is_inference():
            copies[field.name] = value.clone()
    return replace(graph, **copies)


def _mean(members: Sequence[Results], ensemble: Ensemble) -> Results:
    """Mean of the members' results, and calibrated standard deviations of energies and forces."""
    stacked: dict[str, Tensor] = {}
    for field in fields(Results):
        values = [value for each in members if (value := getattr(each, field.name)) is not None]
        if values:
            stacked[field.name] = torch.stack(values)
    means = {name: values.mean(dim=0) for name, values in stacked.items()}
    energy_scale, forces_scale = ensemble.uncertainty_scale.double()
    deviations = {"energy_std": energy_scale * stacked["energy"].std(dim=0)}
    if "forces" in stacked:
        spread = forces_scale * stacked["forces"].std(dim=0)
        deviations["forces_std"] = torch.hypot(spread, ensemble.forces_floor.double())
    return Results(**means, **deviations)


def _detached(results: Results) -> Results:
    values = {field.name: getattr(results, field.name) for field in fields(results)}
    return replace(results, **{name: value.detach() for name, value in values.items() if value is not None})


@undisturbed()
def born_effective_charges(model: ShortRangeModel, graph: Graph) -> Tensor:
    r"""Response of the latent charges' polarization to displacements, (n_atoms, 3, 3) in e, indices i, a, b.

    .. math:: Z^*_{i,ab} = \frac{\partial M_a}{\partial x_{ib}}
                         = q_i \delta_{ab} + \sum_j \frac{\partial q_j}{\partial x_{ib}}\, D_a(x_j - x_i).

    D is the way that charge goes from atom i to atom j: the vector between them along open directions, so that for a
    neutral molecule M is its dipole moment; along a periodic cell vector :math:`A_c`, where no image of j is the right
    one, :math:`A_c \sin(2\pi s_c)/2\pi` of the fractional difference :math:`s_c`, which is periodic and the vector
    itself while short against the cell (the polarization at the longest wave of the cell, Zhong, Kim, King and Cheng,
    arXiv:2504.05169). Charges that do not depend on surroundings give :math:`q_i \delta_{ab}` exactly. What flows does
    so over all atoms, as charges are shifted evenly to sum to the total: values depend a little on the size of a
    periodic cell, and sum over atoms to the total charge times the unit matrix exactly in molecules alone.

    Raises
    ------
    ValueError
        A model without latent charges.
    """
    graph = _recordable(graph)
    graph = replace(graph, positions=graph.positions.detach().requires_grad_())
    charges = model(graph).charges
    if charges is None:
        raise ValueError("Born effective charges need latent charges: this model has no electrostatic head")
    charges = charges.double()

    def flow(phase: Tensor) -> Tensor:
        """Sum over j of w_j dq_j/dx_i for weights w (n_atoms,), (n_atoms, 3)."""
        found = torch.autograd.grad(charges @ phase, graph.positions, retain_graph=True, materialize_grads=True)
        return found[0]

    fractional = fractional_coordinates(graph.positions.detach(), graph.cell, graph.structure)
    fractional = fractional - fractional.floor() * graph.pbc[graph.structure]
    total = charges.detach()[:, None, None] * torch.eye(3).to(charges)
    for axis in range(3):
        own = fractional[:, axis]
        wave = 2 * math.pi * own
        periodic = graph.pbc[graph.structure, axis][:, None]
        responses = torch.zeros_like(graph.positions)
        if periodic.any():  # sin(w_j - w_i), a product of functions of j and of i
            sines = wave.cos()[:, None] * flow(wave.sin()) - wave.sin()[:, None] * flow(wave.cos())
            responses = torch.where(periodic, sines / (2 * math.pi), responses)
        if not periodic.all():  # charge is conserved, so that the place of atom i drops out
            responses = torch.where(periodic, responses, flow(own))
        total = total + graph.cell[graph.structure, axis][:, :, None] * responses[:, None, :]
    return total.detach()


@undisturbed()
def atomic_stresses(model: ShortRangeModel, graph: Graph) -> Tensor:
    r"""Stress of each atom, (n_atoms, 3, 3) in eV/Angstrom^3; they sum to the stress of the structure.

    .. math:: \sigma_i = \frac1V \mathrm{sym}\Big[\sum_k \frac{\partial E}{\partial r_{ik}} \otimes r_{ik}
                        + \sum_c \lambda_{ic} \frac{\partial u_{ic}}{\partial\epsilon}\Big]

    An atom owns the virial of the edges to its neighbors, whichever energy they act on, and of the long-range field at
    its place: the field's derivative by strain at fixed weights f, times :math:`\lambda = \partial E/\partial u`. For
    a pair potential that is half of the pair's virial to each. How a stress is shared between atoms is a choice; these
    are not derivatives of the atoms' energies.
    """
    if isinstance(model, Ensemble):
        return torch.stack([atomic_stresses(member, graph) for member in members_of(model)]).mean(dim=0)
    graph = _recordable(graph)
    local = graph.positions.new_zeros(graph.n_atoms, 3, 3, requires_grad=True)
    with _strained_atom_by_atom(model, graph, local):
        energy = model(graph).energies(graph.of_own(graph.structure), graph.n_structures).sum()
    virial = torch.autograd.grad(energy, local)[0]
    return 0.5 * (virial + virial.transpose(-1, -2)) / volume(graph.cell)[graph.structure, None, None]


@contextmanager
def _strained_atom_by_atom(model: ShortRangeModel, graph: Graph, local: Tensor) -> Iterator[None]:
    """Let each atom see its neighbors, and feel its field, under a strain of its own, to first order in `local`."""

    def strain_vectors(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        vectors, *others = inputs
        return vectors + torch.matmul(vectors, local.to(vectors)), *others

    def strain_field(long_range: LongRangePart, inputs: tuple[Tensor, FieldAndEnergy]) -> tuple[Any, ...]:
        weights, (field, energy, potential) = inputs
        slopes = _field_by_strain(long_range, weights, graph).to(field)
        change = torch.einsum("nab,ncab->nc", local.to(field), slopes)
        n_energies = energy.shape[1]
        of_energies = 0.5 * weights.detach()[:, :n_energies] * change[:, :n_energies]
        energy = energy + sum_by_structure(of_energies, graph.structure, graph.n_structures)
        return weights, FieldAndEnergy(field + change[:, n_energies:], energy, potential)

    hooks = [model.descriptor.register_forward_pre_hook(strain_vectors)]
    if isinstance(model, FullRangeModel):
        hooks.append(model.long_range.register_forward_pre_hook(strain_field))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _field_by_strain(long_range: LongRangePart, weights: Tensor, graph: Graph) -> Tensor:
    """Differentiate the field of all weights by a strain of its structure, weights and fractional coordinates fixed.

    (n_atoms, n_channels, 3, 3). The gradient of the field times v is linear in v; its own derivative by v is the
    Jacobian's row of one strain component for all atoms at once.
    """
    arguments, options = long_range.arguments(weights, graph, None)
    weights, fractional, cell = (value.detach() for value in arguments)
    strain = torch.zeros_like(cell, requires_grad=True)
    field = long_range.convolution(weights, fractional, cell + torch.matmul(cell, strain), **options)
    v = torch.zeros_like(field, requires_grad=True)
    by_strain = torch.autograd.grad(field, strain, v, create_graph=True)[0].sum(dim=0)
    rows = [torch.autograd.grad(entry, v, retain_graph=True)[0] for entry in by_strain.flatten()]
    return torch.stack(rows, dim=-1).reshape(*field.shape, 3, 3).detach()

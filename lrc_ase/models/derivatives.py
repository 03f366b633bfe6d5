"""Energies, forces, stress and Born charges of a graph: the only module that differentiates a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from lrc_ase.layer.lattice import volume
from lrc_ase.layer.mesh.evaluation import sum_by_structure
from lrc_ase.models.ensemble import Ensemble, members_of
from lrc_ase.models.model import ModelOutput, ShortRangeModel
from lrc_ase.models.polarization import (
    atomic_dipoles,
    born_charges_along,
    electronic_energies,
    field_energies,
    polarization,
    response_without_path,
    stored_energies,
)
from lrc_ase.models.torch_state import undisturbed
from lrc_ase.structures.electric_field import check_field
from lrc_ase.structures.graph import Graph

__all__ = ["Results", "born_effective_charges", "dipole_moment", "evaluate", "loss_gradients", "polarizability"]


@dataclass(frozen=True)
class Results:
    """Energies without the elements' references, and their derivatives, in ASE's units and signs.

    If several processes share a structure, each holds a part. Energy and stress are sums over the processes. The force
    on an atom is a sum over the processes that hold the atom or its ghosts.
    """

    energy: Tensor
    """(n_structures,), eV."""
    atomic_energies: Tensor
    """(n_local,), eV; sum to `energy`."""
    forces: Tensor | None = None
    """:math:`-dE/dx`, (n_atoms, 3), eV/Angstrom."""
    stress: Tensor | None = None
    """:math:`(1/V)\\, dE/d\\epsilon`, (n_structures, 3, 3), eV/Angstrom^3; of use where all directions are periodic."""
    charges: Tensor | None = None
    """Latent charges, (n_local,), e."""
    pathless_charges: Tensor | None = None
    """Charges that move without a path, (n_local,), e; see `ModelOutput`."""
    dipole: Tensor | None = None
    """Polarization of the local atoms of each structure, (n_structures, 3), e Angstrom."""
    born_effective_charges: Tensor | None = None
    """Born effective charges, (n_atoms, 3, 3), e, polarization first; NaN for components that were not asked for."""
    energy_std: Tensor | None = None
    """Standard deviation of `energy` as an ensemble sees it, (n_structures,), eV; None for a single model."""
    forces_std: Tensor | None = None
    """Standard deviation of each force component, (n_atoms, 3), eV/Angstrom."""


@undisturbed()
def evaluate(
    model: ShortRangeModel,
    graph: Graph,
    *,
    forces: bool = True,
    stress: bool = False,
    dipole: bool = False,
    born_component: Tensor | None = None,
    training: bool = False,
) -> Results:
    """Evaluate a model and differentiate its total energy; for an ensemble, return mean and standard deviations.

    In an electric field (`Graph.field`) the total energy includes that of the polarization, -E.P. Stress is then its
    derivative by strain at constant field and constant fractional coordinates, whole cells of `Graph.images` included.

    Parameters
    ----------
    forces, stress, dipole
        Properties to compute in addition to energies; the dipole of a model without latent charges is None.
    born_component
        Component of the polarization whose derivative by the positions is computed, (n_structures,); None for none.
    training
        Keep the autograd graph, so that losses on these properties can be differentiated by the parameters.

    Raises
    ------
    ValueError
        The model has no latent charges on which a field could act, or `check_field` refuses the field.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"`model` must be a model, got {type(model).__name__}: `load_potential(path).model` is one. Atoms of ASE "
            "are evaluated by `LRCCalculator`, labelled frames by `lrc_ase.evaluation.evaluate_frames`"
        )
    if not isinstance(graph, Graph):
        raise TypeError(
            f"`graph` must be a Graph, got {type(graph).__name__}: `LRCCalculator` evaluates atoms of ASE, "
            "`lrc_ase.evaluation.evaluate_frames` labelled frames"
        )
    graph = recordable(graph)
    if graph.field is not None:
        check_field(graph.field, graph.cell, graph.pbc, graph.charge)
    if isinstance(model, Ensemble):
        wanted: dict[str, Any] = {"forces": forces, "stress": stress, "dipole": dipole, "training": training}
        members = [evaluate(each, graph, born_component=born_component, **wanted) for each in members_of(model)]
        return mean_of_members(members, model)
    strain = None
    if forces or born_component is not None:
        graph = replace(graph, positions=graph.positions.detach().requires_grad_())  # a leaf: gradients end here
    if stress:
        strain = torch.zeros_like(graph.cell, requires_grad=True)
        # only the symmetric part deforms the structure: the stress is symmetric even where the mesh breaks rotations
        symmetric = 0.5 * (strain + strain.transpose(-1, -2))
    keep_graph = training or born_component is not None  # the energy's backward pass is not the last
    with torch.set_grad_enabled(forces or stress or keep_graph):
        output, energy, moment = _energy(model, graph, symmetric if stress else None)
        if (dipole or born_component is not None) and moment is None and output.charges is not None:
            moment = polarization(output, graph, symmetric if stress else None)
    atomic_energies = output.atomic_energies.double()
    if graph.field is not None:
        atomic_energies = atomic_energies + field_energies(output, graph)
    inputs = ([graph.positions] if forces else []) + ([strain] if strain is not None else [])
    gradients: list[Tensor] = []
    if inputs:
        # structures of a batch do not interact: the gradient of the sum holds the gradient of each energy;
        # `materialize_grads` gives zeros for inputs that the energy does not depend on, as for an atom alone
        options: dict[str, Any] = {"create_graph": training, "retain_graph": keep_graph, "materialize_grads": True}
        gradients = list(torch.autograd.grad(energy.sum(), inputs, **options))
    results = Results(
        energy=energy,
        atomic_energies=atomic_energies,
        forces=-gradients[0] if forces else None,
        stress=gradients[-1] / volume(graph.cell)[:, None, None] if stress else None,
        charges=output.charges,
        pathless_charges=output.pathless_charges,
        dipole=moment,
        born_effective_charges=born_charges_along(output, moment, graph, born_component),
    )
    return results if training else _detached(results)


def _energy(model: ShortRangeModel, graph: Graph, strain: Tensor | None) -> tuple[ModelOutput, Tensor, Tensor | None]:
    """Evaluate a model; return its output, the total energies (n_structures,), and the dipole moments in a field."""
    output = model(graph, strain=strain)
    energy = output.energies(graph.of_local(graph.structure), graph.n_structures)
    if graph.field is None:
        return output, energy, None
    dipole = polarization(output, graph, strain)
    energy = energy - (graph.field * dipole).sum(dim=1)  # -E.P
    if output.permittivity != 1 or output.polarizabilities is not None:
        others = (electronic_energies(output, graph, strain) + stored_energies(output, graph))[:, None]
        energy = energy + sum_by_structure(others, graph.of_local(graph.structure), graph.n_structures)[:, 0]
    return output, energy, dipole


def recordable(graph: Graph) -> Graph:
    """Copy tensors created under `torch.inference_mode`: autograd cannot record operations on such tensors."""
    copies: dict[str, Any] = {}
    for field in fields(graph):
        value = getattr(graph, field.name)
        if isinstance(value, Tensor) and value.is_inference():
            copies[field.name] = value.clone()
    return replace(graph, **copies)


def mean_of_members(members: Sequence[Results], ensemble: Ensemble) -> Results:
    """Return the mean of the members' results, and calibrated standard deviations of energies and forces."""
    stacked: dict[str, Tensor] = {}
    for field in fields(Results):
        values = [value for each in members if (value := getattr(each, field.name)) is not None]
        if values:
            stacked[field.name] = torch.stack(values)
    means = {name: values.mean(dim=0) for name, values in stacked.items()}
    energy_scale, forces_scale = ensemble.uncertainty_scale.double()
    deviations = {"energy_std": energy_scale * stacked["energy"].std(dim=0)}
    if "forces" in stacked:
        # errors common to all members do not show up in their spread: a constant floor is added in quadrature
        spread = forces_scale * stacked["forces"].std(dim=0)
        deviations["forces_std"] = torch.hypot(spread, ensemble.forces_floor.double())
    return Results(**means, **deviations)


def _detached(results: Results) -> Results:
    values = {field.name: getattr(results, field.name) for field in fields(results)}
    return replace(results, **{name: value.detach() for name, value in values.items() if value is not None})


@undisturbed()
def born_effective_charges(model: ShortRangeModel, graph: Graph) -> Tensor:
    r"""Compute Born effective charges of the latent charges, (n_atoms, 3, 3) in e, indices i, a, b.

    .. math:: Z^*_{i,ab} = \frac{\partial P_a}{\partial x_{ib}}, \qquad
              P = \sum_i \nu_{z_i} x_i - \sum_{ik} t_{ik} r_{ik} + \sum_i c_i x_i,

    the derivative of the polarization by the positions x, with element charges, transfers between neighbors and excess
    charges of `lrc_ase.models.charges`. It is exact in a molecule and in a periodic cell of any size; the sum over the
    atoms is the total charge times the unit matrix.

    Excess charge, and all charge of potentials that shift charges evenly to the total charge, flows between atoms
    without a path. Its derivative is taken as :math:`c_i \delta_{ab} + \sum_j D_a(x_j - x_i)\,
    \partial c_j/\partial x_{ib}`. Along open directions D is the vector between the atoms, which is exact. Along a
    periodic cell vector :math:`A_c` all images of j are equivalent. There D is :math:`A_c \sin(2\pi s_c)/2\pi` with
    the fractional difference :math:`s_c`: a periodic function, equal to the vector while the vector is short compared
    with the cell (the polarization at the longest wave of the cell, Zhong, Kim, King and Cheng, arXiv:2504.05169).
    Values in a periodic cell then depend slightly on its size.

    Raises
    ------
    ValueError
        The model has no latent charges.
    """
    if isinstance(model, Ensemble):
        return torch.stack([born_effective_charges(member, graph) for member in members_of(model)]).mean(dim=0)
    graph = recordable(graph)
    graph = replace(graph, positions=graph.positions.detach().requires_grad_(), images=None)
    output = model(graph)
    if output.charges is None:
        raise ValueError("Born effective charges need latent charges: this model has no electrostatic head")
    pathless = output.pathless_charges
    dipoles = atomic_dipoles(output, graph)
    if pathless is not None:
        dipoles = dipoles - pathless.double()[:, None] * graph.positions  # differentiated separately below
    polarization = dipoles.sum(dim=0)
    rows = [
        torch.autograd.grad(component, graph.positions, retain_graph=True, materialize_grads=True)[0]
        if component.requires_grad
        else torch.zeros_like(graph.positions)
        for component in polarization
    ]
    total = torch.stack(rows, dim=1)  # (n_atoms, 3, 3): polarization, displacement
    if pathless is not None:
        total = total + response_without_path(pathless.double(), graph)
    return total.detach()


@undisturbed()
def dipole_moment(model: ShortRangeModel, graph: Graph) -> Tensor:
    r"""Compute the dipole moment of each structure, minus the derivative of its energy by the field.

    Return (n_structures, 3) in e Angstrom. Along periodic directions the moment is that of the unwrapped positions of
    `Graph.images`, defined up to a quantum. An ensemble gives the mean of its members.

    Raises
    ------
    ValueError
        The model has no latent charges.
    """
    if isinstance(model, Ensemble):
        return torch.stack([dipole_moment(member, graph) for member in members_of(model)]).mean(dim=0)
    return _dipole_and_field(model, graph)[0].detach()


@undisturbed()
def polarizability(model: ShortRangeModel, graph: Graph) -> Tensor:
    r"""Compute the derivative of the dipole moment P by the field, (n_structures, 3, 3), e Angstrom^2/V.

    .. math:: \alpha_{ab} = \frac{\partial P_a}{\partial E_b} = -\frac{\partial^2 E}{\partial E_a\,\partial E_b}

    Atoms are fixed; indices are polarization, field. The polarizability is zero if no charges answer to the field.
    """
    if isinstance(model, Ensemble):
        return torch.stack([polarizability(member, graph) for member in members_of(model)]).mean(dim=0)
    dipole, field = _dipole_and_field(model, graph)
    if not dipole.requires_grad:
        return field.new_zeros(len(field), 3, 3)
    rows = [
        torch.autograd.grad(dipole[:, axis].sum(), field, retain_graph=True, materialize_grads=True)[0]
        for axis in range(3)
    ]
    return torch.stack(rows, dim=1).detach()  # (n_structures, 3, 3): polarization, field


def _dipole_and_field(model: ShortRangeModel, graph: Graph) -> tuple[Tensor, Tensor]:
    """Return the dipole moments as functions of the field, and the field, both (n_structures, 3)."""
    graph = recordable(graph)
    field = graph.cell.new_zeros(graph.n_structures, 3) if graph.field is None else graph.field.detach().clone()
    graph = replace(graph, field=field.requires_grad_())
    check_field(field, graph.cell, graph.pbc, graph.charge)
    _, energy, _ = _energy(model, graph, None)
    return -torch.autograd.grad(energy.sum(), field, create_graph=True)[0], field  # P = -dE/dE_field


def loss_gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the gradient of a loss by each parameter, None for those that it does not depend on."""
    return list(torch.autograd.grad(loss, parameters, allow_unused=True))

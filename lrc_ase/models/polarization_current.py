"""Rate of change of the polarization along velocities, in one product with a vector instead of all Born charges."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lrc_ase.models.derivatives import recordable
from lrc_ase.models.ensemble import Ensemble, members_of
from lrc_ase.models.model import ModelOutput, ShortRangeModel
from lrc_ase.models.polarization import NO_CHARGES, atomic_dipoles, electronic_energies, response_without_path
from lrc_ase.models.torch_state import undisturbed
from lrc_ase.structures.graph import Graph

__all__ = ["polarization_current"]


@undisturbed()
def polarization_current(model: ShortRangeModel, graph: Graph, velocities: Tensor) -> tuple[Tensor, Tensor]:
    r"""Compute the polarization current and the dipole moment of a structure, both (3,) in float64.

    .. math:: J_a = \frac{dP_a}{dt} = \sum_{ib} Z^*_{i,ab}\, v_{ib}

    with the Born effective charges :math:`Z^*` of `lrc_ase.models.derivatives.born_effective_charges` and velocities v
    (n_atoms, 3). The current has the unit of e times that of the velocities, the dipole moment is in e Angstrom, of the
    unwrapped positions of `Graph.images`.

    The compiled kernels have no forward-mode derivative. The gradient of :math:`u \cdot P` by the positions, times v,
    is linear in u, and its derivative by u is the current: two backward passes, where the Born charges take three.
    Charges that flow without a path need the Born charges' six further passes.

    Raises
    ------
    ValueError
        The model has no latent charges.
    """
    if isinstance(model, Ensemble):
        pairs = [polarization_current(member, graph, velocities) for member in members_of(model)]
        current, moment = (torch.stack(values).mean(dim=0) for values in zip(*pairs, strict=True))
        return current, moment
    images, graph = graph.images, recordable(graph)
    # no derivative depends on whole cells; charges that flow without a path must not see them
    graph = replace(graph, positions=graph.positions.detach().requires_grad_(), images=None)
    output = model(graph)
    if output.charges is None:
        raise ValueError(NO_CHARGES)
    moment = atomic_dipoles(output, replace(graph, images=images)).detach().sum(dim=0)
    if graph.field is not None:
        moment = moment + _moment_of_electrons(output, graph)
    current, pathless = torch.zeros_like(moment), output.pathless_charges
    if pathless is None or output.transfer_dipoles is not None or output.local_dipoles is not None:
        dipoles = atomic_dipoles(output, graph)
        if pathless is not None:
            dipoles = dipoles - pathless.double()[:, None] * graph.positions
        u = torch.zeros_like(moment, requires_grad=True)  # any value serves: the gradient is linear in u
        (gradient,) = torch.autograd.grad(dipoles.sum(dim=0), graph.positions, u, create_graph=True)
        current = torch.autograd.grad((gradient * velocities).sum(), u, retain_graph=pathless is not None)[0]
    if pathless is not None:
        response = response_without_path(pathless.double(), graph)
        current = current + torch.einsum("iab,ib->a", response, velocities)  # (n_atoms, 3, 3) with (n_atoms, 3)
    return current.detach(), moment


def _moment_of_electrons(output: ModelOutput, graph: Graph) -> Tensor:
    """Return the dipole moment of the electrons of an insulator in its field, at fixed atoms, (3,); a constant."""
    assert graph.field is not None
    field = graph.field.detach().clone().requires_grad_()
    energy = electronic_energies(output, replace(graph, field=field)).sum()
    if not energy.requires_grad:  # a permittivity of 1
        return torch.zeros_like(field[0])
    return -torch.autograd.grad(energy, field)[0][0]  # P = -dE/dE_field, of the one structure

r"""Polarization of the latent charges of a structure, and its energy in a uniform electric field.

.. math:: P = \sum_i (\nu_{z_i} + c_i) (x_i + n_i A) - \sum_{ik} t_{ik} r_{ik}, \qquad E_{field} = -E \cdot P,

with element charges, excess and transfers of `lrc_ase.models.charges`: atoms carry the former two, a transfer moves
charge along the vector between two neighbors. Where charges are shifted evenly, atoms carry all charge. P is the dipole
moment of a structure, in e Angstrom: of a molecule, or of the contents of a cell. `Graph.images` holds the whole
numbers n of cells A, so that P stays continuous where atoms are wrapped through periodic boundaries. Another image of
an atom changes P by a cell vector times the element charge, and no derivative of P.
"""

from __future__ import annotations

import math

import torch
from scipy.constants import elementary_charge, epsilon_0
from torch import Tensor

from lrc_ase.layer.lattice import fractional_coordinates, volume
from lrc_ase.layer.mesh import total
from lrc_ase.layer.mesh.evaluation import sum_by_structure
from lrc_ase.models.model import ModelOutput
from lrc_ase.structures.caller_warnings import warn_caller
from lrc_ase.structures.electric_field import along_periodic
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.vectors import strained_positions

__all__ = [
    "NO_CHARGES",
    "VACUUM_PERMITTIVITY",
    "PathlessWarning",
    "atomic_dipoles",
    "born_charges_along",
    "electronic_energies",
    "field_energies",
    "polarization",
    "response_without_path",
    "stored_energies",
]

NO_CHARGES = (
    "an electric field acts on latent charges, and this model has none: take a potential trained with "
    "`long_range: {electrostatics: true}`"
)
"""Message of the error for a field on a model without latent charges."""

VACUUM_PERMITTIVITY = epsilon_0 / elementary_charge * 1e-10
"""In e/(V Angstrom)."""


class PathlessWarning:
    """Warn once of charge that has no path in a field along a periodic direction.

    Such charge depends on all atoms of the structure and moves between them at any distance: the shift of potentials of
    lrc-ase 0.2, and the excess over the element charges. Energy and forces are consistent, and conserved, but they
    depend on the image of each atom that the coordinates name, and grow with the cell.
    """

    def __init__(self) -> None:
        self._told = False  # one warning per calculator, not one per step

    def tell(self, pathless_charges: Tensor | None, graph: Graph) -> None:
        """Warn if the structures of `graph` hold such charge (see `ModelOutput.pathless_charges`) in such a field."""
        if self._told or pathless_charges is None or graph.field is None:
            return
        if along_periodic(graph.field, graph.cell, graph.pbc).any():
            self._told = True
            warn_caller(
                "charge of this potential moves without a path between atoms: in a field along a periodic direction, "
                "forces depend on the periodic image in which each atom is given. Train it anew with transfers between "
                "neighbors (`long_range: {charges: transfers}`) and structures of this composition",
            )


def polarization(output: ModelOutput, graph: Graph, strain: Tensor | None = None) -> Tensor:
    """Compute the polarization of the local atoms of each structure, (n_structures, 3), e Angstrom in float64.

    `strain` (n_structures, 3, 3) deforms unwrapped positions, as in the model.

    Raises
    ------
    ValueError
        The model has no latent charges.
    """
    return sum_by_structure(atomic_dipoles(output, graph, strain), graph.of_local(graph.structure), graph.n_structures)


def atomic_dipoles(output: ModelOutput, graph: Graph, strain: Tensor | None = None) -> Tensor:
    """Compute the contributions of the local atoms to the polarization, (n_local, 3), e Angstrom in float64.

    Raises
    ------
    ValueError
        The model has no latent charges.
    """
    if output.carried_charges is None:
        raise ValueError(NO_CHARGES)
    dipoles = output.carried_charges[:, None] * _unwrapped(graph, strain)
    if output.transfer_dipoles is not None:
        dipoles = dipoles + output.transfer_dipoles.double()
    if output.local_dipoles is not None:
        dipoles = dipoles + output.local_dipoles.double()
    if output.polarizabilities is not None and graph.field is not None:
        induced = output.polarizabilities.double()[:, None] * graph.field[graph.of_local(graph.structure)]
        dipoles = dipoles + induced
    return dipoles


def field_energies(output: ModelOutput, graph: Graph) -> Tensor:
    """Compute the energies of the local atoms in their field, (n_local,), eV, without derivatives."""
    assert graph.field is not None
    structure = graph.of_local(graph.structure)
    of_charges = -(atomic_dipoles(output, graph).detach() * graph.field[structure]).sum(dim=1)  # -E.P, atom by atom
    return of_charges + stored_energies(output, graph).detach() + electronic_energies(output, graph).detach()


def stored_energies(output: ModelOutput, graph: Graph) -> Tensor:
    r"""Compute the energy that dipoles induced by the external field store, (n_local,), eV in float64.

    .. math:: E = +\tfrac12 \alpha |E_{field}|^2,

    half of what :math:`-E_{field} \cdot P` counts for these dipoles. Zero for a model without polarizabilities.
    """
    assert graph.field is not None
    structure = graph.of_local(graph.structure)
    if output.polarizabilities is None:
        return graph.cell.new_zeros(len(structure))
    return 0.5 * output.polarizabilities.double() * graph.field.square().sum(dim=1)[structure]


def electronic_energies(output: ModelOutput, graph: Graph, strain: Tensor | None = None) -> Tensor:
    r"""Compute the energy of the electrons of a periodic insulator in its field, divided among atoms, (n_local,), eV.

    .. math:: E = -\tfrac12 \epsilon_0 (\epsilon_\infty - 1) V |E_{field}|^2

    Zero where a direction is open. The volume V is that of the strained cell. The derivative by the field is the
    polarization of the electrons at fixed atoms.
    """
    assert graph.field is not None
    structure = graph.of_local(graph.structure)
    if output.permittivity == 1:
        return graph.cell.new_zeros(len(structure))
    cell = graph.cell if strain is None else graph.cell + torch.matmul(graph.cell, strain)
    # the volume depends on the strain: the field adds to the stress
    energies = -0.5 * VACUUM_PERMITTIVITY * (output.permittivity - 1) * volume(cell) * graph.field.square().sum(dim=1)
    energies = torch.where(graph.pbc.all(dim=1), energies, 0.0)
    # each process that shares a structure takes the part of its atoms
    counts = total(torch.bincount(structure, minlength=graph.n_structures).to(energies), graph.exchange)
    return (energies / counts)[structure]


def response_without_path(charges: Tensor, graph: Graph) -> Tensor:
    """Differentiate the polarization of charges that flow between atoms without a path, (n_atoms, 3, 3).

    See `lrc_ase.models.derivatives.born_effective_charges`; the charges depend on `graph.positions`.
    """

    def flow(phase: Tensor) -> Tensor:
        """Sum w_j dq_j/dx_i over j for weights w = `phase` (n_atoms,); return (n_atoms, 3)."""
        gradients = torch.autograd.grad(charges @ phase, graph.positions, retain_graph=True, materialize_grads=True)
        return gradients[0]

    fractional = fractional_coordinates(graph.positions.detach(), graph.cell, graph.structure)
    # into the cell along periodic directions: sine and cosine lose digits for large arguments
    fractional = fractional - fractional.floor() * graph.pbc[graph.structure]
    response = charges.detach()[:, None, None] * torch.eye(3).to(charges)
    for axis in range(3):
        coordinate = fractional[:, axis]
        wave = 2 * math.pi * coordinate
        periodic = graph.pbc[graph.structure, axis][:, None]
        responses = torch.zeros_like(graph.positions)
        # sin(w_j - w_i) = sin w_j cos w_i - cos w_j sin w_i: two gradients serve all pairs
        if periodic.any():
            sines = wave.cos()[:, None] * flow(wave.sin()) - wave.sin()[:, None] * flow(wave.cos())
            responses = torch.where(periodic, sines / (2 * math.pi), responses)
        # sum_j dq_j/dx_i = 0, as charge is conserved: the coordinate of atom i drops out of x_j - x_i
        if not periodic.all():
            responses = torch.where(periodic, responses, flow(coordinate))
        # cell vector (polarization) times response (displacement): (n_atoms, 3, 1) * (n_atoms, 1, 3)
        response = response + graph.cell[graph.structure, axis][:, :, None] * responses[:, None, :]
    return response


def born_charges_along(
    output: ModelOutput, dipole: Tensor | None, graph: Graph, component: Tensor | None
) -> Tensor | None:
    """Differentiate one component of the polarization of each structure by the positions, differentiable once more.

    Parameters
    ----------
    dipole
        Polarization as `polarization` returns it, (n_structures, 3).
    component
        Index of the component of each structure, (n_structures,). None returns None.

    Returns
    -------
    Tensor
        Born effective charges, (n_atoms, 3, 3), e; NaN for the other components.

    Raises
    ------
    ValueError
        Charge moves without a path in a periodic structure, where no component by itself is the response.
    """
    if dipole is None or component is None:
        return None
    if output.pathless_charges is not None and graph.pbc.any():
        raise ValueError(
            "Born effective charges of periodic frames cannot be trained on: charge of this model moves without a path "
            "between atoms, as the charges of its elements do not sum to the total charge of every frame; name such "
            "formulas in `long_range.compositions`, or set the weight `loss: {born_effective_charges: 0}`"
        )
    # one gradient for the batch: structures do not interact, so rows of different structures do not mix
    chosen = dipole.gather(1, component[:, None]).sum()
    row = torch.autograd.grad(chosen, graph.positions, create_graph=True, materialize_grads=True)[0]
    is_chosen = torch.arange(3, device=row.device) == component[graph.structure][:, None]  # (n_atoms, 3)
    return torch.where(is_chosen[:, :, None], row[:, None, :], torch.nan)


def _unwrapped(graph: Graph, strain: Tensor | None) -> Tensor:
    """Return the unwrapped positions of the local atoms, (n_local, 3)."""
    positions, structure = graph.of_local(graph.positions), graph.of_local(graph.structure)
    if graph.images is not None:
        # (n_local, 1, 3) @ (n_local, 3, 3)
        positions = positions + torch.matmul(graph.of_local(graph.images)[:, None], graph.cell[structure])[:, 0]
    if strain is not None:
        # after unwrapping: whole cells deform too
        positions = strained_positions(positions, strain, structure)
    return positions

r"""Polarization of the latent charges of a structure, and its energy in a uniform electric field.

.. math:: P = \sum_i q_i (x_i + n_i A), \qquad E_{field} = -E \cdot P

P is the dipole moment of a structure, in e Angstrom: of a molecule, or of the contents of a cell. `Graph.images` holds
the whole numbers n of cells A, so that P stays continuous where atoms are wrapped through periodic boundaries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lrc_ase.layer.mesh.evaluation import sum_by_structure
from lrc_ase.models.model import ModelOutput
from lrc_ase.structures.graph import Graph

__all__ = ["NO_CHARGES", "field_energies", "polarization"]

NO_CHARGES = (
    "an electric field acts on latent charges, and this model has none: take a potential trained with "
    "`long_range: {electrostatics: true}`"
)
"""Message of the error for a field on a model without latent charges."""


def polarization(output: ModelOutput, graph: Graph, strain: Tensor | None = None) -> Tensor:
    """Compute the polarization of the local atoms of each structure, (n_structures, 3), e Angstrom in float64.

    `strain` (n_structures, 3, 3) deforms unwrapped positions, as in the model.

    Raises
    ------
    ValueError
        The model has no latent charges.
    """
    if output.charges is None:
        raise ValueError(NO_CHARGES)
    dipoles = output.charges.double()[:, None] * _unwrapped(graph, strain)
    return sum_by_structure(dipoles, graph.of_local(graph.structure), graph.n_structures)


def field_energies(output: ModelOutput, graph: Graph) -> Tensor:
    r"""Compute :math:`-q_i E \cdot x_i` of the local atoms in their field, (n_local,), eV, without derivatives."""
    assert graph.field is not None
    assert output.charges is not None
    structure = graph.of_local(graph.structure)
    return -output.charges.detach().double() * (_unwrapped(graph, None).detach() * graph.field[structure]).sum(dim=1)


def _unwrapped(graph: Graph, strain: Tensor | None) -> Tensor:
    """Return the unwrapped positions of the local atoms, (n_local, 3)."""
    positions, structure = graph.of_local(graph.positions), graph.of_local(graph.structure)
    if graph.images is not None:
        # (n_local, 1, 3) @ (n_local, 3, 3)
        positions = positions + torch.matmul(graph.of_local(graph.images)[:, None], graph.cell[structure])[:, 0]
    if strain is not None:
        positions = positions + torch.matmul(positions[:, None], strain[structure])[:, 0]
    return positions

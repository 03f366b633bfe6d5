r"""Dipoles of the atoms in the electric field of the latent charges: a permanent and an induced part, at first order.

.. math:: E_{response} = -\sum_i p_i \cdot E_i - \tfrac12 \sum_i \alpha_i |E_i|^2, \qquad
          E_i = -k_e \nabla u(x_i) + E_0,

with the smeared potential u of the latent charges and a uniform external field :math:`E_0`. The permanent dipole p of
an atom points along its edges, with amounts from its descriptor (`lrc_ase.models.charges.EdgeDipoles`). The
polarizability :math:`\alpha` is a positive number from the descriptor, the induced dipole :math:`\alpha_i E_i`. Dipoles
feel charges and not each other: nothing is iterated, and one convolution of the charges gives every field. The
polarization, minus the derivative of the energy by the external field, gains the sum of all dipoles.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor, nn

from lrc_ase.models.charges import COULOMB_CONSTANT, EdgeDipoles
from lrc_ase.structures.graph import Graph

__all__ = ["SOFTPLUS_SHIFT", "STARTING_POLARIZABILITY", "Response", "ResponsePart"]

SOFTPLUS_SHIFT = math.log(math.e - 1)
"""Added to an output before the softplus, which is then 1 at the origin."""
STARTING_POLARIZABILITY = 0.5 / COULOMB_CONSTANT
"""Polarizability of every atom before training, e Angstrom^2 / V: a volume of 0.5 Angstrom^3, as of hydrogen."""


class Response(NamedTuple):
    """Polarizabilities and permanent dipoles of atoms, each None if the model has none."""

    polarizabilities: Tensor | None
    """(n_local,), e Angstrom^2 / V."""
    permanent: Tensor | None
    """(n_local, 3), e Angstrom."""

    def dipoles(self, field: Tensor) -> Tensor:
        """Return permanent and induced dipoles in the fields (n_local, 3) at the atoms, (n_local, 3), e Angstrom."""
        if self.polarizabilities is None:
            assert self.permanent is not None
            return self.permanent
        induced = self.polarizabilities[:, None] * field
        return induced if self.permanent is None else self.permanent + induced

    def energies(self, field: Tensor) -> Tensor:
        """Return the energies of the dipoles in the fields (n_local, 3), V/Angstrom, at the atoms, (n_local,), eV."""
        along = self.dipoles(field)
        if self.polarizabilities is not None:
            along = along - 0.5 * self.polarizabilities[:, None] * field  # half of an induced dipole's energy is stored
        return -(along * field).sum(dim=1)


class ResponsePart(nn.Module):
    """Polarizabilities and permanent dipoles from outputs of the network of latent weights."""

    def __init__(self, *, n_elements: int, cutoff: float, polarizable: bool, n_dipoles: int) -> None:
        super().__init__()
        self.polarizable = polarizable
        self.dipoles = EdgeDipoles(n_elements, cutoff=cutoff, n_amounts=n_dipoles) if n_dipoles else None
        self.n_outputs = int(polarizable) + n_dipoles
        """Outputs of the network per atom: the polarizability, then the amounts of the dipoles."""

    def forward(self, vectors: Tensor, graph: Graph, outputs: Tensor) -> Response:
        """Compute the response from outputs (n_local, n_outputs) and vectors to neighbors (n_local, n_neighbors, 3)."""
        polarizabilities = permanent = None
        if self.polarizable:
            positive = nn.functional.softplus(outputs[:, 0] + SOFTPLUS_SHIFT)
            polarizabilities = STARTING_POLARIZABILITY * positive
        if self.dipoles is not None:
            permanent = self.dipoles(vectors, graph, outputs[:, int(self.polarizable) :])
        return Response(polarizabilities, permanent)

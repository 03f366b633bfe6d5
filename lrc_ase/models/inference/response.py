r"""Dipoles of atoms in the field of the charges (`lrc_ase.models.response`) with derivatives written out.

With permanent dipoles p, polarizabilities :math:`\alpha`, the field :math:`E_i = -k_e \nabla u_i` and the dipole
:math:`d = p + \alpha E` of an atom,

.. math:: \frac{\partial E_{tot}}{\partial \nabla u} = k_e\, d, \qquad
          \frac{\partial E_{tot}}{\partial p} = -E, \qquad
          \frac{\partial E_{tot}}{\partial \alpha} = -\tfrac12 |E|^2.

An external field adds to E (`external_field`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from lrc_ase.models.charges import EdgeDipoles
from lrc_ase.models.descriptors.sphere.compiled_moments import Neighborhoods
from lrc_ase.models.inference.compiled_amounts import divide, divide_backward
from lrc_ase.models.inference.external_field import ExternalField
from lrc_ase.models.long_range import COULOMB_CONSTANT
from lrc_ase.models.response import SOFTPLUS_SHIFT, STARTING_POLARIZABILITY, Response, ResponsePart
from lrc_ase.structures.graph import Graph

__all__ = ["ResponseStep"]


class ResponseStep:
    """Energies and dipoles of the atoms, and derivatives of the energies."""

    def __init__(self, part: ResponsePart) -> None:
        self._n_polarizabilities = int(part.polarizable)
        self._edges = None if part.dipoles is None else EdgeDipolesStep(part.dipoles)
        self.energies = np.empty(0)
        """(n_atoms,), eV."""
        self.dipoles = np.empty(0)
        """Permanent and induced ones, (n_atoms, 3), e Angstrom."""
        self._field = np.empty(0)
        self._outputs = torch.empty(0)

    def prepare(self, graph: Graph) -> None:
        """Set the neighbors of the atoms."""
        if self._edges is not None:
            self._edges.prepare(graph)

    def __call__(
        self, outputs: np.ndarray, vectors: np.ndarray, gradient: np.ndarray, external: ExternalField | None
    ) -> None:
        """Set energies and dipoles.

        `outputs` (n_atoms, n_outputs) of the network, `vectors` (n_atoms, n_neighbors, 3), `gradient` (n_atoms, 3) of
        the charges' potential.
        """
        n = self._n_polarizabilities
        polarizabilities = permanent = None
        if n:
            self._outputs = torch.from_numpy(outputs[:, 0] + SOFTPLUS_SHIFT)
            polarizabilities = STARTING_POLARIZABILITY * nn.functional.softplus(self._outputs)
        if self._edges is not None:
            permanent = torch.from_numpy(self._edges(outputs[:, n:], vectors))
        self._field = -COULOMB_CONSTANT * gradient
        if external is not None:
            self._field += external.on_charges
        response, field = Response(polarizabilities, permanent), torch.from_numpy(self._field)
        self.energies, self.dipoles = response.energies(field).numpy(), response.dipoles(field).numpy()

    @property
    def by_gradient(self) -> np.ndarray:
        """Return the derivative of the energies by the gradient of the charges' potential, (n_atoms, 3)."""
        return COULOMB_CONSTANT * self.dipoles

    def pull(self, by_outputs: np.ndarray) -> np.ndarray | None:
        """Write the derivatives of the energies by the outputs; return those by the vectors."""
        n = self._n_polarizabilities
        if n:
            # the derivative of softplus is the sigmoid
            slopes = STARTING_POLARIZABILITY * torch.sigmoid(self._outputs).numpy()
            by_outputs[:, 0] = -0.5 * slopes * np.einsum("ij,ij->i", self._field, self._field)
        if self._edges is None:
            return None
        by_outputs[:, n:], by_vectors = self._edges.pull(-self._field)
        return by_vectors


class EdgeDipolesStep:
    """Permanent dipoles of atoms along their edges."""

    def __init__(self, part: EdgeDipoles) -> None:
        self._profile = nn.functional.softplus(part.profile.detach()).contiguous().numpy()
        self._cutoff = part.cutoff
        self._around: tuple[np.ndarray, np.ndarray, np.ndarray]
        self._of: Neighborhoods
        self._amounts = np.empty(0)

    def prepare(self, graph: Graph) -> None:
        """Set the neighbors of the atoms."""
        self._around = graph.neighbor_mask.numpy(), graph.species.numpy(), graph.neighbors.numpy()

    def __call__(self, amounts: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Return the dipoles (n_atoms, 3) of amounts (n_atoms, n_amounts)."""
        self._of, self._amounts = (vectors, *self._around), np.ascontiguousarray(amounts)
        return divide(self._of, self._profile, self._amounts, self._cutoff)[1]

    def pull(self, by_dipoles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradients by amounts and vectors, given that by the dipoles."""
        arrays = self._of, self._profile, self._amounts, self._cutoff
        return divide_backward(*arrays, by_moments=by_dipoles)

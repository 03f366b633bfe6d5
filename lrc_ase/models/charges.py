r"""Latent charges as transfers between neighbors: charge moves from atom to atom, and none is created.

.. math:: q_i = \nu_{z_i} + \sum_k (t_{ik} - t_{ki}) + c_i, \qquad
          t_{ik} = \sum_c \delta_i^c w^c_{z_k}(r_{ik}), \qquad
          c_i = \frac{s_i}{\sum_j s_j} \Big(Q - \sum_j \nu_{z_j}\Big).

- :math:`\nu_z`, the element charges, sum to the total charge of each training composition
  (`lrc_ase.models.compositions`); the part that the compositions leave free is trained;
- :math:`t_{ik}`, the transfer, is charge that atom i takes from its neighbor k. The amounts :math:`\delta_i` come from
  the descriptor of atom i alone. The weights w are smooth functions of the distance that vanish at the cutoff;
- :math:`c_i`, the excess, divides what is left over (charged states, other compositions) by learned positive shares.

Transfers cancel pair by pair. The atoms of a fragment that is farther than the cutoff from all others therefore keep
the sum of their element charges to rounding, without a sum over the structure. The polarization is

.. math:: P = \sum_i (\nu_{z_i} + c_i)\, x_i - \sum_{ik} t_{ik}\, r_{ik}, \qquad r_{ik} = x_k - x_i,

where each transfer moves charge along the vector of its edge. In a periodic cell P is defined up to cell vectors times
element charges, and its derivatives do not depend on the image of each atom that the coordinates name.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lrc_ase.layer.mesh import total
from lrc_ase.models.compositions import element_charge_space
from lrc_ase.models.electronegativity import starting_charges
from lrc_ase.structures.graph import Graph

__all__ = ["Charges", "Excess", "TransferredCharges"]

_POWERS = (4, 8, 16, 32)
r"""Exponents p of the radial functions :math:`(1 - r^2/r_c^2)^p`, which need no square root and no exponential.
They fall to half at 0.40, 0.29, 0.21 and 0.15 cutoffs."""
_BOND = _POWERS.index(16)
"""Radial function of transfers before training: it covers bonds, not the next neighbors."""
_ROUNDING = 1e-8
"""Left-over charges below this are rounding errors of the sum of the element charges, e."""


class Excess(NamedTuple):
    """Charge that the element charges leave over."""

    element_charges: Tensor
    """Charge of each atom's element, e (n_local,) in float64."""
    charges: Tensor | None
    """Excess of each atom, e (n_local,); None where every structure has the charge of its elements."""


class Charges(NamedTuple):
    """Latent charges and the dipoles of their transfers."""

    values: Tensor
    """(n_local,), e."""
    transfer_dipoles: Tensor
    """Minus the sum of transfers times vectors over the neighbors of each atom, (n_local, 3), e Angstrom."""


class TransferredCharges(nn.Module):
    """Element charges, transfers between neighbors and shares of the excess; see the module's formulas.

    Parameters
    ----------
    elements
        Chemical symbols.
    compositions
        Formulas and total charges that the element charges fulfil.
    n_features
        Width of the descriptor.
    n_transfers
        Number of amounts per atom, the channels c.
    """

    def __init__(
        self,
        elements: tuple[str, ...],
        compositions: dict[str, float],
        *,
        cutoff: float,
        n_features: int,
        n_transfers: int,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.cutoff, self.n_transfers = cutoff, n_transfers
        # plain tensors, which `.to(float32)` leaves in float64: a neutral structure must be neutral to rounding
        self._least_norm, self._projector = map(torch.from_numpy, element_charge_space(compositions, elements))
        self.element_charges = nn.Parameter(starting_charges(elements))
        profile = 0.3 * torch.randn(n_transfers, len(elements), len(_POWERS), generator=generator)
        profile[0] = 0.0
        profile[0, :, _BOND] = 1.0
        self.profile = nn.Parameter(profile)
        """Weights w as sums of radial functions, (n_transfers, n_elements, n_powers)."""
        self.share = nn.Linear(n_features, 1)
        self.element_share = nn.Embedding(len(elements), 1)
        nn.init.zeros_(self.share.weight)
        nn.init.zeros_(self.share.bias)
        nn.init.zeros_(self.element_share.weight)

    def starting_amounts(self, elements: tuple[str, ...]) -> Tensor:
        """Return amounts per element, (n_elements, n_transfers), that move charge to the more electronegative atom."""
        amounts = torch.zeros(len(elements), self.n_transfers)
        amounts[:, 0] = starting_charges(elements)
        return amounts

    def excess(self, features: Tensor, graph: Graph) -> Excess:
        """Compute element charges and the excess of the local atoms from their descriptor (n_local, n_features)."""
        structure, species = graph.of_local(graph.structure), graph.of_local(graph.species)
        free = self.element_charges.double()
        nu = self._least_norm.to(free.device) + self._projector.to(free.device) @ free
        element_charges = nu[species]
        sums = element_charges.new_zeros(graph.n_structures).index_add(0, structure, element_charges)
        left_over = graph.charge - total(sums, graph.exchange)
        left_over = torch.where(left_over.abs() < _ROUNDING, 0.0, left_over)
        # the same in all processes, as the sum is
        if not left_over.any():
            return Excess(element_charges, None)
        shares = nn.functional.softplus(self.share(features) + self.element_share(species))[:, 0].double()
        shares_of_all = total(shares.new_zeros(graph.n_structures).index_add(0, structure, shares), graph.exchange)
        return Excess(element_charges, shares * (left_over / shares_of_all)[structure])

    def forward(self, vectors: Tensor, graph: Graph, amounts: Tensor, excess: Excess) -> Charges:
        """Compute latent charges from the amounts (n_local, n_transfers) and vectors (n_local, n_neighbors, 3).

        Raises
        ------
        ValueError
            The graph has ghosts and no communication to their owners.
        """
        fixed = excess.element_charges if excess.charges is None else excess.element_charges + excess.charges
        if vectors.shape[1] == 0:
            return Charges(fixed.to(vectors), vectors.new_zeros(len(vectors), 3))
        transfers = self._transfers(vectors, graph, amounts)
        taken = transfers.new_zeros(graph.n_atoms).index_add(0, graph.neighbors.flatten(), transfers.flatten())
        charges = fixed.to(vectors) + transfers.sum(dim=1) - graph.sum_to_owners(taken)
        # (n_local, 1, n_neighbors) @ (n_local, n_neighbors, 3)
        return Charges(charges, -torch.bmm(transfers[:, None], vectors)[:, 0])

    def _transfers(self, vectors: Tensor, graph: Graph, amounts: Tensor) -> Tensor:
        """Compute the charge that each atom takes from each neighbor, (n_local, n_neighbors), e."""
        squares = vectors.square().sum(dim=-1)
        y = (1 - squares / self.cutoff**2).clamp(min=0.0) * graph.neighbor_mask
        power = y.square().square()
        powers = [power]
        for _ in _POWERS[1:]:
            power = power.square()
            powers.append(power)
        # weights of each atom for each neighbor element: (n_local, n_powers, n_elements)
        n_elements = self.profile.shape[1]
        weights = (amounts @ self.profile.flatten(1)).unflatten(1, (n_elements, len(_POWERS))).transpose(1, 2)
        of_elements = torch.bmm(torch.stack(powers, dim=-1), weights)  # (n_local, n_neighbors, n_elements)
        return of_elements.gather(2, graph.species[graph.neighbors][..., None])[..., 0]

r"""Latent charges as transfers between neighbors: charge moves from atom to atom, and none is created.

.. math:: q_i = \nu_{z_i} + \sum_k (t_{ik} - t_{ki}) + c_i, \qquad
          t_{ik} = \sum_c \delta_i^c w^c_{z_k}(r_{ik}), \qquad
          c_i = \frac{s_i}{\sum_j s_j} \Big(Q - \sum_j \nu_{z_j}\Big).

- :math:`\nu_z`, the element charges, sum to the total charge of each training composition
  (`lrc_ase.models.compositions`); the part that the compositions leave free is trained;
- :math:`t_{ik}`, the transfer, is charge that atom i takes from its neighbor k. The amounts :math:`\delta_i` come from
  the descriptor of atom i alone. They are divided among the neighbors by smooth positive functions g of the distance,
  which vanish at the cutoff: an atom with neighbors near takes the whole amount, an atom alone takes nothing;
- :math:`c_i`, the excess, divides what is left over (charged states, other compositions) by learned positive shares.

Transfers cancel pair by pair. The atoms of a fragment that is farther than the cutoff from all others therefore keep
the sum of their element charges to rounding, without a sum over the structure. The polarization is

.. math:: P = \sum_i (\nu_{z_i} + c_i)\, x_i - \sum_{ik} t_{ik}\, r_{ik}, \qquad r_{ik} = x_k - x_i,

where each transfer moves charge along the vector of its edge. In a periodic cell P is defined up to cell vectors times
element charges, and its derivatives do not depend on the image of each atom that the coordinates name.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy.constants import elementary_charge, epsilon_0
from torch import Tensor, nn

from lrc_ase.layer.mesh import total
from lrc_ase.layer.mesh.evaluation import sum_by_structure
from lrc_ase.layer.recording import recording
from lrc_ase.models.compositions import element_charge_space
from lrc_ase.models.electronegativity import starting_charges
from lrc_ase.models.radial import POWERS, radial_functions
from lrc_ase.structures.graph import Graph

__all__ = ["COULOMB_CONSTANT", "Charges", "EdgeDipoles", "Excess", "TransferredCharges"]

COULOMB_CONSTANT = elementary_charge / (4 * math.pi * epsilon_0) * 1e10
"""k_e in eV Angstrom / e^2."""
_STARTING_POWERS = (16, 8, 32, 4)
"""Radial function of each channel before training. The first one covers bonds, not the next neighbors."""
_STARTING_WEIGHT = 10.0
"""Factor of the radial function of bonds before training: bonded atoms exchange nearly the whole amount."""
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


class NeighborElements:
    """Sums over the neighbors of each element, and values of the elements at the neighbors.

    On GPUs both are products with zeros and ones: scattered sums would add in an order that changes from run to run.
    """

    def __init__(self, elements: Tensor, n_elements: int, *, by_products: bool) -> None:
        self._elements, self._n_elements = elements, n_elements
        self._is_element: Tensor | None = None
        if by_products:
            # (n_local, n_neighbors, n_elements)
            self._is_element = elements[..., None] == torch.arange(n_elements, device=elements.device)

    def sum(self, values: Tensor) -> Tensor:
        """Sum values (n, n_local, n_neighbors) over the neighbors of each element, (n, n_local, n_elements)."""
        if self._is_element is not None:
            # (n_local, n, n_neighbors) @ (n_local, n_neighbors, n_elements)
            return torch.bmm(values.transpose(0, 1), self._is_element.to(values)).transpose(0, 1)
        kinds = self._elements.expand_as(values)
        return values.new_zeros(*values.shape[:2], self._n_elements).scatter_add(2, kinds, values)

    def pick(self, values: Tensor) -> Tensor:
        """Return the value of each neighbor's element, (n, n_local, n_elements) -> (n, n_local, n_neighbors)."""
        if self._is_element is not None:
            # (n_local, n, n_elements) @ (n_local, n_elements, n_neighbors)
            picked = torch.bmm(values.transpose(0, 1), self._is_element.to(values).transpose(1, 2))
            return picked.transpose(0, 1)
        return values.gather(2, self._elements.expand(len(values), -1, -1))


def summed_at(places: Tensor, values: Tensor, n_places: int, *, in_order: bool) -> Tensor:
    """Sum values at places, both of any shape, (n_places,); `in_order` makes sums on GPUs the same in every run."""
    zeros = values.new_zeros(n_places)
    if not in_order:
        return zeros.index_add(0, places.flatten(), values.flatten())
    return zeros.index_put((places.flatten(),), values.flatten(), accumulate=True)  # sorts, where `index_add` races


class DividedAmounts(nn.Module):
    """Amounts of each atom, divided among its neighbors by smooth positive functions of distance and element.

    Parameters
    ----------
    n_elements
        Elements whose atoms get different shares.
    cutoff
        Distance at which the functions vanish, Angstrom.
    n_amounts
        Number of amounts per atom, the channels c.
    """

    def __init__(self, n_elements: int, *, cutoff: float, n_amounts: int) -> None:
        super().__init__()
        self.cutoff, self.n_amounts = cutoff, n_amounts
        profile = torch.full((n_amounts, n_elements, len(POWERS)), -4.0)
        for channel in range(n_amounts):
            power = _STARTING_POWERS[channel % len(POWERS)]
            profile[channel, :, POWERS.index(power)] = math.log(math.expm1(_STARTING_WEIGHT * power / 16))
        self.profile = nn.Parameter(profile)
        """Functions g as positive sums of radial functions, (n_amounts, n_elements, n_powers); softplus of these."""

    def divided(self, vectors: Tensor, graph: Graph, amounts: Tensor) -> Tensor:
        """Divide amounts (n_local, n_amounts) among neighbors and sum them, (n_local, n_neighbors).

        `vectors` (n_local, n_neighbors, 3) lead to the neighbors. An atom without neighbors divides nothing.
        """
        functions = radial_functions(vectors, graph, self.cutoff).values  # (n_powers, n_local, n_neighbors)
        on_gpu = functions.device.type != "cpu"
        elements = NeighborElements(graph.species[graph.neighbors], self.profile.shape[1], by_products=on_gpu)
        sums = elements.sum(functions)  # (n_powers, n_local, n_elements)
        n_elements = self.profile.shape[1]
        profile = nn.functional.softplus(self.profile).permute(2, 1, 0)  # (n_powers, n_elements, n_amounts)
        weights = torch.tensordot(sums, profile, dims=([0, 2], [0, 1]))  # (n_local, n_amounts)
        shares = (amounts / (1 + weights)) @ profile.flatten(0, 1).T  # (n_local, n_powers * n_elements)
        factors = shares.unflatten(1, (len(POWERS), n_elements)).transpose(0, 1)
        return (functions * elements.pick(factors)).sum(dim=0)


class TransferredCharges(DividedAmounts):
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
        super().__init__(len(elements), cutoff=cutoff, n_amounts=n_transfers)
        # plain tensors, which `.to(float32)` leaves in float64: a neutral structure must be neutral to rounding
        self._least_norm, self._projector = map(torch.from_numpy, element_charge_space(compositions, elements))
        self.element_charges = nn.Parameter(starting_charges(elements))
        self.share = nn.Linear(n_features, 1)
        self.element_share = nn.Embedding(len(elements), 1)
        nn.init.zeros_(self.share.weight)
        nn.init.zeros_(self.share.bias)
        nn.init.zeros_(self.element_share.weight)

    def starting_amounts(self, elements: tuple[str, ...]) -> Tensor:
        """Return amounts per element, (n_elements, n_transfers), that move charge to the more electronegative atom.

        They are what the element charges lack of the starting charges: ions of a salt have theirs without neighbors.
        """
        starting = starting_charges(elements).double()
        # clamped: no amount where the element charge exceeds the starting one already
        lacking = (starting.abs() - starting.sign() * self._element_charges().detach()).clamp(min=0.0)
        amounts = torch.zeros(len(elements), self.n_amounts)
        amounts[:, 0] = torch.minimum(lacking, starting.abs()) * starting.sign()
        return amounts

    def _element_charges(self) -> Tensor:
        """Return the charge of each element, (n_elements,), e in float64."""
        free = self.element_charges.double()
        if self._projector.device != free.device:  # once, and not in every step
            self._least_norm, self._projector = self._least_norm.to(free.device), self._projector.to(free.device)
        return self._least_norm + self._projector @ free

    def excess(self, features: Tensor, graph: Graph) -> Excess:
        """Compute element charges and the excess of the local atoms from their descriptor (n_local, n_features)."""
        structure, species = graph.of_local(graph.structure), graph.of_local(graph.species)
        element_charges = self._element_charges()[species]
        sums = sum_by_structure(element_charges[:, None], structure, graph.n_structures)[:, 0]
        left_over = graph.charge - total(sums, graph.exchange)
        left_over = torch.where(left_over.abs() < _ROUNDING, 0.0, left_over)
        # the same in all processes, as the sum is; a step that is recorded takes the general way, as if there was some
        if not recording() and not left_over.any():
            return Excess(element_charges, None)
        # positive: the sum in the denominator cannot vanish
        shares = nn.functional.softplus(self.share(features) + self.element_share(species))[:, 0].double()
        shares_of_all = total(sum_by_structure(shares[:, None], structure, graph.n_structures)[:, 0], graph.exchange)
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
        transfers = self.divided(vectors, graph, amounts)
        on_gpu = transfers.device.type != "cpu"
        taken = summed_at(graph.neighbors, transfers, graph.n_atoms, in_order=on_gpu)
        # + what atom i takes, - what its neighbors take from it
        charges = fixed.to(vectors) + transfers.sum(dim=1) - graph.sum_to_owners(taken)
        # (n_local, 1, n_neighbors) @ (n_local, n_neighbors, 3)
        return Charges(charges, -torch.bmm(transfers[:, None], vectors)[:, 0])


class EdgeDipoles(DividedAmounts):
    r"""Dipoles of atoms along their edges, :math:`p_i = \sum_k t_{ik} r_{ik}` with t divided as transfers are.

    They polarize an atom without moving charge between atoms.
    """

    def forward(self, vectors: Tensor, graph: Graph, amounts: Tensor) -> Tensor:
        """Compute the dipoles (n_local, 3), e Angstrom, from amounts (n_local, n_amounts), e."""
        if vectors.shape[1] == 0:
            return vectors.new_zeros(len(vectors), 3)
        return torch.bmm(self.divided(vectors, graph, amounts)[:, None], vectors)[:, 0]

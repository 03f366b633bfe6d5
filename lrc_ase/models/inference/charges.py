"""Latent charges (`lrc_ase.models.charges`) with derivatives by the network's outputs and the vectors written out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lrc_ase.layer.mesh import total
from lrc_ase.models.descriptors.sphere.compiled_moments import Neighborhoods
from lrc_ase.models.inference.compiled_amounts import divide, divide_backward
from lrc_ase.models.inference.external_field import ExternalField
from lrc_ase.models.long_range import LongRangePart
from lrc_ase.structures.graph import Graph

__all__ = ["ExcessCharges", "MovedCharges", "NoCharges", "ShiftedCharges"]


class NoCharges:
    """Weights without charges: the outputs of the network as they are."""

    carried: np.ndarray | None = None
    """Charges that atoms carry along in the polarization, (n_atoms,) in float64; see `ModelOutput`."""
    transfer_dipoles: np.ndarray | None = None
    """Dipoles of the transfers, (n_atoms, 3), e Angstrom."""
    excess: ExcessCharges | None = None
    """Charge left over in this structure; None where the charges of the elements sum to the total."""

    @property
    def pathless(self) -> np.ndarray | None:
        """Return the charges that move between atoms without a path, (n_atoms,); see `ModelOutput`."""
        return None

    def __call__(self, outputs: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Return the weights that are convolved, (n_atoms, n_weights)."""
        return outputs.copy()

    def pull(self, by_weights: np.ndarray, by_outputs: np.ndarray, external: ExternalField | None) -> np.ndarray | None:
        """Write the gradient by the network's outputs, given that by the weights; return that by the vectors."""
        by_outputs[...] = by_weights
        return None


class ShiftedCharges(NoCharges):
    """Charges, the first output, shifted evenly to the total charge of the structure, which has `n_atoms` atoms."""

    def __init__(self, graph: Graph, n_atoms: int) -> None:
        self._graph, self._total, self._n_atoms = graph, float(graph.charge[0]), n_atoms

    @property
    def pathless(self) -> np.ndarray | None:
        """Return all charges."""
        return self.carried

    def __call__(self, outputs: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Return the charges and the other weights."""
        weights = outputs.copy()
        charges = weights[:, 0]
        charges -= (_sum_over_processes(charges.sum(), self._graph) - self._total) / self._n_atoms
        self.carried = charges.astype(np.float64)
        return weights

    def pull(self, by_weights: np.ndarray, by_outputs: np.ndarray, external: ExternalField | None) -> np.ndarray | None:
        """Write the gradient by the outputs: a shift of all charges changes nothing."""
        by_outputs[...] = by_weights
        by_charges = by_outputs[:, 0]
        if external is not None:
            by_charges += external.potential
        by_charges -= _sum_over_processes(by_charges.sum(), self._graph) / self._n_atoms
        return None


class MovedCharges(NoCharges):
    """Element charges, their excess, and transfers between neighbors."""

    def __init__(self, part: LongRangePart, graph: Graph, dtype: torch.dtype) -> None:
        transfers = part.transfers
        assert transfers is not None
        n_features = transfers.share.in_features
        # any features: they divide the excess among the atoms, and leave its sum alone
        element_charges, excess = transfers.excess(torch.zeros(graph.n_local, n_features, dtype=dtype), graph)
        self._element_charges = element_charges.detach().numpy()
        self.carried = self._element_charges
        self.excess = None if excess is None else ExcessCharges(part, graph, excess.sum())
        self._profile = nn.functional.softplus(transfers.profile.detach()).contiguous().numpy()
        self._fixed = self._element_charges.astype(self._profile.dtype)
        self._graph, self._cutoff, self._n_amounts = graph, transfers.cutoff, part.n_charges
        self._around = graph.neighbor_mask.numpy(), graph.species.numpy(), graph.neighbors.numpy()
        self._of: Neighborhoods
        self._amounts = np.empty(0)

    @property
    def pathless(self) -> np.ndarray | None:
        """Return the excess."""
        return None if self.excess is None else self.excess.charges

    def __call__(self, outputs: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Return the charges and the other weights."""
        n, fixed = self._n_amounts, self._fixed
        self._of, self._amounts = (vectors, *self._around), np.ascontiguousarray(outputs[:, :n])
        gains, moments = divide(self._of, self._profile, self._amounts, self._cutoff)
        gains = self._graph.sum_to_owners(torch.from_numpy(gains)).numpy()
        self.transfer_dipoles = -moments  # the charge comes from the neighbor
        if self.excess is not None:
            self.carried = self._element_charges + self.excess.charges
            fixed = self.carried.astype(outputs.dtype)
        weights = np.empty((len(outputs), 1 + outputs.shape[1] - n), outputs.dtype)
        np.add(fixed, gains, out=weights[:, 0])
        weights[:, 1:] = outputs[:, n:]
        return weights

    def pull(self, by_weights: np.ndarray, by_outputs: np.ndarray, external: ExternalField | None) -> np.ndarray | None:
        """Write the gradient by the outputs; return that by the vectors."""
        arrays, by_moments = (self._of, self._profile, self._amounts, self._cutoff), None
        if external is not None:  # dipoles of transfers are minus the moments
            by_moments = np.empty((len(by_weights), 3), by_weights.dtype)
            by_moments[:] = external.on_charges
        by_gains = self._graph.copy_to_ghosts(torch.from_numpy(by_weights[:, 0].copy())).numpy()
        by_amounts, by_vectors = divide_backward(*arrays, by_gains=by_gains, by_moments=by_moments)
        by_outputs[:, : self._n_amounts] = by_amounts
        by_outputs[:, self._n_amounts :] = by_weights[:, 1:]
        return by_vectors


class ExcessCharges:
    r"""Charge that element charges leave over, :math:`c_i = C s_i / \sum_j s_j` with shares :math:`s = \log(1 + e^l)`.

    With the gradient g by c: :math:`\partial / \partial s_i = C (g_i - \sum_j g_j s_j / S) / S`, S the sum of shares.
    Charged structures are rare: this goes by torch's operations.
    """

    def __init__(self, part: LongRangePart, graph: Graph, charge: Tensor) -> None:
        assert part.transfers is not None
        self._exchange = graph.exchange
        self._total = float(total(charge, self._exchange))
        self._weight = part.transfers.share.weight.detach()[0]
        element_share = part.transfers.element_share.weight.detach()[graph.of_local(graph.species), 0]
        self._constants = part.transfers.share.bias.detach() + element_share
        self._to_weights, self._to_hidden = part.excess_to_weights.detach(), part.excess_to_hidden.detach()
        self.widths = len(self._to_hidden), len(self._to_weights)
        """Of the first hidden layers of the read-out and of the network for the weights."""
        self.charges = np.empty(0)
        self._logits = self._shares = self._whole = torch.empty(0)

    def __call__(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the additions to the first hidden layers of the read-out and of the network for the weights."""
        self._logits = torch.addmv(self._constants, torch.from_numpy(features), self._weight)
        self._shares = nn.functional.softplus(self._logits).double()
        self._whole = total(self._shares.sum(), self._exchange)
        charges = self._shares * (self._total / self._whole)
        self.charges, column = charges.numpy(), charges.to(self._weight)[:, None]
        return (column * self._to_hidden).numpy(), (column * self._to_weights).numpy()

    def pull(self, by_charges: np.ndarray, by_hidden: np.ndarray, by_hidden_of_weights: np.ndarray) -> np.ndarray:
        """Return the gradient by the features, (n_atoms, n_features), given that by the charges and additions."""
        by_additions = torch.from_numpy(by_hidden) @ self._to_hidden
        by_additions += torch.from_numpy(by_hidden_of_weights) @ self._to_weights
        gradient = (torch.from_numpy(by_charges) + by_additions).double()
        mean = total(gradient @ self._shares, self._exchange) / self._whole
        by_shares = (self._total / self._whole) * (gradient - mean)
        return torch.outer(by_shares.to(self._weight) * torch.sigmoid(self._logits), self._weight).numpy()


def _sum_over_processes(number: float, graph: Graph) -> float:
    """Sum a number over the processes that share the structure."""
    if graph.exchange is None:
        return number
    return float(total(torch.tensor([number], dtype=torch.float64), graph.exchange))

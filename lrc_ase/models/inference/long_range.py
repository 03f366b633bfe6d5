"""The long-range part of a step without autograd: weights, their field, and what the read-out takes of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lrc_ase.models.inference.charges import MovedCharges, NoCharges, ShiftedCharges
from lrc_ase.models.inference.field import FieldValues, LayerField, MeshField
from lrc_ase.models.inference.networks import FieldMixing, LaterLayers
from lrc_ase.models.long_range import COULOMB_CONSTANT, LongRangePart
from lrc_ase.structures.graph import Graph

__all__ = ["LongRangeStep"]


class LongRangeGradients(NamedTuple):
    """Gradients of the total energy by what the long-range part takes."""

    by_hidden_of_weights: Tensor
    by_positions: Tensor
    """(n_atoms, 3), float64."""
    by_vectors: Tensor | None
    """(n_atoms, n_neighbors, 3); None where charges do not depend on the vectors."""
    by_features: Tensor | None
    """By way of the excess charge alone."""


class LongRangeStep:
    """Values and gradients of a `LongRangePart`."""

    def __init__(self, part: LongRangePart, dtype: torch.dtype) -> None:
        self._part, self._dtype = part, dtype
        self._network = LaterLayers(part.weights)
        self._mixing = FieldMixing(part.mix, part.to_hidden) if part.settings.n_channels else None
        self._n_energies = int(part.settings.electrostatics)
        self.charges = NoCharges()
        self._field: MeshField | LayerField
        self.weights = torch.empty(0)
        self.values: FieldValues
        self._by_field = torch.empty(0)

    def prepare(self, graph: Graph) -> None:
        """Set a structure: all but its positions."""
        part = self._part
        self._network.prepare(graph)
        if part.transfers is not None:
            self.charges = MovedCharges(part, graph, self._dtype)
        elif part.settings.electrostatics:
            self.charges = ShiftedCharges(graph)
        self._field = MeshField(part, graph, self._dtype) if graph.pbc.all() else LayerField(part, graph)

    def __call__(
        self, features: Tensor, hidden: Tensor, hidden_of_weights: Tensor, vectors: Tensor, positions: Tensor
    ) -> Tensor:
        """Return the first hidden layer of the read-out with what the long-range part adds.

        `hidden` and `hidden_of_weights` are the first hidden layers of read-out and network for the weights.
        """
        if self.charges.excess is not None:
            addition, addition_of_weights = self.charges.excess(features)
            hidden, hidden_of_weights = hidden + addition, hidden_of_weights + addition_of_weights
        self.weights = self.charges(self._network(hidden_of_weights), vectors)
        self.values = self._field(self.weights, positions)
        if self._mixing is None:
            return hidden
        return hidden + self._mixing(self.values.field, self.weights[:, self._n_energies :])

    def pull(self, by_hidden: Tensor) -> LongRangeGradients:
        """Return the gradients by all arguments, given that by the hidden layer of the read-out."""
        by_field = self.values.field
        if self._mixing is not None:
            by_field, by_latent = self._mixing.pull(by_hidden)
        by_weights, by_positions = self._field.pull(by_field)
        if self._mixing is not None:
            by_weights[:, self._n_energies :] += by_latent
        by_outputs, by_vectors = self.charges.pull(by_weights)
        by_hidden_of_weights, by_features = self._network.pull(by_outputs), None
        if self.charges.excess is not None:
            by_features = self.charges.excess.pull(by_weights[:, 0], by_hidden, by_hidden_of_weights)
        return LongRangeGradients(by_hidden_of_weights, by_positions, by_vectors, by_features)

    def virial(self) -> Tensor:
        """Return the gradient of the energy by a strain at fixed weights and fractional coordinates, (3, 3)."""
        return self._field.virial()

    def atomic_energies(self) -> Tensor:
        """Return the share of each atom in the electrostatic energy, (n_atoms,), eV."""
        return 0.5 * COULOMB_CONSTANT * self.weights[:, 0] * self.values.potential[:, 0]

"""The long-range part of a step without autograd: weights, their field, and what the read-out takes of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lrc_ase.models.inference.charges import MovedCharges, NoCharges, ShiftedCharges
from lrc_ase.models.inference.field import FieldValues, LayerField, MeshField
from lrc_ase.models.inference.networks import FieldMixing, LaterLayers
from lrc_ase.models.inference.pair_field import PairField
from lrc_ase.models.inference.response import ResponseStep
from lrc_ase.models.long_range import COULOMB_CONSTANT, LongRangePart
from lrc_ase.structures.graph import Graph

__all__ = ["LongRangeStep"]


class LongRangeGradients(NamedTuple):
    """Gradients of the total energy by what the long-range part takes."""

    by_hidden_of_weights: Tensor
    by_positions: Tensor
    """(n_atoms, 3), float64."""
    by_vectors: Tensor | None
    """(n_atoms, n_neighbors, 3); None where neither charges nor dipoles depend on the vectors."""
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
        self.response = None if part.response is None else ResponseStep(part.response)
        self._field: MeshField | PairField | LayerField
        self.weights = torch.empty(0)
        self.values: FieldValues
        self._by_field = torch.empty(0)

    def prepare(self, graph: Graph) -> None:
        """Set a structure: all but its positions."""
        part = self._part
        self._network.prepare(graph)
        if self.response is not None:
            self.response.prepare(graph)
        if part.transfers is not None:
            self.charges = MovedCharges(part, graph, self._dtype)
        elif part.settings.electrostatics:
            self.charges = ShiftedCharges(graph)
        if graph.pbc.all():
            self._field = MeshField(part, graph, self._dtype)
        elif PairField.serves(part, graph):
            self._field = PairField(part, graph, self._dtype)
        else:
            self._field = LayerField(part, graph)

    def __call__(
        self, features: Tensor, hidden: Tensor, hidden_of_weights: Tensor, vectors: Tensor, positions: Tensor
    ) -> Tensor:
        """Return the first hidden layer of the read-out with what the long-range part adds.

        `hidden` and `hidden_of_weights` are the first hidden layers of read-out and network for the weights.
        """
        if self.charges.excess is not None:
            addition, addition_of_weights = self.charges.excess(features)
            hidden, hidden_of_weights = hidden + addition, hidden_of_weights + addition_of_weights
        outputs = self._network(hidden_of_weights)
        outputs, responses = outputs.tensor_split([outputs.shape[1] - self._part.n_responses], dim=1)
        self.weights = self.charges(outputs, vectors)
        self.values = self._field(self.weights, positions)
        if self.response is not None:
            assert self.values.gradient is not None
            self.response(responses, vectors, self.values.gradient)
        if self._mixing is None:
            return hidden
        return hidden + self._mixing(self.values.field, self.weights[:, self._n_energies :])

    def pull(self, by_hidden: Tensor) -> LongRangeGradients:
        """Return the gradients by all arguments, given that by the hidden layer of the read-out."""
        by_field = self.values.field
        if self._mixing is not None:
            by_field, by_latent = self._mixing.pull(by_hidden)
        response = self.response
        by_weights, by_positions = self._field.pull(by_field, None if response is None else response.by_gradient)
        if self._mixing is not None:
            by_weights[:, self._n_energies :] += by_latent
        by_outputs, by_vectors = self.charges.pull(by_weights)
        if response is not None:
            by_responses, by_vectors_of_dipoles = response.pull()
            by_outputs = torch.cat([by_outputs, by_responses], dim=1)
            if by_vectors is None:
                by_vectors = by_vectors_of_dipoles
            elif by_vectors_of_dipoles is not None:
                by_vectors += by_vectors_of_dipoles
        by_hidden_of_weights, by_features = self._network.pull(by_outputs), None
        if self.charges.excess is not None:
            by_features = self.charges.excess.pull(by_weights[:, 0], by_hidden, by_hidden_of_weights)
        return LongRangeGradients(by_hidden_of_weights, by_positions, by_vectors, by_features)

    def virial(self) -> Tensor:
        """Return the gradient of the energy by a strain at fixed weights and fractional coordinates, (3, 3)."""
        return self._field.virial()

    def atomic_dipoles(self) -> Tensor | None:
        """Return the dipoles of transfers and atoms, (n_atoms, 3), e Angstrom in float64; None in a model without."""
        of_transfers = self.charges.transfer_dipoles
        parts = [of_transfers, None if self.response is None else self.response.dipoles]
        present = [each.double() for each in parts if each is not None]
        return sum(present[1:], start=present[0]) if present else None

    def atomic_energies(self) -> Tensor:
        """Return the share of each atom in the electrostatic energy, (n_atoms,), eV."""
        return 0.5 * COULOMB_CONSTANT * self.weights[:, 0] * self.values.potential[:, 0]

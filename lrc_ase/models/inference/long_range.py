"""The long-range part of a step without autograd: weights, their field, and what the read-out takes of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from lrc_ase.models.inference.charges import MovedCharges, NoCharges, ShiftedCharges
from lrc_ase.models.inference.field import FieldValues, LayerField, MeshField
from lrc_ase.models.inference.networks import Columns, FieldMixing, LaterLayers
from lrc_ase.models.inference.pair_field import PairField
from lrc_ase.models.inference.response import ResponseStep
from lrc_ase.models.long_range import COULOMB_CONSTANT, LongRangePart
from lrc_ase.structures.graph import Graph

__all__ = ["LongRangeStep"]


class LongRangeGradients(NamedTuple):
    """Gradients of the total energy by what the long-range part takes."""

    by_positions: np.ndarray
    """(n_atoms, 3), float64."""
    by_vectors: np.ndarray | None
    """(n_atoms, n_neighbors, 3); None where neither charges nor dipoles depend on the vectors."""
    by_features: np.ndarray | None
    """By way of the excess charge alone."""


class LongRangeStep:
    """Values and gradients of a `LongRangePart`."""

    def __init__(self, part: LongRangePart, dtype: torch.dtype) -> None:
        self._part, self._dtype = part, dtype
        self._network = LaterLayers(part.weights)
        self._n_outputs = part.weights.last.out_features
        self._mixing = FieldMixing(part.mix, part.to_hidden) if part.settings.n_channels else None
        self._n_energies = int(part.settings.electrostatics)
        self.charges = NoCharges()
        self.response = None if part.response is None else ResponseStep(part.response)
        self._field: MeshField | PairField | LayerField
        self.weights = np.empty(0)
        self.values: FieldValues

    def prepare(self, graph: Graph) -> None:
        """Set a structure: all but its positions."""
        part = self._part
        self._network.prepare(graph)
        if self._mixing is not None:
            self._mixing.prepare(graph)
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
        self,
        features: np.ndarray,
        hidden: Columns,
        hidden_of_weights: Columns,
        vectors: np.ndarray,
        positions: np.ndarray,
    ) -> None:
        """Add to the first hidden layer of the read-out.

        `hidden` and `hidden_of_weights` are the first hidden layers of read-out and network for the weights.
        """
        if self.charges.excess is not None:
            for layer, addition in zip((hidden, hidden_of_weights), self.charges.excess(features), strict=True):
                _columns(layer, addition.shape[1])[...] += addition
        outputs, n = self._network(hidden_of_weights), self._n_outputs - self._part.n_responses
        self.weights = self.charges(outputs[:, :n], vectors)
        self.values = self._field(self.weights, positions)
        if self.response is not None:
            assert self.values.gradient is not None
            self.response(outputs[:, n : self._n_outputs], vectors, self.values.gradient)
        if self._mixing is not None:
            self._mixing(self.values.field, self.weights[:, self._n_energies :], hidden)

    def pull(self, by_hidden: Columns, by_hidden_of_weights: Columns) -> LongRangeGradients:
        """Write the gradient by the hidden layer of the weights, given that by the hidden layer of the read-out."""
        by_field, by_latent = self.values.field, None
        if self._mixing is not None:
            by_field, by_latent = self._mixing.pull(by_hidden)
        response, by_gradient = self.response, None
        if response is not None:
            by_gradient = response.by_gradient
        by_weights, by_positions = self._field.pull(by_field, by_gradient)
        if by_latent is not None:
            by_weights[:, self._n_energies :] += by_latent
        n_all = self._n_outputs
        n = n_all - self._part.n_responses
        by_outputs = np.zeros((len(by_weights), n_all), by_weights.dtype)
        by_vectors = self.charges.pull(by_weights, by_outputs[:, :n])
        if response is not None:
            by_vectors_of_dipoles = response.pull(by_outputs[:, n:])
            if by_vectors is None:
                by_vectors = by_vectors_of_dipoles
            elif by_vectors_of_dipoles is not None:
                by_vectors += by_vectors_of_dipoles
        self._network.pull(by_outputs, by_hidden_of_weights.array)
        by_features = None
        if self.charges.excess is not None:
            layers = zip((by_hidden, by_hidden_of_weights), self.charges.excess.widths, strict=True)
            by_features = self.charges.excess.pull(by_weights[:, 0], *(_columns(*each) for each in layers))
        return LongRangeGradients(by_positions, by_vectors, by_features)

    def virial(self) -> np.ndarray:
        """Return the gradient of the energy by a strain at fixed weights and fractional coordinates, (3, 3)."""
        return self._field.virial()

    def atomic_dipoles(self) -> np.ndarray | None:
        """Return the dipoles of transfers and atoms, (n_atoms, 3), e Angstrom in float64; None in a model without."""
        of_transfers = self.charges.transfer_dipoles
        parts = [of_transfers, None if self.response is None else self.response.dipoles]
        present = [each.astype(np.float64) for each in parts if each is not None]
        return sum(present[1:], start=present[0]) if present else None

    def atomic_energies(self) -> np.ndarray:
        """Return the share of each atom in the electrostatic energy, (n_atoms,), eV."""
        return (0.5 * COULOMB_CONSTANT) * self.weights[:, 0] * self.values.potential[:, 0]


def _columns(layer: Columns, n_columns: int) -> np.ndarray:
    return layer.array[:, layer.first : layer.first + n_columns]

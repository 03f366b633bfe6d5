"""The long-range part of a step without autograd: weights, their field, and what the read-out takes of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from lrc_ase.layer.mesh import total
from lrc_ase.models.inference.charges import MovedCharges, NoCharges, ShiftedCharges
from lrc_ase.models.inference.external_field import ExternalField
from lrc_ase.models.inference.field import FieldValues, LayerField, MeshField
from lrc_ase.models.inference.networks import Columns, FieldMixing, LaterLayers
from lrc_ase.models.inference.pair_field import PairField
from lrc_ase.models.inference.response import ResponseStep
from lrc_ase.models.long_range import COULOMB_CONSTANT, LongRangePart
from lrc_ase.models.polarization import NO_CHARGES
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
        self._permittivity = 1.0
        self._n_atoms = 0
        self._external: ExternalField | None = None

    def prepare(self, graph: Graph) -> None:
        """Set a structure: all but its positions."""
        part = self._part
        # screened charges are the true ones over the root of the permittivity of a bulk
        self._permittivity = part.settings.eps_inf if graph.pbc.all() else 1.0
        # one for an empty box, which has nothing to divide among atoms
        self._n_atoms = max(int(total(torch.tensor([graph.n_local]), graph.exchange)), 1)
        self._network.prepare(graph)
        if self._mixing is not None:
            self._mixing.prepare(graph)
        if self.response is not None:
            self.response.prepare(graph)
        if part.transfers is not None:
            self.charges = MovedCharges(part, graph, self._dtype)
        elif part.settings.electrostatics:
            self.charges = ShiftedCharges(graph, self._n_atoms)
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
        external: ExternalField | None,
    ) -> None:
        """Add to the first hidden layer of the read-out.

        `hidden` and `hidden_of_weights` are the first hidden layers of read-out and network for the weights.
        """
        self._external = external
        if self.charges.excess is not None:
            for layer, addition in zip((hidden, hidden_of_weights), self.charges.excess(features), strict=True):
                _columns(layer, addition.shape[1])[...] += addition
        outputs, n = self._network(hidden_of_weights), self._n_outputs - self._part.n_responses
        self.weights = self.charges(outputs[:, :n], vectors)
        self.values = self._field(self.weights, positions)
        if self.response is not None:
            assert self.values.gradient is not None
            self.response(outputs[:, n : self._n_outputs], vectors, self.values.gradient, external)
        if self._mixing is not None:
            self._mixing(self.values.field, self.weights[:, self._n_energies :], hidden)

    def pull(self, by_hidden: Columns, by_hidden_of_weights: Columns) -> LongRangeGradients:
        """Write the gradient by the hidden layer of the weights, given that by the hidden layer of the read-out."""
        by_field, by_latent, external = self.values.field, None, self._external
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
        by_vectors = self.charges.pull(by_weights, by_outputs[:, :n], external)
        if response is not None:
            by_vectors_of_dipoles = response.pull(by_outputs[:, n:])
            if by_vectors is None:
                by_vectors = by_vectors_of_dipoles
            elif by_vectors_of_dipoles is not None:
                by_vectors += by_vectors_of_dipoles
        self._network.pull(by_outputs, by_hidden_of_weights.array)
        by_features, by_charges = None, by_weights[:, 0]
        if external is not None:
            assert self.charges.carried is not None
            by_positions += external.by_positions(self.charges.carried)
            by_charges = by_charges + external.potential  # of carried charges, transfers have no part in it
        if self.charges.excess is not None:
            layers = zip((by_hidden, by_hidden_of_weights), self.charges.excess.widths, strict=True)
            by_features = self.charges.excess.pull(by_charges, *(_columns(*each) for each in layers))
        return LongRangeGradients(by_positions, by_vectors, by_features)

    def virial(self) -> np.ndarray:
        """Return the gradient of the energy by a strain at fixed weights and fractional coordinates, (3, 3)."""
        virial = self._field.virial()
        if self._external is None:
            return virial
        assert self.charges.carried is not None
        return virial + self._external.virial(self.charges.carried)

    def in_field(self, field: np.ndarray, unwrapped: np.ndarray, volume: float) -> ExternalField:
        """Return a field (3,) on the structure, for the next call.

        `unwrapped` is as in `ExternalField`, `volume` that of the cell in Angstrom^3.

        Raises
        ------
        ValueError
            The model has no latent charges.
        """
        if not self._n_energies:
            raise ValueError(NO_CHARGES)
        return ExternalField(field, unwrapped, self._permittivity, volume / self._n_atoms)

    def energies_in_field(self) -> np.ndarray:
        """Return the energies of the atoms in the external field but for those of their dipoles, (n_atoms,), eV."""
        assert self._external is not None
        assert self.charges.carried is not None
        return self._external.energies(self.charges.carried, self.charges.transfer_dipoles)

    def moment(self, unwrapped: np.ndarray) -> np.ndarray:
        """Return the polarization, (3,), e Angstrom; see `lrc_ase.models.polarization`."""
        assert self.charges.carried is not None
        moment, response = np.einsum("i,ij->j", self.charges.carried, unwrapped), self.response
        for dipoles in (self.charges.transfer_dipoles, None if response is None else response.dipoles):
            if dipoles is not None:
                moment += dipoles.sum(axis=0, dtype=np.float64)
        return self._permittivity**0.5 * moment

    def atomic_energies(self) -> np.ndarray:
        """Return the share of each atom in the electrostatic energy, (n_atoms,), eV."""
        return (0.5 * COULOMB_CONSTANT) * self.weights[:, 0] * self.values.potential[:, 0]


def _columns(layer: Columns, n_columns: int) -> np.ndarray:
    return layer.array[:, layer.first : layer.first + n_columns]

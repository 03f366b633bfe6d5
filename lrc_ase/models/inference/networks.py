r"""Networks with SiLU between their layers, with derivatives by the inputs written out.

.. math:: h_1 = W_1 x + b_1 + s_z + a, \qquad h_{n+1} = W_{n+1}\, \sigma(h_n) + b_{n+1}, \qquad
          \sigma(h) = h / (1 + e^{-h}),

with a shift s of each element and an addition a, which may depend on the positions (`lrc_ase.models.readout`). The
first layers of several networks that read the same features are one matrix product. Their hidden layers stand side by
side in one array, of which each network owns some columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lrc_ase.compiled.compilation import PRECISIONS
from lrc_ase.compiled.threads import run_over_atoms
from lrc_ase.models.inference.compiled_layers import layer_kernels, sigmoid_table, width_of
from lrc_ase.models.readout import ReadOut
from lrc_ase.structures.graph import Graph

__all__ = ["Columns", "FieldMixing", "FirstLayers", "LaterLayers", "Layers"]


class Columns(NamedTuple):
    """Columns of an array (n_rows, n_columns), from `first` on."""

    array: np.ndarray
    first: int = 0


_NO_COLUMNS = Columns(np.empty((0, 0)))


class Layers:
    """Dense layers with SiLU between them, and their derivative by the inputs.

    Parameters
    ----------
    weights
        Matrix of each layer, (n_outputs, n_inputs), or (n_kinds, n_outputs, n_inputs) for one of each kind of row.
    constants
        What each layer adds, (n_kinds, n_outputs).
    is_active
        True if the inputs go through SiLU first.
    """

    def __init__(self, weights: Sequence[Tensor], constants: Sequence[Tensor], *, is_active: bool) -> None:
        matrices = [weight.detach().numpy() for weight in weights]
        precision = PRECISIONS[matrices[0].dtype]
        self.width = width_of(precision)
        self._per_kind, self._n_kinds = matrices[0].ndim == 3, len(constants[0])
        sizes = [matrices[0].shape[-1], *(matrix.shape[-2] for matrix in matrices)]
        self._sizes = np.array([(size, self.filled(size)) for size in sizes])
        self._panels = _panels([np.swapaxes(matrix, -1, -2) for matrix in matrices], self.width)
        self._panels_of_pull = _panels(matrices[::-1], self.width)
        filled = [_filled(constant.detach().numpy(), self.width) for constant in constants]
        self._constants = np.ascontiguousarray(np.concatenate(filled, axis=1))
        self._is_active, self._table = is_active, sigmoid_table(precision)
        self._forward, self._pull = layer_kernels(precision)
        self._n_hidden = int(self._sizes[1:-1, 1].sum())
        self._kinds = np.empty(0, np.int64)
        self._inputs, self._hidden = _NO_COLUMNS, _NO_COLUMNS.array

    def filled(self, size: int) -> int:
        """Return the number of columns of a layer, filled up to whole vectors."""
        return -(-size // self.width) * self.width

    def prepare(self, kinds: np.ndarray) -> None:
        """Set the kind of each row, int64 (n_rows,)."""
        self._kinds = kinds

    def rows(self, layer: int) -> np.ndarray:
        """Return zeros for the inputs (0) or the outputs (-1), (n_rows, columns filled up)."""
        return np.zeros((len(self._kinds), self._sizes[layer, 1]), self._panels.dtype)

    def __call__(self, inputs: Columns, outputs: Columns, *, adds: bool = False) -> None:
        """Write the outputs, or add them to what is there."""
        self._inputs = inputs
        self._hidden = np.empty(len(self._kinds) * self._n_hidden, self._panels.dtype)
        arguments = (
            inputs.array, inputs.first, inputs.array.shape[1], self._kinds, self._panels, self._per_kind,
            self._constants, self._sizes, self._is_active, self._table, self._hidden,
            outputs.array, outputs.first, outputs.array.shape[1], adds,
        )  # fmt: skip
        run_over_atoms(self._forward, arguments, len(self._kinds), torch.get_num_threads())

    def pull(self, by_outputs: Columns, by_inputs: np.ndarray) -> np.ndarray:
        """Write the gradient by the inputs into the same columns of `by_inputs`, given that by the outputs; return it.

        Columns that fill up the outputs are not read.
        """
        inputs, hidden = self._inputs, self._hidden
        arguments = (
            inputs.array, inputs.first, inputs.array.shape[1], self._kinds, self._panels_of_pull, self._per_kind,
            self._n_kinds, self._sizes, self._is_active, self._table, hidden,
            by_outputs.array, by_outputs.first, by_outputs.array.shape[1], by_inputs,
        )  # fmt: skip
        self._inputs, self._hidden = _NO_COLUMNS, _NO_COLUMNS.array  # the memory, until the next step
        run_over_atoms(self._pull, arguments, len(self._kinds), torch.get_num_threads())
        return by_inputs


class FirstLayers:
    """First layers of several networks that read the same features, as one matrix product."""

    def __init__(self, networks: Sequence[ReadOut]) -> None:
        width = width_of(str(networks[0].dtype)[6:])
        parts = [network.first for network in networks]
        missing = [-len(part.bias) % width for part in parts]
        weight = torch.cat([nn.functional.pad(p.weight, (0, 0, 0, n)) for p, n in zip(parts, missing, strict=True)])
        constants = [
            nn.functional.pad(network.first.bias + network.element_shift.weight, (0, n))
            for network, n in zip(networks, missing, strict=True)
        ]
        self._layers = Layers([weight], [torch.cat(constants, dim=1)], is_active=False)
        ends = np.cumsum([constant.shape[1] for constant in constants]).tolist()
        self.columns = [0, *ends[:-1]]
        """First column of each network in the hidden layer."""

    def prepare(self, graph: Graph) -> None:
        """Set the elements of the atoms."""
        self._layers.prepare(graph.of_local(graph.species).numpy())

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the first hidden layers before their activation, (n_atoms, n_hidden)."""
        hidden = self._layers.rows(-1)
        self._layers(Columns(features), Columns(hidden))
        return hidden

    def pull(self, by_hidden: np.ndarray) -> np.ndarray:
        """Return the gradient by the features, filled up to whole vectors, given that by the hidden layers."""
        return self._layers.pull(Columns(by_hidden), self._layers.rows(0))


class LaterLayers:
    """All layers of a network after the first."""

    def __init__(self, network: ReadOut) -> None:
        layers = [layer for layer in (*network.middle, network.last) if isinstance(layer, nn.Linear)]
        n_elements = len(network.element_bias.weight)
        constants = [layer.bias.expand(n_elements, -1) for layer in layers]
        constants[-1] = constants[-1] + network.element_bias.weight
        self._layers = Layers([layer.weight for layer in layers], constants, is_active=True)

    def prepare(self, graph: Graph) -> None:
        """Set the elements of the atoms."""
        self._layers.prepare(graph.of_local(graph.species).numpy())

    def __call__(self, hidden: Columns) -> np.ndarray:
        """Return the outputs, (n_atoms, n_outputs filled up), of the first hidden layer before its activation."""
        outputs = self._layers.rows(-1)
        self._layers(hidden, Columns(outputs))
        return outputs

    def pull(self, by_outputs: np.ndarray, by_hidden: np.ndarray) -> None:
        """Write the gradient by the first hidden layer into its columns of `by_hidden`, given that by the outputs."""
        self._layers.pull(Columns(by_outputs), by_hidden)


class FieldMixing:
    """Network g of the field u and of f * u, whose output is added to the first hidden layer of the read-out."""

    def __init__(self, mix: nn.Linear, to_hidden: nn.Linear) -> None:
        self._n_channels = mix.in_features // 2
        constants = mix.bias[None], mix.bias.new_zeros(1, to_hidden.out_features)
        self._layers = Layers([mix.weight, to_hidden.weight], constants, is_active=False)
        self._latent = self._field = np.empty((0, 0))

    def prepare(self, graph: Graph) -> None:
        """Set the number of atoms."""
        self._layers.prepare(np.zeros(graph.n_local, np.int64))

    def __call__(self, field: np.ndarray, latent: np.ndarray, hidden: Columns) -> None:
        """Add to the hidden layer, given field and latent weights (n_atoms, n_channels)."""
        n, inputs = self._n_channels, self._layers.rows(0)
        self._field, self._latent = field, latent
        inputs[:, :n] = field
        np.multiply(field, latent, out=inputs[:, n : 2 * n])
        self._layers(Columns(inputs), hidden, adds=True)

    def pull(self, by_hidden: Columns) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradients by field and latent weights, given that by the hidden layer."""
        n = self._n_channels
        by_inputs = self._layers.pull(by_hidden, self._layers.rows(0))
        by_product = by_inputs[:, n : 2 * n]
        return by_inputs[:, :n] + by_product * self._latent, by_product * self._field


def _filled(rows: np.ndarray, width: int) -> np.ndarray:
    """Fill the last axis with zeros to whole vectors."""
    return np.pad(rows, [*[(0, 0)] * (rows.ndim - 1), (0, -rows.shape[-1] % width)])


def _panels(matrices: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Return panels (n_inputs, width) of columns of the matrices (..., n_inputs, n_outputs), one after the other."""
    parts = []
    for matrix in matrices:
        panels = _filled(matrix, width).reshape(*matrix.shape[:-1], -1, width)
        parts.append(torch.from_numpy(np.moveaxis(panels, -2, -3).copy()).flatten())
    # memory of torch begins at a cache line, and so do the rows of panels
    return torch.cat(parts).numpy()

r"""Networks with SiLU between their layers, with derivatives by the inputs written out.

.. math:: h_1 = W_1 x + b_1 + s_z + a, \qquad h_{n+1} = W_{n+1}\, \sigma(h_n) + b_{n+1}, \qquad
          \sigma(h) = h / (1 + e^{-h}),

with a shift s of each element and an addition a, which may depend on the positions (`lrc_ase.models.readout`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lrc_ase.models.readout import ReadOut
from lrc_ase.structures.graph import Graph

__all__ = ["FieldMixing", "FirstLayers", "LaterLayers"]


_silu_pull = torch.ops.aten.silu_backward.default
"""Multiply a gradient, the first argument, by the derivative of SiLU at the second."""


class FirstLayers:
    """First layers of several networks that read the same features, as one matrix product."""

    def __init__(self, networks: Sequence[ReadOut]) -> None:
        self.weight = torch.cat([network.first.weight for network in networks]).detach()
        self._transposed = self.weight.T.contiguous()
        self._bias = torch.cat([network.first.bias for network in networks]).detach()
        self._shifts = torch.cat([network.element_shift.weight for network in networks], dim=1).detach()
        self._widths = [len(network.first.bias) for network in networks]
        self._constants = torch.empty(0)

    def prepare(self, graph: Graph) -> None:
        """Set the elements of the atoms."""
        self._constants = self._bias + self._shifts[graph.species]

    def __call__(self, features: Tensor) -> Sequence[Tensor]:
        """Return the first hidden layer of each network before its activation, (n_atoms, n_hidden)."""
        return torch.addmm(self._constants, features, self._transposed).split(self._widths, dim=1)

    def pull(self, gradients: Sequence[Tensor]) -> Tensor:
        """Return the gradient by the features, given those by the hidden layers."""
        return torch.mm(torch.cat(list(gradients), dim=1) if len(gradients) > 1 else gradients[0], self.weight)


class LaterLayers:
    """All layers of a network after the first."""

    def __init__(self, network: ReadOut) -> None:
        layers = [layer for layer in (*network.middle, network.last) if isinstance(layer, nn.Linear)]
        self._weights = [layer.weight.detach() for layer in layers]
        self._biases = [layer.bias.detach() for layer in layers]
        self._element_bias = network.element_bias.weight.detach()
        self._hidden: list[Tensor] = []
        self._constants = torch.empty(0)

    def prepare(self, graph: Graph) -> None:
        """Set the elements of the atoms."""
        self._constants = self._biases[-1] + self._element_bias[graph.species]

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the outputs, (n_atoms, n_outputs), of the first hidden layer before its activation."""
        self._hidden = [hidden]
        for weight, bias in zip(self._weights[:-1], self._biases[:-1], strict=True):
            hidden = torch.addmm(bias, nn.functional.silu(hidden), weight.T)
            self._hidden.append(hidden)
        return torch.addmm(self._constants, nn.functional.silu(hidden), self._weights[-1].T)

    def pull(self, gradient: Tensor) -> Tensor:
        """Return the gradient by the first hidden layer, given that by the outputs."""
        for weight in reversed(self._weights):
            gradient = _silu_pull(torch.mm(gradient, weight), self._hidden.pop())
        return gradient


class FieldMixing:
    """Network g of the field u and of f * u, whose output is added to the first hidden layer of the read-out."""

    def __init__(self, mix: nn.Linear, to_hidden: nn.Linear) -> None:
        self._weight, self._bias = mix.weight.detach(), mix.bias.detach()
        self._to_hidden = to_hidden.weight.detach()
        self._field = self._latent = self._mixed = torch.empty(0)

    def __call__(self, field: Tensor, latent: Tensor) -> Tensor:
        """Return the addition, (n_atoms, n_hidden), of field and latent weights (n_atoms, n_channels)."""
        self._field, self._latent = field, latent
        self._mixed = torch.addmm(self._bias, torch.cat([field, latent * field], dim=1), self._weight.T)
        return torch.mm(nn.functional.silu(self._mixed), self._to_hidden.T)

    def pull(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients by field and latent weights, given that by the addition."""
        by_mixed = _silu_pull(torch.mm(gradient, self._to_hidden), self._mixed)
        by_field, by_product = torch.mm(by_mixed, self._weight).chunk(2, dim=1)
        return torch.addcmul(by_field, by_product, self._latent), by_product * self._field

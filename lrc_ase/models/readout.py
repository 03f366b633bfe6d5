"""The feed-forward networks on top of the descriptors."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["ReadOut", "random_linear"]


class ReadOut(nn.Module):
    """Feed-forward network with biases per element in the first and last layer."""

    def __init__(
        self,
        n_inputs: int,
        n_elements: int,
        hidden: tuple[int, ...],
        generator: torch.Generator | None,
        *,
        n_outputs: int = 1,
    ) -> None:
        super().__init__()
        self.first = random_linear(n_inputs, hidden[0], generator)
        self.element_shift = nn.Embedding(n_elements, hidden[0])
        self.middle = nn.ModuleList(random_linear(a, b, generator) for a, b in pairwise(hidden))
        self.last = random_linear(hidden[-1], n_outputs, generator)
        self.element_bias = nn.Embedding(n_elements, n_outputs)
        with torch.no_grad():
            self.element_shift.weight.copy_(0.5 * torch.randn(self.element_shift.weight.shape, generator=generator))
            # reference energies already cover the mean energy of each element: its bias starts at zero
            self.element_bias.weight.zero_()

    @property
    def dtype(self) -> torch.dtype:
        return self.last.weight.dtype

    def forward(
        self, features: Tensor, species: Tensor, addition: Tensor | None = None, *, squeeze: bool = True
    ) -> Tensor:
        """Compute the outputs of each atom, (n_atoms, n_outputs), or (n_atoms,) if squeezed.

        `features` (n_atoms, n_inputs), `species` (n_atoms,). `addition` (n_atoms, hidden[0]) is added to the first
        hidden layer before its activation.
        """
        hidden = self.first(features) + self.element_shift(species)
        if addition is not None:
            hidden = hidden + addition
        hidden = nn.functional.silu(hidden)
        for layer in self.middle:
            hidden = nn.functional.silu(layer(hidden))
        output = self.last(hidden) + self.element_bias(species)
        return output[:, 0] if squeeze else output


def random_linear(n_inputs: int, n_outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """Return a linear layer with normal weights of variance 1/n_inputs and zero biases."""
    layer = nn.Linear(n_inputs, n_outputs)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / math.sqrt(n_inputs))
        layer.bias.zero_()
    return layer

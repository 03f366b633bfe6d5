"""Kernels side by side, and matrices of kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from lrc_ase.layer.constants import on_device
from lrc_ase.layer.kernels.multiplier import Multiplier, WaveNumbers

__all__ = ["Matrix", "Repeated", "Stack"]


class Stack(Multiplier):
    """Several multipliers side by side: their channels in order, spread and gathered together."""

    def __init__(self, multipliers: Sequence[Multiplier]) -> None:
        super().__init__()
        if not multipliers:
            raise ValueError("`multipliers` must hold at least one multiplier, got none")
        if any(multiplier.is_matrix for multiplier in multipliers):
            raise ValueError("`multipliers` of a stack must map channels one to one, got a Matrix; use two layers")
        self.multipliers = nn.ModuleList(multipliers)
        self.n_channels = sum(multiplier.n_channels for multiplier in multipliers)
        # the mesh must resolve the narrowest Gaussian, padding must hold the widest (`largest_smearing`)
        self.smearing = min(multiplier.smearing for multiplier in multipliers)
        # the most demanding kernel chooses the mesh
        self.accuracy_factor = min(multiplier.accuracy_factor for multiplier in multipliers)
        self.radial_in_every_dimension = all(multiplier.radial_in_every_dimension for multiplier in multipliers)

    @property
    def largest_smearing(self) -> float:
        return max(multiplier.largest_smearing for multiplier in self)

    def forward(self, waves: WaveNumbers) -> Tensor:
        # through `forward` of each kernel: it knows its closed form or its breakpoints in open directions
        return torch.cat([multiplier(waves) for multiplier in self], dim=-1)

    def fourier(self, squared: Tensor, dimension: int) -> Tensor:
        return torch.cat([multiplier.fourier(squared, dimension) for multiplier in self], dim=-1)

    def radial(self, distances: Tensor) -> Tensor:
        return torch.cat([multiplier.radial(distances) for multiplier in self], dim=-1)

    def radial_slope(self, distances: Tensor, n: int) -> Tensor:
        slopes = []
        for multiplier in self:
            if n > 0:
                slopes.append(multiplier.radial_slope(distances, min(n, multiplier.n_channels)))
                n -= multiplier.n_channels
        return torch.cat(slopes, dim=-1)

    def at_origin(self, dimension: int) -> Tensor:
        values = [multiplier.at_origin(dimension) for multiplier in self]
        # a kernel without parameters, such as Coulomb's, does not know the device
        device = next((parameter.device for parameter in self.parameters()), values[0].device)
        return torch.cat([on_device(each, device) for each in values])

    def __iter__(self) -> Iterator[Multiplier]:
        # `ModuleList` is typed as plain modules
        return (multiplier for multiplier in self.multipliers if isinstance(multiplier, Multiplier))


class Repeated(Multiplier):
    """Each kernel of a multiplier for several channels in turn, as for the components of a tensor.

    Channel c * n_times + i has kernel c.
    """

    def __init__(self, multiplier: Multiplier, n_times: int) -> None:
        super().__init__()
        if multiplier.is_matrix:
            raise ValueError("`multiplier` must map channels one to one, got a Matrix")
        if n_times < 1:
            raise ValueError(f"`n_times` must be a positive whole number, got {n_times}")
        self.multiplier, self.n_times = multiplier, n_times
        self.n_channels = n_times * multiplier.n_channels
        self.smearing = multiplier.smearing
        self.accuracy_factor = multiplier.accuracy_factor
        self.radial_in_every_dimension = multiplier.radial_in_every_dimension

    @property
    def largest_smearing(self) -> float:
        return self.multiplier.largest_smearing

    def forward(self, waves: WaveNumbers) -> Tensor:
        return self._repeated(self.multiplier(waves))

    def fourier(self, squared: Tensor, dimension: int) -> Tensor:
        return self._repeated(self.multiplier.fourier(squared, dimension))

    def radial(self, distances: Tensor) -> Tensor:
        return self._repeated(self.multiplier.radial(distances))

    def at_origin(self, dimension: int) -> Tensor:
        return self._repeated(self.multiplier.at_origin(dimension))

    def _repeated(self, values: Tensor) -> Tensor:
        return values.repeat_interleave(self.n_times, dim=-1)


class Matrix(Multiplier):
    r"""A matrix of kernels, :math:`u_a = \sum_b \phi_{ab} * f_b`: every output sums over all inputs.

    For each wave this is the d2 x d1 matrix of the paper's Algorithm 1.

    Parameters
    ----------
    multiplier
        Holds the kernels row by row: channel a * n_inputs + b is :math:`\phi_{ab}`.
    n_outputs, n_inputs
        Channels of the field and of the weights.
    """

    is_matrix = True

    def __init__(self, multiplier: Multiplier, n_outputs: int, n_inputs: int) -> None:
        super().__init__()
        if multiplier.is_matrix:
            raise ValueError("`multiplier` must map channels one to one, got a Matrix")
        if n_outputs < 1 or n_inputs < 1 or n_outputs * n_inputs != multiplier.n_channels:
            raise ValueError(
                f"`multiplier` must have n_outputs * n_inputs = {n_outputs} * {n_inputs} channels, "
                f"got {multiplier.n_channels}"
            )
        self.multiplier = multiplier
        self.n_channels = multiplier.n_channels
        self.shape = (n_outputs, n_inputs)  # rows as in Algorithm 1
        self.smearing = multiplier.smearing
        self.accuracy_factor = multiplier.accuracy_factor
        self.radial_in_every_dimension = multiplier.radial_in_every_dimension

    @property
    def n_inputs(self) -> int:
        return self.shape[1]

    @property
    def n_outputs(self) -> int:
        return self.shape[0]

    @property
    def largest_smearing(self) -> float:
        return self.multiplier.largest_smearing

    def forward(self, waves: WaveNumbers) -> Tensor:
        """Evaluate all kernels, (*waves, n_outputs * n_inputs)."""
        return self.multiplier(waves)  # flat: windows and truncation do not mix channels

    def arranged(self, values: Tensor) -> Tensor:
        return values.unflatten(-1, self.shape)  # (..., n_outputs, n_inputs)

    def fourier(self, squared: Tensor, dimension: int) -> Tensor:
        return self.multiplier.fourier(squared, dimension)

    def radial(self, distances: Tensor) -> Tensor:
        """Evaluate the kernels in real space, (*distances, n_outputs * n_inputs)."""
        return self.multiplier.radial(distances)

    def at_origin(self, dimension: int) -> Tensor:
        """Evaluate the kernels at distance zero, (n_outputs * n_inputs,)."""
        return self.multiplier.at_origin(dimension)

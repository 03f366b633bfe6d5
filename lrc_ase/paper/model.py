r"""The paper's networks for point clouds in one, two and three dimensions, with two ways to read out the energy.

.. math:: U = \sum_i F(D^{sr}_i, D^{lr}_i), \qquad u_i = \sum_j \phi_{\beta,\lambda}(x_i - x_j)

with the descriptor of eqs. 9-14 as printed, constant weights f = 1 and two screened-Coulomb channels (eq. 23).
Read-outs are the paper's (`NetworkReadOut`: the pyramid g of u and the residual network F) and ours (`LinearReadOut`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lrc_ase.layer.convolution import LongRangeConvolution
from lrc_ase.layer.kernels import BandLimited, Yukawa
from lrc_ase.layer.lattice import fractional_coordinates
from lrc_ase.models.descriptors.paper import PaperDescriptor, ResidualFittingNetwork
from lrc_ase.models.model import ModelOutput
from lrc_ase.models.settings import PaperSettings
from lrc_ase.paper.problems import Problem
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.vectors import neighbor_vectors

__all__ = [
    "STARTING_SCREENING",
    "LinearReadOut",
    "NetworkReadOut",
    "PointCloudModel",
    "exact_convolution",
    "highest_wave",
    "modes_below",
    "paper_convolution",
    "paper_descriptor",
]

STARTING_SCREENING = (3.0, 0.7)
r"""Where :math:`\lambda` of the networks' two channels starts, 1/Angstrom, in every experiment; :math:`\beta` starts at
1. Our recipe seeks :math:`\lambda` on a grid."""
_PYRAMID = (2, 4, 8, 16, 32)


class PointCloudModel(nn.Module):
    """Descriptor, optional long-range layer and read-out; called like every model of the project."""

    def __init__(self, descriptor: PaperDescriptor, readout: nn.Module, convolution: LongRangeConvolution | None):
        super().__init__()
        self.descriptor, self.readout, self.convolution = descriptor, readout, convolution

    def forward(self, graph: Graph, *, strain: Tensor | None = None) -> ModelOutput:
        """Compute atomic energies; a strain is not supported."""
        assert strain is None
        dtype = next(self.descriptor.parameters()).dtype
        vectors = neighbor_vectors(graph.positions, graph.cell, graph.neighbors, graph.shifts, graph.structure, dtype)
        features = self.descriptor(vectors, graph.neighbor_mask, graph.species, graph.neighbors)
        return ModelOutput(self.readout(features, self.field(graph, dtype)))

    def field(self, graph: Graph, dtype: torch.dtype) -> Tensor | None:
        """Compute the layer's output u for weights of one, (n_points, n_channels); None for a short-range model."""
        if self.convolution is None:
            return None
        cell = graph.cell.to(dtype)
        fractional = fractional_coordinates(graph.positions, graph.cell, graph.structure).to(dtype)
        ones = fractional.new_ones(graph.n_atoms, self.convolution.multiplier.n_channels)
        return self.convolution(ones, fractional, cell, structure=graph.structure, pbc=graph.pbc)

    @property
    def n_modes(self) -> int | None:
        """Return the number of modes along each direction; None for a short-range model."""
        if self.convolution is None:
            return None
        assert self.convolution.mesh_shape is not None
        return self.convolution.mesh_shape[0]

    @property
    def screening(self) -> list[float]:
        r"""Return :math:`\lambda` of the channels, 1/Angstrom; an empty list for a short-range model."""
        if self.convolution is None:
            return []
        kernel = self.convolution.multiplier
        yukawa = kernel.kernel if isinstance(kernel, BandLimited) else kernel
        assert isinstance(yukawa, Yukawa)
        return yukawa.screening.detach().tolist()


class LinearReadOut(nn.Module):
    """Our read-out: linear in the features and fields of a point, so that a model is a sum over pairs."""

    def __init__(self, n_features: int, n_channels: int) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(n_features + n_channels, dtype=torch.float64))

    def forward(self, features: Tensor, field: Tensor | None) -> Tensor:
        """Compute energies (n_points,) from features (n_points, n_features) and fields (n_points, n_channels)."""
        inputs = features if field is None else torch.cat([features, field], dim=-1)
        return inputs @ self.coefficients


class NetworkReadOut(nn.Module):
    """The paper's read-out: a pyramid of ReLU layers on the fields, and a residual network on all features.

    Fields are standardized by `mean` and `deviation` (n_channels,), as the paper does with 1/r, since the constant part
    of u is much larger than its variation. `scale` (eV) multiplies the output.
    """

    def __init__(
        self,
        n_features: int,
        *,
        scale: float,
        mean: Sequence[float] = (),
        deviation: Sequence[float] = (),
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.scale, self.mean, self.deviation = scale, tuple(mean), tuple(deviation)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((len(self.mean), *_PYRAMID)) if self.mean else ():
            linear = nn.Linear(n_in, n_out)
            nn.init.xavier_normal_(linear.weight, generator=generator)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        self.pyramid = nn.Sequential(*layers)
        self.n_inputs = n_features + (_PYRAMID[-1] if self.mean else 0)
        self.fitting = ResidualFittingNetwork(self.n_inputs, generator=generator)

    def forward(self, features: Tensor, field: Tensor | None) -> Tensor:
        """Compute energies (n_points,) from features (n_points, n_features) and fields (n_points, n_channels)."""
        if field is not None:
            standardized = (field - field.new_tensor(self.mean)) / field.new_tensor(self.deviation)
            features = torch.cat([features, self.pyramid(standardized)], dim=-1)
        return self.scale * self.fitting(features)


def paper_descriptor(problem: Problem, graphs: Sequence[Graph], generator: torch.Generator) -> PaperDescriptor:
    """Build the descriptor of eqs. 9-14 as printed, without an envelope; means and deviations from `graphs`."""
    settings = PaperDescriptor.settings_from_data(PaperSettings(envelope=False), graphs, cutoff=problem.cutoff)
    return PaperDescriptor(
        settings,
        n_elements=1,
        cutoff=problem.cutoff,
        average_neighbors=1.0,
        n_dimensions=problem.dimension,
        generator=generator,
    )


def highest_wave(problem: Problem, n_modes: int) -> float:
    """Return the wave number half a step beyond the last of `n_modes` (odd) along a direction, 1/Angstrom."""
    return math.pi / problem.length * n_modes


def modes_below(problem: Problem, highest: float) -> int:
    """Return the number of modes along a direction, odd, whose waves are all below `highest`, 1/Angstrom."""
    return 2 * math.floor(highest * problem.length / (2 * math.pi)) + 1


def exact_convolution(
    problem: Problem, highest: float, *, screening: Sequence[float] = STARTING_SCREENING
) -> LongRangeConvolution:
    """Build our layer: all waves below `highest`, summed exactly; the band limit leaves the rest within the cutoff."""
    n_modes = modes_below(problem, highest)
    kernel = BandLimited(Yukawa(screening, smearing=0.0), highest=highest, reach=problem.cutoff)
    return LongRangeConvolution(kernel, mesh_shape=(n_modes,) * problem.dimension, method="ewald", remove_self=False)


def paper_convolution(problem: Problem, n_modes: int) -> LongRangeConvolution:
    """Build the paper's layer: eq. 23 on its waves, summed exactly.

    The paper's Gaussian window on a mesh with as many points as modes adds an error of some percent to high modes.
    """
    kernel = Yukawa(STARTING_SCREENING, smearing=0.0)
    return LongRangeConvolution(kernel, mesh_shape=(n_modes,) * problem.dimension, method="ewald", remove_self=False)

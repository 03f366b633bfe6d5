"""Our recipe for the paper's problems, and the paper's measure of error.

The model has the paper's descriptor and layer with a linear read-out, in float64. Training first finds the screenings,
with polynomials instead of the descriptor. It then optimizes the networks of the descriptor by variable projection.
Last it solves for the read-out on all data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lrc_ase.dataset import LabelledGraph, collate_labelled
from lrc_ase.layer.kernels import BandLimited
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.descriptors.paper import PaperDescriptor
from lrc_ase.paper.columns import ForceColumns
from lrc_ase.paper.model import LinearReadOut, PointCloudModel, exact_convolution, modes_below, paper_descriptor
from lrc_ase.paper.problems import Problem, Snapshots, labelled_graphs
from lrc_ase.paper.screenings import find_screenings
from lrc_ase.paper.variable_projection import RIDGES, descend, solve_blocks

__all__ = ["STANDARDIZE_ON", "for_shaping", "force_error", "in_another_box", "refit", "train_ours"]

_SHAPING_FORCES = 4000
"""Force components on which screenings are found and networks descend; the read-out then sees all of the data."""
_BLOCK_FORCES = 8000
_N_STARTS, _STARTING_RIDGE = 16, 1e-3
"""Random networks of which the one that fits best descends, and the damping by which they are compared."""
_BIAS, _LARGEST_INPUT = 0.3, 2.0
"""Deviation of the biases with which networks start, and the largest input of their first layer in units of weights."""
STANDARDIZE_ON = 20
"""Snapshots from which means and deviations are taken, as the paper does with a small number of them."""

Report = Callable[[str], None]


def train_ours(
    snapshots: Snapshots,
    *,
    highest: float | None,
    seed: int,
    n_iterations: int,
    screening: tuple[float, float] | None = None,
    report: Report | None = None,
) -> PointCloudModel:
    """Train a model with a linear read-out and all waves below `highest` (1/Angstrom); short-range if that is None.

    `screening` (1/Angstrom) is fitted to the snapshots if None.
    """
    problem = snapshots.problem
    shaping = for_shaping(snapshots)
    generator = torch.Generator().manual_seed(seed)
    few = [item.graph for item in labelled_graphs(snapshots.first(STANDARDIZE_ON))]
    convolution = None
    if highest is not None:
        screening = screening or find_screenings(shaping, highest=highest)
        convolution = exact_convolution(problem, highest, screening=screening)
    n_modes = None if highest is None else modes_below(problem, highest)
    columns = ForceColumns(shaping, n_modes=n_modes, scale=snapshots.force_scale)
    nearest = float(columns.vectors.norm(dim=1).min())

    def untrained() -> PointCloudModel:
        descriptor = paper_descriptor(problem, few, generator).double()
        _start_networks(descriptor, nearest=nearest, generator=generator)
        n_channels = 0 if convolution is None else convolution.multiplier.n_channels
        return PointCloudModel(descriptor, LinearReadOut(descriptor.n_features, n_channels), convolution)

    model = min((untrained() for _ in range(_N_STARTS)), key=partial(_starting_error, columns))
    descend(
        lambda: columns.of(model),
        columns.target,
        list(model.descriptor.parameters()),
        n_iterations=n_iterations,
        report=None if report is None else lambda n, loss: report(f"iteration {n}: error {loss:.1e}"),
    )
    refit(model, [snapshots])
    return model


@torch.no_grad()
def _start_networks(descriptor: PaperDescriptor, *, nearest: float, generator: torch.Generator) -> None:
    """Initialize the networks with random biases, and so that no tanh of a close pair is saturated.

    Without biases the networks are odd, and the features of the two points of a pair cancel in two and three
    dimensions. 1/r of the `nearest` pair (Angstrom) is so many deviations from the mean that the tanh of a first layer
    of order one would keep only its sign.
    """
    for network in (descriptor.of_position, descriptor.of_distance):
        for layer in network:
            if isinstance(layer, nn.Linear):
                layer.bias.normal_(0, _BIAS, generator=generator)
    settings, first = descriptor.settings, descriptor.of_distance[0]
    assert settings.inverse_mean is not None
    assert settings.inverse_deviation is not None
    assert isinstance(first, nn.Linear)
    largest = abs(1 / nearest - settings.inverse_mean) / settings.inverse_deviation
    first.weight *= min(1.0, _LARGEST_INPUT / largest)


@torch.no_grad()
def _starting_error(columns: ForceColumns, model: PointCloudModel) -> float:
    """Return the norm of the residual forces with untrained networks and a fitted read-out."""
    start = columns.of(model)
    coefficients = solve_blocks([(start, columns.target)], ridge=_STARTING_RIDGE)
    return float((start @ coefficients - columns.target).norm())


def for_shaping(snapshots: Snapshots) -> Snapshots:
    """Return the snapshots on which screenings and networks are fitted: the read-out alone needs all."""
    return snapshots.first(max(1, math.ceil(_SHAPING_FORCES / snapshots.forces[0].size)))


def in_another_box(model: PointCloudModel, problem: Problem) -> PointCloudModel:
    """Return the model with the waves of another box; descriptor, read-out and kernel do not depend on the box."""
    assert model.convolution is not None
    assert isinstance(model.convolution.multiplier, BandLimited)
    convolution = exact_convolution(problem, model.convolution.multiplier.highest)
    convolution.multiplier = model.convolution.multiplier
    return PointCloudModel(model.descriptor, model.readout, convolution)


@torch.no_grad()
def refit(model: PointCloudModel, data: Sequence[Snapshots]) -> None:
    """Solve for the read-out of `model`, which includes the amplitudes beta, on snapshots of one or more boxes."""
    scale = data[0].force_scale

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        for snapshots in data:
            boxed = model if model.convolution is None else in_another_box(model, snapshots.problem)
            for part in snapshots.blocks(_BLOCK_FORCES):
                columns = ForceColumns(part, n_modes=boxed.n_modes, scale=scale)
                yield columns.of(boxed), columns.target

    coefficients = solve_blocks(blocks(), ridge=RIDGES[-1])
    assert isinstance(model.readout, LinearReadOut)
    model.readout.coefficients.copy_(scale * coefficients)


def force_error(model: PointCloudModel, snapshots: Snapshots, *, batch_size: int = 20) -> float:
    """Compute the relative l2 error of the forces over all snapshots (section 5)."""
    graphs: list[LabelledGraph] = labelled_graphs(snapshots)
    wrong = total = 0.0
    for start in range(0, len(graphs), batch_size):
        batch = collate_labelled(graphs[start : start + batch_size])
        forces = evaluate(model, batch.graph).forces  # type: ignore[arg-type]
        assert forces is not None
        wrong += float((forces - batch.forces).square().sum())
        total += float(batch.forces.square().sum())
    return math.sqrt(wrong / total)

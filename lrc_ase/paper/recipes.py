"""Our recipe for the paper's problems, and the paper's measure of error.

The paper's descriptor and layer, a linear read-out solved for by least squares, all else by variable projection, in
float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lrc_ase.dataset import LabelledGraph, collate_labelled
from lrc_ase.derivatives import evaluate
from lrc_ase.multipliers import BandLimited
from lrc_ase.paper.columns import ForceColumns
from lrc_ase.paper.model import (
    LinearReadOut,
    PointCloudModel,
    exact_convolution,
    paper_descriptor,
)
from lrc_ase.paper.problems import Problem, Snapshots, labelled_graphs
from lrc_ase.training.variable_projection import RIDGES, descend, solve_blocks

__all__ = ["STANDARDIZE_ON", "force_error", "force_scale", "in_another_box", "refit", "train_ours"]

_SHAPING_FORCES = 2000
"""Force components on which networks and screenings descend; the read-out then sees all of the data."""
_BLOCK_FORCES = 8000
STANDARDIZE_ON = 20
"""Snapshots from which means and deviations are taken, as the paper does with a small number of them."""

Report = Callable[[str], None]


def train_ours(
    snapshots: Snapshots, *, highest: float | None, seed: int, n_iterations: int, report: Report | None = None
) -> PointCloudModel:
    """Model with a linear read-out and all waves below `highest` (1/Angstrom); short-range where that is None."""
    problem = snapshots.problem
    generator = torch.Generator().manual_seed(seed)
    few = [item.graph for item in labelled_graphs(snapshots.first(STANDARDIZE_ON))]
    descriptor = paper_descriptor(problem, few, generator).double()
    convolution = None if highest is None else exact_convolution(problem, highest)
    n_channels = 0 if convolution is None else convolution.multiplier.n_channels
    model = PointCloudModel(descriptor, LinearReadOut(descriptor.n_features, n_channels), convolution)
    shaping = snapshots.first(max(1, math.ceil(_SHAPING_FORCES / snapshots.forces[0].size)))
    columns = ForceColumns(shaping, n_modes=model.n_modes, scale=force_scale(snapshots))
    screenings = [] if convolution is None else [p for n, p in convolution.named_parameters() if "amplitude" not in n]
    descend(
        lambda: columns.of(model),
        columns.target,
        [*screenings, *descriptor.parameters()],
        n_iterations=n_iterations,
        report=None if report is None else lambda n, loss: report(f"iteration {n}: error {loss:.1e}"),
    )
    refit(model, [snapshots])
    return model


def in_another_box(model: PointCloudModel, problem: Problem) -> PointCloudModel:
    """The same model with the waves of the box of `problem`: descriptor, read-out and kernel know of no box."""
    assert model.convolution is not None
    assert isinstance(model.convolution.multiplier, BandLimited)
    convolution = exact_convolution(problem, model.convolution.multiplier.highest)
    convolution.multiplier = model.convolution.multiplier
    return PointCloudModel(model.descriptor, model.readout, convolution)


@torch.no_grad()
def refit(model: PointCloudModel, data: Sequence[Snapshots]) -> None:
    """Solve for the read-out of `model`, which takes up the amplitudes beta, on snapshots of one or more boxes."""
    scale = force_scale(data[0])

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        for snapshots in data:
            boxed = model if model.convolution is None else in_another_box(model, snapshots.problem)
            for part in snapshots.blocks(_BLOCK_FORCES):
                columns = ForceColumns(part, n_modes=boxed.n_modes, scale=scale)
                yield columns.of(boxed), columns.target

    coefficients = solve_blocks(blocks(), ridge=RIDGES[-1])
    assert isinstance(model.readout, LinearReadOut)
    model.readout.coefficients.copy_(scale * coefficients)


def force_scale(snapshots: Snapshots) -> float:
    """Root mean square of the force components, eV/Angstrom."""
    return float(np.sqrt(np.mean(snapshots.forces**2)))


def force_error(model: PointCloudModel, snapshots: Snapshots, *, batch_size: int = 20) -> float:
    """Relative l2 error of the forces over all snapshots (section 5)."""
    graphs: list[LabelledGraph] = labelled_graphs(snapshots)
    wrong = total = 0.0
    for start in range(0, len(graphs), batch_size):
        batch = collate_labelled(graphs[start : start + batch_size])
        forces = evaluate(model, batch.graph).forces  # type: ignore[arg-type]
        assert forces is not None
        wrong += float((forces - batch.forces).square().sum())
        total += float(batch.forces.square().sum())
    return math.sqrt(wrong / total)

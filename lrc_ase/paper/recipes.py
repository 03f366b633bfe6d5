"""Two recipes for the paper's problems, and the paper's measure of error.

`paper`: its networks, Adam at 1e-3 falling by 0.95 every 10 epochs, batches of 8, 16, 32 and 64 snapshots for 200, 400,
800 and 1600 epochs, on forces alone, by the project's training loop. `ours`: the same descriptor and layer, a linear
read-out solved for by least squares, all else by variable projection, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from lrc_ase.dataset import LabelledGraph, collate_labelled
from lrc_ase.derivatives import evaluate
from lrc_ase.paper.columns import ForceColumns
from lrc_ase.paper.model import (
    LinearReadOut,
    NetworkReadOut,
    PointCloudModel,
    exact_convolution,
    paper_convolution,
    paper_descriptor,
)
from lrc_ase.paper.problems import Snapshots, labelled_graphs
from lrc_ase.training.configuration import LossConfiguration, StageConfiguration
from lrc_ase.training.loop import EpochRecord, StageLoop
from lrc_ase.training.variable_projection import RIDGES, descend, solve_blocks

__all__ = ["PAPER_EPOCHS", "force_error", "refit", "train_ours", "train_paper"]

PAPER_EPOCHS = (200, 400, 800, 1600)
_SHAPING_FORCES = 2000
"""Force components on which networks and screenings descend; the read-out then sees all of the data."""
_BLOCK_FORCES = 8000
_STANDARDIZE_ON = 20
"""Snapshots from which means and deviations are taken, as the paper does with a small number of them."""

Report = Callable[[str], None]


def train_ours(
    snapshots: Snapshots,
    *,
    n_modes: int | None,
    seed: int,
    n_iterations: int,
    start: PointCloudModel | None = None,
    report: Report | None = None,
) -> PointCloudModel:
    """Model with a linear read-out; short-range where `n_modes` is None.

    `start` gives a trained descriptor, which is copied and stays as it is: then the screenings alone descend (the
    second of two scales).
    """
    problem = snapshots.problem
    generator = torch.Generator().manual_seed(seed)
    few = [item.graph for item in labelled_graphs(snapshots.first(_STANDARDIZE_ON))]
    descriptor = (paper_descriptor(problem, few, generator) if start is None else start.descriptor).double()
    convolution = None if n_modes is None else exact_convolution(problem, n_modes)
    n_channels = 0 if convolution is None else convolution.multiplier.n_channels
    model = PointCloudModel(descriptor, LinearReadOut(descriptor.n_features, n_channels), convolution)
    shaping = snapshots.first(max(1, math.ceil(_SHAPING_FORCES / snapshots.forces[0].size)))
    columns = ForceColumns(shaping, n_modes=n_modes, scale=force_scale(snapshots))
    moving = [] if convolution is None else [p for n, p in convolution.named_parameters() if "amplitude" not in n]
    if start is None:
        moving += list(descriptor.parameters())
    if moving:
        descend(
            lambda: columns.of(model),
            columns.target,
            moving,
            n_iterations=n_iterations,
            report=None if report is None else lambda n, loss: report(f"iteration {n}: error {loss:.1e}"),
        )
    refit(model, snapshots, n_modes=n_modes)
    return model


@torch.no_grad()
def refit(model: PointCloudModel, snapshots: Snapshots, *, n_modes: int | None) -> None:
    """Solve for the linear read-out of `model` on all of `snapshots`, whose amplitudes beta it takes up."""
    scale = force_scale(snapshots)
    parts = (ForceColumns(part, n_modes=n_modes, scale=scale) for part in snapshots.blocks(_BLOCK_FORCES))
    coefficients = solve_blocks(((part.of(model), part.target) for part in parts), ridge=RIDGES[-1])
    assert isinstance(model.readout, LinearReadOut)
    model.readout.coefficients.copy_(scale * coefficients)


def train_paper(
    snapshots: Snapshots,
    *,
    n_modes: int | None,
    seed: int,
    epochs: Sequence[int] = PAPER_EPOCHS,
    report: Report | None = None,
) -> PointCloudModel:
    """Model with the paper's networks, trained by its schedule, which starts anew in each of the four stages."""
    generator = torch.Generator().manual_seed(seed)
    graphs = labelled_graphs(snapshots)
    few = collate_labelled(graphs[:_STANDARDIZE_ON]).graph
    descriptor = paper_descriptor(snapshots.problem, [few], generator)
    convolution = None if n_modes is None else paper_convolution(snapshots.problem, n_modes)
    mean, deviation = torch.empty(0), torch.empty(0)
    if convolution is not None:
        with torch.no_grad():
            field = PointCloudModel(descriptor, torch.nn.Identity(), convolution).field(few, torch.float64)
        assert field is not None
        mean, deviation = field.mean(dim=0), field.std(dim=0)
    scale = force_scale(snapshots)
    readout = NetworkReadOut(
        descriptor.n_features, scale=scale, mean=mean.tolist(), deviation=deviation.tolist(), generator=generator
    )
    model = PointCloudModel(descriptor, readout, convolution).double()
    for number, n_epochs in enumerate(epochs):
        stage = StageConfiguration(
            name=f"batch-{8 * 2**number}",
            epochs=n_epochs,
            batch_size=8 * 2**number,
            optimizer="adamw",  # without weight decay: Adam
            learning_rate=1e-3,
            schedule="exponential",
            final_learning_rate=0.95 ** (n_epochs / 10),
            warmup=0.0,
            loss=LossConfiguration(energy=0.0, forces=1.0, stress=0.0),
            ema_decay=0.0,
            gradient_clip=None,
        )
        loop = StageLoop(model, stage, graphs, [], force_scale=scale, seed=seed)  # type: ignore[arg-type]
        loop.run(_Narrator(report))
    return model


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


class _Narrator:
    """Observer of the training loop that passes on what it says."""

    def __init__(self, report: Report | None) -> None:
        self.report = report

    def step_done(self, loop: StageLoop) -> None:
        """Nothing: steps are too many to speak of."""

    def epoch_done(self, loop: StageLoop, record: EpochRecord) -> None:
        """Tell the training loss, which is a squared relative error."""
        self.log(f"{loop.stage.name}, epoch {record.epoch}: error {math.sqrt(record.train['loss']):.1e}")

    def log(self, text: str) -> None:
        """Pass `text` on."""
        if self.report is not None:
            self.report(text)

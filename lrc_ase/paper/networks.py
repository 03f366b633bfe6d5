"""Training of the paper's networks on the mean squared error of the forces, by its schedule of Adam or by SOAP.

In the paper four stages of batches of 8, 16, 32 and 64 snapshots run for 200, 400, 800 and 1600 epochs, which makes
equally many steps; in each the rate falls from 1e-3 by 0.95 every ten epochs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from lrc_ase.dataset import collate_labelled
from lrc_ase.paper.force_batches import ForceBatches
from lrc_ase.paper.model import NetworkReadOut, PointCloudModel, paper_convolution, paper_descriptor
from lrc_ase.paper.problems import Snapshots, labelled_graphs
from lrc_ase.paper.recipes import STANDARDIZE_ON
from lrc_ase.training.soap import RowMajorSOAP

__all__ = ["Stage", "paper_schedule", "quick_schedule", "train_networks"]

_REPORT_EVERY = 50

Report = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """Steps of one optimizer on batches of one size, in a random order for each epoch."""

    n_steps: int
    batch_size: int
    """Snapshots in a batch; all snapshots if there are fewer."""
    rate: float
    last_rate: float
    """Rate at the end of the stage, after an exponential decay."""
    optimizer: Literal["adam", "soap"]


def paper_schedule(n_snapshots: int) -> list[Stage]:
    """Return the stages of the paper for a number of snapshots."""
    epochs = [(200 * 2**stage, 8 * 2**stage) for stage in range(4)]
    return [
        Stage(
            n_steps=math.ceil(n_epochs * n_snapshots / batch_size),
            batch_size=batch_size,
            rate=1e-3,
            last_rate=1e-3 * 0.95 ** (n_epochs / 10),
            optimizer="adam",
        )
        for n_epochs, batch_size in epochs
    ]


def quick_schedule(n_points: int) -> list[Stage]:
    """Return one short stage of SOAP, on batches of about 160 points, for snapshots of `n_points`."""
    return [Stage(3000, max(1, round(160 / n_points)), rate=1e-2, last_rate=3e-5, optimizer="soap")]


def train_networks(
    snapshots: Snapshots,
    *,
    n_modes: int | None,
    seed: int,
    schedule: list[Stage],
    start: PointCloudModel | None = None,
    report: Report | None = None,
) -> PointCloudModel:
    """Train a model with the paper's networks in single precision; short-range if `n_modes` is None.

    `start` is a trained short-range model with whose weights a full-range model starts (the second of two scales).
    """
    generator = torch.Generator().manual_seed(seed)
    model = _untrained(snapshots, n_modes, generator)
    if start is not None:
        _begin_as(model, start)
    model.float()
    batches = ForceBatches(snapshots, n_modes=n_modes, dtype=torch.float32)
    for number, stage in enumerate(schedule, start=1):
        _run_stage(model, batches, stage, snapshots.force_scale, generator, report, f"stage {number}")
    return model.double()


def _run_stage(
    model: PointCloudModel,
    batches: ForceBatches,
    stage: Stage,
    scale: float,
    generator: torch.Generator,
    report: Report | None,
    name: str,
) -> None:
    optimizer_class = {"adam": torch.optim.Adam, "soap": RowMajorSOAP}[stage.optimizer]
    optimizer = optimizer_class(model.parameters(), lr=stage.rate, weight_decay=0.0)
    falling = torch.optim.lr_scheduler.ExponentialLR(optimizer, (stage.last_rate / stage.rate) ** (1 / stage.n_steps))
    order = torch.empty(0, dtype=torch.int64)
    for step in range(1, stage.n_steps + 1):
        if len(order) < min(stage.batch_size, batches.n_snapshots):
            order = torch.randperm(batches.n_snapshots, generator=generator)
        chosen, order = order[: stage.batch_size], order[stage.batch_size :]
        loss = ((batches.forces_of(model, chosen) - batches.forces[chosen]) / scale).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
        if report is not None and step % _REPORT_EVERY == 0:
            report(f"{name}, step {step} of {stage.n_steps}: error {math.sqrt(float(loss.detach())):.1e}")


def _untrained(snapshots: Snapshots, n_modes: int | None, generator: torch.Generator) -> PointCloudModel:
    """Build an untrained model with the means and deviations of a few snapshots."""
    problem = snapshots.problem
    few = collate_labelled(labelled_graphs(snapshots.first(STANDARDIZE_ON))).graph
    descriptor = paper_descriptor(problem, [few], generator).double()
    convolution = None if n_modes is None else paper_convolution(problem, n_modes)
    mean: list[float] = []
    deviation: list[float] = []
    if convolution is not None:
        with torch.no_grad():
            field = PointCloudModel(descriptor, torch.nn.Identity(), convolution).field(few, torch.float64)
        assert field is not None
        mean, deviation = field.mean(dim=0).tolist(), field.std(dim=0).tolist()
    readout = NetworkReadOut(
        descriptor.n_features, scale=snapshots.force_scale, mean=mean, deviation=deviation, generator=generator
    )
    return PointCloudModel(descriptor, readout, convolution)


@torch.no_grad()
def _begin_as(model: PointCloudModel, start: PointCloudModel) -> None:
    """Copy weights so that the full-range `model` predicts the forces of the short-range model `start`."""
    readout, other = model.readout, start.readout
    assert isinstance(readout, NetworkReadOut)
    assert isinstance(other, NetworkReadOut)
    model.descriptor = copy.deepcopy(start.descriptor)
    readout.scale = other.scale
    weights = dict(other.fitting.state_dict())
    # features of the layer come last and start with weights of zero
    n_fields = readout.n_inputs - other.n_inputs
    weights["layers.0.weight"] = torch.nn.functional.pad(weights["layers.0.weight"], (0, n_fields))
    readout.fitting.load_state_dict(weights)

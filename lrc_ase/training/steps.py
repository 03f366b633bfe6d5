"""Gradients of one batch, in parts and by several processes, and errors over many batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from lrc_ase.dataset import LabelledGraph, collate_labelled
from lrc_ase.models.derivatives import born_effective_charges, evaluate
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.training.configuration import LossConfiguration
from lrc_ase.training.losses import ErrorSums, LabelCounts, loss_of
from lrc_ase.training.processes import Processes, balanced_parts
from lrc_ase.training.recorded_loss import RecordedLoss

__all__ = ["batch_gradient", "mean_errors", "trained_parameters"]


def batch_gradient(
    model: ShortRangeModel,
    graphs: Sequence[LabelledGraph],
    configuration: LossConfiguration,
    force_scale: float,
    *,
    n_parts: int = 1,
    step: int = 0,
    processes: Processes,
) -> Callable[[], ErrorSums]:
    """Add this process's share of the gradient of a batch's loss to the parameters; return a function for its errors.

    The batch is cut into `n_parts` parts for each process, of about the same number of atoms, which are evaluated one
    after the other. Losses are normalized by the labels of the whole batch, so that the shares sum to its gradient. The
    returned function waits for the device; call it when the gradients of all members are under way.

    One component of the polarization of each frame is compared with Born effective charges: three backward passes of
    all components would cost about the rest of the step once more. The component follows from the number of the `step`
    and the place of the frame in the batch, so that resumed runs repeat it.
    """
    parameters = trained_parameters(model)
    indices = list(range(len(graphs)))
    if n_parts * processes.size == 1:
        shares, counts = [indices], None
    else:
        parts = balanced_parts([graph.graph.n_atoms for graph in graphs], n_parts * processes.size)
        # every `size`-th part: `n_parts` for each process; all processes divide the batch alike
        shares = [part for part in parts[processes.rank :: processes.size] if part]
        counts = LabelCounts.of(graphs)
    evaluated = []
    for share in shares:
        batch = collate_labelled([graphs[index] for index in share])
        component = None
        if configuration.born_effective_charges and batch.born_effective_charges is not None:
            component = torch.tensor([(step + index) % 3 for index in share], device=batch.energy.device)
        results = evaluate(
            model,
            batch.graph,
            forces=bool(configuration.forces),
            stress=bool(configuration.stress),
            dipole=batch.dipole is not None,
            born_component=component,
            training=True,
        )
        loss = loss_of(results, batch, configuration, force_scale, counts)
        # by the parameters alone: positions, which forces were differentiated by, would cost a Hessian
        loss.backward(inputs=parameters)
        evaluated.append((results, batch, loss.detach()))

    def errors() -> ErrorSums:
        sums = ErrorSums()
        for results, batch, loss in evaluated:
            sums.add(results, batch, loss, len(graphs))
        return sums

    return errors


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that training changes."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def mean_errors(
    model: ShortRangeModel,
    graphs: Sequence[LabelledGraph],
    configuration: LossConfiguration,
    force_scale: float,
    *,
    batch_size: int,
    processes: Processes | None = None,
    recorded: RecordedLoss | None = None,
) -> dict[str, float]:
    """Compute loss and errors of `model` over `graphs` (see `ErrorSums.metrics`); processes share the batches.

    `recorded` is the model's loss by a recording, if there is one.
    """
    model.eval()
    processes = processes or Processes()
    total = ErrorSums()
    starts = range(0, len(graphs), batch_size)
    for start in starts[processes.rank :: processes.size]:
        chosen = [graphs[index] for index in range(start, min(start + batch_size, len(graphs)))]
        if recorded is not None:
            total += recorded(chosen)()
            continue
        batch = collate_labelled(chosen)
        results = evaluate(model, batch.graph, stress=bool(configuration.stress), dipole=batch.dipole is not None)
        if configuration.born_effective_charges and batch.born_effective_charges is not None:
            results = replace(results, born_effective_charges=born_effective_charges(model, batch.graph))
        with torch.no_grad():
            total.add(results, batch, loss_of(results, batch, configuration, force_scale))
    return ErrorSums.from_numbers(processes.add_up_numbers(total.numbers())).metrics()

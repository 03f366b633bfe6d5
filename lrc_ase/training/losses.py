"""What training minimises and what it reports on the way."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from lrc_ase.dataset import LabelledGraph
from lrc_ase.derivatives import Results
from lrc_ase.training.configuration import LossConfiguration

__all__ = ["ErrorSums", "loss_of"]


def loss_of(results: Results, batch: LabelledGraph, configuration: LossConfiguration, force_scale: float) -> Tensor:
    r"""Weighted loss of a batch, a dimensionless scalar.

    .. math:: L = w_E \langle \ell(\Delta E_s / (N_s F\,\mathrm{A})) \rangle_s
              + w_F \langle \ell(\Delta F_{ic} / F) \rangle_{ic}
              + w_S \langle \ell(V_s \Delta\sigma_{s,cd} / (N_s F\,\mathrm{A})) \rangle_{s,cd}

    in float64, with the root mean square F of the training forces, so that the force part with :math:`\ell(x) = x^2`
    is a relative squared error. Means go over what has labels. `force_scale` is F in eV/Angstrom.
    """
    graph = batch.graph
    sizes = torch.bincount(graph.structure, minlength=graph.n_structures)
    terms = []
    if configuration.energy:
        error = (results.energy - batch.energy) / (sizes * force_scale)
        terms.append(configuration.energy * _mean(error, batch.weight, configuration))
    if configuration.forces:
        assert results.forces is not None
        error = (results.forces - batch.forces) / force_scale
        terms.append(configuration.forces * _mean(error, batch.weight[graph.structure, None], configuration))
    if configuration.stress:
        assert results.stress is not None
        volumes = torch.linalg.det(graph.cell).abs()
        error = (volumes / (sizes * force_scale))[:, None, None] * (results.stress - batch.stress)
        terms.append(configuration.stress * _mean(error, batch.weight[:, None, None], configuration))
    return torch.stack(terms).sum()


def _mean(error: Tensor, weight: Tensor, configuration: LossConfiguration) -> Tensor:
    """Weighted mean of the loss function over the entries that have a label."""
    labelled = ~error.isnan()
    # replaced before the function: the gradient of NaN times zero is NaN
    error = torch.where(labelled, error, torch.zeros_like(error))
    if configuration.function == "mse":
        values = error**2
    else:  # twice torch's, to agree with the square at small errors
        values = 2 * torch.nn.functional.huber_loss(
            error, torch.zeros_like(error), reduction="none", delta=configuration.huber_delta
        )
    return (weight * values).sum() / labelled.sum().clamp(min=1)


@dataclass
class ErrorSums:
    """Sums over batches from which mean errors follow; plain numbers, so that a checkpoint can carry them."""

    loss: float = 0.0
    n_structures: int = 0
    energy_absolute: float = 0.0
    energy_square: float = 0.0
    n_energies: int = 0
    forces_absolute: float = 0.0
    forces_square: float = 0.0
    n_forces: int = 0

    def add(self, results: Results, batch: LabelledGraph, loss: Tensor) -> None:
        """Count in a batch."""
        graph = batch.graph
        sizes = torch.bincount(graph.structure, minlength=graph.n_structures)
        sums = [loss.detach().double()]
        counts = []
        for predicted, label, scale in (
            (results.energy, batch.energy, sizes),
            (results.forces, batch.forces, torch.ones_like(sizes[:1])),
        ):
            if predicted is None:
                sums += [loss.new_zeros((), dtype=torch.float64)] * 2
                counts.append(loss.new_zeros((), dtype=torch.float64))
                continue
            error = (predicted.detach() - label).double() / scale
            labelled = ~label.isnan()
            error = torch.where(labelled, error, torch.zeros_like(error))
            sums += [error.abs().sum(), (error**2).sum()]
            counts.append(labelled.sum().double())
        # one transfer from the device per batch
        value, energy_abs, energy_sq, forces_abs, forces_sq, n_energies, n_forces = torch.stack(sums + counts).tolist()
        self.loss += value * graph.n_structures
        self.n_structures += graph.n_structures
        self.energy_absolute += energy_abs
        self.energy_square += energy_sq
        self.n_energies += int(n_energies)
        self.forces_absolute += forces_abs
        self.forces_square += forces_sq
        self.n_forces += int(n_forces)

    def metrics(self) -> dict[str, float]:
        """Mean loss, energy errors in meV/atom, force errors in meV/Angstrom; NaN where nothing was counted."""
        return {
            "loss": _ratio(self.loss, self.n_structures),
            "energy_mae": 1e3 * _ratio(self.energy_absolute, self.n_energies),
            "energy_rmse": 1e3 * math.sqrt(_ratio(self.energy_square, self.n_energies)),
            "forces_mae": 1e3 * _ratio(self.forces_absolute, self.n_forces),
            "forces_rmse": 1e3 * math.sqrt(_ratio(self.forces_square, self.n_forces)),
        }

    def to_json(self) -> dict[str, float]:
        """Plain numbers; `ErrorSums(**sums)` reads them back."""
        return asdict(self)


def _ratio(numerator: float, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan

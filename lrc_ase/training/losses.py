"""Loss that training minimizes, and mean errors that it reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor

from lrc_ase.dataset import LabelledGraph
from lrc_ase.models.derivatives import Results
from lrc_ase.training.configuration import LossConfiguration

__all__ = ["ErrorSums", "LabelCounts", "loss_of"]


@dataclass(frozen=True)
class LabelCounts:
    """Numbers of labels in the means of a loss."""

    energies: int
    forces: int
    """Number of force components."""
    stresses: int
    """Number of stress components."""

    @classmethod
    def of(cls, graphs: Sequence[LabelledGraph]) -> LabelCounts:
        """Count the labels of a batch of separate graphs."""
        return cls(
            energies=_n_labels([graph.energy for graph in graphs]),
            forces=_n_labels([graph.forces for graph in graphs]),
            stresses=_n_labels([graph.stress for graph in graphs]),
        )


def _n_labels(labels: Sequence[Tensor]) -> int:
    """Return the number of entries that are not NaN."""
    return sum(int((~label.isnan()).sum()) for label in labels)


def loss_of(
    results: Results,
    batch: LabelledGraph,
    configuration: LossConfiguration,
    force_scale: float,
    counts: LabelCounts | None = None,
) -> Tensor:
    r"""Compute the weighted loss of a batch, a dimensionless scalar.

    .. math:: L = w_E \langle \ell(\Delta E_s / (N_s F\,\mathrm{A})) \rangle_s
              + w_F \langle \ell(\Delta F_{ic} / F) \rangle_{ic}
              + w_S \langle \ell(V_s \Delta\sigma_{s,cd} / (N_s F\,\mathrm{A})) \rangle_{s,cd}

    The loss is computed in float64. F is the root mean square of the training forces (`force_scale`, eV/Angstrom), so
    that the force part with :math:`\ell(x) = x^2` is a relative squared error. Means go over values with a label. If
    `batch` is a part of a larger batch, `counts` are the counts of the larger batch, and the losses of its parts sum to
    its loss.
    """
    graph = batch.graph
    sizes = torch.bincount(graph.structure, minlength=graph.n_structures)
    terms = []
    if configuration.energy:
        error = (results.energy - batch.energy) / (sizes * force_scale)
        terms.append(
            configuration.energy
            * _mean(error, batch.weight, configuration, None if counts is None else counts.energies)
        )
    if configuration.forces:
        assert results.forces is not None
        error = (results.forces - batch.forces) / force_scale
        terms.append(
            configuration.forces
            * _mean(
                error, batch.weight[graph.structure, None], configuration, None if counts is None else counts.forces
            )
        )
    if configuration.stress:
        assert results.stress is not None
        # stress times volume is an energy: per atom it is comparable to the energy error
        volumes = torch.linalg.det(graph.cell).abs()
        error = (volumes / (sizes * force_scale))[:, None, None] * (results.stress - batch.stress)
        terms.append(
            configuration.stress
            * _mean(error, batch.weight[:, None, None], configuration, None if counts is None else counts.stresses)
        )
    return torch.stack(terms).sum()


def _mean(error: Tensor, weight: Tensor, configuration: LossConfiguration, count: int | None) -> Tensor:
    """Return the weighted sum of the loss function over labelled entries, divided by their number or by `count`."""
    labelled = ~error.isnan()
    # replaced before the function: the gradient of NaN times zero is NaN
    error = torch.where(labelled, error, torch.zeros_like(error))
    if configuration.function == "mse":
        values = error**2
    else:  # twice torch's, to agree with the square at small errors
        values = 2 * torch.nn.functional.huber_loss(
            error, torch.zeros_like(error), reduction="none", delta=configuration.huber_delta
        )
    return (weight * values).sum() / (labelled.sum().clamp(min=1) if count is None else max(count, 1))


@dataclass
class ErrorSums:
    """Sums over batches from which mean errors follow, as plain numbers that a checkpoint can hold."""

    loss: float = 0.0
    n_structures: float = 0
    energy_absolute: float = 0.0
    energy_square: float = 0.0
    n_energies: float = 0
    forces_absolute: float = 0.0
    forces_square: float = 0.0
    n_forces: float = 0
    stress_absolute: float = 0.0
    stress_square: float = 0.0
    n_stresses: float = 0

    def add(self, results: Results, batch: LabelledGraph, loss: Tensor, n_structures: int | None = None) -> None:
        """Add the errors of a batch, or of a part of a batch that has `n_structures` in all."""
        graph = batch.graph
        sizes = torch.bincount(graph.structure, minlength=graph.n_structures)
        one = torch.ones_like(sizes[:1])
        sums = [loss.detach().double()]
        counts = []
        for predicted, label, scale in (
            (results.energy, batch.energy, sizes),
            (results.forces, batch.forces, one),
            (results.stress, batch.stress, one),
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
        value, *errors = torch.stack(sums + counts).tolist()
        energy_abs, energy_sq, forces_abs, forces_sq, stress_abs, stress_sq, n_energies, n_forces, n_stresses = errors
        self.loss += value * (n_structures or graph.n_structures)
        self.n_structures += graph.n_structures
        self.energy_absolute += energy_abs
        self.energy_square += energy_sq
        self.n_energies += n_energies
        self.forces_absolute += forces_abs
        self.forces_square += forces_sq
        self.n_forces += n_forces
        self.stress_absolute += stress_abs
        self.stress_square += stress_sq
        self.n_stresses += n_stresses

    def metrics(self) -> dict[str, float]:
        """Return the mean loss and errors in meV/atom, meV/Angstrom and meV/Angstrom^3; NaN where nothing was counted.

        Stress errors are NaN unless the stage trains on stress: it is not computed otherwise.
        """
        return {
            "loss": _ratio(self.loss, self.n_structures),
            "energy_mae": 1e3 * _ratio(self.energy_absolute, self.n_energies),
            "energy_rmse": 1e3 * math.sqrt(_ratio(self.energy_square, self.n_energies)),
            "forces_mae": 1e3 * _ratio(self.forces_absolute, self.n_forces),
            "forces_rmse": 1e3 * math.sqrt(_ratio(self.forces_square, self.n_forces)),
            "stress_mae": 1e3 * _ratio(self.stress_absolute, self.n_stresses),
            "stress_rmse": 1e3 * math.sqrt(_ratio(self.stress_square, self.n_stresses)),
        }

    def __add__(self, other: ErrorSums) -> ErrorSums:
        """Add the sums of two sets of batches."""
        return ErrorSums.from_numbers([one + two for one, two in zip(self.numbers(), other.numbers(), strict=True)])

    def numbers(self) -> list[float]:
        """Return all sums in the order of the fields, for `from_numbers`."""
        return list(asdict(self).values())

    @classmethod
    def from_numbers(cls, numbers: Sequence[float]) -> ErrorSums:
        """Return the sums whose `numbers` are given."""
        return cls(**dict(zip((each.name for each in fields(cls)), numbers, strict=True)))

    def to_json(self) -> dict[str, float]:
        """Return plain numbers by name, for ``ErrorSums(**sums)``."""
        return asdict(self)


def _ratio(numerator: float, denominator: float) -> float:
    """Return a quotient, NaN for a zero denominator."""
    return numerator / denominator if denominator else math.nan

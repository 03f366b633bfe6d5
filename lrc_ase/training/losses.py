"""Loss that training minimizes, and mean errors that it reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor

from lrc_ase.dataset import LabelledGraph
from lrc_ase.evaluation.error_tables import ERROR_UNITS
from lrc_ase.layer.lattice import volume
from lrc_ase.models.derivatives import Results
from lrc_ase.training.configuration import LossConfiguration

__all__ = ["ErrorSums", "LabelCounts", "loss_of", "sums_on_device"]


@dataclass(frozen=True)
class LabelCounts:
    """Numbers of labels in the means of a loss."""

    energies: int
    forces: int
    """Number of force components."""
    stresses: int
    """Number of stress components."""
    dipoles: int
    """Number of dipole components."""
    born_charges: int
    """Number of components of Born effective charges."""

    @classmethod
    def of(cls, graphs: Sequence[LabelledGraph]) -> LabelCounts:
        """Count the labels of separate graphs or batches."""
        return cls(
            energies=_n_labels([graph.energy for graph in graphs]),
            forces=_n_labels([graph.forces for graph in graphs]),
            stresses=_n_labels([graph.stress for graph in graphs]),
            dipoles=_n_labels([graph.dipole for graph in graphs]),
            born_charges=_n_labels([graph.born_effective_charges for graph in graphs]),
        )


def _n_labels(labels: Sequence[Tensor | None]) -> int:
    """Return the number of entries that are not NaN."""
    return sum(int((~label.isnan()).sum()) for label in labels if label is not None)


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
              + w_\mu \langle \ell(\Delta\mu_{sa} / e\mathrm{A}) \rangle_{sa}
              + w_Z \langle \ell(\Delta Z_{iab} / e) \rangle_{iab}

    The loss is computed in float64. F is the root mean square of the training forces (`force_scale`, eV/Angstrom), so
    that the force part with :math:`\ell(x) = x^2` is a relative squared error. Means go over values with a label.
    `results` may hold one component a of the Born effective charges Z of each structure, NaN for the others; the mean
    over components is then estimated from that one. If `batch` is a part of a larger batch, `counts` are the counts of
    the larger batch, and the losses of its parts sum to its loss.
    """
    graph = batch.graph
    sizes = graph.sizes
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
        volumes = volume(graph.cell)
        error = (volumes / (sizes * force_scale))[:, None, None] * (results.stress - batch.stress)
        terms.append(
            configuration.stress
            * _mean(error, batch.weight[:, None, None], configuration, None if counts is None else counts.stresses)
        )
    if configuration.dipole and batch.dipole is not None:
        assert results.dipole is not None
        error = results.dipole - batch.dipole
        terms.append(
            configuration.dipole
            * _mean(error, batch.weight[:, None], configuration, None if counts is None else counts.dipoles)
        )
    if configuration.born_effective_charges and batch.born_effective_charges is not None:
        assert results.born_effective_charges is not None
        charges = results.born_effective_charges
        n_labels = LabelCounts.of([batch]).born_charges if counts is None else counts.born_charges
        # each frame counts by all of its labels, whatever component was computed: the mean stays unbiased
        n_computed = n_labels * float((~charges.detach().isnan()).double().mean())
        weight = batch.weight[graph.structure, None, None]
        error = charges - batch.born_effective_charges
        terms.append(configuration.born_effective_charges * _mean(error, weight, configuration, n_computed))
    # a part of a batch may have no label that the loss weighs
    return torch.stack(terms).sum() if terms else 0 * results.energy.sum()


def _mean(error: Tensor, weight: Tensor, configuration: LossConfiguration, count: float | None) -> Tensor:
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


_ERROR_KINDS = ("energy", "forces", "stress", "dipole", "born_effective_charges")
"""Labels whose errors are summed: fields of `LabelledGraph` and of `Results`."""


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
    dipole_absolute: float = 0.0
    dipole_square: float = 0.0
    n_dipoles: float = 0
    born_effective_charges_absolute: float = 0.0
    born_effective_charges_square: float = 0.0
    n_born_charges: float = 0

    def add(self, results: Results, batch: LabelledGraph, loss: Tensor, n_structures: int | None = None) -> None:
        """Add the errors of a batch, or of a part of a batch that has `n_structures` in all."""
        n_in_part = batch.graph.n_structures
        self.add_sums(sums_on_device(results, batch, loss), n_in_part, n_structures or n_in_part)

    def add_sums(self, sums: Tensor, n_structures: int, n_in_batch: int) -> None:
        """Add what `sums_on_device` returned for `n_structures`, of a batch that has `n_in_batch`."""
        value, *numbers = sums.tolist()  # one transfer from the device per batch
        self.loss += value * n_in_batch
        self.n_structures += n_structures
        for name, number in zip(_sums_of_kinds(), numbers, strict=True):
            setattr(self, name, getattr(self, name) + number)

    def metrics(self) -> dict[str, float]:
        """Return the mean loss and errors in the units of `ERROR_UNITS`; NaN where nothing was counted.

        Errors of stress and of Born effective charges are NaN unless the stage trains on them: they are not computed
        otherwise.
        """
        values = {"loss": _ratio(self.loss, self.n_structures)}
        names = _sums_of_kinds()
        for kind, absolute, square, count in zip(_ERROR_KINDS, names[::3], names[1::3], names[2::3], strict=True):
            n_labels, unit = getattr(self, count), ERROR_UNITS[kind].per_ase_unit
            values[f"{kind}_mae"] = unit * _ratio(getattr(self, absolute), n_labels)
            values[f"{kind}_rmse"] = unit * math.sqrt(_ratio(getattr(self, square), n_labels))
        return values

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


def sums_on_device(results: Results, batch: LabelledGraph, loss: Tensor) -> Tensor:
    """Return the loss of a batch, and the sums of its errors in the order of the fields of `ErrorSums`, float64."""
    sums = [loss.detach().double()]
    for kind in _ERROR_KINDS:
        predicted, label = getattr(results, kind), getattr(batch, kind)
        if predicted is None or label is None:
            sums += [loss.new_zeros((), dtype=torch.float64)] * 3
            continue
        error = (predicted.detach() - label).double()
        if kind == "energy":
            error = error / batch.graph.sizes
        # components of Born effective charges that were not computed are NaN
        labelled = ~(error if kind == "born_effective_charges" else label).isnan()
        error = torch.where(labelled, error, torch.zeros_like(error))
        sums += [error.abs().sum(), (error**2).sum(), labelled.sum().double()]
    return torch.stack(sums)


def _sums_of_kinds() -> list[str]:
    """Return the fields of `ErrorSums` for `_ERROR_KINDS`, three for each."""
    return [each.name for each in fields(ErrorSums)][2:]


def _ratio(numerator: float, denominator: float) -> float:
    """Return a quotient, NaN for a zero denominator."""
    return numerator / denominator if denominator else math.nan

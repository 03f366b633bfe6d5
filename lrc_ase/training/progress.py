"""Progress of a stage as plain numbers that a checkpoint holds, and the record of an epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from lrc_ase.files.bounded_json import first_mistake
from lrc_ase.training.losses import ErrorSums

__all__ = ["EpochRecord", "Progress", "StopReason"]

StopReason = Literal["time_limit", "patience"]


@dataclass
class Progress:
    """Progress of a stage as plain numbers that a checkpoint can hold."""

    epoch: int = 0
    """Number of finished epochs."""
    batch: int = 0
    """Number of finished batches in the current epoch."""
    step: int = 0
    """Number of steps of the optimizer."""
    rate_factor: float = 1.0
    """Factor of the learning rate; every rewind reduces it."""
    rewinds: int = 0
    seconds: float = 0.0
    """Time spent in steps and validation, without the compilation of kernels."""
    best_score: float | None = None
    """Validation loss of the best epoch: the latest one within a factor `AS_GOOD` of the lowest loss."""
    best_epoch: int = 0
    lowest_score: float | None = None
    """Lowest validation loss."""
    lowest_epoch: int = 0
    validations_since_lowest: int = 0
    """Number of validations after that with the lowest loss."""
    stopped_by: StopReason | None = None
    """Limit that ended the stage before its last epoch."""
    sums: ErrorSums = field(default_factory=ErrorSums)
    """Training errors of the current epoch so far."""

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers by name, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Progress:
        """Read the result of `to_json`; ValueError names an entry that is missing, mistyped or negative."""
        if unknown := sorted({*values} - {each.name for each in fields(cls)}):
            raise ValueError(f"progress: unknown entry {unknown[0]!r:.50}")
        try:
            # strict JSON: no text for numbers, no numbers for flags
            progress = TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            raise ValueError(first_mistake(error, "progress")) from error
        for name, value in {**vars(progress), **vars(progress.sums)}.items():
            if isinstance(value, (int, float)) and value < 0:
                raise ValueError(f"progress: {name} must not be negative, got {value}")
        return progress


@dataclass(frozen=True)
class EpochRecord:
    """Errors and state after one epoch, the argument of `on_epoch` of `lrc_ase.training.train`.

    Errors are dictionaries with `loss` (dimensionless), `energy_mae` and `energy_rmse` in meV/atom, `forces_...` in
    meV/Angstrom, `stress_...` in meV/Angstrom^3, `dipole_...` in e Angstrom and `born_effective_charges_...` in e; NaN
    without labels.
    """

    epoch: int
    """Counted from 1."""
    learning_rate: float
    seconds: float
    """Time since the beginning of the stage."""
    train: dict[str, float]
    """`ErrorSums.metrics` of the training batches, each with the weights of its step."""
    validation: dict[str, float] | None
    """`ErrorSums.metrics` of the validation frames with the mean weights; None for an epoch without validation."""
    improved: bool
    """True if the mean weights are the best so far."""
    stage: str = ""
    """Name of the stage."""
    n_epochs: int = 0
    """Number of epochs of the stage."""

"""State of a stage: plain numbers that a checkpoint carries, and what one epoch gave."""

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
    """How far a stage is; plain numbers, so that a checkpoint can carry them."""

    epoch: int = 0
    """Epochs finished."""
    batch: int = 0
    """Batches finished in the current epoch."""
    step: int = 0
    """Steps of the optimizer."""
    rate_factor: float = 1.0
    """Multiplies the learning rate; falls with every rewind."""
    rewinds: int = 0
    seconds: float = 0.0
    """Time spent in steps and validation, without that of compiling kernels."""
    best_score: float | None = None
    """Validation loss of the best epoch: the last one that came as close to the lowest as `AS_GOOD`."""
    best_epoch: int = 0
    lowest_score: float | None = None
    """Lowest validation loss."""
    lowest_epoch: int = 0
    validations_since_lowest: int = 0
    """Validations after that of the lowest loss."""
    stopped_by: StopReason | None = None
    """Why the stage ended before its last epoch."""
    sums: ErrorSums = field(default_factory=ErrorSums)
    """Training errors of the current epoch so far."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Progress:
        """Read what `to_json` returned; a ValueError names the entry that is missing, mistyped or negative."""
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
    """Errors and state after one epoch, as `on_epoch` of `lrc_ase.training.train` gets it.

    Errors are dictionaries with `loss` (dimensionless) and `energy_mae`, `energy_rmse` in meV/atom, `forces_...` in
    meV/Angstrom, `stress_...` in meV/Angstrom^3; NaN where there are no labels.
    """

    epoch: int
    """Counted from 1."""
    learning_rate: float
    seconds: float
    """Time since the beginning of the stage."""
    train: dict[str, float]
    """`ErrorSums.metrics` of the batches as they were trained on."""
    validation: dict[str, float] | None
    """The same on the validation frames by the mean weights; None where the epoch was not validated."""
    improved: bool
    """Whether the mean weights are the best so far."""
    stage: str = ""
    """Name of the stage."""
    n_epochs: int = 0
    """Epochs of the stage."""

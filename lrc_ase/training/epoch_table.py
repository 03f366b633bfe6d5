"""Epochs of a stage as rows of a table that fits into 80 columns."""

from __future__ import annotations

from collections.abc import Mapping

from lrc_ase.evaluation.error_tables import ERROR_UNITS, error_text
from lrc_ase.training.progress import EpochRecord

__all__ = ["epoch_heading", "epoch_row", "watched_row"]

_LABELS = ("energy", "forces", "stress")


def epoch_heading(*, validated: bool) -> str:
    """Return the two lines above the rows; errors are of validation frames, or of training batches without those."""
    titles = _line("epoch", "train loss", "val. loss", list(_LABELS), "atoms/s", "left")
    of = "RMSE on validation frames:" if validated else "RMSE on training batches:"
    units = "".join(f"{ERROR_UNITS[label].symbol:>9}" for label in _LABELS)
    return f"{titles}\n{of:>{len(titles) - 18 - len(units)}}{units}"


def epoch_row(record: EpochRecord, *, validated: bool, speed: float, left: str) -> str:
    """Return the row of an epoch; a star marks the best weights so far, a dash an epoch without validation."""
    errors = (record.validation or {}) if validated else record.train
    loss = f"{record.validation['loss']:.3e}" if record.validation else "-"
    star = " *" if record.validation and record.improved else ""
    epoch = f"{record.epoch}/{record.n_epochs}"
    return _line(epoch, f"{record.train['loss']:.3e}", loss, _cells(errors), f"{speed:.0f}", left) + star


def watched_row(errors: Mapping[str, float]) -> str:
    """Return the row with the errors on watched frames, which follows the row of the epoch."""
    return _line("watched", "", "", _cells(errors), "", "").rstrip()


def _cells(errors: Mapping[str, float]) -> list[str]:
    """Return the errors of all labels as text."""
    return [error_text(errors.get(f"{label}_rmse", float("nan"))) for label in _LABELS]


def _line(epoch: str, train: str, validation: str, errors: list[str], speed: str, left: str) -> str:
    """Return the columns of a row in their widths."""
    return f"{epoch:>9}{train:>12}{validation:>11}" + "".join(f"{text:>9}" for text in errors) + f"{speed:>9}{left:>9}"

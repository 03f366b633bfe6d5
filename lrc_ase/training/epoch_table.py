"""Epochs of a stage as rows of a table that fits into 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lrc_ase.dataset import Label
from lrc_ase.evaluation.error_tables import ERROR_UNITS, error_text
from lrc_ase.training.configuration import LossConfiguration
from lrc_ase.training.progress import EpochRecord

__all__ = ["epoch_heading", "epoch_row", "shown_labels", "watched_row"]

_HEADINGS: dict[Label, str] = {"born_effective_charges": "Born"}
"""Names of columns for labels whose names are too long."""
_WIDTHS = {"epoch": 9, "train loss": 12, "val. loss": 11, "atoms/s": 9, "left": 9}
_WIDTH_OF_LABEL = 9
_LONGEST = 80


def shown_labels(loss: LossConfiguration) -> tuple[Label, ...]:
    """Return the labels that have a column: energy, forces, and others that the loss weighs."""
    others: tuple[Label, ...] = ("stress", "dipole", "born_effective_charges")
    return ("energy", "forces", *(label for label in others if getattr(loss, label)))


def epoch_heading(labels: Sequence[Label], *, validated: bool) -> str:
    """Return the two lines above the rows; errors are of validation frames, or of training batches without those."""
    titles = _line({name: name for name in _WIDTHS}, [_HEADINGS.get(label, label) for label in labels])
    of = "RMSE on validation frames:" if validated else "RMSE on training batches:"
    units = "".join(f"{ERROR_UNITS[label].symbol:>{_WIDTH_OF_LABEL}}" for label in labels)
    after = sum(_WIDTHS[name] for name in ("atoms/s", "left") if name in _columns(len(labels)))
    return f"{titles}\n{of:>{len(titles) - after - len(units)}}{units}"


def epoch_row(labels: Sequence[Label], record: EpochRecord, *, validated: bool, speed: float, left: str) -> str:
    """Return the row of an epoch; a star marks the best weights so far, a dash an epoch without validation."""
    errors = (record.validation or {}) if validated else record.train
    texts = {
        "epoch": f"{record.epoch}/{record.n_epochs}",
        "train loss": f"{record.train['loss']:.3e}",
        "val. loss": f"{record.validation['loss']:.3e}" if record.validation else "-",
        "atoms/s": f"{speed:.0f}",
        "left": left,
    }
    star = " *" if record.validation and record.improved else ""
    return _line(texts, _cells(labels, errors)) + star


def watched_row(labels: Sequence[Label], errors: Mapping[str, float]) -> str:
    """Return the row with the errors on watched frames, which follows the row of the epoch."""
    return _line(dict.fromkeys(_WIDTHS, "") | {"epoch": "watched"}, _cells(labels, errors)).rstrip()


def _cells(labels: Sequence[Label], errors: Mapping[str, float]) -> list[str]:
    """Return the errors of labels as text."""
    return [error_text(errors.get(f"{label}_rmse", float("nan"))) for label in labels]


def _columns(n_labels: int) -> list[str]:
    """Return the columns besides those of labels; many labels leave no room for speed and training loss."""
    columns = list(_WIDTHS)
    for name in ("atoms/s", "train loss"):
        if sum(_WIDTHS[column] for column in columns) + n_labels * _WIDTH_OF_LABEL > _LONGEST - len(" *"):
            columns.remove(name)
    return columns


def _line(texts: Mapping[str, str], cells: Sequence[str]) -> str:
    """Return the columns of a row in their widths."""
    shown = _columns(len(cells))
    before = "".join(
        f"{texts[name]:>{_WIDTHS[name]}}" for name in ("epoch", "train loss", "val. loss") if name in shown
    )
    after = "".join(f"{texts[name]:>{_WIDTHS[name]}}" for name in ("atoms/s", "left") if name in shown)
    return before + "".join(f"{text:>{_WIDTH_OF_LABEL}}" for text in cells) + after

"""Units, columns and sentences about errors, the same in log, terminal, reports and files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "ELECTRIC_COLUMNS",
    "ERROR_COLUMNS",
    "ERROR_UNITS",
    "ErrorColumn",
    "ErrorUnit",
    "error_cells",
    "error_text",
    "overfitting_remark",
]

_SIGN_OF_OVERFITTING = 1.5
"""Ratio of the errors on unseen and on training frames from which a model is called overfitted."""
_FEW_FRAMES = 10
"""Unseen frames below which their mean error is called uncertain."""


@dataclass(frozen=True)
class ErrorUnit:
    """Unit in which errors of a quantity are shown and written."""

    per_ase_unit: float
    """Factor from the unit of docs/reference/conventions.md, such as eV (per atom) or eV/Angstrom."""
    ascii: str
    """Name in JSON, CSV and logs."""
    symbol: str
    """Name in tables and plots."""


ERROR_UNITS: dict[str, ErrorUnit] = {
    "energy": ErrorUnit(1e3, "meV/atom", "meV/atom"),
    "forces": ErrorUnit(1e3, "meV/Angstrom", "meV/Å"),
    "stress": ErrorUnit(1e3, "meV/Angstrom^3", "meV/Å³"),
    "dipole": ErrorUnit(1.0, "e Angstrom", "e Å"),
    "born_effective_charges": ErrorUnit(1.0, "e", "e"),
}
"""Errors of energies are per atom, those of all other labels per component."""


@dataclass(frozen=True)
class ErrorColumn:
    """Column of a table of errors."""

    key: str
    """Entry of `Evaluation.metrics`, or of a row of metrics.csv without its prefix."""
    title: str
    """Heading of three lines, the unit in the last."""

    def cell(self, errors: Mapping[str, float]) -> str:
        """Return the value as text, a dash if it is absent or NaN."""
        value = errors.get(self.key, math.nan)
        if self.key.endswith("_r2") and value > -1:
            return f"{value:.4f}"
        return f"{value:.0f}" if self.key.startswith("n_") and not math.isnan(value) else error_text(value)


ERROR_COLUMNS = (
    ErrorColumn("n_frames", "Frames"),
    ErrorColumn("energy_mae", f"Energy\nMAE\n{ERROR_UNITS['energy'].symbol}"),
    ErrorColumn("energy_rmse", f"Energy\nRMSE\n{ERROR_UNITS['energy'].symbol}"),
    ErrorColumn("forces_mae", f"Force\nMAE\n{ERROR_UNITS['forces'].symbol}"),
    ErrorColumn("forces_rmse", f"Force\nRMSE\n{ERROR_UNITS['forces'].symbol}"),
    ErrorColumn("stress_mae", f"Stress\nMAE\n{ERROR_UNITS['stress'].symbol}"),
    ErrorColumn("stress_rmse", f"Stress\nRMSE\n{ERROR_UNITS['stress'].symbol}"),
)
"""Columns on energies, forces and stresses."""
ELECTRIC_COLUMNS = (
    ErrorColumn("n_dipoles", "Dipole\nframes"),
    ErrorColumn("dipole_rmse", f"Dipole\nRMSE\n{ERROR_UNITS['dipole'].symbol}"),
    ErrorColumn("dipole_r2", "Dipole\nR²"),
    ErrorColumn("n_born_effective_charges", "Born\nframes"),
    ErrorColumn("born_effective_charges_rmse", f"Born\nRMSE\n{ERROR_UNITS['born_effective_charges'].symbol}"),
    ErrorColumn("born_effective_charges_r2", "Born\nR²"),
)
"""Columns on dipoles and Born effective charges."""


def error_text(value: float) -> str:
    """Return a number with three digits, without an exponent where that is short; a dash for NaN.

    >>> [error_text(value) for value in (math.nan, 0.0030012, 0.5, 41.26, 276.61, 12345.6, 1e-7, -3.0)]
    ['-', '0.003', '0.5', '41.3', '277', '12346', '1e-07', '-3']
    """
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def error_cells(
    errors: Mapping[str, Mapping[str, float]], columns: Sequence[ErrorColumn] = ERROR_COLUMNS
) -> tuple[list[str], list[list[str]]]:
    """Return titles and rows of a table of errors, one row per name, without columns that hold no value.

    >>> error_cells({"training": {"n_frames": 9.0, "forces_rmse": 41.26}})[1]
    [['training', '9', '41.3']]
    """
    shown = [
        column
        for column in columns
        if column.key == "n_frames" or any(column.cell(values) not in ("-", "0") for values in errors.values())
    ]
    rows = [[name, *(column.cell(values) for column in shown)] for name, values in errors.items()]
    return ["", *(column.title for column in shown)], rows


def _ratio(training: Mapping[str, float], unseen: Mapping[str, float], key: str) -> float:
    """Return an error on unseen frames over that on training frames, as shown with one decimal; NaN without one."""
    seen, new = training.get(key, math.nan), unseen.get(key, math.nan)
    return round(new / seen, 1) if seen > 0 else math.nan  # a zero error has no ratio


def overfitting_remark(
    training: Mapping[str, float], unseen: Mapping[str, float] | None, *, unseen_name: str = "validation"
) -> str:
    """Return one sentence that compares the errors on training frames with those on frames not trained on.

    Both mappings hold `n_frames` and the errors of `Evaluation.metrics`. Forces are compared, or energies where there
    are no forces. A model overfits if both the root mean square and the mean absolute error (where it is known) are
    much larger on unseen frames; a few hard frames raise the first alone. `unseen_name` is how the sentence calls the
    frames that were not trained on.

    >>> errors = {"n_frames": 90.0, "forces_rmse": 20.0}, {"n_frames": 10.0, "forces_rmse": 24.0}
    >>> overfitting_remark(*errors)
    'No sign of overfitting: the force error on the validation frames is 1.2 times that on the training frames.'
    """
    if unseen is None or not unseen.get("n_frames", 0.0):
        return "Overfitting cannot be judged: no frames were kept apart from training."
    for quantity, name in (("forces", "force error"), ("energy", "energy error")):
        ratio = _ratio(training, unseen, f"{quantity}_rmse")
        if math.isnan(ratio):
            continue
        usual = _ratio(training, unseen, f"{quantity}_mae")
        n_frames = int(unseen["n_frames"])
        few = f" ({n_frames} {unseen_name} frame{'s' if n_frames > 1 else ''}: an uncertain number)"
        compared = f"the {name} on the {unseen_name} frames is {ratio:.1f} times that on the training frames"
        compared += few if n_frames < _FEW_FRAMES else ""
        if ratio < _SIGN_OF_OVERFITTING:
            return f"No sign of overfitting: {compared}."
        if usual < _SIGN_OF_OVERFITTING:
            return (
                f"A few frames are hard: {compared} as root mean square, but {usual:.1f} times as mean absolute error. "
                "Look at the hardest frames in the report."
            )
        return f"The model overfits: {compared}. More frames help, of your method or of a cheap one (--pretrain)."
    return f"Overfitting cannot be judged: training and {unseen_name} frames have no label in common."

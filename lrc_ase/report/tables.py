"""Tables of reports: potentials, errors, uncertainties, data, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lrc_ase.dataset import DataReport
from lrc_ase.evaluation.error_tables import ELECTRIC_COLUMNS, ERROR_UNITS, error_cells, error_text
from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.files.counted import counted
from lrc_ase.files.potential_file import Potential
from lrc_ase.report.metrics import read_metrics
from lrc_ase.report.page import Table

__all__ = [
    "config_type_table",
    "cost_table",
    "data_table",
    "electric_errors_of",
    "electric_table",
    "element_table",
    "errors_table",
    "hardest_table",
    "label_remarks",
    "potential_table",
    "set_table",
    "uncertainty_table",
]

_ENERGY_UNIT = ERROR_UNITS["energy"].symbol
_FORCE_UNIT = ERROR_UNITS["forces"].symbol
_INDENT = 2 * "\N{NO-BREAK SPACE}"
"""Indent of the name of an evaluation below its group; HTML does not collapse such spaces."""


def errors_table(errors: Mapping[str, Mapping[str, float]], title: str = "Errors") -> Table:
    """Return a table of errors (`Evaluation.errors`), one row per name; a dash stands for an absent label."""
    return Table(title, *error_cells(errors))


def electric_table(errors: Mapping[str, Mapping[str, float]]) -> Table | None:
    """Return the errors of dipoles and Born effective charges, one row per name; None without such labels."""
    columns, rows = error_cells(errors, ELECTRIC_COLUMNS)
    return Table("Dipoles and Born effective charges", columns, rows) if len(columns) > 1 else None


def electric_errors_of(evaluations: Mapping[str, Evaluation]) -> dict[str, dict[str, float]]:
    """Return the errors of each evaluation, and of each of its sets if it has several, by a name for a row."""
    errors = {}
    for name, evaluation in evaluations.items():
        errors[name] = evaluation.metrics
        by_set = evaluation.errors_by_set()
        if len(by_set) > 1:
            prefix = f"{_INDENT}{name}, " if len(evaluations) > 1 else _INDENT
            errors |= {f"{prefix}{each}": values for each, values in by_set.items()}
    return errors


def set_table(evaluations: Mapping[str, Evaluation]) -> Table | None:
    """Return the errors of each evaluation on each set; None if there is only one set."""
    return _table_by({name: evaluation.errors_by_set() for name, evaluation in evaluations.items()}, "Errors by set")


def config_type_table(evaluations: Mapping[str, Evaluation]) -> Table | None:
    """Return the errors of each evaluation on each ``config_type``; None if there are fewer than two."""
    errors = {name: evaluation.errors_by_config_type() for name, evaluation in evaluations.items()}
    return _table_by(errors, "Errors by config_type")


def _table_by(errors: Mapping[str, Mapping[str, Mapping[str, float]]], title: str) -> Table | None:
    """Return a table of errors by evaluation and group, or None for a single group; see `_grouped` for its rows."""
    columns, cells = error_cells(
        {f"{name}/{group}": values for name, groups in errors.items() for group, values in groups.items()}
    )
    keys = [(name, group) for name, groups in errors.items() for group in groups]
    if len(keys) <= len(errors):
        return None
    return Table(title, columns, _grouped({key: row[1:] for key, row in zip(keys, cells, strict=True)}))


def _grouped(cells: Mapping[tuple[str, str], Sequence[str]]) -> list[list[str]]:
    """Return rows of a table from cells by evaluation and group.

    A single evaluation has one row per group. Several evaluations have a row each below the name of the group.
    """
    names = list(dict.fromkeys(name for name, _ in cells))
    groups = list(dict.fromkeys(group for _, group in cells))
    if len(names) == 1:
        return [[group, *cells[names[0], group]] for group in groups]
    rows = []
    for group in groups:
        of_group = {name: cells[name, group] for name in names if (name, group) in cells}
        rows.append([group, *("" for _ in next(iter(of_group.values())))])
        rows += [[f"{_INDENT}{name}", *row] for name, row in of_group.items()]
    return rows


def element_table(evaluations: Mapping[str, Evaluation]) -> Table | None:
    """Return the force errors of each element; None without force labels."""
    keys = ("forces_mae", "forces_rmse")
    cells = {
        (name, element): [f"{errors['n_atoms']:.0f}", *(error_text(errors[key]) for key in keys)]
        for name, evaluation in evaluations.items()
        for element, errors in evaluation.force_errors_by_element().items()
    }
    columns = ["", "Atoms", f"Force\nMAE\n{_FORCE_UNIT}", f"Force\nRMSE\n{_FORCE_UNIT}"]
    if all(row[-1] == "-" for row in cells.values()):
        return None
    return Table("Force errors by element", columns, _grouped(cells))


def hardest_table(
    evaluation: Evaluation, names: Sequence[str], hardest: Sequence[tuple[int, float]], title: str = "Hardest frames"
) -> Table:
    """Return the errors of the frames in `hardest` (indices and errors); `names` has an entry for every frame."""
    force_errors = dict(evaluation.hardest_frames(len(evaluation.n_atoms)))
    rows = [
        [
            names[index],
            f"{evaluation.n_atoms[index]}",
            error_text(force_errors.get(index, math.nan)),
            error_text(float(evaluation.energy_errors[index])),
        ]
        for index, _ in hardest
    ]
    columns = ["", "Atoms", f"Force\nRMSE\n{_FORCE_UNIT}", f"Energy\nerror\n{_ENERGY_UNIT}"]
    return Table(title, columns, rows)


def uncertainty_table(evaluations: Mapping[str, Evaluation], title: str = "Uncertainty") -> Table | None:
    """Return size, coverage and rank correlation of the deviations of each ensemble; None without ensembles."""
    units = {"energy": _ENERGY_UNIT, "forces": _FORCE_UNIT}
    cells = {
        (name, f"{quantity}, {units[quantity]}"): [
            f"{summary.n_errors}",
            error_text(summary.mean_deviation),
            "-" if math.isnan(summary.coverage) else f"{summary.coverage:.1%}",
            "-" if math.isnan(summary.correlation) else f"{summary.correlation:.2f}",
        ]
        for name, evaluation in evaluations.items()
        for quantity, summary in evaluation.uncertainty().items()
    }
    columns = ["", "Values", "Deviation\n(RMS)", "Errors inside\n90% interval", "Rank\ncorrelation\nwith errors"]
    return Table(title, columns, _grouped(cells)) if cells else None


def potential_table(potentials: Mapping[str, Potential]) -> Table:
    """Return kind, elements, cutoff and number of parameters of each potential."""
    rows = []
    for name, potential in potentials.items():
        settings = potential.settings
        n_parameters = sum(parameter.numel() for parameter in potential.model.parameters())
        kind = "short-range" if settings.long_range is None else "full-range"
        if potential.n_members > 1:
            kind += f", {potential.n_members} members"
        rows.append([name, kind, ", ".join(settings.elements), f"{settings.cutoff:g}", f"{n_parameters}"])
    return Table("Potentials", ["", "Model", "Elements", "Cutoff\nÅ", "Parameters"], rows)


def data_table(report: DataReport, title: str = "Data") -> Table:
    """Return the statistics of a data report, one column per set."""
    return Table(title, ["", *report.sets], [[name, *values] for name, values in report.rows.items()])


def cost_table(metrics: Path, evaluations: Mapping[str, Evaluation]) -> Table:
    """Return the time of each stage, from the metrics table of a run, and of each evaluation."""
    columns = read_metrics(metrics)
    rows = []
    for stage in dict.fromkeys(columns["stage"]):
        epochs = [index for index, name in enumerate(columns["stage"]) if name == stage]
        seconds = float(columns["seconds"][epochs[-1]])
        each = f"{seconds / len(epochs):.3g} s per epoch"
        rows.append([f"stage {stage}", counted(len(epochs), "epoch"), f"{seconds:.1f} s", each])
    for name, evaluation in evaluations.items():
        n_atoms = int(evaluation.n_atoms.sum())
        per_atom = 1e6 * evaluation.seconds / n_atoms
        each = f"{per_atom:.3g} \N{MICRO SIGN}s per atom"
        rows.append([f"evaluation, {name}", f"{n_atoms} atoms", f"{evaluation.seconds:.1f} s", each])
    return Table("Cost", ["", "What", "Time", "Each"], rows)


def label_remarks(evaluation: Evaluation) -> list[str]:
    """Return a sentence for each label that only some frames have, and for energies or forces that none has."""
    metrics = evaluation.metrics
    n_frames = int(metrics["n_frames"])
    remarks = []
    quantities = {"n_energies": "Energy", "n_forces": "Force", "n_stresses": "Stress", "n_dipoles": "Dipole"}
    quantities["n_born_effective_charges"] = "Born effective charge"
    for key, quantity in quantities.items():
        n_labelled = int(metrics[key])
        if n_labelled == 0 and key in ("n_energies", "n_forces"):
            remarks.append(f"{quantity} errors are not known: no frame has such a label.")
        elif 0 < n_labelled < n_frames:
            remarks.append(f"{quantity} errors are of {n_labelled} of {n_frames} frames: others have no such label.")
    if any(np.isnan(each.predicted).all() for each in evaluation.electric.values()):
        remarks.append("Dipoles and Born effective charges are not predicted: the potential has no latent charges.")
    return remarks

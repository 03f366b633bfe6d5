"""Tables of reports: potentials, errors, uncertainties, data, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from lrc_ase.dataset import DataReport
from lrc_ase.evaluation.error_tables import ERROR_UNITS, error_cells, error_text
from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.files.potential_file import Potential
from lrc_ase.report.learning_curve import read_metrics
from lrc_ase.report.page import Table

__all__ = [
    "config_type_table",
    "cost_table",
    "data_table",
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


def errors_table(errors: Mapping[str, Mapping[str, float]], title: str = "Errors") -> Table:
    """Return errors (`Evaluation.errors`), one row per name; a dash where there are no labels."""
    return Table(title, *error_cells(errors))


def set_table(evaluations: Mapping[str, Evaluation], title: str = "Errors by set") -> Table | None:
    """Return the errors of each evaluation on each set; None where there is one set alone."""
    return _table_by({name: evaluation.errors_by_set() for name, evaluation in evaluations.items()}, title)


def config_type_table(evaluations: Mapping[str, Evaluation]) -> Table | None:
    """Return the errors of each evaluation on each ``config_type``; None where there are fewer than two."""
    errors = {name: evaluation.errors_by_config_type() for name, evaluation in evaluations.items()}
    return _table_by(errors, "Errors by config_type")


def _table_by(errors: Mapping[str, Mapping[str, Mapping[str, float]]], title: str) -> Table | None:
    """Return errors by evaluation and group; the name of the evaluation stands in front where there are several."""
    rows = {
        (f"{name}, {group}" if len(errors) > 1 else group): values
        for name, groups in errors.items()
        for group, values in groups.items()
    }
    return errors_table(rows, title) if len(rows) > len(errors) else None


def element_table(evaluations: Mapping[str, Evaluation]) -> Table | None:
    """Return the force errors of each element; None without force labels."""
    rows = []
    for name, evaluation in evaluations.items():
        for element, errors in evaluation.force_errors_by_element().items():
            label = f"{name}, {element}" if len(evaluations) > 1 else element
            cells = [error_text(errors[key]) for key in ("forces_mae", "forces_rmse")]
            rows.append([label, f"{errors['n_atoms']:.0f}", *cells])
    columns = ["", "Atoms", f"Force\nMAE\n{_FORCE_UNIT}", f"Force\nRMSE\n{_FORCE_UNIT}"]
    return Table("Force errors by element", columns, rows) if any(row[-1] != "-" for row in rows) else None


def hardest_table(evaluation: Evaluation, names: Sequence[str], hardest: Sequence[tuple[int, float]]) -> Table:
    """Return the errors of the frames in `hardest`; `names` are those of all frames."""
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
    return Table("Hardest frames", columns, rows)


def uncertainty_table(evaluations: Mapping[str, Evaluation], title: str = "Uncertainty") -> Table | None:
    """Return how far the deviations of ensembles can be trusted; None where there is no ensemble."""
    units = {"energy": _ENERGY_UNIT, "forces": _FORCE_UNIT}
    rows = []
    for name, evaluation in evaluations.items():
        for quantity, summary in evaluation.uncertainty().items():
            label = f"{quantity}, {units[quantity]}"
            rows.append(
                [
                    label if len(evaluations) == 1 else f"{name}, {label}",
                    f"{summary.n_errors}",
                    error_text(summary.mean_deviation),
                    "-" if math.isnan(summary.coverage) else f"{summary.coverage:.1%}",
                    "-" if math.isnan(summary.correlation) else f"{summary.correlation:.2f}",
                ]
            )
    columns = ["", "Values", "Deviation\n(RMS)", "Errors inside\n90% interval", "Rank\ncorrelation\nwith errors"]
    return Table(title, columns, rows) if rows else None


def potential_table(potentials: Mapping[str, Potential]) -> Table:
    """Return what the potentials are."""
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
    """Return what sets of frames hold, one column each."""
    return Table(title, ["", *report.sets], [[name, *values] for name, values in report.rows.items()])


def cost_table(metrics: Path, evaluations: Mapping[str, Evaluation]) -> Table:
    """Return the time of each stage, from the table of metrics, and of an evaluation."""
    columns = read_metrics(metrics)
    rows = []
    for stage in dict.fromkeys(columns["stage"]):
        epochs = [index for index, name in enumerate(columns["stage"]) if name == stage]
        seconds = float(columns["seconds"][epochs[-1]])
        each = f"{seconds / len(epochs):.3g} s per epoch"
        rows.append([f"stage {stage}", f"{len(epochs)} epochs", f"{seconds:.1f} s", each])
    for name, evaluation in evaluations.items():
        n_atoms = int(evaluation.n_atoms.sum())
        per_atom = 1e6 * evaluation.seconds / n_atoms
        each = f"{per_atom:.3g} \N{MICRO SIGN}s per atom"
        rows.append([f"evaluation, {name}", f"{n_atoms} atoms", f"{evaluation.seconds:.1f} s", each])
    return Table("Cost", ["", "What", "Time", "Each"], rows)


def label_remarks(evaluation: Evaluation) -> list[str]:
    """Return a sentence for each label that only a part of the frames has."""
    metrics = evaluation.metrics
    n_frames = int(metrics["n_frames"])
    remarks = []
    for key, quantity in (("n_energies", "Energy"), ("n_forces", "Force"), ("n_stresses", "Stress")):
        n_labelled = int(metrics[key])
        if n_labelled == 0 and key != "n_stresses":
            remarks.append(f"{quantity} errors are not known: no frame has such a label.")
        elif 0 < n_labelled < n_frames:
            remarks.append(f"{quantity} errors are of {n_labelled} of {n_frames} frames: others have no such label.")
    return remarks

"""Tables of reports: potentials, errors, uncertainties, data, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lrc_ase.dataset import DataReport
from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.files.potential_file import Potential
from lrc_ase.report.page import Table
from lrc_ase.report.plots import read_metrics

__all__ = [
    "cost_table",
    "data_table",
    "element_table",
    "errors_table",
    "hardest_table",
    "potential_table",
    "set_table",
    "uncertainty_table",
]

COLUMNS = (
    ("n_frames", "Frames", "{:.0f}"),
    ("energy_mae", "Energy MAE\nmeV/atom", "{:.3g}"),
    ("energy_rmse", "Energy RMSE\nmeV/atom", "{:.3g}"),
    ("forces_mae", "Force MAE\nmeV/\N{ANGSTROM SIGN}", "{:.4g}"),
    ("forces_rmse", "Force RMSE\nmeV/\N{ANGSTROM SIGN}", "{:.4g}"),
    ("stress_rmse", "Stress RMSE\nmeV/\N{ANGSTROM SIGN}\N{SUPERSCRIPT THREE}", "{:.3g}"),
)


def errors_table(evaluations: Mapping[str, Evaluation], title: str = "Errors") -> Table:
    """Errors of each evaluation, one row each; a dash where there are no labels."""
    return _table_of_errors({name: evaluation.metrics for name, evaluation in evaluations.items()}, title)


def set_table(evaluations: Mapping[str, Evaluation], title: str = "Errors by set") -> Table | None:
    """Errors of each evaluation on each set; None where there is one set alone."""
    errors = {
        (f"{name}, {own}" if len(evaluations) > 1 else own): found
        for name, evaluation in evaluations.items()
        for own, found in evaluation.errors_by_set().items()
    }
    return _table_of_errors(errors, title) if len(errors) > len(evaluations) else None


def element_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """Force errors of each element."""
    rows = [
        [
            f"{name}, {element}" if len(evaluations) > 1 else element,
            f"{errors['forces_mae']:.4g}",
            f"{errors['forces_rmse']:.4g}",
        ]
        for name, evaluation in evaluations.items()
        for element, errors in evaluation.force_errors_by_element().items()
    ]
    return Table("Force errors by element (meV/\N{ANGSTROM SIGN})", ["", "MAE", "RMSE"], rows)


def hardest_table(evaluation: Evaluation, names: Sequence[str], hardest: Sequence[tuple[int, float]]) -> Table:
    """Frames with the largest force errors; `names` of all frames."""
    rows = []
    for index, error in hardest:
        energy = 1e3 * (evaluation.energy[index] - evaluation.reference_energy[index]) / evaluation.n_atoms[index]
        rows.append([names[index], f"{evaluation.n_atoms[index]}", f"{error:.4g}", f"{energy:+.3g}"])
    columns = ["", "Atoms", "Force RMSE\nmeV/\N{ANGSTROM SIGN}", "Energy error\nmeV/atom"]
    return Table("Hardest frames", columns, rows)


def uncertainty_table(evaluations: Mapping[str, Evaluation]) -> Table | None:
    """How far the deviations of ensembles can be trusted; None where there is no ensemble."""
    rows = []
    for name, evaluation in evaluations.items():
        for quantity, summary in evaluation.uncertainty().items():
            rows.append(
                [
                    f"{name}, {quantity}",
                    f"{1e3 * summary.mean_deviation:.3g}",
                    f"{summary.coverage:.1%}",
                    f"{summary.correlation:.2f}",
                    f"{summary.negative_log_likelihood:.3f}",
                ]
            )
    columns = [
        "",
        "RMS deviation\nmeV/atom, meV/\N{ANGSTROM SIGN}",
        "Errors within\n90% interval",
        "Rank correlation\nwith errors",
        "Negative log\nlikelihood",
    ]
    return Table("Uncertainty", columns, rows) if rows else None


def potential_table(potentials: Mapping[str, Potential]) -> Table:
    """What the potentials are."""
    rows = []
    for name, potential in potentials.items():
        settings = potential.settings
        n_parameters = sum(parameter.numel() for parameter in potential.model.parameters())
        kind = "short-range" if settings.long_range is None else "full-range"
        if potential.n_members > 1:
            kind += f", {potential.n_members} members"
        rows.append([name, kind, ", ".join(settings.elements), f"{settings.cutoff:g}", f"{n_parameters}"])
    return Table("Potentials", ["", "Model", "Elements", "Cutoff (\N{ANGSTROM SIGN})", "Parameters"], rows)


def data_table(report: DataReport, title: str = "Data") -> Table:
    """What sets of frames hold, one column each."""
    return Table(title, ["", *report.sets], [[name, *values] for name, values in report.rows.items()])


def cost_table(metrics: Path, evaluations: Mapping[str, Evaluation]) -> Table:
    """Time of each stage, from the table of metrics, and of an evaluation."""
    columns = read_metrics(metrics)
    rows = []
    for stage in dict.fromkeys(columns["stage"]):
        own = [index for index, name in enumerate(columns["stage"]) if name == stage]
        seconds = float(columns["seconds"][own[-1]])
        rows.append(
            [f"stage {stage}", f"{len(own)} epochs", f"{seconds:.1f} s", f"{seconds / len(own):.3g} s per epoch"]
        )
    for name, evaluation in evaluations.items():
        n_atoms = int(evaluation.n_atoms.sum())
        per_atom = 1e6 * evaluation.seconds / n_atoms
        rows.append(
            [
                f"evaluation, {name}",
                f"{n_atoms} atoms",
                f"{evaluation.seconds:.1f} s",
                f"{per_atom:.3g} \u00b5s per atom",
            ]
        )
    return Table("Cost", ["", "What", "Time", "Each"], rows)


def _table_of_errors(errors: Mapping[str, Mapping[str, float]], title: str) -> Table:
    rows = []
    for name, found in errors.items():
        values = [(found[key], text) for key, _, text in COLUMNS]
        rows.append([name, *("-" if value != value else text.format(value) for value, text in values)])
    return Table(title, ["", *(title for _, title, _ in COLUMNS)], rows)

"""What a run folder and an evaluation show of themselves: plots as PNG and one HTML page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from lrc_ase.dataset import DataReport
from lrc_ase.potential_file import Potential, load_potential
from lrc_ase.training.configuration import load_configuration
from lrc_ase.training.evaluation import Evaluation, evaluate_frames
from lrc_ase.training.plots import plot_learning_curve, plot_parity, plot_uncertainty
from lrc_ase.training.prepare import inspect_data_sets, read_data_sets
from lrc_ase.training.report import Report, Table, write_report
from lrc_ase.training.run_folder import RunFolder

__all__ = ["data_table", "errors_table", "potential_table", "report_evaluations", "report_run", "uncertainty_table"]

LARGEST_VALIDATION = 200  # frames drawn; a report must not take as long as the training

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
    rows = []
    for name, evaluation in evaluations.items():
        values = [(evaluation.metrics[key], text) for key, _, text in COLUMNS]
        rows.append([name, *("-" if value != value else text.format(value) for value, text in values)])
    return Table(title, ["", *(title for _, title, _ in COLUMNS)], rows)


def potential_table(potentials: Mapping[str, Potential]) -> Table:
    """What the potentials are."""
    rows = []
    for name, potential in potentials.items():
        settings = potential.settings
        n_parameters = sum(parameter.numel() for parameter in potential.model.parameters())
        kind = "short-range" if settings.long_range is None else "full-range"
        rows.append([name, kind, ", ".join(settings.elements), f"{settings.cutoff:g}", f"{n_parameters}"])
    return Table("Potentials", ["", "Model", "Elements", "Cutoff (\N{ANGSTROM SIGN})", "Parameters"], rows)


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


def _uncertainty(
    evaluations: Mapping[str, Evaluation], folder: Path, tables: list[Table], figures: dict[str, Path]
) -> None:
    """Add the uncertainties of ensembles, if there are any, to a report."""
    table = uncertainty_table(evaluations)
    if table is not None:
        tables.append(table)
        figures["Uncertainty"] = folder / "uncertainty.png"
        plot_uncertainty(evaluations, figures["Uncertainty"])


def data_table(report: DataReport, title: str = "Data") -> Table:
    """What sets of frames hold, one column each."""
    return Table(title, ["", *report.sets], [[name, *values] for name, values in report.rows.items()])


def report_run(path: str | os.PathLike[str]) -> Path:
    """Draw learning curve and parity of the finished run in a folder, and write its report.html.

    The parity is that of the validation frames of the last stage, one column per data set, of at most
    `LARGEST_VALIDATION` frames each.
    """
    folder = RunFolder(path)
    configuration = load_configuration(folder.configuration)
    potential = load_potential(folder.potential, device=configuration.device)
    figures = {"Learning curve": folder.path / "learning-curve.png"}
    plot_learning_curve(folder.metrics, figures["Learning curve"])
    last = configuration.stages[-1]
    evaluations = {}
    data_sets = read_data_sets(configuration)
    inspection = inspect_data_sets(data_sets)
    for name, data_set in data_sets.items():
        if name in configuration.sets_of(last) and data_set.validation:
            frames = [frame.atoms for frame in data_set.validation[:LARGEST_VALIDATION]]
            evaluations[name] = evaluate_frames(potential, frames, keys=configuration.data[name].keys, required=())
    tables = [potential_table({folder.potential.name: potential})]
    if evaluations:
        tables.append(errors_table(evaluations, "Errors on the validation frames"))
        figures["Parity on the validation frames"] = folder.path / "parity.png"
        plot_parity(evaluations, figures["Parity on the validation frames"])
        _uncertainty(evaluations, folder.path, tables, figures)
    tables.append(data_table(inspection))
    target = folder.path / "report.html"
    remarks = (*potential.description.get("remarks", ()), *inspection.warnings)
    write_report(
        Report(f"Training run {folder.path.name}", remarks, tables, figures, folder.configuration.read_text("utf-8")),
        target,
    )
    return target


def report_evaluations(
    potentials: Mapping[str, Potential], evaluations: Mapping[str, Evaluation], path: str | os.PathLike[str]
) -> Path:
    """Write report.html and parity.png about potentials evaluated on the same frames to the folder `path`."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    plot_parity(evaluations, folder / "parity.png")
    tables = [potential_table(potentials), errors_table(evaluations)]
    sets = {
        f"{name}, {set_name}": errors
        for name, evaluation in evaluations.items()
        for set_name, errors in evaluation.errors_by_set().items()
    }
    if len(sets) > len(evaluations):
        rows = [[name, *(f"{errors[key]:.4g}" for key, _, _ in COLUMNS)] for name, errors in sets.items()]
        tables.append(Table("Errors by file", ["", *(title for _, title, _ in COLUMNS)], rows))
    by_element = {
        f"{name}, {element}": errors
        for name, evaluation in evaluations.items()
        for element, errors in evaluation.force_errors_by_element().items()
    }
    rows = [
        [name, f"{errors['forces_mae']:.4g}", f"{errors['forces_rmse']:.4g}"] for name, errors in by_element.items()
    ]
    tables.append(Table("Force errors by element (meV/\N{ANGSTROM SIGN})", ["", "MAE", "RMSE"], rows))
    figures = {"Prediction over reference": folder / "parity.png"}
    _uncertainty(evaluations, folder, tables, figures)
    write_report(Report("Evaluation", (), tables, figures), folder / "report.html")
    return folder / "report.html"

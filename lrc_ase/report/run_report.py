"""What a run folder and an evaluation show of themselves: plots as PNG and one HTML page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lrc_ase.dataset import SOURCE_KEY, Atoms, labelled_atoms, write_frames
from lrc_ase.evaluation.evaluate import Evaluation, evaluate_frames
from lrc_ase.evaluation.pair_errors import pair_errors
from lrc_ase.files.potential_file import Potential, load_potential
from lrc_ase.report.page import Report, Table, write_report
from lrc_ase.report.plots import plot_learning_curve, plot_parity, plot_uncertainty
from lrc_ase.report.potential_plots import (
    plot_charges,
    plot_hardest_frames,
    plot_kernels,
    plot_pair_errors,
    plot_parity_by_element,
)
from lrc_ase.report.tables import (
    cost_table,
    data_table,
    element_table,
    errors_table,
    hardest_table,
    potential_table,
    set_table,
    uncertainty_table,
)
from lrc_ase.training.configuration import load_configuration
from lrc_ase.training.data_sets import inspect_data_sets, read_data_sets
from lrc_ase.training.run_folder import RunFolder

__all__ = ["report_evaluations", "report_run"]

LARGEST_VALIDATION = 200  # frames of a set drawn; a report must not take as long as the training
N_HARDEST = 4


def report_run(path: str | os.PathLike[str]) -> Path:
    """Evaluate the finished run in a folder on its validation frames, draw plots and write report.html.

    Of each data set of the last stage at most `LARGEST_VALIDATION` frames are evaluated.
    """
    folder = RunFolder(path)
    configuration = load_configuration(folder.configuration)
    potential = load_potential(folder.potential, device=configuration.device)
    figures = {"Learning curve": folder.path / "learning-curve.png"}
    plot_learning_curve(folder.metrics, figures["Learning curve"])
    data_sets = read_data_sets(configuration)
    inspection = inspect_data_sets(data_sets)
    frames: list[Atoms] = []
    sets: list[str] = []
    for name in configuration.sets_of(configuration.stages[-1]):
        own = [labelled_atoms(frame) for frame in data_sets[name].validation[:LARGEST_VALIDATION]]
        frames += own
        sets += [name] * len(own)
    potentials = {folder.potential.stem: potential}
    evaluations = {}
    tables = [potential_table(potentials)]
    if frames:
        evaluations = {name: evaluate_frames(each, frames, required=(), sets=sets) for name, each in potentials.items()}
        tables.append(errors_table(evaluations, "Errors on the validation frames"))
    shown_tables, shown_figures = _of_evaluations(potentials, evaluations, frames, folder.path)
    tables += [*shown_tables, cost_table(folder.metrics, evaluations), data_table(inspection)]
    target = folder.path / "report.html"
    remarks = (*potential.description.get("remarks", ()), *inspection.warnings)
    configuration_text = folder.configuration.read_text("utf-8")
    title = f"Training run {folder.path.resolve().name}"
    write_report(Report(title, remarks, tables, figures | shown_figures, configuration_text), target)
    return target


def report_evaluations(
    potentials: Mapping[str, Potential],
    evaluations: Mapping[str, Evaluation],
    frames: Sequence[Atoms],
    path: str | os.PathLike[str],
) -> Path:
    """Write report.html and plots about potentials evaluated on the same `frames` to the folder `path`."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    shown_tables, figures = _of_evaluations(potentials, evaluations, frames, folder)
    tables = [potential_table(potentials), errors_table(evaluations), *shown_tables]
    write_report(Report("Evaluation", (), tables, figures), folder / "report.html")
    return folder / "report.html"


def _of_evaluations(
    potentials: Mapping[str, Potential],
    evaluations: Mapping[str, Evaluation],
    frames: Sequence[Atoms],
    folder: Path,
) -> tuple[list[Table], dict[str, Path]]:
    """Tables and figures of potentials that were evaluated on the same frames; without frames those of the kernels."""
    tables: list[Table] = []
    figures: dict[str, Path] = {}

    def figure(caption: str, name: str) -> Path:
        figures[caption] = folder / name
        return figures[caption]

    if evaluations:
        if (by_set := set_table(evaluations)) is not None:
            tables.append(by_set)
        tables.append(element_table(evaluations))
        plot_parity(evaluations, figure("Prediction over reference", "parity.png"))
        plot_parity_by_element(evaluations, figure("Forces by element and set", "parity-by-element.png"))
        largest = 2 * max(potential.settings.cutoff for potential in potentials.values())
        errors = {
            name: pair_errors(frames, evaluation, largest_distance=largest) for name, evaluation in evaluations.items()
        }
        cutoff = min(potential.settings.cutoff for potential in potentials.values())
        if any(errors.values()):
            caption = "Mean force error along pairs of atoms, by distance: a missing pair force shows beyond the cutoff"
            plot_pair_errors(errors, cutoff, figure(caption, "pair-errors.png"))
        tables.append(_hardest(evaluations, frames, folder, figure("Hardest frames", "hardest.png")))
        if (uncertainty := uncertainty_table(evaluations)) is not None:
            tables.append(uncertainty)
            plot_uncertainty(evaluations, figure("Uncertainty", "uncertainty.png"))
        if any(evaluation.charges is not None for evaluation in evaluations.values()):
            plot_charges(evaluations, figure("Latent charges by element", "charges.png"))
    if any(potential.settings.long_range is not None for potential in potentials.values()):
        plot_kernels(potentials, figure("Kernels of the long-range channels", "kernels.png"))
    return tables, figures


def _hardest(evaluations: Mapping[str, Evaluation], frames: Sequence[Atoms], folder: Path, figure: Path) -> Table:
    """Draw and write the frames that the first potential finds hardest."""
    evaluation = next(iter(evaluations.values()))
    hardest = evaluation.hardest_frames(N_HARDEST)
    names = [Path(atoms.info.get(SOURCE_KEY, f"frame {index}")).name for index, atoms in enumerate(frames)]
    plot_hardest_frames(frames, names, evaluation, hardest, figure)
    write_frames(folder / "hardest.extxyz", [frames[index] for index, _ in hardest])
    return hardest_table(evaluation, names, hardest)

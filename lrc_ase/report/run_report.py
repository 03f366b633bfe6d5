"""Reports on training runs and evaluations: one HTML page and plots as PNG files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from lrc_ase.dataset import SOURCE_KEY, Atoms, LabelledFrame, labelled_atoms, write_frames
from lrc_ase.dataset.distinct_names import distinct_names
from lrc_ase.evaluation.error_tables import ERROR_UNITS, error_text
from lrc_ase.evaluation.evaluate import Evaluation, cross_calibrated, evaluate_frames
from lrc_ase.evaluation.pair_errors import pair_errors
from lrc_ase.files.potential_file import Potential, load_potential
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.report.error_plots import plot_hardest_frames, plot_pair_errors
from lrc_ase.report.learning_curve import plot_learning_curve
from lrc_ase.report.page import Picture, Report, Section, Table, write_report
from lrc_ase.report.parity import plot_parity, plot_parity_by_element
from lrc_ase.report.potential_plots import plot_charges, plot_kernels
from lrc_ase.report.tables import (
    config_type_table,
    cost_table,
    data_table,
    electric_errors_of,
    electric_table,
    element_table,
    errors_table,
    hardest_table,
    label_remarks,
    potential_table,
    set_table,
    uncertainty_table,
)
from lrc_ase.report.uncertainty_plot import plot_uncertainty
from lrc_ase.training.configuration import load_configuration
from lrc_ase.training.data_sets import inspect_data_sets, read_data_sets
from lrc_ase.training.final_errors import TRAINING, VALIDATION, verdict
from lrc_ase.training.run_folder import RunFolder

__all__ = ["report_evaluations", "report_run", "training_file_remarks"]

LARGEST_VALIDATION = 200
"""Largest number of frames evaluated per set; a report must not take as long as the training."""
N_HARDEST = 4
"""Number of frames shown for their large errors."""
CROSS_VALIDATED = "cross-validated (each half of the validation frames calibrated on the other half)"
AS_STORED = "as the potential gives them"


def report_run(path: str | os.PathLike[str]) -> Path:
    """Evaluate the run in a folder, draw plots and write report.html; return the path of the page.

    Plots and details come from the validation frames of the last stage, at most `LARGEST_VALIDATION` of each set. The
    errors on training, validation and test frames are those that the training stored in the potential.
    """
    folder = RunFolder(path)
    configuration = load_configuration(folder.configuration)
    potential = load_potential(folder.potential, device=configuration.device)
    run_name = folder.path.resolve().name
    data_sets = read_data_sets(configuration)
    inspection = inspect_data_sets(data_sets)
    names = configuration.sets_of(configuration.stages[-1])
    validation = _evaluate(
        {name: data_sets[name].validation[:LARGEST_VALIDATION] for name in names}, _without_calibration(potential)
    )
    shown = {} if validation is None else {run_name: cross_calibrated(validation[0])}
    frames = [] if validation is None else validation[1]
    sections = _sections({run_name: potential}, shown, frames, folder.path, uncertainty=CROSS_VALIDATED)
    errors = _errors_of_parts(potential, None if validation is None else validation[0])
    sentences = [] if TRAINING not in errors else [verdict(errors)]
    if validation is not None:
        sentences = [_headline(validation[0]), *sentences, *label_remarks(validation[0])]
    sentences += [f"Note: {remark}" for remark in (*potential.description.get("remarks", ()), *inspection.warnings)]
    tables = [errors_table(errors, "Errors of the potential"), electric_table(errors)] if errors else []
    sections[0] = replace(sections[0], sentences=sentences, tables=[table for table in tables if table is not None])
    sections.append(_training_section(folder, shown, data_table(inspection)))
    target = folder.path / "report.html"
    write_report(Report(f"Training of {run_name}", sections, folder.configuration.read_text("utf-8")), target)
    return target


def report_evaluations(
    potentials: Mapping[str, Potential],
    evaluations: Mapping[str, Evaluation],
    frames: Sequence[Atoms],
    path: str | os.PathLike[str],
) -> Path:
    """Write report.html and plots on potentials evaluated on the same `frames`; return the path of the page.

    `potentials` and `evaluations` have the same names. The folder `path` is created if it is missing.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    sections = _sections(potentials, evaluations, frames, folder, uncertainty=AS_STORED)
    errors = errors_table({name: evaluation.metrics for name, evaluation in evaluations.items()})
    electric = electric_table(electric_errors_of(evaluations))
    remarks = [*label_remarks(next(iter(evaluations.values()))), *training_file_remarks(potentials, evaluations)]
    tables = [errors, *([] if electric is None else [electric]), *sections[0].tables]
    sections[0] = replace(sections[0], sentences=remarks, tables=tables)
    write_report(Report("Evaluation", sections), folder / "report.html")
    return folder / "report.html"


def training_file_remarks(potentials: Mapping[str, Potential], evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Return a sentence for each potential that was trained on files of the same names as the evaluated files."""
    remarks = []
    for name, potential in potentials.items():
        trained = {
            Path(file.rpartition("@")[0] or file).name
            for each in potential.description.get("training_set", {}).values()
            for file in each.get("files", ())
        }
        both = sorted(trained & {Path(each).name for each in evaluations[name].sets})
        if both:
            remarks.append(
                f"{name} was trained on files called {', '.join(both)}: on its training frames errors are smaller, and "
                "deviations less telling, than on new ones."
            )
    return remarks


def _errors_of_parts(potential: Potential, validation: Evaluation | None) -> dict[str, dict[str, float]]:
    """Return the errors on training, validation and test frames that the training stored in the potential.

    An evaluation of all validation frames takes precedence: it includes stresses that were not trained on. A run that
    did not reach its end has stored no errors.
    """
    errors: dict[str, dict[str, float]] = dict(potential.description.get("errors", {}))
    if validation is not None and validation.metrics["n_frames"] >= errors.get(VALIDATION, {}).get("n_frames", 0.0):
        errors[VALIDATION] = validation.metrics
    return errors


def _evaluate(
    sets: Mapping[str, Sequence[LabelledFrame]], potential: Potential
) -> tuple[Evaluation, list[Atoms]] | None:
    """Evaluate the frames of all sets; return the evaluation and the frames, or None without frames."""
    frames = [labelled_atoms(frame) for labelled in sets.values() for frame in labelled]
    if not frames:
        return None
    names = [name for name, labelled in sets.items() for _ in labelled]
    return evaluate_frames(potential, frames, required=(), sets=names), frames


def _without_calibration(potential: Potential) -> Potential:
    """Return a copy of an ensemble whose deviations are the bare spread of its members.

    The stored calibration was fitted to the same validation frames, and would look better than it is.
    """
    if not isinstance(potential.model, Ensemble):
        return potential
    model = deepcopy(potential.model)
    model.uncertainty_scale.fill_(1.0)
    model.forces_floor.fill_(0.0)
    return replace(potential, model=model)


def _headline(evaluation: Evaluation) -> str:
    """Return the sentence with the errors on validation frames."""
    parts = [
        f"{quantity} {error_text(evaluation.metrics[key])} {ERROR_UNITS[unit].symbol}"
        for key, quantity, unit in (
            ("forces_rmse", "forces", "forces"),
            ("energy_rmse", "energies", "energy"),
            ("dipole_rmse", "dipoles", "dipole"),
            ("born_effective_charges_rmse", "Born effective charges", "born_effective_charges"),
        )
        if not math.isnan(evaluation.metrics[key])
    ]
    n_frames = len(evaluation.n_atoms)
    frames = "1 validation frame" if n_frames == 1 else f"{n_frames} validation frames"
    return f"Root mean square errors on {frames}, not trained on: {', '.join(parts) or 'unknown'}."


def _sections(
    potentials: Mapping[str, Potential],
    evaluations: Mapping[str, Evaluation],
    frames: Sequence[Atoms],
    folder: Path,
    *,
    uncertainty: str,
) -> list[Section]:
    """Draw all plots and return the sections that explain them; the first section is about the errors.

    `uncertainty` says in captions where the deviations of ensembles come from.
    """
    if not evaluations:
        return [Section("How good is it?"), _model(potentials, evaluations, folder)]
    has_forces = any(evaluation.metrics["n_forces"] for evaluation in evaluations.values())
    pictures = []
    counts = ("n_energies", "n_forces", "n_dipoles", "n_born_effective_charges")
    if any(evaluation.metrics[key] for evaluation in evaluations.values() for key in counts):
        plot_parity(evaluations, folder / "parity.png")
        caption = "Look for points far off the line (single bad frames) and for a tilt (values that are all too small)."
        pictures.append(Picture(folder / "parity.png", "Prediction over reference", caption))
    return [
        Section("How good is it?", pictures=pictures),
        _where_it_errs(potentials, evaluations, frames, folder, has_forces=has_forces),
        _uncertainty(evaluations, folder, uncertainty),
        _model(potentials, evaluations, folder),
    ]


def _where_it_errs(
    potentials: Mapping[str, Potential],
    evaluations: Mapping[str, Evaluation],
    frames: Sequence[Atoms],
    folder: Path,
    *,
    has_forces: bool,
) -> Section:
    """Return the section on errors by set, element, frame and distance."""
    tables = [set_table(evaluations), config_type_table(evaluations), element_table(evaluations)]
    pictures = []
    first, evaluation = next(iter(evaluations.items()))
    title = "Hardest frames" if len(evaluations) == 1 else f"Hardest frames of {first}"
    hardest = evaluation.hardest_frames(N_HARDEST, "forces" if has_forces else "energy")
    sources = [atoms.info.get(SOURCE_KEY, f"frame {index}") for index, atoms in enumerate(frames)]
    files = distinct_names(source.rpartition("@")[0] for source in sources)
    names = [files[path] + at + frame for path, at, frame in (source.rpartition("@") for source in sources)]
    if hardest:
        tables.append(hardest_table(evaluation, names, hardest, title))
        write_frames(folder / "hardest.extxyz", [frames[index] for index, _ in hardest])
    if has_forces:
        plot_parity_by_element(evaluations, folder / "parity-by-element.png")
        caption = "Add frames that contain the elements off the line."
        pictures.append(Picture(folder / "parity-by-element.png", "Forces by element", caption))
        plot_hardest_frames(frames, names, evaluation, hardest, folder / "hardest.png")
        caption = "Dark atoms err most: look for a defect, a rare neighborhood or a label that did not converge."
        pictures.append(Picture(folder / "hardest.png", title, f"{caption} They are in hardest.extxyz."))
    cutoffs = [potential.settings.cutoff for potential in potentials.values()]
    errors = {name: pair_errors(frames, each, largest_distance=2 * max(cutoffs)) for name, each in evaluations.items()}
    if any(errors.values()):
        plot_pair_errors(errors, min(cutoffs), folder / "pair-errors.png")
        caption = (
            "A curve that stays off zero beyond the cutoff is a pair force that the model lacks; what scatters about "
            "zero is not missing. Bars are two standard errors."
        )
        pictures.append(Picture(folder / "pair-errors.png", "Mean force error along pairs of atoms", caption))
    return Section("Where does it err?", (), [table for table in tables if table is not None], pictures)


def _uncertainty(evaluations: Mapping[str, Evaluation], folder: Path, origin: str) -> Section:
    """Return the section on the deviations of ensembles, empty for single models."""
    table = uncertainty_table(evaluations, f"Uncertainty: deviations {origin}")
    if table is None:
        return Section("Can its uncertainties be trusted?")
    plot_uncertainty(evaluations, folder / "uncertainty.png", title=f"deviations {origin}")
    caption = (
        "Left, curves below the line are deviations that are too small. Right, errors of groups on the line are as "
        f"large as predicted. Deviations are {origin}."
    )
    sentence = "Nine errors in ten should lie within the 90% interval; larger deviations should go with larger errors."
    picture = Picture(folder / "uncertainty.png", "Errors beside deviations", caption)
    return Section("Can its uncertainties be trusted?", [sentence], [table], [picture])


def _model(potentials: Mapping[str, Potential], evaluations: Mapping[str, Evaluation], folder: Path) -> Section:
    """Return the section on the long-range kernels and latent charges of the models."""
    pictures = []
    if any(potential.settings.long_range is not None for potential in potentials.values()):
        plot_kernels(potentials, folder / "kernels.png")
        caption = "Look beyond the cutoff: a kernel that is not small there carries long-range interactions."
        pictures.append(Picture(folder / "kernels.png", "Kernels of the long-range channels", caption))
    if any(evaluation.charges is not None for evaluation in evaluations.values()):
        plot_charges(evaluations, folder / "charges.png")
        caption = (
            "Latent charges are variables of the model, fitted to energies and forces alone. They are no oxidation "
            "states: in neutral structures their common sign is arbitrary, and their size is shared with the other "
            "channels. Look for one narrow peak per element and site."
        )
        pictures.append(Picture(folder / "charges.png", "Latent charges by element", caption))
    return Section("What has it learned?", (), [potential_table(potentials)], pictures)


def _training_section(folder: RunFolder, evaluations: Mapping[str, Evaluation], data: Table) -> Section:
    """Return the section on learning curve, time and data of a run."""
    path = folder.path / "learning-curve.png"
    plot_learning_curve(folder.metrics, path)
    caption = (
        "Validation errors that still fall ask for more epochs; where they rise and training errors fall, the model "
        "overfits. Curves break between stages, as these may differ in their frames."
    )
    picture = Picture(path, "Learning curve", caption)
    return Section("How was it trained?", (), [cost_table(folder.metrics, evaluations), data], [picture])

"""Report on active learning: one HTML page on errors, explored structures, time and the potential."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lrc_ase.evaluation.error_tables import ERROR_UNITS, error_text
from lrc_ase.evaluation.evaluate import evaluate_frames
from lrc_ase.files.potential_file import Potential, load_potential
from lrc_ase.learning.state import FreshErrors, IterationRecord, LearnFolder, LearnState, stored_frames
from lrc_ase.report.learning_plots import (
    Explored,
    explored_of,
    plot_agreement,
    plot_errors,
    plot_explored,
    plot_shortest,
    plot_time,
)
from lrc_ase.report.page import Picture, Report, Section, Table, write_report
from lrc_ase.report.parity import plot_parity
from lrc_ase.report.tables import errors_table, potential_table
from lrc_ase.structures.domain import DOMAIN_KEY

__all__ = ["report_learning"]

_FORCE_UNIT = ERROR_UNITS["forces"].symbol
NAME = "potential"
"""Name of the final potential in tables and plots."""


def report_learning(path: str | os.PathLike[str]) -> Path:
    """Write report.html on the run of `lrc-ase learn` in a folder, finished or not; return the path of the page."""
    folder = LearnFolder(path)
    state = folder.read()
    pictures = folder.path / "plots"
    pictures.mkdir(exist_ok=True)
    explored = {
        record.iteration: explored_of(frames)
        for record in state.records
        if (frames := stored_frames(folder.explored(record.iteration)))
    }
    sections = [
        _quality(state, pictures),
        _exploration(state, explored, pictures),
        _time(state, pictures),
    ]
    if state.phase == "done":
        sections.append(_potential(folder, pictures))
    title = f"Active learning in {folder.path.resolve().name}"
    write_report(Report(title, sections, folder.settings.read_text(encoding="utf-8")), folder.report)
    return folder.report


def _quality(state: LearnState, folder: Path) -> Section:
    """Return the section on errors on labels that were not trained on yet."""
    if state.phase == "done":
        verdict = "The loop converged" if state.converged else "The loop did NOT converge"
        sentences = [f"{verdict}: {state.end}."]
    else:
        sentences = [f"The run is not finished: iteration {state.iteration}, {state.phase}."]
    sentences.append(
        "Errors on fresh labels are measured before training sees them. Random frames are drawn from dynamics with the "
        "potential, chosen ones are those that the ensemble disagreed about: their errors are larger."
    )
    rows = [
        [f"{record.iteration}", f"{calls}", *_cells(record)]
        for record, calls in zip(state.records, _calls(state.records), strict=True)
    ]
    columns = [
        "Iteration",
        "Teacher\ncalls",
        "Failed",
        f"Fresh, random\n{_FORCE_UNIT}",
        f"Fresh, chosen\n{_FORCE_UNIT}",
        f"Fresh, all\n{_FORCE_UNIT}",
        f"Expected\n{_FORCE_UNIT}",
        f"Held out\n{_FORCE_UNIT}",
    ]
    tables = [Table("Force errors (root mean square)", columns, rows)]
    pictures = []
    if any(record.fresh for record in state.records):
        calls = [
            calls - record.labelled - record.failed
            for record, calls in zip(state.records, _calls(state.records), strict=True)
        ]
        plot_errors(state.records, calls, folder / "fresh-errors.png")
        caption = "Each point is an error before training on its labels, over the calls that the potential had seen."
        pictures.append(Picture(folder / "fresh-errors.png", "Error on fresh labels", caption))
        plot_agreement(state.records, folder / "agreement.png")
        caption = "Points above the line are errors larger than the ensemble expected: do not trust its deviations yet."
        pictures.append(Picture(folder / "agreement.png", "Actual over expected error", caption))
    return Section("How good is it?", sentences, tables, pictures)


def _cells(record: IterationRecord) -> list[str]:
    """Return the errors of an iteration as text."""
    every = record.fresh.get("all")
    return [
        f"{record.failed}",
        _error(record.fresh.get("random")),
        _error(record.fresh.get("chosen")),
        _error(every),
        "-" if every is None or every.forces_predicted is None else error_text(every.forces_predicted),
        _error(record.held_out),
    ]


def _error(errors: FreshErrors | None) -> str:
    return "-" if errors is None else error_text(errors.forces_rmse)


def _calls(records: Sequence[IterationRecord]) -> list[int]:
    """Return the number of teacher calls after each iteration."""
    return np.cumsum([record.labelled + record.failed for record in records]).tolist()


def _exploration(state: LearnState, explored: Mapping[int, Explored], folder: Path) -> Section:
    """Return the section on what walkers met."""
    rows = []
    for record in state.records:
        if (each := explored.get(record.iteration)) is None:
            continue
        volumes = each.volumes[np.isfinite(each.volumes)]
        rows.append(
            [
                f"{record.iteration}",
                f"{record.picoseconds:.3g}",
                f"{record.runs}",
                f"{record.alarms}",
                f"{record.explosions}",
                "-" if record.threshold is None else f"{record.threshold:.3f}",
                f"{record.correction:.1f}",
                _range(each.temperatures, "{:.0f}"),
                _range(volumes, "{:.1f}"),
                f"{min(each.shortest.values(), default=float('nan')):.2f}",
            ]
        )
    if not rows:
        return Section("What was explored?")
    columns = [
        "Iteration", "Time\nps", "Runs", "Alarms", "Explosions", "Threshold\neV/Å", "Correction", "Temperature\nK",
        "Volume\nÅ³/atom", "Shortest\ndistance\nÅ",
    ]  # fmt: skip
    plot_explored(explored, folder / "explored.png")
    plot_shortest(explored, folder / "shortest.png")
    pictures = [
        Picture(
            folder / "explored.png",
            "Explored conditions",
            "One point for each snapshot. Look for a jump of the volume (melting), and for corners never visited.",
        ),
        Picture(
            folder / "shortest.png",
            "Shortest distances",
            "Of each pair of elements, over all snapshots of an iteration. A sudden drop: a structure fell apart.",
        ),
    ]
    return Section("What was explored?", (), [Table("Exploration", columns, rows)], pictures)


def _range(values: np.ndarray, style: str) -> str:
    if not len(values):
        return "-"
    low, high = style.format(values.min()), style.format(values.max())
    return low if low == high else f"{low} to {high}"


def _time(state: LearnState, folder: Path) -> Section:
    """Return the section on the time of each phase."""
    if not state.records:
        return Section("Where did the time go?")
    teacher = sum(record.teacher_seconds for record in state.records)
    parts = {
        "labels (wall time)": sum(record.label_seconds for record in state.records),
        "trainings of ensembles": sum(record.train_seconds for record in state.records),
        "explorations": sum(record.explore_seconds for record in state.records),
        "final training": state.final_seconds,
    }
    others = sum(parts.values()) - parts["labels (wall time)"]
    sentence = f"The teacher's calculations took {teacher:.0f} s in all."
    if teacher > 0:
        times = others / teacher
        sentence += (
            f" Everything beside the labels took {others:.0f} s, {times:.{0 if times >= 10 else 1}f} times as much."
        )
    plot_time(state.records, state.final_seconds, folder / "time.png")
    rows = [[name, f"{seconds:.1f} s"] for name, seconds in parts.items()]
    picture = Picture(folder / "time.png", "Time of each iteration", "Wall time of the phases.")
    return Section("Where did the time go?", [sentence], [Table("Time", ["", "Time"], rows)], [picture])


def _potential(folder: LearnFolder, pictures: Path) -> Section:
    """Return the section on the final potential: its errors on held-out frames, and its domain."""
    potential = load_potential(folder.potential)
    tables = [potential_table({NAME: potential}), _domain_table(potential)]
    held_out = stored_frames(folder.final_training / "held-out.extxyz")
    shown = []
    sentences = []
    if held_out:
        evaluation = evaluate_frames(potential, held_out)
        tables.insert(0, errors_table({NAME: evaluation.metrics}, "Errors on held-out frames"))
        plot_parity({NAME: evaluation}, pictures / "parity.png")
        shown.append(Picture(pictures / "parity.png", "Prediction over reference", "Frames that were held out."))
        sentences.append(
            f"The final potential was trained on all labels but {len(held_out)} held-out frames. These chose its best "
            "epoch, so that their errors are slightly too small."
        )
    return Section("The potential", sentences, tables, shown)


def _domain_table(potential: Potential) -> Table:
    """Return what the training set covers."""
    domain = potential.description.get(DOMAIN_KEY, {})
    pairs = ", ".join(f"{pair} {distance:.2f}" for pair, distance in domain.get("shortest_distances", {}).items())
    neighbors = domain.get("neighbors")
    rows = [
        ["shortest distances, Å", pairs or "-"],
        ["neighbors within the cutoff", "-" if neighbors is None else f"{neighbors[0]} to {neighbors[1]}"],
        ["largest force, eV/Å", f"{domain['largest_force']:.2f}" if "largest_force" in domain else "-"],
    ]
    return Table("Training domain", ["", "Value"], rows)

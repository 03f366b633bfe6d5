"""Files of an evaluation: errors as JSON, predictions for all frames as CSV."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lrc_ase.evaluation.electric import Comparison
from lrc_ase.evaluation.error_tables import ERROR_UNITS
from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.files.atomic import write_atomically, writing
from lrc_ase.files.strict_json import json_text

__all__ = ["write_evaluation"]

_VOIGT = {"xx": (0, 0), "yy": (1, 1), "zz": (2, 2), "yz": (1, 2), "xz": (0, 2), "xy": (0, 1)}
"""Stress components in ASE's order."""


def write_evaluation(evaluation: Evaluation, folder: str | os.PathLike[str]) -> None:
    """Write errors.json and tables of all predictions and references to `folder`.

    errors.json
        Errors over all frames, by set, by ``config_type`` and by element, and the uncertainty of an ensemble, in the
        units that its entry ``units`` names; null where there are no labels.
    energies.csv, forces.csv, stresses.csv, dipoles.csv, born-effective-charges.csv
        A row per frame, per atom, per frame with a stress or dipole, and per atom with a Born effective charge, in the
        units of the headings; empty without label.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    errors = {
        "units": {quantity: unit.ascii for quantity, unit in ERROR_UNITS.items()},
        "all": evaluation.metrics,
        "by_set": evaluation.errors_by_set(),
        "by_config_type": evaluation.errors_by_config_type(),
        "by_element": evaluation.force_errors_by_element(),
        "uncertainty": {name: asdict(summary) for name, summary in evaluation.uncertainty().items()},
    }
    write_atomically(target / "errors.json", json_text(errors).encode())
    _write_energies(evaluation, target / "energies.csv")
    _write_forces(evaluation, target / "forces.csv")
    if np.isfinite(evaluation.reference_stress).any():
        _write_stresses(evaluation, target / "stresses.csv")
    if "dipole" in evaluation.electric:
        _write_dipoles(evaluation.electric["dipole"], target / "dipoles.csv")
    if "born_effective_charges" in evaluation.electric:
        _write_born_charges(evaluation, target / "born-effective-charges.csv")


def _write_energies(evaluation: Evaluation, path: Path) -> None:
    """Write a row per frame."""
    columns = ["frame", "set", "config_type", "n_atoms", "reference_energy_eV", "energy_eV"]
    deviations = evaluation.energy_std
    config_types = evaluation.config_types or [""] * len(evaluation.n_atoms)
    rows = []
    for index, n_atoms in enumerate(evaluation.n_atoms):
        row = [index, evaluation.sets[index], config_types[index], int(n_atoms)]
        row += [_number(evaluation.reference_energy[index], 8), _number(evaluation.energy[index], 8)]
        rows.append(row + ([] if deviations is None else [_number(deviations[index], 8)]))
    _write(path, columns + ([] if deviations is None else ["energy_std_eV"]), rows)


def _write_forces(evaluation: Evaluation, path: Path) -> None:
    """Write a row per atom."""
    parts = {"reference_force": evaluation.reference_forces, "force": evaluation.forces}
    if evaluation.forces_std is not None:
        parts["force_std"] = evaluation.forces_std
    columns = ["frame", "atom", "element", *(f"{name}_{axis}_eV_per_Angstrom" for name in parts for axis in "xyz")]
    values = np.concatenate(list(parts.values()), axis=1)
    atom = np.concatenate([np.arange(n_atoms) for n_atoms in evaluation.n_atoms])
    rows = (
        [int(frame), int(index), symbol, *(_number(value, 6) for value in row)]
        for frame, index, symbol, row in zip(evaluation.frame, atom, evaluation.symbols, values, strict=True)
    )
    _write(path, columns, rows)


def _write_stresses(evaluation: Evaluation, path: Path) -> None:
    """Write a row per frame that has a stress label."""
    parts = {"reference_stress": evaluation.reference_stress, "stress": evaluation.stress}
    columns = ["frame", *(f"{name}_{component}_eV_per_Angstrom3" for name in parts for component in _VOIGT)]
    labelled = np.flatnonzero(np.isfinite(evaluation.reference_stress).any(axis=(1, 2)))
    rows = (
        [int(frame), *(_number(stress[frame][pair], 9) for stress in parts.values() for pair in _VOIGT.values())]
        for frame in labelled
    )
    _write(path, columns, rows)


def _write_dipoles(dipoles: Comparison, path: Path) -> None:
    """Write a row per frame that has a dipole label."""
    columns = ["frame", *(f"{name}_{axis}_e_Angstrom" for name in ("reference_dipole", "dipole") for axis in "xyz")]
    values = np.concatenate([dipoles.reference, dipoles.predicted], axis=1)
    labelled = np.flatnonzero(np.isfinite(dipoles.reference).any(axis=1))
    _write(path, columns, ([int(frame), *(_number(value, 6) for value in values[frame])] for frame in labelled))


def _write_born_charges(evaluation: Evaluation, path: Path) -> None:
    """Write a row per atom that has a Born effective charge as label; columns name polarization, then displacement."""
    charges = evaluation.electric["born_effective_charges"]
    pairs = [f"{polarization}{displacement}" for polarization in "xyz" for displacement in "xyz"]
    columns = [
        "frame",
        "atom",
        "element",
        *(f"{name}_{pair}_e" for name in ("reference", "predicted") for pair in pairs),
    ]
    values = np.concatenate([charges.reference.reshape(-1, 9), charges.predicted.reshape(-1, 9)], axis=1)
    atom = np.concatenate([np.arange(n_atoms) for n_atoms in evaluation.n_atoms])
    labelled = np.flatnonzero(np.isfinite(charges.reference).any(axis=(1, 2)))
    rows = (
        [
            int(charges.frame[row]),
            int(atom[row]),
            evaluation.symbols[row],
            *(_number(value, 6) for value in values[row]),
        ]
        for row in labelled
    )
    _write(path, columns, rows)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV table atomically."""
    with writing(path, text=True) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _number(value: float, digits: int) -> str:
    """Return a number with fixed decimals, nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"

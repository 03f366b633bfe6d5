"""Errors of evaluations, their files, and uncertainties that no error judges by itself."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from evaluations import FRAMES, evaluation

from lrc_ase.evaluation import write_evaluation
from lrc_ase.evaluation.evaluate import cross_calibrated
from lrc_ase.evaluation.uncertainty import crossed_coverage, crossed_deviations


def test_files_of_an_evaluation_hold_the_units_that_they_declare(tmp_path):
    shown = evaluation(std=True, config_types=["bulk", "bulk", "slab", "slab"])
    partial = np.where(np.arange(FRAMES) == 3, np.nan, shown.reference_energy)
    shown = replace(shown, reference_energy=partial)
    write_evaluation(shown, tmp_path)
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert errors["units"] == {"energy": "meV/atom", "forces": "meV/Angstrom", "stress": "meV/Angstrom^3"}
    force_errors = 1000 * (shown.forces - shown.reference_forces)
    assert errors["all"]["forces_mae"] == pytest.approx(np.abs(force_errors).mean())
    assert errors["all"]["stress_rmse"] == pytest.approx(
        1000 * np.sqrt(np.mean((shown.stress - shown.reference_stress) ** 2))
    )
    assert errors["all"]["n_energies"] == 3
    deviations = {name: summary["mean_deviation"] for name, summary in errors["uncertainty"].items()}
    assert deviations["forces"] == pytest.approx(1000 * np.sqrt(np.mean(shown.forces_std**2)))
    assert deviations["energy"] == pytest.approx(1000 * np.sqrt(np.mean((shown.energy_std[:3] / 3) ** 2)))
    slab = errors["by_config_type"]["slab"]
    assert (slab["n_frames"], slab["n_energies"]) == (2, 1)
    assert slab["forces_rmse"] == pytest.approx(np.sqrt(np.mean(force_errors[6:] ** 2)))
    assert errors["by_element"]["Na"]["n_atoms"] == 4
    with (tmp_path / "energies.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[2]["energy_eV"]) == pytest.approx(shown.energy[2], abs=1e-8)
    assert (rows[2]["config_type"], rows[3]["reference_energy_eV"]) == ("slab", "")
    with (tmp_path / "forces.csv").open() as file:
        row = list(csv.DictReader(file))[4]
    assert (row["frame"], row["atom"], row["element"]) == ("1", "1", "Cl")
    assert float(row["force_std_z_eV_per_Angstrom"]) == pytest.approx(shown.forces_std[4, 2], abs=1e-6)
    with (tmp_path / "stresses.csv").open() as file:
        row = list(csv.DictReader(file))[1]
    assert float(row["stress_yz_eV_per_Angstrom3"]) == pytest.approx(shown.stress[1, 1, 2], abs=1e-9)


def test_frames_without_forces_are_ordered_by_energy():
    shown = evaluation(labels=("energy",))
    assert shown.hardest_frames(4) == []
    order = np.argsort(-np.abs(shown.energy - shown.reference_energy))
    hardest = shown.hardest_frames(4, "energy")
    assert [index for index, _ in hardest] == order.tolist()
    largest = 1000 * abs(shown.energy - shown.reference_energy).max() / 3
    assert hardest[0][1] == pytest.approx(largest)


def test_cross_calibration_judges_no_error_by_itself():
    rng = np.random.default_rng(0)
    spread = np.exp(rng.normal(size=60))
    errors = 3.0 * spread * rng.normal(size=60)
    frames = np.arange(60)
    deviations = crossed_deviations(errors, spread, frames, with_floor=False)
    changed = errors.copy()
    changed[0] *= 1000  # calibrates the other half alone
    again = crossed_deviations(changed, spread, frames, with_floor=False)
    assert np.array_equal(deviations[0::2], again[0::2])
    assert not np.array_equal(deviations[1::2], again[1::2])
    assert np.isnan(crossed_deviations(errors[:4], spread[:4], frames[:4], with_floor=False)).all()
    assert np.isnan(crossed_coverage(errors[:4], spread[:4], frames[:4], with_floor=False))
    shown = cross_calibrated(evaluation(std=True, n_frames=40))
    once_more = evaluation(std=True, n_frames=40)
    difference = once_more.energy - once_more.reference_energy
    expected = crossed_deviations(difference, once_more.energy_std, np.arange(40), with_floor=False)
    assert shown.energy_std == pytest.approx(expected)

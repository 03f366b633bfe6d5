"""Errors of evaluations, their files, and uncertainties that no error judges by itself."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from evaluations import FRAMES, evaluation
from structures import potential, rattled_crystal, settings, water

from lrc_ase import LRCCalculator
from lrc_ase.evaluation import evaluate_frames, write_evaluation
from lrc_ase.evaluation.electric import COMPARED, Comparison
from lrc_ase.evaluation.error_tables import ERROR_UNITS
from lrc_ase.evaluation.evaluate import cross_calibrated
from lrc_ase.evaluation.uncertainty import crossed_coverage, crossed_deviations
from lrc_ase.report.tables import label_remarks

LABELS = ("energy", "forces", "stress")


def test_files_of_an_evaluation_hold_the_units_that_they_declare(tmp_path):
    shown = evaluation(std=True, config_types=["bulk", "bulk", "slab", "slab"])
    partial = np.where(np.arange(FRAMES) == 3, np.nan, shown.reference_energy)
    shown = replace(shown, reference_energy=partial)
    write_evaluation(shown, tmp_path)
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert errors["units"] == {name: unit.ascii for name, unit in ERROR_UNITS.items()}
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


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_an_evaluation_shows_its_errors_in_a_notebook():
    shown = evaluation()
    energies = 1000 * (shown.energy - shown.reference_energy) / shown.n_atoms
    forces = 1000 * (shown.forces - shown.reference_forces)
    text = f"Evaluation(4 frames, RMSE: energy {np.sqrt(np.mean(energies**2)):.3g} meV/atom, "
    assert repr(shown).startswith(f"{text}forces {np.sqrt(np.mean(forces**2)):.3g} meV/Angstrom, stress ")
    bare = replace(shown, **{f"reference_{name}": np.full_like(getattr(shown, name), np.nan) for name in LABELS})
    assert repr(bare) == "Evaluation(4 frames, RMSE: no labels)"


def test_files_hold_dipoles_and_born_charges(tmp_path):
    shown = evaluation(labels=("energy", "dipole", "born_effective_charges"), sets=["a", "a", "b", "b"])
    dipole, born = (shown.electric[label] for label in COMPARED)
    dipole.reference[1] = np.nan
    shown = replace(shown)
    write_evaluation(shown, tmp_path)
    errors = json.loads((tmp_path / "errors.json").read_text())
    reference, predicted = dipole.reference[2:], dipole.predicted[2:]
    of_set = errors["by_set"]["b"]
    assert of_set["dipole_mae"] == pytest.approx(np.abs(predicted - reference).mean())
    assert of_set["dipole_rmse"] == pytest.approx(np.sqrt(np.mean((predicted - reference) ** 2)))
    residual = ((predicted - reference) ** 2).sum() / ((reference - reference.mean()) ** 2).sum()
    assert of_set["dipole_r2"] == pytest.approx(1 - residual)
    assert (errors["all"]["n_dipoles"], errors["all"]["n_born_effective_charges"]) == (3, 4)
    rows = read_csv(tmp_path / "dipoles.csv")
    assert [row["frame"] for row in rows] == ["0", "2", "3"]
    assert float(rows[1]["dipole_y_e_Angstrom"]) == pytest.approx(dipole.predicted[2, 1], abs=1e-6)
    row = read_csv(tmp_path / "born-effective-charges.csv")[4]
    assert (row["frame"], row["atom"], row["element"]) == ("1", "1", "Cl")
    assert float(row["reference_xz_e"]) == pytest.approx(born.reference[4, 0, 2], abs=1e-6)
    assert float(row["predicted_zx_e"]) == pytest.approx(born.predicted[4, 2, 0], abs=1e-6)


def test_r2_is_that_of_known_numbers():
    # 1 - ((0.1)^2 + (0.1)^2 + 0 + 0.2^2) / (2.25 + 0.25 + 0.25 + 2.25)
    reference = np.array([[1.0, 2.0], [3.0, 4.0], [np.nan, 7.0]])
    predicted = np.array([[1.1, 1.9], [3.0, 4.2], [5.0, np.nan]])
    comparison = Comparison(predicted, reference, np.array([0, 1, 2]))
    errors = comparison.errors(np.array([True, True, True]))
    assert errors["r2"] == pytest.approx(1 - 0.06 / 5)
    assert errors["n"] == 3
    assert np.isnan(comparison.errors(np.array([False, False, True]))["r2"])


@pytest.mark.parametrize("long_range", [True, False])
def test_predictions_stand_beside_the_labels_of_their_frames(long_range):
    frames = [water(), rattled_crystal(), water()]
    frames[2].rattle(0.1, seed=1)
    trained = potential() if long_range else potential(settings(long_range=None))
    for atoms in (frames[0], frames[2]):
        atoms.info["dipole"] = np.arange(3.0)
        atoms.arrays["born_effective_charges"] = np.arange(27.0).reshape(3, 9)
    shown = evaluate_frames(trained, frames, required=(), batch_size=2)
    dipole, born = (shown.electric[label] for label in COMPARED)
    assert dipole.frame.tolist() == [0, 1, 2]
    assert np.isnan(dipole.reference).any(axis=1).tolist() == [False, True, False]
    assert born.frame.tolist() == [0] * 3 + [1] * 8 + [2] * 3
    np.testing.assert_array_equal(born.reference[[0, -1]], np.arange(27.0).reshape(3, 3, 3)[[0, -1]])
    assert (shown.metrics["n_dipoles"], shown.metrics["n_born_effective_charges"]) == (2, 2)
    if not long_range:
        assert np.isnan(dipole.predicted).all()
        assert any("the potential has no latent charges" in remark for remark in label_remarks(shown))
        return
    last = frames[2].copy()
    last.calc = LRCCalculator(trained)
    np.testing.assert_allclose(dipole.predicted[2], last.get_dipole_moment(), atol=1e-10)
    np.testing.assert_allclose(born.predicted[-3:], last.calc.get_born_effective_charges(last), atol=1e-10)
    assert any(
        remark == "Dipole errors are of 2 of 3 frames: others have no such label." for remark in label_remarks(shown)
    )


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

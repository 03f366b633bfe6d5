"""Reports: pair errors, hardest frames, plots of a potential; reports on potentials without some of these parts."""

from __future__ import annotations

import re

import ase.io
import numpy as np
import pytest
from ase import Atoms
from structures import potential, settings
from training_frames import metal_frames, two_stage_configuration, write_frames

from lrc_ase import load_potential
from lrc_ase.dataset import label_frame, labelled_atoms, read_frames
from lrc_ase.evaluation import evaluate_frames
from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.evaluation.pair_errors import pair_errors
from lrc_ase.report.potential_plots import plot_charges, plot_kernels
from lrc_ase.report.run_report import report_evaluations, report_run
from lrc_ase.report.uncertainty_plot import plot_uncertainty
from lrc_ase.training import train


def evaluation_of(frames, force_error):
    """Evaluation with forces wrong by `force_error`, a function of a frame."""
    n_atoms = np.array([len(atoms) for atoms in frames])
    errors = np.concatenate([force_error(atoms) for atoms in frames])
    return Evaluation(
        n_atoms=n_atoms,
        symbols=np.concatenate([atoms.get_chemical_symbols() for atoms in frames]),
        sets=("all",) * len(frames),
        energy=np.zeros(len(frames)),
        reference_energy=np.zeros(len(frames)),
        forces=errors,
        reference_forces=np.zeros_like(errors),
        stress=np.full((len(frames), 3, 3), np.nan),
        reference_stress=np.full((len(frames), 3, 3), np.nan),
    )


def rows_of(page, title):
    """Cells of a table in a page by the first one of their row."""
    table = page[page.index(title) :].split("</table>")[0]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in table.split("</tr>")]
    return {row[0]: row[1:] for row in rows if row}


def test_pair_errors_are_the_missing_pair_force():
    def missing(atoms):
        vector = atoms.positions[1] - atoms.positions[0]
        force = vector / np.linalg.norm(vector) ** 3  # repels: 1/r^2
        return np.array([-force, force])

    rng = np.random.default_rng(0)
    frames = []
    for distance in np.linspace(2.02, 7.98, 300):
        direction = rng.normal(size=3)
        frames.append(Atoms("NaCl", positions=[[0, 0, 0], distance * direction / np.linalg.norm(direction)]))
    (pair,) = (actual := pair_errors(frames, evaluation_of(frames, missing), largest_distance=8.0)).keys()
    assert pair == "Na-Cl"
    curve = actual[pair]
    known = np.isfinite(curve.mean)
    assert known.sum() > 20
    assert np.allclose(curve.mean[known], 1e3 / curve.distances[known] ** 2, rtol=0.1)


def test_errors_of_strangers_average_to_zero():
    rng = np.random.default_rng(0)
    frames = metal_frames(20)
    evaluation = evaluation_of(frames, lambda atoms: rng.normal(size=(len(atoms), 3)))
    for curve in pair_errors(frames, evaluation, largest_distance=6.0).values():
        known = curve.uncertainty > 0
        assert np.abs(curve.mean[known] / curve.uncertainty[known]).mean() < 3


def test_hardest_frames_come_first():
    frames = metal_frames(5)
    scale = iter([1.0, 5.0, 2.0, 4.0, 3.0])
    evaluation = evaluation_of(frames, lambda atoms: np.full((len(atoms), 3), next(scale)))
    assert evaluation.hardest_frames(3) == [(1, 5000.0), (3, 4000.0), (4, 3000.0)]


def test_frames_of_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        ase.io.write(tmp_path / folder / "frames.extxyz", metal_frames(2))
    frames = read_frames([tmp_path / "one/frames.extxyz", tmp_path / "two/frames.extxyz"])
    metal = potential(settings(elements=("Au", "Cu"), long_range=None))
    evaluation = evaluate_frames(metal, frames)
    assert set(evaluation.sets) == {"one/frames.extxyz", "two/frames.extxyz"}
    page = report_evaluations({"metal": metal}, {"metal": evaluation}, frames, tmp_path / "report").read_text()
    expected = {f"{folder}/frames.extxyz@{number}" for folder in ("one", "two") for number in (0, 1)}
    assert expected <= set(rows_of(page, "Hardest frames"))


def test_frames_are_reduced_to_their_labels():
    atoms = metal_frames(1)[0]
    atoms.info.update(charge=1.0, note="x")
    reduced = labelled_atoms(label_frame(atoms))
    assert reduced.info == {"charge": 1.0}
    again = label_frame(reduced)
    assert again.energy == atoms.calc.results["energy"]
    assert np.array_equal(again.forces, atoms.calc.results["forces"])


def test_report_of_a_run_shows_all_there_is(tmp_path):
    write_frames(tmp_path, n_small=10)
    data = {
        "small": {"train": "small.traj", "validation_fraction": 0.3},
        "large": {"train": "large.traj", "validation_fraction": 0.5},
    }
    stages = [{"name": "only", "epochs": 1, "batch_size": 4}]
    configuration = two_stage_configuration(tmp_path, data=data, stages=stages, ensemble=2, test=["large.traj"])
    train(configuration, tmp_path / "run", quiet=True)
    page = report_run(tmp_path / "run").read_text()
    for title in (
        "Errors by set",
        "Force errors by element",
        "Hardest frames",
        "Uncertainty",
        "Cost",
        "Data",
        "Learning curve",
        "Kernels of the long-range channels",
        "Latent charges by element",
        "Mean force error along pairs",
    ):
        assert title in page, title
    assert page.count("data:image/png;base64,") == 8
    assert (
        page.index("Root mean square errors on") < page.index("Force errors by element") < page.index("Learning curve")
    )
    assert "verfitting" in page or "overfits" in page
    assert rows_of(page, "Errors of the potential").keys() == {"training", "validation", "test large.traj"}
    description = load_potential(tmp_path / "run" / "potential.safetensors").description
    calibration = description["calibration"]
    training = rows_of(page, "Errors of the potential")["training"]
    assert float(training[4]) == pytest.approx(description["errors"]["training"]["forces_rmse"], rel=0.01)
    uncertainty = rows_of(page, "Uncertainty: deviations cross-validated (each half of the validation frames")
    assert uncertainty["forces, meV/Å"][2] == f"{calibration['forces_coverage']:.1%}"
    assert len(ase.io.read(tmp_path / "run" / "hardest.extxyz", ":")) == 4


def test_report_without_validation_frames_and_long_range_part(tmp_path):
    write_frames(tmp_path, n_small=3)
    data = {"small": {"train": "small.traj", "validation_fraction": 0}}
    stages = [{"name": "only", "epochs": 1, "model": "short-range"}]
    train(two_stage_configuration(tmp_path, data=data, stages=stages), tmp_path / "run", quiet=True)
    page = report_run(tmp_path / "run").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "Cost" in page


def test_plots_of_absent_parts_are_refused(tmp_path):
    single = potential(settings(long_range=None))
    frames = [labelled_atoms(label_frame(atoms)) for atoms in metal_frames(1)]
    frames[0].symbols[:] = "Na"
    evaluation = evaluate_frames(single, frames, required=())
    with pytest.raises(ValueError, match="at least one with a long-range part, got none"):
        plot_kernels({"a": single}, tmp_path / "a.png")
    with pytest.raises(ValueError, match="at least one with latent charges, got none"):
        plot_charges({"a": evaluation}, tmp_path / "a.png")
    with pytest.raises(ValueError, match="at least one of an ensemble, got none"):
        plot_uncertainty({"a": evaluation}, tmp_path / "a.png")

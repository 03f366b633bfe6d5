"""Checks on the shipped potentials, with runs of a fraction of a picosecond, and the errors that their cards state."""

from __future__ import annotations

import os
from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk

import lrc_ase
from lrc_ase.checks import CheckSettings, check
from lrc_ase.dataset import read_frames
from lrc_ase.evaluation.evaluate import evaluate_frames
from lrc_ase.files.pretrained import trained_potentials
from lrc_ase.report.check_report import report_checks

MELT = Path(__file__).resolve().parents[1] / "examples" / "nacl" / "small.extxyz"
SHORT = CheckSettings(quick=True, equilibration=0.05, production=0.3, density_run=0.1, hot_run=0.1)


@pytest.mark.slow
def test_crystal_and_melt_of_the_shipped_potential(tmp_path):
    frame = ase.io.read(MELT, 0)
    melt = Atoms(frame.numbers, positions=frame.positions, cell=frame.cell, pbc=True)
    melt.info["temperature"] = 1200.0
    report = check(
        lrc_ase.load("nacl"),
        {"crystal": bulk("NaCl", "rocksalt", a=5.45, cubic=True), "melt": melt},
        single=lrc_ase.load("nacl", dtype="float32"),
        labels=ase.io.read(MELT, ":2"),
        settings=SHORT,
        folder=tmp_path,
    )
    assert [system.description for system in report.systems] == [
        "without a system",
        "crystal, Cl4Na4, 8 atoms, 300 K",
        "liquid, Cl32Na32, 64 atoms, 1200 K",
    ]
    verdicts = {(system.name, each.name): each.verdict for system in report.systems for each in system.results}
    assert not [key for key, verdict in verdicts.items() if verdict == "failed"]
    not_applicable = {key for key, verdict in verdicts.items() if verdict == "not applicable"}
    assert not_applicable - {("crystal", "phonons")} == {
        ("crystal", "normal modes"),
        ("crystal", "diffusion"),
        ("melt", "normal modes"),
        ("melt", "equation of state"),
        ("melt", "elastic constants"),
        ("melt", "phonons"),
        ("melt", "surface energy"),
        ("melt", "dielectric constant"),
    }
    crystal = {each.name: each for each in report.systems[1].results}
    exponent = crystal["locality"].quantities[0]
    assert exponent.value == pytest.approx(-3.0, abs=0.3)  # the dipole of a displaced charge
    constants = {each.name: each.value for each in crystal["equation of state"].quantities}
    assert constants["lattice constant a"] == pytest.approx(5.43, abs=0.05)  # GFN1-xTB; examples/phonons
    assert report_checks(report, tmp_path).stat().st_size > 100_000


@pytest.mark.slow
@pytest.mark.parametrize("name", trained_potentials())
def test_no_shipped_potential_has_a_hole_at_short_distance(name, tmp_path):
    calculator, start = lrc_ase.load(name), lrc_ase.start_structure(name)
    report = check(calculator, start, only=("dimers", "approaching pairs"), folder=tmp_path)
    results = [each for system in report.systems for each in system.results]
    assert [each.verdict for each in results] == ["passed", "passed"], [each.sentence for each in results]
    n_elements = len(calculator.allowed_atomic_numbers)
    assert len(results[0].quantities) == n_elements * (n_elements + 1) // 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file", "forces", "energy"),
    [
        ("nacl-water-revpbe0-d3", "nacl_aq/test.extxyz", 22.46, 0.237),
        ("water-pbe0-ts", "deepmd_water/test.extxyz", 15.7, 0.165),
        ("acetylacetone-pbe", "acac/test_300K.extxyz", 3.75, 0.0387),
        ("acetylacetone-pbe", "acac/test_600K.extxyz", 11.2, 0.160),
    ],
)
def test_errors_of_the_cards(name, file, forces, energy):
    """The numbers of the cards, on test frames that were never trained on."""
    path = Path(os.environ.get("LRC_ASE_DATA", ""), file)
    if "LRC_ASE_DATA" not in os.environ or not path.exists():
        pytest.skip("set LRC_ASE_DATA to the folder with the public data sets")
    metrics = evaluate_frames(lrc_ase.load_potential(name), read_frames([path])).metrics
    assert metrics["forces_rmse"] == pytest.approx(forces, abs=0.05)
    assert metrics["energy_rmse"] == pytest.approx(energy, abs=5e-4)

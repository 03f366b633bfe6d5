"""All checks on the shipped potential of NaCl, with runs of a fraction of a picosecond."""

from __future__ import annotations

from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk

import lrc_ase
from lrc_ase.checks import CheckSettings, check
from lrc_ase.report.check_report import report_checks

MELT = Path(__file__).resolve().parents[1] / "examples" / "nacl" / "small.extxyz"
SHORT = CheckSettings(quick=True, equilibration=0.05, production=0.3, density_run=0.1, hot_run=0.1)
CLOSE = ("dimers", "approaching pairs")
"""Checks of distances far below those of training, which the potential of the time failed."""


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
    assert not [key for key, verdict in verdicts.items() if verdict == "failed" and key[1] not in CLOSE]
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

"""Outputs of relaxation and dynamics: checked before the work, written in their format; ensembles and their plot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read
from matplotlib.figure import Figure
from structures import rattled_crystal
from test_md_runs import copper, rows, settings

from lrc_ase import load
from lrc_ase.report.log_plot import plot_log
from lrc_ase.simulation import MDSettings, run_md
from lrc_ase.simulation.output import check_structure_output, structure_format, write_structure


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("md.foo", "ASE knows no format of this name"),
        ("md.cif.png", "cannot write several frames"),
        ("nowhere/md.traj", "the folder .*nowhere does not exist"),
        ("file/md.traj", "the folder .*file does not exist"),
    ],
)
def test_trajectories_that_cannot_be_written_are_refused_before_the_first_step(tmp_path, name, message):
    (tmp_path / "file").write_text("no folder")
    atoms = copper()
    with pytest.raises((ValueError, OSError), match=message):
        run_md(atoms, settings(), tmp_path / name)
    assert not atoms.calc.results


def test_a_structure_that_a_format_cannot_hold_is_refused_before_the_first_step(tmp_path):
    atoms = copper()
    atoms.pbc, atoms.cell = False, None
    with pytest.raises(
        ValueError, match=r"md\.xsf: ASE cannot write this structure in format xsf .*write \.extxyz"
    ) as _:
        check_structure_output(tmp_path / "md.xsf", Atoms("Cu", cell=[1, 1, 1], pbc=[True, False, True]))
    assert list(tmp_path.iterdir()) == []


def test_trajectories_of_ase_name_the_potential(tmp_path):
    atoms = rattled_crystal()
    atoms.calc = load("nacl")
    run_md(atoms, settings(steps=2), tmp_path / "md.traj")
    for frame in read(tmp_path / "md.traj", ":"):
        assert frame.calc.name == "lrccalculator"
        assert frame.calc.parameters["potential"] == "nacl"
        assert frame.calc.parameters["digest"] == atoms.calc.todict()["digest"]
    run_md(atoms, settings(steps=4), tmp_path / "md.traj", resume=True)
    assert read(tmp_path / "md.traj", -1).calc.parameters["potential"] == "nacl"


@pytest.mark.skipif(os.name == "nt" or shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_a_folder_without_permission_is_named_before_the_work(tmp_path):
    program = f"""
from pathlib import Path
from test_md_runs import copper
from lrc_ase.simulation.output import check_structure_output
try:
    check_structure_output(Path({str(tmp_path / "out.cif")!r}), copper())
except PermissionError as error:
    print(error.filename)
"""
    tmp_path.chmod(0o555)
    drop = "-dac_override,-dac_read_search"
    command = ["setpriv", "--bounding-set", drop, "--inh-caps", drop, sys.executable, "-c", program]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    finally:
        tmp_path.chmod(0o755)
    if "Operation not permitted" in finished.stderr:
        pytest.skip("capabilities cannot be dropped here")
    assert finished.stdout.strip() == str(tmp_path), finished.stderr


@pytest.mark.parametrize(
    "name", ["a.extxyz", "a.xyz", "a.cif", "a.vasp", "POSCAR", "coord", "a.json", "a.db", "a.traj", "a.gen"]
)
def test_structures_are_written_in_the_format_of_their_name(tmp_path, name):
    atoms = copper()
    atoms.get_potential_energy()
    check_structure_output(tmp_path / name, atoms)
    assert list(tmp_path.iterdir()) == []
    write_structure(tmp_path / name, atoms)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    written = read(tmp_path / name)
    if name == "coord":  # Turbomole's, without a cell
        written.cell, written.pbc = atoms.cell, atoms.pbc
    written.wrap()
    atoms.wrap()
    np.testing.assert_allclose(written.positions, atoms.positions, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("relaxed", "ASE knows no format of this name"),
        ("relaxed.foo", "ASE knows no format of this name"),
        ("relaxed.pdf", "ASE knows no format of this name"),
        ("relaxed.out", "cannot write files of format espresso-out"),
        ("relaxed.png", "cannot read format png back"),
    ],
)
def test_formats_in_which_a_structure_would_be_lost_are_refused(name, message):
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        structure_format(Path(name))


@pytest.mark.parametrize("npt_mode", ["isotropic", "flexible"])
def test_npt_conserves_its_energy_and_changes_what_it_should(tmp_path, npt_mode):
    atoms = bulk("Cu", cubic=True) * 2
    atoms.calc = EMT()
    atoms.set_cell(atoms.cell * [1.01, 1.0, 0.99], scale_atoms=True)
    chosen = MDSettings("npt", 200, temperature=300.0, timestep=1.0, barostat_time=200.0, npt_mode=npt_mode)
    run_md(atoms, chosen, tmp_path / "md.traj")
    log = rows(tmp_path / "md.csv")
    conserved, total = (np.array([float(row[name]) for row in log]) for name in ("conserved_eV", "total_eV"))
    assert np.ptp(conserved) < 0.05 * np.ptp(total)
    lengths, angles = atoms.cell.lengths(), atoms.cell.angles()
    if npt_mode == "isotropic":
        np.testing.assert_allclose(lengths / lengths[1], [1.01, 1.0, 0.99], rtol=1e-12)
        np.testing.assert_allclose(angles, 90.0, rtol=1e-12)
    else:
        assert abs(lengths[0] / lengths[2] - 1.01 / 0.99) > 1e-3
        assert np.abs(angles - 90.0).max() > 1e-4


def test_the_conserved_energy_of_nve_is_the_total_one_and_langevin_has_none(tmp_path):
    for ensemble in ("nve", "nvt"):
        run_md(copper(), MDSettings(ensemble, 10, temperature=300.0, log_every=5), tmp_path / f"{ensemble}.traj")
    assert all(row["conserved_eV"] == row["total_eV"] for row in rows(tmp_path / "nve.csv"))
    assert all(row["conserved_eV"] == "nan" for row in rows(tmp_path / "nvt.csv"))


def test_npt_mode_must_be_known():
    with pytest.raises(ValueError, match="`npt_mode` must be isotropic or flexible, got 'cubic'"):
        MDSettings("npt", 1, temperature=300.0, npt_mode="cubic")


def test_the_plot_shows_targets_and_the_conserved_energy(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: figures.append(figure))
    atoms = bulk("Cu", cubic=True) * 2
    atoms.calc = EMT()
    run_md(atoms, MDSettings("npt", 20, temperature=300.0), tmp_path / "npt.traj")
    plot_log(tmp_path / "npt.csv", tmp_path / "npt.png", {"temperature_K": 300.0, "pressure_GPa": 0.5})
    run_md(copper(), MDSettings("nve", 20, temperature=300.0), tmp_path / "nve.traj")
    plot_log(tmp_path / "nve.csv", tmp_path / "nve.png")
    npt, nve = ({axis.get_ylabel(): axis for axis in figure.axes} for figure in figures)
    assert "Conserved energy\neV, start = 0" in npt
    assert "Total energy\n(conserved)\neV, start = 0" in nve
    dashed = {
        label: [line.get_ydata()[0] for line in axis.get_lines() if line.get_linestyle() == "--"]
        for label, axis in npt.items()
    }
    assert {label: values for label, values in dashed.items() if values} == {
        "Temperature\nK": [300.0],
        "Pressure\nGPa": [0.5],
    }

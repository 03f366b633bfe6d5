"""Polarization current: what it is, its table in a run, and the table's continuation."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.calculators.emt import EMT
from structures import potential, rattled_crystal, settings, water

from lrc_ase import LRCCalculator
from lrc_ase.simulation import MDSettings, read_current, run_md
from lrc_ase.simulation.current import polarization_current

FS_PER_TIME_OF_ASE = 10.1805057  # Angstrom (u/eV)^(1/2), from 1.66053907e-27 kg and 1.602176634e-19 J


class ChargesOnSprings(Calculator):
    """Charges of +1 and -1 e in turn, each on a spring of 10 eV/Angstrom^2."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, anchors):
        super().__init__()
        self.anchors = anchors

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        """Fill energy and forces."""
        super().calculate(atoms, properties, system_changes)
        displacements = self.atoms.positions - self.anchors
        self.results = {"energy": 5.0 * float((displacements**2).sum()), "forces": -10.0 * displacements}

    def get_polarization_current(self, atoms):
        """Sum charge times velocity."""
        return (-1.0) ** np.arange(len(atoms)) @ atoms.get_velocities()

    def get_polarization(self, atoms):
        """Sum charge times position, per volume."""
        return (-1.0) ** np.arange(len(atoms)) @ atoms.positions / atoms.get_volume()


def springs(n_atoms: int = 6, *, pbc: bool = True) -> Atoms:
    """Oxygen atoms at rest on springs in a cube of 10 Angstrom."""
    positions = np.random.default_rng(0).uniform(0, 10, (n_atoms, 3))
    atoms = Atoms(f"O{n_atoms}", positions=positions, cell=[10, 10, 10], pbc=pbc)
    atoms.calc = ChargesOnSprings(positions)
    return atoms


def md(steps: int = 12, **changes) -> MDSettings:
    return MDSettings("nve", steps, **{"temperature": 300.0, "current_every": 2, "restart_every": 5, **changes})


def test_current_is_charge_times_velocity_in_e_angstrom_per_femtosecond(tmp_path):
    atoms = springs()
    run_md(atoms, md(10, timestep=0.5), tmp_path / "md.traj")
    record = read_current(tmp_path / "md.current.csv")
    assert record.current.shape == (6, 3)
    assert record.interval == pytest.approx(1.0)
    assert record.length == pytest.approx(0.005)
    velocities = atoms.get_momenta() / 15.999 / FS_PER_TIME_OF_ASE
    np.testing.assert_allclose(record.current[-1], [1, -1, 1, -1, 1, -1] @ velocities, rtol=1e-6)
    assert record.volume == pytest.approx(1000.0)
    np.testing.assert_allclose(record.moments[-1], [1, -1, 1, -1, 1, -1] @ atoms.positions, rtol=1e-8)
    assert 0 < record.temperature < 600


def test_rows_come_at_equal_intervals_and_keep_the_last_step_out(tmp_path):
    run_md(springs(pbc=False), md(10, current_every=3), tmp_path / "md.traj")
    record = read_current(tmp_path / "md.current.csv")
    assert len(record.current) == 4
    assert record.volume is None
    assert record.moments is None
    assert len(read_current(tmp_path / "md.current.csv", skip=0.0025).current) == 3


@pytest.mark.parametrize("stop", [7, 10, 11])
def test_resumed_run_continues_the_current_bit_for_bit(tmp_path, stop):
    run_md(springs(), md(), tmp_path / "whole.traj")

    def interrupt(state):
        if state.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_md(springs(), md(), tmp_path / "cut.traj", report=interrupt)
    run_md(springs(), md(), tmp_path / "cut.traj", resume=True)
    assert (tmp_path / "cut.current.csv").read_text() == (tmp_path / "whole.current.csv").read_text()


def test_resumed_run_of_a_potential_continues_the_current_bit_for_bit(tmp_path):
    def crystal():
        atoms = rattled_crystal()
        atoms.calc = LRCCalculator(potential())
        return atoms

    def interrupt(state):
        if state.step == 3:
            raise KeyboardInterrupt

    settings_of_run = md(5, current_every=1, restart_every=2, extrapolate=True)
    run_md(crystal(), settings_of_run, tmp_path / "whole.traj")
    with pytest.raises(KeyboardInterrupt):
        run_md(crystal(), settings_of_run, tmp_path / "cut.traj", report=interrupt)
    run_md(crystal(), settings_of_run, tmp_path / "cut.traj", resume=True)
    whole = (tmp_path / "whole.current.csv").read_text()
    assert len(whole.splitlines()) == 7
    assert (tmp_path / "cut.current.csv").read_text() == whole


def test_run_is_not_continued_with_another_interval(tmp_path):
    run_md(springs(), md(), tmp_path / "md.traj")
    with pytest.raises(ValueError, match="has current_every 2, got 3"):
        run_md(springs(), md(20, current_every=3), tmp_path / "md.traj", resume=True)


def test_rows_lost_before_a_restart_are_told(tmp_path):
    run_md(springs(), md(), tmp_path / "md.traj")
    (tmp_path / "md.current.csv").unlink()
    with pytest.warns(UserWarning, match=r"md\.current\.csv has no rows, the run goes on from step 12"):
        run_md(springs(), md(20), tmp_path / "md.traj", resume=True)


def test_new_run_leaves_no_current_of_the_old_one(tmp_path):
    run_md(springs(), md(), tmp_path / "md.traj")
    for name in ("md.traj", "md.csv", "md.restart.npz"):
        (tmp_path / name).unlink()
    with pytest.raises(FileExistsError, match=r"md\.current\.csv exists already"):
        run_md(springs(), md(), tmp_path / "md.traj")
    run_md(springs(), md(current_every=None), tmp_path / "md.traj", overwrite=True)
    assert not (tmp_path / "md.current.csv").exists()


def without_charges(atoms: Atoms) -> Atoms:
    atoms.calc = LRCCalculator(potential(settings(long_range=False)))
    return atoms


def with_emt(atoms: Atoms) -> Atoms:
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (with_emt(bulk("Cu", cubic=True)), r"EMT has no method get_polarization_current\(atoms\): .* latent charges"),
        (without_charges(rattled_crystal()), "no polarization current: .*charges"),
    ],
    ids=["no method", "no charges"],
)
def test_calculator_without_a_current_is_refused_before_files_are_touched(tmp_path, atoms, message):
    (tmp_path / "md.csv").write_text("of an earlier run")
    with pytest.raises(ValueError, match=message) as caught:
        run_md(atoms, md(), tmp_path / "md.traj", overwrite=True)
    assert (tmp_path / "md.csv").read_text() == "of an earlier run"
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, PropertyNotImplementedError)


def test_interval_of_the_current_is_positive():
    with pytest.raises(ValueError, match="`current_every` must be positive, got 0"):
        md(current_every=0)


HEADER = "step,time_ps,current_x_eA_per_fs,current_y_eA_per_fs,current_z_eA_per_fs,temperature_K,volume_A3"
HEADER += ",field_x_V_per_A,field_y_V_per_A,field_z_V_per_A,moment_x_eA,moment_y_eA,moment_z_eA\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "is not a table of the polarization current of lrc-ase"),
        (HEADER + "0,0,1,2,3,300,1000,0,0,0.1,1,2,3\n", "expected at least two rows after the first 0 ps, got 1"),
        (HEADER, "expected at least two rows after the first 0 ps, got 0"),
        (
            HEADER + "0,0,1,2,x,300,1000,0,0,0.1,1,2,3\n1,1,1,2,3,300,1000,0,0,0.1,1,2,3\n",
            "line 2: expected 13 numbers, got",
        ),
        (
            HEADER + "".join(f"{step},{step},1,2,3,300,1000,0,0,0.1,1,2,3\n" for step in (0, 2, 4, 8, 10)),
            "expected rows every 2 steps, found step 8 after 4: rows are missing",
        ),
        (
            HEADER + "0,0,1,2,3,300,1000,0,0,0,1,2,3\n1,1,1,2,3,300,1000,0,0,0.1,1,2,3\n",
            "electric field must not change during",
        ),
    ],
)
def test_tables_that_are_no_current_are_refused(tmp_path, text, message):
    path = tmp_path / "md.current.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_current(path)


def test_last_row_cut_short_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "md.current.csv"
    path.write_text(HEADER + "0,0,1,2,3,300,1000,0,0,0.1,1,2,3\n1,0.001,1,2,3,300,1000,0,0,0.1,1,2,3\n2,0.00")
    record = read_current(path)
    assert len(record.current) == 2
    np.testing.assert_array_equal(record.field, [0, 0, 0.1])


def moving(atoms: Atoms) -> Atoms:
    """Give atoms velocities of the size of those at room temperature."""
    atoms.set_velocities(np.random.default_rng(1).normal(scale=0.05, size=(len(atoms), 3)))
    return atoms


def test_current_of_a_molecule_is_the_rate_of_change_of_its_dipole():
    atoms = moving(water())
    atoms.calc = LRCCalculator(potential())
    dipoles, seconds = [], 1e-3  # in ASE's unit of time
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * seconds * atoms.get_velocities()
        moved.calc = atoms.calc
        dipoles.append(moved.get_dipole_moment())
    expected = (dipoles[0] - dipoles[1]) / (2 * seconds)
    np.testing.assert_allclose(atoms.calc.get_polarization_current(atoms), expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(polarization_current(atoms), expected / FS_PER_TIME_OF_ASE, rtol=1e-6, atol=1e-9)

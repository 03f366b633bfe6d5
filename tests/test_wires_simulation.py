"""Every setting of dynamics and relaxation acts, and in the unit that it names: checked on gases without interaction.

Their dynamics is known in closed form, so that each constant is a literal of this file and none of the library's.
"""

from __future__ import annotations

import csv
from dataclasses import fields
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT

from lrc_ase.simulation import MDSettings, RelaxSettings, SimulationStopped, relax, run_md

BOLTZMANN = 8.617333e-5  # eV/K, CODATA 2018
AMU_ANGSTROM2_PER_FS2 = 103.642697  # eV, from 1.66053907e-27 kg and 1.602176634e-19 J
GPA_PER_EV_ANGSTROM3 = 160.2176634


class NoForces(Calculator):
    """Atoms that do not see each other."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        """Fill the results with zeros."""
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3)), "stress": np.zeros(6)}


def gas(n_atoms: int = 1000, length: float = 50.0) -> Atoms:
    """Argon without interaction in a cube."""
    positions = np.random.default_rng(0).uniform(0, length, (n_atoms, 3))
    atoms = Atoms(f"Ar{n_atoms}", positions=positions, cell=[length] * 3, pbc=True)
    atoms.calc = NoForces()
    return atoms


def run(folder: Path, ensemble: str, steps: int, atoms: Atoms | None = None, **settings) -> Path:
    """Run molecular dynamics and return the trajectory's path."""
    defaults = {"temperature": 300.0, "timestep": 2.0, "write_every": 1, "log_every": 1, "restart_every": 10**6}
    path = folder / f"{len(list(folder.iterdir()))}.traj"
    run_md(gas() if atoms is None else atoms, MDSettings(ensemble, steps, **(defaults | settings)), path)
    return path


def log(path: Path) -> dict[str, np.ndarray]:
    """Read the log beside a trajectory."""
    with path.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if rows[0][name]}


def test_timestep_is_in_femtoseconds(tmp_path):
    first, last = ase.io.read(run(tmp_path, "nve", 10, timestep=3.0), index="0:11:10")
    # p / m in Angstrom per sqrt(amu / eV) Angstrom, ASE's unit of time, which is sqrt(103.64) = 10.18 fs
    velocities = first.get_momenta() / first.get_masses()[:, None] / np.sqrt(AMU_ANGSTROM2_PER_FS2)
    np.testing.assert_allclose(last.positions - first.positions, velocities * 30.0, rtol=1e-6, atol=1e-9)


def test_temperature_is_in_kelvin(tmp_path):
    first = ase.io.read(run(tmp_path, "nve", 0, temperature=500.0), index=0)
    kinetic = (first.get_momenta() ** 2 / first.get_masses()[:, None]).sum() / 2
    # 1000 atoms: standard deviation 2.6%
    assert kinetic / (1.5 * len(first) * BOLTZMANN) == pytest.approx(500.0, rel=0.08)


def test_friction_is_an_inverse_time_in_femtoseconds(tmp_path):
    frames = ase.io.read(run(tmp_path, "nvt", 25, friction=0.02), index=":")
    first, last = frames[0].get_momenta(), frames[-1].get_momenta()
    correlation = (first * last).sum() / (first**2).sum()
    # <p(0) p(t)> / <p^2> = exp(-friction t), t = 50 fs; 3000 components: standard deviation 0.017
    assert correlation == pytest.approx(np.exp(-0.02 * 50), abs=0.07)


def test_logged_pressure_is_that_of_an_ideal_gas(tmp_path):
    path = run(tmp_path, "nve", 0)
    first = ase.io.read(path, index=0)
    kinetic = (first.get_momenta() ** 2 / first.get_masses()[:, None]).sum() / 2
    expected = 2 / 3 * kinetic / 50.0**3 * GPA_PER_EV_ANGSTROM3
    assert log(path)["pressure_GPa"][0] == pytest.approx(expected, rel=1e-6)


def volume_change(folder: Path, **settings) -> float:
    """Return the relative change of volume within 20 steps of the barostat."""
    frames = ase.io.read(run(folder, "npt", 20, **settings), index=":")
    return frames[-1].get_volume() / frames[0].get_volume() - 1


def test_barostat_rests_at_the_pressure_of_the_gas_and_moves_at_another(tmp_path):
    kinetic_pressure = log(run(tmp_path, "nve", 0))["pressure_GPa"][0]  # same seed, same momenta
    at_rest = volume_change(tmp_path, pressure=kinetic_pressure)
    expanding = volume_change(tmp_path, pressure=0.0)
    compressed = volume_change(tmp_path, pressure=1.2 * kinetic_pressure)
    assert expanding > 0
    assert abs(at_rest) < 0.02 * expanding
    assert compressed == pytest.approx(-0.2 * expanding, rel=0.1)


def test_barostat_time_is_the_period_in_its_mass(tmp_path):
    # Martyna, Tobias and Klein (doi:10.1063/1.467468): W d2(epsilon)/dt2 = 3 V (P - P_ext), W = (N_f + 3) k T tau^2
    # with V P = N k T and N_f = 3 N: the strain grows as t^2 / (2 tau^2), the volume by three times that
    change = volume_change(tmp_path, pressure=0.0, barostat_time=1000.0)
    assert change == pytest.approx(3 * 40.0**2 / (2 * 1000.0**2), rel=0.1)
    assert volume_change(tmp_path, pressure=0.0, barostat_time=2000.0) == pytest.approx(change / 4, rel=0.05)


def test_thermostat_time_matters(tmp_path):
    slow, fast = (log(run(tmp_path, "npt", 20, thermostat_time=time, barostat_time=1e6)) for time in (1000.0, 40.0))
    drift = [np.abs(values["temperature_K"] - values["temperature_K"][0]).max() for values in (slow, fast)]
    assert drift[1] > 10 * drift[0]


def test_seed_draws_other_momenta(tmp_path):
    first, second, again = (ase.io.read(run(tmp_path, "nve", 0, seed=seed), index=0) for seed in (0, 1, 0))
    assert not np.allclose(first.get_momenta(), second.get_momenta())
    np.testing.assert_array_equal(first.get_momenta(), again.get_momenta())


def test_output_comes_as_often_as_asked(tmp_path):
    path = run(tmp_path, "nve", 12, log_every=3, write_every=4)
    np.testing.assert_array_equal(log(path)["step"], [0, 3, 6, 9, 12])
    assert len(ase.io.read(path, index=":")) == 4


def test_restart_file_comes_as_often_as_asked(tmp_path, monkeypatch):
    written: list[int] = []
    monkeypatch.setattr("lrc_ase.simulation.dynamics.write_restart", lambda _, restart: written.append(restart.step))
    run(tmp_path, "nve", 12, restart_every=5)
    assert written == [0, 5, 10, 12]


def test_run_stops_above_the_largest_temperature(tmp_path):
    with pytest.raises(SimulationStopped, match=r"temperature reached [34]\d\d K"):
        run(tmp_path, "nve", 1, gas(100), temperature=300.0, max_temperature=300.1, seed=2)
    run(tmp_path, "nve", 1, gas(100), temperature=300.0, max_temperature=600.0, seed=2)


def test_flexible_cell_changes_its_shape_and_an_isotropic_one_its_size(tmp_path):
    for mode, keeps_its_shape in (("isotropic", True), ("flexible", False)):
        last = ase.io.read(run(tmp_path, "npt", 20, npt_mode=mode, pressure=0.0), index=-1)
        shape = last.cell.array / np.cbrt(last.get_volume())
        assert np.allclose(shape, np.eye(3), atol=1e-9) == keeps_its_shape


TESTED_HERE = {
    "ensemble", "steps", "timestep", "temperature", "pressure", "friction", "thermostat_time", "barostat_time", "seed",
    "log_every", "write_every", "restart_every", "max_temperature", "npt_mode",
}  # fmt: skip
ELSEWHERE = {"extrapolate": "test_simulation.py", "current_every": "test_current.py"}
"""Other settings, and the tests that use them."""


def test_every_setting_of_dynamics_has_a_test():
    assert {field.name for field in fields(MDSettings)} == TESTED_HERE | set(ELSEWHERE)
    assert all(name in (Path(__file__).parent / file).read_text() for name, file in ELSEWHERE.items())


def test_zero_is_a_number_of_steps_a_friction_and_a_temperature(tmp_path):
    """Limits of the settings are allowed: no steps, no friction, a bath at rest."""
    path = run(tmp_path, "nvt", 0, temperature=0.0, friction=0.0)
    assert len(ase.io.read(path, ":")) == 1
    assert log(path)["temperature_K"].tolist() == [0.0]
    with pytest.raises(ValueError, match="`temperature` must lie between 0 and `max_temperature` = 500 K, got 500"):
        MDSettings("nvt", 0, temperature=500.0, max_temperature=500.0)
    for refused, message in (
        ({"steps": -1}, "`steps` must not be negative, got -1"),
        ({"steps": 1, "timestep": 0.0}, "`timestep` must be positive, got 0"),
        ({"steps": 1, "current_every": 0}, "`current_every` must be positive, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            MDSettings("nve", **refused)
    atoms = stretched_copper()
    before = atoms.positions.copy()
    with pytest.raises(RuntimeError, match="after 0 steps, asked for"):
        relax(atoms, RelaxSettings(max_steps=0))
    np.testing.assert_array_equal(atoms.positions, before)


def stretched_copper() -> Atoms:
    """Copper beyond its lattice constant, with one atom out of place."""
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
    atoms.positions[0] += (0.1, 0.05, 0.0)
    atoms.calc = EMT()
    return atoms


def relaxed(**settings) -> tuple[Atoms, int]:
    """Relax and return the structure and the number of steps."""
    atoms = stretched_copper()
    return atoms, relax(atoms, RelaxSettings(**settings)).steps


def test_settings_of_a_relaxation():
    coarse, fine = relaxed(fmax=0.5), relaxed(fmax=0.001)
    assert np.abs(fine[0].get_forces()).max() < 0.001 < np.abs(coarse[0].get_forces()).max() < 0.5
    at_zero, compressed = relaxed(cell=True)[0], relaxed(cell=True, pressure=10.0)[0]
    assert at_zero.get_volume() != stretched_copper().get_volume()
    assert -compressed.get_stress()[:3].mean() * GPA_PER_EV_ANGSTROM3 == pytest.approx(10.0, abs=0.3)
    assert relaxed(optimizer="fire")[1] != relaxed(optimizer="bfgs")[1]
    with pytest.raises(RuntimeError):
        relaxed(max_steps=1, fmax=1e-4)
    names = {field.name for field in fields(RelaxSettings)}
    assert names == {"fmax", "cell", "pressure", "optimizer", "max_steps"}

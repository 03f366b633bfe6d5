"""Relaxation and dynamics with ASE's own calculators: what is tested is what `lrc_ase.simulation` adds."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.io import read

from lrc_ase.report.log_plot import plot_log
from lrc_ase.simulation import MDSettings, SimulationStopped, energy_drift, run_md, thermalize

SHORT = {"timestep": 2.0, "log_every": 5, "write_every": 10, "restart_every": 10}
ENSEMBLES = [
    {"ensemble": "nve", "temperature": 300.0},
    {"ensemble": "nvt", "temperature": 300.0},
    {"ensemble": "npt", "temperature": 300.0, "pressure": 1.0},
    {"ensemble": "npt", "temperature": 300.0, "pressure": 1.0, "npt_mode": "flexible"},
]


def copper() -> Atoms:
    """32 atoms with ASE's embedded-atom calculator."""
    atoms = bulk("Cu", cubic=True) * 2
    atoms.calc = EMT()
    return atoms


class FailingAfter(Calculator):
    """Harmonic wells until `n_calls` evaluations, then something else."""

    implemented_properties = ("energy", "forces")

    def __init__(self, n_calls: int, how: str) -> None:
        super().__init__()
        self.n_calls, self.how, self.anchors = n_calls, how, None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        """Harmonic energy around the first positions seen."""
        super().calculate(atoms, properties, system_changes)
        self.anchors = self.atoms.get_positions() if self.anchors is None else self.anchors
        self.n_calls -= 1
        displacements = self.atoms.positions - self.anchors
        forces = -displacements
        if self.n_calls < 0 and self.how == "nan":
            forces = forces * np.nan
        if self.n_calls < 0 and self.how == "hot":
            forces = forces + 1e6
        if self.n_calls < 0 and self.how == "refuse":
            raise ValueError("positions must be finite")
        if self.n_calls < 0 and self.how == "interrupt":
            raise KeyboardInterrupt
        far = ("atoms 0 and 1 are too close",) if self.n_calls < 0 and self.how == "far" else ()
        self.results = {"energy": 0.5 * float((displacements**2).sum()), "forces": forces}
        self.extrapolation = far


def table(path: Path) -> dict[str, np.ndarray]:
    """Columns of a thermodynamic log."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def test_thermalize_has_the_temperature_and_no_net_momentum():
    atoms = bulk("Cu", cubic=True) * 8
    thermalize(atoms, 500.0, np.random.default_rng(1))
    # standard deviation of T over N atoms: T sqrt(2 / 3N) = 9 K here
    assert atoms.get_temperature() == pytest.approx(500.0, abs=35.0)
    np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-10)


def test_velocity_verlet_keeps_the_energy_of_a_harmonic_crystal(tmp_path):
    atoms = copper()
    settings = MDSettings("nve", 100, temperature=300.0, timestep=2.0, log_every=1)
    summary = run_md(atoms, settings, tmp_path / "md.traj")
    state = f"{summary.final.temperature:.1f} K, potential {summary.final.potential:.6f} eV"
    assert repr(summary) == f"MDSummary(100 steps in {summary.seconds:.1f} s, {state}, {tmp_path / 'md.traj'})"
    log = table(tmp_path / "md.csv")
    drift = energy_drift(log["time_ps"], log["total_eV"], len(atoms))
    assert log["time_ps"][-1] == pytest.approx(0.2)
    assert drift.max_deviation < 1e-3
    np.testing.assert_allclose(log["total_eV"], log["potential_eV"] + log["kinetic_eV"], rtol=1e-14)


def test_velocity_verlet_is_second_order_in_the_timestep(tmp_path):
    deviations = []
    for timestep in (4.0, 2.0):
        steps = int(80 / timestep)
        settings = MDSettings("nve", steps, temperature=300.0, timestep=timestep, log_every=1)
        run_md(copper(), settings, tmp_path / f"{timestep}.traj")
        log = table(tmp_path / f"{timestep}.csv")
        deviations.append(energy_drift(log["time_ps"], log["total_eV"], 32).max_deviation)
    assert deviations[0] / deviations[1] == pytest.approx(4.0, rel=0.4)


@pytest.mark.parametrize("ensemble", ENSEMBLES, ids=lambda ensemble: ensemble.get("npt_mode", ensemble["ensemble"]))
@pytest.mark.parametrize("name", ["md.traj", "md.extxyz"])
def test_resumed_run_equals_uninterrupted_run_bit_for_bit(tmp_path, ensemble, name):
    straight = copper()
    run_md(straight, MDSettings(steps=40, **SHORT, **ensemble), tmp_path / name)
    whole = (tmp_path / name).with_suffix(".csv").read_text()
    frames = read(tmp_path / name, index=":")

    stopped = copper()

    def interrupt(state):
        if state.step == 27:
            raise KeyboardInterrupt

    cut = tmp_path / f"cut-{name}"
    with pytest.raises(KeyboardInterrupt):
        run_md(stopped, MDSettings(steps=40, **SHORT, **ensemble), cut, report=interrupt)
    resumed = copper()
    summary = run_md(resumed, MDSettings(steps=40, **SHORT, **ensemble), cut, resume=True)

    assert summary.first_step == 20
    np.testing.assert_array_equal(resumed.positions, straight.positions)
    np.testing.assert_array_equal(resumed.get_momenta(), straight.get_momenta())
    np.testing.assert_array_equal(resumed.cell.array, straight.cell.array)
    assert cut.with_suffix(".csv").read_text() == whole
    again = read(cut, index=":")
    assert len(again) == len(frames) == 5
    for left, right in zip(again, frames, strict=True):
        np.testing.assert_array_equal(left.positions, right.positions)
        np.testing.assert_array_equal(left.get_forces(), right.get_forces())


class Counting(EMT):
    """Number of resets."""

    n_resets = 0

    def reset(self):
        """Count."""
        self.n_resets += 1
        super().reset()


def test_a_sum_of_calculators_runs_and_forgets_all_of_its_parts(tmp_path):
    """Sums of ASE have no method `reset`; a dispersion correction beside a potential is such a sum."""
    atoms, parts = copper(), [Counting(), LennardJones(sigma=2.0, epsilon=0.01, rc=4.0)]
    atoms.calc = SumCalculator(parts)
    summary = run_md(atoms, MDSettings(steps=20, **SHORT, **ENSEMBLES[0]), tmp_path / "md.traj")
    assert parts[0].n_resets == 4  # before the first step, and with the restart files at steps 0, 10 and 20
    assert summary.final.potential == pytest.approx(sum(part.get_potential_energy(atoms) for part in parts))


def test_run_killed_without_warning_resumes_bit_for_bit(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time
        from ase.build import bulk
        from ase.calculators.emt import EMT
        from lrc_ase.simulation import MDSettings, run_md
        atoms = bulk("Cu", cubic=True) * 2
        atoms.calc = EMT()
        settings = MDSettings("nvt", 60, temperature=300.0, restart_every=10, write_every=10)
        def report(state):
            if state.step == 35:
                print("here", flush=True)
                time.sleep(60)
        run_md(atoms, settings, sys.argv[1], report=report)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "killed.traj")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "here"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    settings = MDSettings("nvt", 60, temperature=300.0, restart_every=10, write_every=10)
    resumed, straight = copper(), copper()
    assert run_md(resumed, settings, tmp_path / "killed.traj", resume=True).first_step == 30
    run_md(straight, settings, tmp_path / "straight.traj")
    np.testing.assert_array_equal(resumed.positions, straight.positions)


@pytest.mark.slow
def test_langevin_and_npt_reach_their_temperature_and_pressure(tmp_path):
    for ensemble, pressure in (("nvt", 0.0), ("npt", 5.0)):
        atoms = copper()
        settings = MDSettings(
            ensemble,
            600,
            temperature=400.0,
            pressure=pressure,
            timestep=4.0,
            friction=0.02,
            barostat_time=200.0,
            log_every=5,
            write_every=600,
        )
        run_md(atoms, settings, tmp_path / f"{ensemble}.traj")
        log = table(tmp_path / f"{ensemble}.csv")
        second_half = slice(len(log["step"]) // 2, None)
        assert log["temperature_K"][second_half].mean() == pytest.approx(400.0, rel=0.2)
        if ensemble == "npt":
            assert log["pressure_GPa"][second_half].mean() == pytest.approx(5.0, abs=1.5)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", "not finite"),
        ("hot", "temperature reached"),
        ("refuse", "calculator failed: positions must be finite"),
        ("far", r"far outside the training set: atoms 0 and 1 are too close\. The last sane frame is in"),
    ],
)
def test_exploding_run_stops_and_keeps_the_last_sane_frame(tmp_path, how, message):
    atoms = molecule("H2O")
    atoms.calc = FailingAfter(5, how)
    with pytest.raises(SimulationStopped, match=message):
        run_md(atoms, MDSettings("nve", 50, temperature=300.0), tmp_path / "md.traj")
    kept = read(tmp_path / "md.last-sane.extxyz")
    assert np.isfinite(kept.positions).all()
    assert kept.get_temperature() < 20000
    assert len(read(tmp_path / "md.traj", index=":")) == 1


def test_a_run_far_outside_the_training_set_goes_on_if_told_to(tmp_path):
    atoms = molecule("H2O")
    atoms.calc = FailingAfter(5, "far")
    settings = MDSettings("nve", 10, temperature=300.0, extrapolate=True)
    assert run_md(atoms, settings, tmp_path / "md.traj").steps == 10


@pytest.mark.parametrize("name", ["XDATCAR", "md.xsf", "md.pdb"])
def test_formats_that_cannot_grow_are_written_at_the_end(tmp_path, name):
    settings = {"temperature": 300.0, "write_every": 5, "restart_every": 5}
    run_md(copper(), MDSettings("nve", 10, **settings), tmp_path / name)
    assert len(read(tmp_path / name, ":")) == 3
    with pytest.raises(FileExistsError, match="exists already"):
        run_md(copper(), MDSettings("nve", 20, **settings), tmp_path / name)
    run_md(copper(), MDSettings("nve", 20, **settings), tmp_path / name, resume=True)
    kept, grown = (read(tmp_path / file, ":") for file in (name, Path(name).with_suffix(".traj").name))
    assert len(kept) == len(grown) == 5
    for left, right in zip(kept, grown, strict=True):
        np.testing.assert_allclose(left.positions, right.positions, rtol=0, atol=2e-3)


def test_plot_of_a_log(tmp_path):
    run_md(copper(), MDSettings("nvt", 20, temperature=300.0, log_every=5), tmp_path / "md.traj")
    plot_log(tmp_path / "md.csv", tmp_path / "md.png")
    assert (tmp_path / "md.png").read_bytes().startswith(b"\x89PNG")
    run_md(copper(), MDSettings("nve", 0, temperature=300.0), tmp_path / "start.traj")
    plot_log(tmp_path / "start.csv", tmp_path / "start.png")  # one row
    (tmp_path / "empty.csv").write_text((tmp_path / "md.csv").read_text().splitlines()[0])
    with pytest.raises(ValueError, match="holds no rows: nothing to plot"):
        plot_log(tmp_path / "empty.csv", tmp_path / "empty.png")


def test_structure_is_refused_before_anything_is_written(tmp_path):
    open_boundary = molecule("H2O")
    open_boundary.calc = LennardJones()
    with pytest.raises(ValueError, match="three periodic directions"):
        run_md(open_boundary, MDSettings("npt", 5, temperature=300.0), tmp_path / "md.traj")
    with pytest.raises(ValueError, match="no momenta"):
        run_md(open_boundary, MDSettings("nve", 5), tmp_path / "md.traj")
    with pytest.raises(ValueError, match="at least one atom"):
        run_md(Atoms(), MDSettings("nve", 5, temperature=300.0), tmp_path / "md.traj")
    with pytest.raises(ValueError, match="must have a calculator"):
        run_md(molecule("H2O"), MDSettings("nve", 5, temperature=300.0), tmp_path / "md.traj")
    with pytest.raises(ValueError, match="cannot write several frames to a file of format aims"):
        run_md(copper(), MDSettings("nve", 5, temperature=300.0), tmp_path / "geometry.in")
    with pytest.raises(ValueError, match="ASE knows no format of this name"):
        run_md(copper(), MDSettings("nve", 5, temperature=300.0), tmp_path / "md.parquet")
    with pytest.raises(FileNotFoundError, match="no restart file"):
        run_md(copper(), MDSettings("nve", 5, temperature=300.0), tmp_path / "md.traj", resume=True)
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_neither_lost_nor_mixed(tmp_path):
    settings = MDSettings("nve", 10, temperature=300.0, restart_every=10)
    run_md(copper(), settings, tmp_path / "md.traj")
    with pytest.raises(FileExistsError, match="--overwrite"):
        run_md(copper(), settings, tmp_path / "md.traj")
    with pytest.raises(ValueError, match=r"has temperature 300\.0, got 400\.0"):
        run_md(copper(), MDSettings("nve", 10, temperature=400.0), tmp_path / "md.traj", resume=True)
    bigger = copper() * 2
    bigger.calc = EMT()
    with pytest.raises(ValueError, match="restart file is of 32 atoms"):
        run_md(bigger, settings, tmp_path / "md.traj", resume=True)
    longer = MDSettings("nve", 20, temperature=300.0, restart_every=10)
    assert run_md(copper(), longer, tmp_path / "md.traj", resume=True).first_step == 10
    assert run_md(copper(), longer, tmp_path / "md.traj", resume=True).first_step == 20
    run_md(copper(), settings, tmp_path / "md.traj", overwrite=True)
    assert table(tmp_path / "md.csv")["step"].tolist() == [0, 10]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ensemble": "nvt"}, "needs a `temperature`"),
        ({"ensemble": "nph", "temperature": 1.0}, "must be nve, nvt or npt"),
        ({"ensemble": "nve", "timestep": 0.0}, "`timestep` must be positive"),
        ({"ensemble": "nve", "temperature": -1.0}, "`temperature` must lie between"),
        ({"ensemble": "nvt", "temperature": 1.0, "friction": -1.0}, "`friction` must be zero or a positive number"),
        ({"ensemble": "nvt", "temperature": 1.0, "friction": np.nan}, "`friction` must be zero or a positive number"),
        ({"ensemble": "npt", "temperature": 1.0, "pressure": np.inf}, "`pressure` must be finite"),
        ({"ensemble": "npt", "temperature": 0.0}, "above zero"),
    ],
)
def test_md_settings_without_meaning_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        MDSettings(steps=1, **values)

"""The potential in LAMMPS: the numbers of ASE on one process and on two, and no run without forces."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from lammps_runs import INPUT, TESTS, beyond, needs_lammps, under_mpi, write_start
from structures import potential, salt_potential, settings
from typer.testing import CliRunner

from lrc_ase import LongRangeSettings, LRCCalculator, save_potential
from lrc_ase.cli import app
from lrc_ase.engines.lammps_input import read_input
from lrc_ase.files.pretrained import trained_potentials
from lrc_ase.models.settings import PonitaSettings

pytestmark = pytest.mark.slow

EXAMPLES = TESTS.parent / "examples" / "engines"
CASES = (
    "bulk",
    "triclinic",
    "slab",
    "empty process",
    "smaller than the cutoff",
    "sorted",
    "balanced",
    "npt",
    "nvt",
    "minimized",
    "field",
    "field across a slab",
)


@pytest.fixture(scope="module")
def potential_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("potential") / "potential.safetensors"
    save_potential(path, potential())
    return path


@needs_lammps
@pytest.mark.parametrize("n_processes", [1, 2])
def test_lammps_finds_what_ase_finds(n_processes, tmp_path):
    """One run for all cases, because starting the processes takes as long as a case."""
    save_potential(tmp_path / "salt.safetensors", salt_potential())
    under_mpi(n_processes, TESTS / "lammps_cases.py", "lammps", "salt.safetensors", "found.json", folder=tmp_path)
    actual = json.loads((tmp_path / "found.json").read_text())
    assert tuple(actual) == CASES
    assert {name: beyond(outcome) for name, outcome in actual.items() if beyond(outcome)} == {}
    assert {name: outcome["owned"] for name, outcome in actual.items() if len(outcome["owned"]) != n_processes} == {}
    if n_processes == 2:
        assert 0 in actual["empty process"]["owned"]
        assert min(actual["balanced"]["owned"]) >= 14  # of 32
    assert actual["minimized"]["lowered"] > 1e-3
    at_constant_energy = [name for name in CASES if name not in ("npt", "nvt", "minimized")]
    assert {name: actual[name]["drift"] for name in at_constant_energy if not actual[name]["drift"] < 2e-5} == {}
    assert actual["field"]["wrapped"] > 5  # atoms have gone through the boundaries
    assert max(outcome["searches"] for outcome in actual.values()) < 90


@needs_lammps
@pytest.mark.skipif("nacl" not in trained_potentials(), reason="the shipped potential of NaCl is not installed")
def test_the_shipped_potential_is_in_lammps_what_it_is_in_ase(tmp_path):
    file = trained_potentials()["nacl"]
    under_mpi(2, TESTS / "lammps_cases.py", "lammps", file, "found.json", "bulk", folder=tmp_path)
    outcome = json.loads((tmp_path / "found.json").read_text())["bulk"]
    assert beyond(outcome) == {}
    assert outcome["drift"] < 1e-3


CONTINUED = """\
read_restart half.restart
pair_style lrc Na Cl
fix run all nve
timestep 0.001
run 5
write_dump all custom ${name} id x y z vx vy vz q modify sort id format float %.15g
"""


def dumped(path):
    return np.loadtxt(path, skiprows=9)


@needs_lammps
def test_an_ordinary_input_runs_and_a_restart_continues_it(potential_file, tmp_path):
    atoms = write_start(tmp_path)
    (tmp_path / "in.first").write_text(INPUT)
    (tmp_path / "in.second").write_text(CONTINUED)
    command = ["-m", "lrc_ase.cli", "lammps", potential_file]
    output = under_mpi(2, *command, "in.first", folder=tmp_path)
    assert "Loop time" in output
    under_mpi(1, *command, "in.second", "-var", "name", "continued.dump", folder=tmp_path)
    whole, continued = dumped(tmp_path / "end.dump"), dumped(tmp_path / "continued.dump")
    assert np.abs(whole[:, 1:4] - atoms.positions).max() > 1e-3  # it moved
    np.testing.assert_allclose(continued, whole, rtol=0, atol=1e-9)
    atoms.positions[:] = whole[:, 1:4]
    atoms.calc = LRCCalculator(potential_file)
    np.testing.assert_allclose(whole[:, 7], atoms.get_charges(), rtol=0, atol=1e-9)


@needs_lammps
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pair_style lrc Na K", "unknown element K: this potential knows H, O, Na, Cl"),
        ("pair_style lrc Na", "must name the element of each of LAMMPS' 2 atom types"),
        ("pair_style lrc Cl Na", "atom type 1 is named Cl but has the mass of Na, 22.98"),
        ("pair_style lrc", "atom types [1, 2] have no label that is an element of the potential (H, O, Na, Cl)"),
        (
            "pair_style lrc",
            "name the elements of all types, such as `pair_style lrc H O`, species=('H', 'O') or a `labelmap`",
        ),
    ],
)
def test_species_that_do_not_fit_end_the_run(potential_file, tmp_path, line, message):
    write_start(tmp_path)
    script = INPUT.replace("labelmap atom 1 Na 2 Cl\n", "").replace("pair_style lrc ", line)
    (tmp_path / "in.run").write_text(script)
    output = under_mpi(1, "-m", "lrc_ase.cli", "lammps", potential_file, "in.run", folder=tmp_path, expect=1)
    assert message in output
    assert "Loop time" not in output


@needs_lammps
def test_an_error_of_lammps_is_told_as_it_is(potential_file, tmp_path):
    write_start(tmp_path)
    (tmp_path / "in.run").write_text(INPUT.replace("timestep 0.001", "timestop 0.001"))
    output = under_mpi(2, "-m", "lrc_ase.cli", "lammps", potential_file, "in.run", folder=tmp_path, expect=1)
    assert "LAMMPS: ERROR: Unknown command: timestop 0.001" in output


BREAKS = """
import os, sys
sys.path.insert(0, {tests!r})
import lammps_cases as cases
from mpi4py import MPI
from lrc_ase.engines.lammps import LammpsCoupling, attach

comm = MPI.COMM_WORLD
lmp = cases.start(comm, cases.crystal())
attach(lmp, {potential!r}, comm, species=cases.TYPES)
find = LammpsCoupling.evaluate

def broken(self, n_local):
    if lmp.extract_global("ntimestep") == 3 and comm.Get_rank() == 1:
        {happens}
    return find(self, n_local)

LammpsCoupling.evaluate = broken
lmp.commands_list([*cases.NVE, "run 10"])
print("went on")
"""


@needs_lammps
@pytest.mark.parametrize(
    ("happens", "message"),
    [
        ("raise ValueError('no such luck')", "lrc-ase: step 3, process 1: no such luck"),
        ("self._references = self._references / 0", ": the model gives energies or forces that are not finite"),
        ("os.kill(os.getpid(), 9)", "BAD TERMINATION"),
    ],
    ids=["an error", "not finite", "a lost process"],
)
def test_what_breaks_one_process_ends_all(potential_file, tmp_path, happens, message):
    script = BREAKS.format(tests=str(TESTS), potential=str(potential_file), happens=happens)
    (tmp_path / "breaks.py").write_text(script)
    output = under_mpi(2, "breaks.py", folder=tmp_path, expect=1)
    assert message in output
    assert "went on" not in output


@needs_lammps
@pytest.mark.parametrize(
    ("change", "model_settings", "message"),
    [
        ("units real", settings(), "needs `units metal` in LAMMPS, got units real"),
        ("boundary f f f", settings(), "LAMMPS has no periodic direction"),
        (
            "",
            settings(descriptor=PonitaSettings(n_layers=2)),
            r"reaches 2 cutoffs \(layers of 'ponita'\)",
        ),
    ],
)
def test_what_cannot_run_is_refused_at_once(change, model_settings, message):
    pytest.importorskip("mpi4py.MPI")
    from lammps import lammps

    from lrc_ase.engines.lammps import attach

    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    lmp.commands_list(["units metal", "atom_style charge"] + ([change] if change else []))
    lmp.commands_list(["region box block 0 9 0 9 0 9", "create_box 1 box", "mass 1 22.98977"])
    with pytest.raises(ValueError, match=message):
        attach(lmp, potential(model_settings), species=("Na",))
    lmp.close()


@needs_lammps
@pytest.mark.parametrize(
    ("options", "model_settings", "message"),
    [
        ({}, settings(long_range=False), "acts on latent charges, and this model has none"),
        ({"charge": -1.0}, settings(), r"along a periodic direction \(cell vector 2\) needs a neutral cell"),
        ({"electric_field": (0, 0, 50.0)}, settings(), "is 50 V/Angstrom strong, more than 10: check its unit"),
    ],
)
def test_fields_that_cannot_act_are_refused_at_once(options, model_settings, message):
    pytest.importorskip("mpi4py.MPI")
    from lammps import lammps

    from lrc_ase.engines.lammps import attach

    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    lmp.commands_list(["units metal", "atom_style charge", "region box block 0 9 0 9 0 9", "create_box 1 box"])
    lmp.command("mass 1 22.98977")
    with pytest.raises(ValueError, match=message):
        attach(lmp, potential(model_settings), species=("Na",), **({"electric_field": (0, 0, 0.1)} | options))
    lmp.close()


@needs_lammps
def test_charge_without_a_path_is_warned_of_in_a_field():
    MPI = pytest.importorskip("mpi4py.MPI")
    import lammps_cases

    from lrc_ase.engines.lammps import attach

    shifted = settings(long_range=LongRangeSettings(n_channels=2, accuracy=1e-4, charges="shifted"))
    lmp = lammps_cases.start(MPI.COMM_SELF, lammps_cases.pair())
    attach(lmp, potential(shifted), MPI.COMM_SELF, species=lammps_cases.TYPES, electric_field=(0, 0, 0.1))
    with pytest.warns(UserWarning, match="moves without a path between atoms: in a field along a periodic direction"):
        lmp.command("run 0")
    lmp.close()


@needs_lammps
def test_field_of_the_command_acts_and_stands_in_the_log(potential_file, tmp_path):
    atoms = write_start(tmp_path)
    (tmp_path / "in.run").write_text(INPUT.replace("x y z vx vy vz q", "xu yu zu fx fy fz q"))
    command = ["-m", "lrc_ase.cli", "lammps", potential_file, "in.run", "--field", "0", "0.1", "-0.3"]
    under_mpi(1, *command, folder=tmp_path)
    assert "lrc-ase: electric field 0.0 0.1 -0.3 V/Angstrom\n" in (tmp_path / "log.lammps").read_text()
    end = dumped(tmp_path / "end.dump")
    atoms.positions[:] = end[:, 1:4]
    atoms.calc = LRCCalculator(potential_file, electric_field=(0, 0.1, -0.3))
    np.testing.assert_allclose(end[:, 4:7], atoms.get_forces(), rtol=0, atol=1e-9)


@needs_lammps
def test_the_examples_run(potential_file, tmp_path):
    under_mpi(1, EXAMPLES / "make_start.py", folder=tmp_path)
    (tmp_path / "lammps.in").write_text((EXAMPLES / "lammps.in").read_text())
    output = under_mpi(2, "-m", "lrc_ase.cli", "lammps", potential_file, "lammps.in", folder=tmp_path)
    assert "Loop time" in output
    assert (tmp_path / "end.restart").exists()
    frames = ase.io.read(tmp_path / "frames.dump", ":", format="lammps-dump-text")
    assert len(frames) == 3
    assert abs(frames[-1].get_initial_charges().sum()) < 1e-4
    output = under_mpi(2, EXAMPLES / "lammps_from_python.py", potential_file, folder=tmp_path)
    assert "total energy -" in output


@needs_lammps
def test_a_ghost_without_an_owner_is_an_error():
    from mpi4py import MPI

    from lrc_ase.engines.mpi import GhostOwners

    owners = GhostOwners(MPI.COMM_SELF, np.array([4, 7, 7, 4, 7]), 2)
    np.testing.assert_array_equal(owners.add_to_owners(np.eye(5, 3)), [[1, 0, 0], [0, 1, 1]])
    for ghost in (1, 9):
        with pytest.raises(RuntimeError, match="a ghost stands for an atom that no process owns"):
            GhostOwners(MPI.COMM_SELF, np.array([4, 7, ghost]), 2)


def test_without_mpi_the_way_to_it_is_told(potential_file, tmp_path, monkeypatch):
    from lrc_ase.engines.lammps import attach

    with pytest.raises(ValueError, match=r"this LAMMPS does not support mpi4py: install both with"):
        attach(SimpleNamespace(get_mpi_comm=lambda: None), potential())
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    actual = CliRunner().invoke(app, ["lammps", str(potential_file), str(tmp_path / "in.run")])
    assert actual.exit_code == 1
    assert "LAMMPS is not installed: `pip install 'lammps[mpi]' mpi4py`" in actual.output


@needs_lammps
def test_an_unknown_precision_is_refused(potential_file, tmp_path):
    command = ["lammps", str(potential_file), str(tmp_path / "in.run"), "--dtype", "float16", "--threads", "1"]
    actual = CliRunner().invoke(app, command)
    assert actual.exit_code == 1
    assert "--dtype must be float32 or float64, by name or of torch, got float16" in actual.output


def test_the_line_of_the_potential_is_found(tmp_path):
    path = tmp_path / "in.run"
    path.write_text("units metal\npair_style lrc Na Cl # salt\nrun 5\n")
    actual = read_input(path)
    assert (actual.before, actual.species, actual.after) == ("units metal\n", ("Na", "Cl"), "run 5\n")
    path.write_text("pair_style lrc\n")
    assert read_input(path).species is None


@pytest.mark.parametrize(
    "line",
    ["pair_style lrc &\n  Na Cl\n", "pair_style & \n lrc Na & \n Cl # salt\n", "pair_style lrc Na &\n&\nCl\n"],
)
def test_the_line_of_the_potential_may_be_continued(tmp_path, line):
    path = tmp_path / "in.run"
    path.write_text(f"units &\n metal\n{line}run & \n 5\n")
    parts = read_input(path)
    assert (parts.before, parts.species, parts.after) == ("units &\n metal\n", ("Na", "Cl"), "run & \n 5\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run 5\n", r"must hold one line `pair_style lrc Na Cl` .*; found 0"),
        ("pair_style lrc\npair_style lrc\n", "found 2"),
        ("pair_style lrc Na\nrun 1\nclear\n", r"line 3: `clear` after `pair_style lrc` removes the potential"),
        ("pair_style lrc Na\npair_style lj/cut 3\n", "line 2: `pair_style lj/cut 3` after"),
        ("pair_style lrc Na\npair_coeff * * Na\n", "line 2: `pair_style lrc` takes no `pair_coeff`: delete that line"),
        (
            "units metal\npair_style lrc nacl Na Cl\n",
            "line 2: `pair_style lrc` names the elements .* alone, got 'nacl'",
        ),
        ("pair_style lrc &\nNa\npair_style &\n lj/cut 3\n", "line 3: `pair_style lj/cut 3` after"),
    ],
)
def test_inputs_that_do_not_name_the_potential_once_are_refused(tmp_path, text, message):
    path = tmp_path / "in.run"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_input(path)

"""Restart files from anybody: nothing but what a run writes is read, none of it beyond its bytes in the file."""

import copy
import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.md.verlet import VelocityVerlet

from lrc_ase.simulation import MDSettings, run_md
from lrc_ase.simulation.restart import integrator_state, read_restart, restore_integrator, write_restart


def copper():
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    return atoms


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Restart file of a short run at constant pressure, whose integrator has the longest state."""
    folder = tmp_path_factory.mktemp("run")
    run_md(copper(), MDSettings("npt", 3, temperature=300.0), folder / "md.traj")
    return folder / "md.restart.npz"


@pytest.fixture
def restart(written, tmp_path):
    path = tmp_path / "md.restart.npz"
    path.write_bytes(written.read_bytes())
    return path


def rewrite(path, change_arrays=None, change_description=None):
    arrays = dict(np.load(path))
    description = json.loads(str(arrays["description"]))
    if change_description is not None:
        change_description(description)
    arrays["description"] = np.array(json.dumps(description))
    if change_arrays is not None:
        change_arrays(arrays)
    np.savez(path, **arrays)


def refused(path, message):
    with pytest.raises(ValueError, match=message) as raised:
        read_restart(path)
    text = str(raised.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert len(text) < len(str(path)) + 400


def test_a_restart_file_is_read_as_it_was_written(restart, tmp_path):
    first = read_restart(restart)
    write_restart(tmp_path / "again.npz", first)
    again = read_restart(tmp_path / "again.npz")
    assert (first.step, first.settings, first.random_state) == (again.step, again.settings, again.random_state)
    assert first.step == 3
    for name in ("numbers", "positions", "momenta", "cell", "pbc"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert {*first.integrator} >= {"_thermostat._eta", "_barostat._p_xi"}
    for name, value in first.integrator.items():
        np.testing.assert_array_equal(value, again.integrator[name])


def test_a_restart_file_holds_the_arrays_of_a_run_and_nothing_else(written):
    """Before NumPy 2.1 `np.savez` stored its argument `allow_pickle` as an array, which reading refused."""
    arrays = {name for name in np.load(written, allow_pickle=False).files if not name.startswith("integrator.")}
    assert arrays == {"description", "numbers", "positions", "momenta", "cell", "pbc"}


def test_objects_are_not_written(written, tmp_path):
    restart = replace(read_restart(written), positions=np.array([print]))
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_restart(tmp_path / "md.restart.npz", restart)
    assert not list(tmp_path.iterdir())


def test_fixed_atoms_get_the_positions_and_momenta_of_the_restart(restart):
    """Constraints act on steps of the dynamics; they must not alter the state that a run continues from."""
    state, atoms = read_restart(restart), copper()
    atoms.set_constraint(FixAtoms([0, 1]))
    atoms.positions += 1.0
    state.apply(atoms)
    np.testing.assert_array_equal(atoms.positions, state.positions)
    np.testing.assert_array_equal(atoms.get_momenta(), state.momenta)
    np.testing.assert_array_equal(atoms.cell.array, state.cell)


@pytest.mark.parametrize("name", ["dt", "atoms.calc._references", "step", "_thermostat.__class__", ""])
def test_only_variables_of_integrators_are_restored(restart, name):
    rewrite(restart, lambda arrays: arrays.update({f"integrator.{name}": np.zeros(2)}))
    refused(restart, "is no variable of an integrator")


def test_variables_of_another_integrator_are_refused(restart):
    state = read_restart(restart).integrator
    integrator = VelocityVerlet(copper(), 1.0)
    with pytest.raises(ValueError, match=r"belongs to another integrator than VelocityVerlet: .*_thermostat\._eta"):
        restore_integrator(integrator, state)
    assert not integrator_state(integrator)


def test_misshaped_variables_are_refused_before_any_is_set(restart):
    rewrite(restart, lambda arrays: arrays.update({"integrator._thermostat._eta": np.zeros(7)}))
    with pytest.raises(ValueError, match=r"_thermostat\._eta of the restart file has shape \(7,\), the integrator"):
        run_md(copper(), MDSettings("npt", 4, temperature=300.0), restart.with_name("md.traj"), resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(step=-(10**12)), "step: Input should be greater than or equal to 0, got -10+$"),
        (lambda d: d.update(step=10**16), "step: Input should be less than or equal to 10+"),
        (lambda d: d.update(step="3"), "step: Input should be a valid integer"),
        (lambda d: d.update(step=3.5), "step: Input should be a valid integer"),
        (lambda d: d.update(step=None), "step: Input should be a valid integer"),
        (lambda d: d.pop("step"), "step: Field required"),
        (lambda d: d.pop("settings"), "settings: Field required"),
        (lambda d: d.update(settings=[]), "settings: Input should be a valid dictionary"),
        (
            lambda d: d["settings"].update(temperature=[1]),
            "settings: expected a number, a short text or null for 'temperature'",
        ),
        (lambda d: d.pop("random_state"), "random_state: Field required"),
        (lambda d: d["random_state"].update(bit_generator="MT19937"), r"random_state\.bit_generator: Input should be"),
        (lambda d: d["random_state"]["state"].update(state=-1), r"random_state\.state\.state: Input should be greater"),
        (lambda d: d["random_state"]["state"].update(inc=2**128), r"random_state\.state\.inc: Input should be less"),
        (lambda d: d["random_state"].update(uinteger="a"), r"random_state\.uinteger"),
        (lambda d: d.pop("trajectory"), "trajectory: Field required"),
        (lambda d: d["trajectory"].update(frames=-1), r"trajectory\.frames"),
        (lambda d: d["trajectory"].pop("bytes"), r"trajectory\.bytes: Field required"),
        (lambda d: d.update(surplus=1), "surplus: Extra inputs"),
        (lambda d: d.update(format_version=99), "has format version 99, this lrc-ase reads up to 1: upgrade"),
        (lambda d: d.pop("format_version"), "format_version: Field required"),
    ],
)
def test_a_description_that_no_run_writes_is_named(restart, change, message):
    rewrite(restart, change_description=change)
    refused(restart, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("positions"), "the array positions is missing"),
        (lambda a: a.pop("numbers"), "the array numbers is missing"),
        (lambda a: a.pop("description"), r"or is damaged \('description'\)"),
        (
            lambda a: a.update(positions=a["positions"][:2]),
            r"positions: expected finite numbers of shape \(4, 3\)",
        ),
        (lambda a: a.update(momenta=a["momenta"] * np.nan), "momenta: expected finite numbers"),
        (lambda a: a.update(cell=a["cell"].astype(str)), "cell: expected finite numbers"),
        (lambda a: a.update(pbc=np.zeros(3)), "pbc: expected finite numbers"),
        (lambda a: a.update(numbers=a["numbers"] * 1.0), "numbers: expected finite numbers"),
        (lambda a: a.update(surplus=np.zeros(2)), "unknown array 'surplus'"),
        (lambda a: a.update(description=np.array("[]")), "expected a JSON object"),
        (lambda a: a.update({"integrator._eps": np.array(np.inf)}), r"integrator\._eps: expected finite numbers"),
    ],
)
def test_arrays_that_no_run_writes_are_named(restart, change, message):
    rewrite(restart, change_arrays=change)
    refused(restart, message)


def test_compressed_arrays_are_refused_unread(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, description=np.zeros(10**7))
    assert path.stat().st_size < 10**5
    refused(path, r"is damaged \(it holds compressed arrays\)")


def test_an_array_larger_than_its_bytes_is_refused_before_it_allocates(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    path = tmp_path / "large.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("description.npy", header.getvalue())
    refused(path, r"is damaged \(the array description\.npy does not fit its header\)")


def test_more_arrays_than_any_run_writes_are_refused_unread(tmp_path):
    path = tmp_path / "md.restart.npz"
    np.savez(path, **{f"array{index}": np.zeros(1) for index in range(65)})
    refused(path, "it holds 65 arrays, a restart file at most 64")


def test_arrays_that_share_their_bytes_are_refused_unread(tmp_path):
    path, array = tmp_path / "md.restart.npz", io.BytesIO()
    np.save(array, np.zeros(1000))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("array.npy", array.getvalue())
        for index in range(3):
            twin = copy.copy(archive.infolist()[0])
            twin.filename = f"array{index}.npy"
            archive.filelist.append(twin)
    refused(path, "its arrays are larger than the file")


def test_pickled_arrays_are_refused(tmp_path):
    path = tmp_path / "pickle.npz"
    np.savez(path, description=np.array([print], dtype=object))
    refused(path, "or is damaged")


def test_damaged_restart_file_is_named(restart):
    content = restart.read_bytes()
    for damaged in (b"", b"PK not an archive", content[:-30], content[: len(content) // 2]):
        restart.write_bytes(damaged)
        refused(restart, "is not a restart file of lrc-ase, or is damaged")


def test_a_missing_restart_file_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no restart file .*: start the run without --resume"):
        read_restart(tmp_path / "none.npz")

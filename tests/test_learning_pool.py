"""Labelling in processes of a teacher, and every way in which a calculation can go wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from lrc_ase.learning import Failure, Labelled, TeacherError, TeacherPool, TeacherSettings

FILE = """
import os, subprocess, sys, time
import numpy as np
from ase.calculators.calculator import CalculationFailed, InputError
from ase.calculators.emt import EMT

class Teacher(EMT):
    implemented_properties = [*EMT.implemented_properties, "dipole"]

    def calculate(self, atoms=None, properties=None, system_changes=None):
        super().calculate(atoms, ["energy"], system_changes)
        exec(ALWAYS)
        exec(self.atoms.info.get("act", ""))

def calculator():
    return Teacher()
"""
"""A teacher that computes with EMT and then executes what a test, and what an entry of the structure, tell it."""


def teacher_file(folder: Path, act: str = "", **settings) -> TeacherSettings:
    """Write a teacher that executes `act` after each calculation."""
    path = folder / "teacher.py"
    path.write_text(f"ALWAYS = {act!r}\n{FILE}", encoding="utf-8")
    return TeacherSettings(calculator=str(path), **{"retries": 0, "check": False} | settings)


def rattled(n_frames: int) -> list:
    """Return aluminium cells, each displaced differently."""
    frames = []
    for seed in range(n_frames):
        atoms = bulk("Al", cubic=True)
        atoms.rattle(0.1, seed=seed)
        frames.append(atoms)
    return frames


def results(settings: TeacherSettings, folder: Path, frames: list) -> list:
    """Label frames; return results by index."""
    with TeacherPool(settings, folder / "scratch") as pool:
        return sorted(pool.label(frames), key=lambda result: result.index)


def frames_that(*acts: str) -> list:
    """Return frames, each with what the teacher does after computing it."""
    frames = rattled(len(acts))
    for atoms, act in zip(frames, acts, strict=True):
        atoms.info["act"] = act
    return frames


def alone(settings: TeacherSettings, folder: Path) -> Labelled | Failure:
    """Label one frame."""
    [result] = results(settings, folder, rattled(1))
    return result


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Return a pool of one process that tries a structure three times."""
    folder = tmp_path_factory.mktemp("teacher")
    with TeacherPool(teacher_file(folder, retries=2), folder / "scratch") as shared:
        yield shared


# labels


def test_labels_are_those_of_the_calculator_bit_by_bit(tmp_path):
    frames = rattled(6)
    frames[2].set_constraint(FixAtoms([0]))
    frames[3].info |= {"source": "test", "unsendable": object()}
    settings = TeacherSettings(calculator="ase.calculators.emt:EMT", processes=2)
    for index, result in enumerate(results(settings, tmp_path, frames)):
        assert isinstance(result, Labelled)
        assert result.index == index
        assert 0 < result.seconds < 60
        atoms = frames[index].copy()
        atoms.calc = EMT()
        assert result.atoms.get_potential_energy() == atoms.get_potential_energy()
        # forces on fixed atoms are labels like any other
        assert np.array_equal(result.atoms.get_forces(), atoms.get_forces(apply_constraint=False))
        assert np.array_equal(result.atoms.get_stress(), atoms.get_stress(apply_constraint=False))
        assert np.array_equal(result.atoms.positions, frames[index].positions)
        assert result.atoms.info == frames[index].info
        assert frames[index].calc is None


def test_stress_only_where_all_directions_are_periodic(pool):
    slab = bulk("Al", cubic=True)
    slab.pbc = (True, True, False)
    labels = list(pool.label([bulk("Al"), slab, molecule("H2O")]))
    assert ["stress" in each.atoms.calc.results for each in labels] == [True, False, False]


def test_dipoles_of_molecules_are_kept(pool):
    frames = [molecule("H2O"), bulk("Al")]
    for atoms in frames:
        atoms.info["act"] = "self.results['dipole'] = np.array([0.1, 0.2, 0.3])"
    labels = list(pool.label(frames))
    assert labels[0].atoms.calc.results["dipole"].tolist() == [0.1, 0.2, 0.3]
    assert "dipole" not in labels[1].atoms.calc.results


def test_the_total_charge_reaches_calculators_that_read_initial_charges(pool):
    act = "self.results['energy'] = self.atoms.get_initial_charges().sum()"
    frames = _, charged, partial, stated = frames_that(*[act] * 4)
    charged.info["charge"] = -2
    partial.set_initial_charges([0.5, 0.5, 0.0, 0.0])
    stated.set_initial_charges([1.0, 0.5, -0.5, 0.0])
    stated.info["total_charge"] = 1
    assert [each.atoms.get_potential_energy() for each in pool.label(frames)] == [0.0, -2.0, 1.0, 1.0]
    assert not charged.get_initial_charges().any()


def test_results_come_in_the_order_of_completion_and_work_is_shared(tmp_path):
    settings = teacher_file(tmp_path, processes=2)
    frames = frames_that("time.sleep(1)", "", "", "")
    with TeacherPool(settings, tmp_path / "scratch") as pool:
        order = [result.index for result in pool.label(frames)]
    assert sorted(order) == [0, 1, 2, 3]
    assert order[-1] == 0


def test_structures_are_taken_when_a_process_is_free(pool):
    taken = []

    def frames():
        for index, atoms in enumerate(rattled(4)):
            taken.append(index)
            yield atoms

    iterator = pool.label(frames())
    next(iterator)
    assert len(taken) <= 2
    with pytest.raises(RuntimeError, match="labelling already"):
        next(pool.label(rattled(1)))
    iterator.close()
    assert [result.index for result in pool.label(rattled(2))] == [0, 1]


def test_a_pool_labels_within_its_context(tmp_path):
    with pytest.raises(RuntimeError, match="processes have ended: use TeacherPool as a context"):
        next(TeacherPool(teacher_file(tmp_path), tmp_path).label(rattled(1)))


def test_settings_reach_the_processes(tmp_path):
    act = (
        "assert os.environ['OMP_NUM_THREADS'] == os.environ['MKL_NUM_THREADS'] == '3'\n"
        "assert os.environ['ASE_PROGRAM_COMMAND'] == 'program -x'\n"
        f"assert os.getcwd() == {str(tmp_path / 'scratch' / 'process-1')!r}\n"
        "print('hello from the teacher')"
    )
    settings = teacher_file(tmp_path, act, threads=3, environment={"ASE_PROGRAM_COMMAND": "program -x"})
    result = alone(settings, tmp_path)
    assert isinstance(result, Labelled), result.reason
    log = tmp_path / "scratch" / "process-1" / "output.log"
    assert log.read_text(encoding="utf-8") == "hello from the teacher\n"


# failures


FAILURES = {
    "os._exit(3)": "ended with exit status 3",
    "print('segmentation ahead'); os.kill(os.getpid(), 11)": "signal SIGSEGV after: segmentation ahead",
    "self.results['energy'] = np.nan": "energy is not finite",
    "self.results['forces'][0, 1] = np.inf": "forces is not finite",
    "self.results['forces'] = np.zeros((3, 3))": "forces has the shape (3, 3), expected (4, 3)",
    "del self.results['forces']": "the calculator returned no forces",
    "self.results['converged'] = False": "the calculation did not converge",
    "self.converged = np.bool_(False)": "the calculation did not converge",
    "raise CalculationFailed('SCF not converged in 250 cycles')": "CalculationFailed: SCF not converged in 250 cycles",
    "raise KeyError('two\\nlines')": "KeyError: 'two\\nlines'",
    "sys.exit(4)": "ended with exit status 4",
}


def test_calculations_that_fail_do_not_stop_the_others(tmp_path):
    frames = frames_that(*(act for kind in FAILURES for act in (kind, "")))
    outcomes = results(teacher_file(tmp_path, processes=2), tmp_path, frames)
    assert len(outcomes) == len(frames)
    for failure, label, reason in zip(outcomes[::2], outcomes[1::2], FAILURES.values(), strict=True):
        assert isinstance(failure, Failure)
        assert reason in failure.reason
        assert "\n" not in failure.reason
        assert np.array_equal(failure.atoms.positions, frames[failure.index].positions)
        assert isinstance(label, Labelled)


def test_unknown_elements_fail_at_once(pool, tmp_path):
    first, second = frames_that("", "")
    first.symbols[:] = "Si"
    failure, label = pool.label([first, second])
    assert isinstance(failure, Failure)
    assert "No EMT-potential for Si" in failure.reason
    assert isinstance(label, Labelled)
    for kind, n_attempts in [("InputError", 1), ("NotImplementedError", 1), ("ValueError", 3)]:
        count = tmp_path / kind
        act = f"open({str(count)!r}, 'a').write('x'); raise {kind}"
        assert [type(result) for result in pool.label(frames_that(act))] == [Failure]
        assert len(count.read_text()) == n_attempts


def test_time_limit_ends_the_process_and_its_children(tmp_path):
    mark = tmp_path / "mark"
    child = f"import time; time.sleep(2); open({str(mark)!r}, 'w')"
    frames = frames_that(f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)", "")
    began = time.monotonic()
    first, second = results(teacher_file(tmp_path, timeout=1.0), tmp_path, frames)
    assert time.monotonic() - began < 20
    assert isinstance(first, Failure)
    assert "no result after 1" in first.reason
    assert first.seconds == pytest.approx(1.0, abs=0.5)
    assert isinstance(second, Labelled)
    time.sleep(1.2)
    assert not mark.exists()


@pytest.mark.parametrize(
    "kind",
    [
        "raise CalculationFailed('once')",
        pytest.param("os._exit(1)", marks=pytest.mark.slow),
        pytest.param("time.sleep(60)", marks=pytest.mark.slow),
    ],
)
def test_structures_are_tried_again(tmp_path, pool, kind):
    count = tmp_path / "count"
    attempt = f"with open({str(count)!r}, 'a') as file: file.write('x')\nif os.path.getsize({str(count)!r}) < "
    with contextlib.ExitStack() as stack:
        if "sleep" in kind:
            settings = teacher_file(tmp_path, retries=2, timeout=2.0)
            pool = stack.enter_context(TeacherPool(settings, tmp_path / "scratch"))
        [result] = pool.label(frames_that(f"{attempt} 4: {kind}"))
        assert isinstance(result, Failure)
        assert len(count.read_text()) == 3
        count.unlink()
        [result] = pool.label(frames_that(f"{attempt} 3: {kind}"))
        assert isinstance(result, Labelled)
        assert len(count.read_text()) == 3


def test_an_attempt_that_failed_leaves_no_state_behind(pool):
    act = "self.n = getattr(self, 'n', 0) + 1; self.results['energy'] = float(self.n)"
    failing = "self.n = 100; raise CalculationFailed"
    _, _, label = pool.label(frames_that(act, failing, act))
    assert label.atoms.get_potential_energy() == 1.0


def test_labels_that_change_from_call_to_call_are_an_error(tmp_path):
    act = "self.n = getattr(self, 'n', 0) + 1\nself.results['energy'] += 0.001 * self.n"
    settings = teacher_file(tmp_path, act, check=True)
    with pytest.raises(TeacherError, match=r"second calculation of the same structure \(Al4\).* 0.25 meV/atom"):
        alone(settings, tmp_path)
    assert isinstance(alone(settings.model_copy(update={"check": False}), tmp_path), Labelled)


def test_labels_that_depend_on_the_number_of_threads_are_an_error(tmp_path):
    act = "self.results['forces'] = self.results['forces'] + 0.02 * int(os.environ['OMP_NUM_THREADS'])"
    settings = teacher_file(tmp_path, act, check=True, threads=2)
    with pytest.raises(TeacherError, match=r"with 1 thread in place of 2 \(Al4\).* a force by 20 meV/Angstrom"):
        alone(settings, tmp_path)
    assert isinstance(alone(settings.model_copy(update={"threads": 1}), tmp_path), Labelled)


@pytest.mark.slow
def test_the_check_is_made_once_for_each_teacher(tmp_path):
    count = tmp_path / "count"
    for act, n_calls in [("", 2), ("", 3), ("pass", 5)]:
        settings = teacher_file(tmp_path, f"{act}\nopen({str(count)!r}, 'a').write('x')", check=True)
        for timeout in (50.0, 60.0)[: 1 + (act == "pass")]:
            assert isinstance(alone(settings.model_copy(update={"timeout": timeout}), tmp_path), Labelled)
        assert len(count.read_text()) == n_calls + (act == "pass")


@pytest.mark.slow
def test_the_check_passes_over_structures_that_fail(tmp_path):
    settings = TeacherSettings(calculator="ase.calculators.emt:EMT", threads=2)
    kinds = [type(each) for each in results(settings, tmp_path, [bulk("Si"), bulk("Al"), bulk("Cu")])]
    assert kinds == [Failure, Labelled, Labelled]


def test_a_process_that_ended_while_idle_is_replaced_without_losing_a_structure(tmp_path):
    """Between two iterations of a loop, the system may end an idle process."""
    act = "self.results['energy'] = float(os.getpid())"
    with TeacherPool(teacher_file(tmp_path, act), tmp_path / "scratch") as pool:
        [first] = pool.label(rattled(1))
        pid = int(first.atoms.get_potential_energy())
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
        [second] = pool.label(rattled(1))
    assert isinstance(second, Labelled)
    assert int(second.atoms.get_potential_energy()) != pid


def test_processes_end_with_the_context(tmp_path):
    frames = frames_that("self.results['energy'] = float(os.getpid())", "time.sleep(60)")
    began = time.monotonic()
    with TeacherPool(teacher_file(tmp_path), tmp_path / "scratch") as pool:
        process = int(next(pool.label(frames)).atoms.get_potential_energy())
    assert time.monotonic() - began < 20
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_worker_processes_start_without_torch():
    program = "import sys, lrc_ase.learning.teacher_worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0

"""Processes in which a teacher labels structures, with time limits, retries and replacement of those that crash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.jsonio import encode

from lrc_ase.files.atomic import write_atomically
from lrc_ase.learning.teacher import TeacherError, TeacherSettings, is_file
from lrc_ase.learning.teacher_dynamics import Segment
from lrc_ase.learning.teacher_process import TeacherProcess, wait_for_answers

__all__ = ["Failure", "Labelled", "TeacherPool"]

_LARGEST_ENERGY_DIFFERENCE = 1e-4
"""Difference between two calculations of one structure that is still a converged teacher's, eV/atom."""
_LARGEST_FORCE_DIFFERENCE = 1e-2
"""The same for a force component, eV/Angstrom."""


@dataclass(frozen=True)
class Labelled:
    """A structure with the labels of the teacher."""

    index: int
    """Position among the structures that were to be labelled."""
    atoms: Atoms
    """Copy of the structure, where a `Segment` ended, without constraints. Its `SinglePointCalculator` holds `energy`
    and `forces`, `stress` where all directions are periodic and the teacher has it, `dipole` where none is, and
    `free_energy` if the teacher has it."""
    seconds: float
    """Duration of the calculation that succeeded."""


@dataclass(frozen=True)
class Failure:
    """A structure that the teacher could not label."""

    index: int
    """Position among the structures that were to be labelled."""
    atoms: Atoms
    """The structure."""
    reason: str
    """Error of the last attempt, one line."""
    seconds: float
    """Duration of all attempts."""


@dataclass
class _Task:
    """A structure on its way through the teacher."""

    index: int
    structure: Atoms | Segment
    attempts: int = 0
    seconds: float = 0.0

    @property
    def atoms(self) -> Atoms:
        """Return the structure, before it moves."""
        return self.structure.atoms if isinstance(self.structure, Segment) else self.structure

    @property
    def n_calculations(self) -> int:
        """Return how often the teacher calculates for one label."""
        return self.structure.steps + 2 if isinstance(self.structure, Segment) else 1


class TeacherPool:
    """Label structures with a teacher in processes of its own; a context that ends them.

    Parameters
    ----------
    settings
        The teacher.
    scratch
        Folder in which each process has its working folder, ``process-1`` and so on. The file ``output.log`` there
        holds what the teacher printed about its newest structure. Existing content of these folders is removed. The
        file ``checked`` remembers which teacher has passed the check of `TeacherSettings.check`.

    Raises
    ------
    TeacherError
        On entering the context: the teacher cannot be built. While labelling: its labels change from call to call, or
        with the number of threads, by more than 0.1 meV/atom or 10 meV/Angstrom.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from ase.build import bulk
    >>> with TemporaryDirectory() as scratch:
    ...     with TeacherPool(TeacherSettings(calculator="ase.calculators.emt:EMT"), Path(scratch)) as pool:
    ...         [labelled] = pool.label([bulk("Al")])
    >>> round(labelled.atoms.get_potential_energy(), 3)
    -0.002
    """

    def __init__(self, settings: TeacherSettings, scratch: Path) -> None:
        self.settings, self.scratch = settings, Path(scratch).resolve()
        self._processes: list[TeacherProcess] = []
        self._trusted = not settings.check
        self._mark = self.scratch / "checked"
        self._labelling = False

    def __enter__(self) -> TeacherPool:
        self.scratch.mkdir(parents=True, exist_ok=True)
        if self._mark.exists() and self._mark.read_text(encoding="utf-8") == _identity(self.settings):
            self._trusted = True
        try:
            for number in range(1, self.settings.processes + 1):
                self._processes.append(TeacherProcess(self.settings, self.scratch / f"process-{number}"))
            self._processes[0].wait_until_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        processes, self._processes = self._processes, []
        for process in processes:
            process.close()

    def label(self, frames: Iterable[Atoms | Segment]) -> Iterator[Labelled | Failure]:
        """Yield a result for each of `frames`, in the order in which the calculations end.

        A `Segment` of dynamics is labelled where it ends. A structure is taken from `frames` when a process is free.
        Abandoning the iterator ends calculations that run.
        """
        if not self._processes:
            raise RuntimeError(
                "the teacher's processes have ended: use TeacherPool as a context, `with TeacherPool(...)`"
            )
        if self._labelling:
            raise RuntimeError("this TeacherPool is labelling already: take all results, or use a second pool")
        self._labelling = True
        try:
            yield from self._label(_Task(index, structure) for index, structure in enumerate(frames))
        finally:
            self._labelling = False
            for process in self._processes:
                if process.task is not None:
                    process.kill()

    def _label(self, tasks: Iterator[_Task]) -> Iterator[Labelled | Failure]:
        while not self._trusted and (first := next(tasks, None)) is not None:
            yield self._checked(first)
        repeated: list[_Task] = []
        while True:
            for process in self._processes:
                if process.task is None and (task := repeated.pop() if repeated else next(tasks, None)) is not None:
                    process.begin(task, _request(task), task.n_calculations)
            busy = [process for process in self._processes if process.task is not None]
            if not busy:
                return
            for process in wait_for_answers(busy):
                task = process.task
                result = self._result(task, process.end())
                if result is None:
                    repeated.append(task)
                else:
                    yield result

    def _result(self, task: _Task, answer: dict[str, Any]) -> Labelled | Failure | None:
        """Return the result of a structure, or None if it is to be tried again."""
        task.attempts += 1
        task.seconds += answer["seconds"]
        if "results" in answer:
            moved = task.atoms.copy()
            for name, value in answer["moved"].items():
                moved.set_array(name, value, dtype=float, shape=(3,))
            return Labelled(task.index, with_results(moved, answer["results"]), answer["seconds"])
        if answer.get("final") or task.attempts > self.settings.retries:
            return Failure(task.index, task.atoms, answer["failure"], task.seconds)
        return None

    def _checked(self, task: _Task) -> Labelled | Failure:
        """Label one structure; if it succeeds, compare it with further calculations of the same structure."""
        process = self._processes[0]
        result = self._alone(process, task)
        if isinstance(result, Failure):
            return result
        again = self._alone(process, _Task(task.index, task.structure))
        _compare(result, again, f"in a second calculation of the same structure ({_formula(task.atoms)})")
        if self.settings.threads > 1:
            single = TeacherProcess(self.settings.model_copy(update={"threads": 1}), self.scratch / "one-thread")
            try:
                one = self._alone(single, _Task(task.index, task.structure))
            finally:
                single.close()
            _compare(result, one, f"with 1 thread in place of {self.settings.threads} ({_formula(task.atoms)})")
        self._trusted = True
        write_atomically(self._mark, _identity(self.settings).encode())
        return result

    def _alone(self, process: TeacherProcess, task: _Task) -> Labelled | Failure:
        """Label one structure while nothing else runs."""
        while True:
            process.begin(task, _request(task), task.n_calculations)
            wait_for_answers([process])
            result = self._result(task, process.end())
            if result is not None:
                return result


def _identity(settings: TeacherSettings) -> str:
    """Return a digest of all that labels can depend on."""
    content = settings.model_dump_json(include={"calculator", "options", "threads", "environment"})
    source = Path(settings.calculator).read_bytes() if is_file(settings.calculator) else b""
    return hashlib.sha256(content.encode() + source).hexdigest()


def with_results(atoms: Atoms, results: Mapping[str, Any]) -> Atoms:
    """Return a copy without constraints that carries `results` in a `SinglePointCalculator`."""
    labelled = atoms.copy()
    labelled.set_constraint()
    labelled.calc = SinglePointCalculator(labelled, **results)
    return labelled


def _request(task: _Task) -> str:
    """Return the structure as a line of JSON, with those entries of `Atoms.info` that JSON can hold."""
    atoms = task.atoms
    conditions = task.structure.conditions() if isinstance(task.structure, Segment) else None
    sent = atoms.copy()
    sent.set_constraint()
    sent.info = {}
    for name, value in atoms.info.items():
        try:
            encode(value)
        except (TypeError, ValueError):  # an object that no teacher can need
            continue
        sent.info[name] = value
    return encode({"atoms": sent, "dynamics": conditions})


def _compare(first: Labelled, other: Labelled | Failure, how: str) -> None:
    """Raise TeacherError if two labels of one structure differ."""
    if isinstance(other, Failure):
        raise TeacherError(f"the teacher labelled a structure, and failed {how}: {other.reason}")
    energies = [each.atoms.get_potential_energy() for each in (first, other)]
    forces = [each.atoms.get_forces() for each in (first, other)]
    difference = abs(energies[1] - energies[0]) / len(first.atoms)
    largest = float(np.abs(forces[1] - forces[0]).max())
    if difference > _LARGEST_ENERGY_DIFFERENCE or largest > _LARGEST_FORCE_DIFFERENCE:
        raise TeacherError(
            f"the teacher's labels are not reproducible: {how} the energy differs by {1e3 * difference:.3g} meV/atom "
            f"and a force by {1e3 * largest:.3g} meV/Angstrom; converge it more tightly or seed it, or set "
            "`check: false` to accept such labels"
        )


def _formula(atoms: Atoms) -> str:
    return str(atoms.get_chemical_formula())

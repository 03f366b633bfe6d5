"""Worker process of a teacher: builds the calculator itself and labels the structures that it reads from its input.

It reads and answers lines of JSON (`ase.io.jsonio`, which keeps all bits of a number). The first line holds the
settings, each later one a structure, and a few steps of dynamics if the structure is to move before it is labelled.
`TeacherPool` starts and ends these processes.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from typing import IO, Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError, PropertyNotImplementedError, all_changes
from ase.io.jsonio import decode, encode

from lrc_ase.learning.teacher import NEEDED, TeacherError, TeacherSettings, described, make_calculator
from lrc_ase.learning.teacher_dynamics import advance
from lrc_ase.structures.charge import charge_entries, total_charge

__all__ = ["Unusable", "label"]


class Unusable(ValueError):
    """Error of a calculation that ended without usable labels."""


class _Requests:
    """Lines of an input, read by a thread that ends the process when the input ends in the middle of a calculation.

    The input ends when the parent does, even if it is killed; programs that the calculator started end with this group
    of processes.
    """

    def __init__(self, file: IO[str]) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._file = file
        self.busy = False
        """True from the arrival of a line until the answer."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._file:
            self.busy = True
            self._lines.put(line)
        if self.busy:
            os.killpg(0, signal.SIGKILL)
        self._lines.put("")

    def next(self) -> str:
        """Return the next line; an empty text at the end."""
        return self._lines.get()


def main() -> None:
    """Label structures until the input ends."""
    # whatever a calculator prints goes to a log: the answers have a descriptor of their own
    requests = _Requests(os.fdopen(os.dup(0), encoding="utf-8"))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    start = decode(requests.next())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(start["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a crash loses what is in the buffer
    settings = TeacherSettings.model_validate(start["settings"])
    user_folder = os.getcwd()  # where relative paths in the settings start
    os.chdir(start["scratch"])
    calculator = None
    try:
        calculator = _make_calculator_in(user_folder, settings)
        answer: dict[str, Any] = {"properties": list(calculator.implemented_properties)}
    except TeacherError as error:
        answer = {"error": str(error)}
    while True:
        requests.busy = False
        answers.write(encode(answer) + "\n")
        answers.flush()
        line = requests.next()
        if not line:
            return
        os.ftruncate(log, 0)  # the log holds the output on one structure
        began = time.perf_counter()
        try:
            # an attempt that failed may have left its calculator in any state
            calculator = _make_calculator_in(user_folder, settings) if calculator is None else calculator
            request = decode(line)
            atoms, moved = request["atoms"], {}
            if request["dynamics"] is not None:
                atoms = advance(calculator, with_initial_charges(atoms), **request["dynamics"])
                moved = {"positions": atoms.positions, "momenta": atoms.get_momenta()}
            answer = {"results": label(calculator, atoms), "moved": moved}
        except Exception as error:  # calculators raise anything
            calculator = None
            answer = {
                "failure": str(error) if isinstance(error, Unusable) else described(error),
                "final": isinstance(error, (InputError, NotImplementedError)),
            }
        answer["seconds"] = time.perf_counter() - began


def _make_calculator_in(folder: str, settings: TeacherSettings) -> Any:
    """Build the calculator in `folder`, and come back."""
    scratch = os.getcwd()
    os.chdir(folder)
    try:
        return make_calculator(settings)
    finally:
        os.chdir(scratch)


def label(calculator: Any, atoms: Atoms) -> dict[str, Any]:
    """Return energy, forces, and stress and dipole where they are defined, independent of earlier calculations.

    Raises
    ------
    Unusable
        A result is not finite or of the wrong shape, or the calculator says that it did not converge.
    """
    atoms = with_initial_charges(atoms)
    wanted = [*NEEDED]
    if atoms.pbc.all():
        wanted.append("stress")
    elif not atoms.pbc.any():
        wanted.append("dipole")
    wanted = [name for name in wanted if name in calculator.implemented_properties]
    if hasattr(calculator, "reset"):
        calculator.reset()
    try:
        calculator.calculate(atoms, wanted, all_changes)
    except PropertyNotImplementedError:  # a stress that the calculator has for some structures only
        wanted = [*NEEDED]
        calculator.calculate(atoms, wanted, all_changes)
    results = dict(calculator.results)
    converged = results.get("converged", getattr(calculator, "converged", None))
    if isinstance(converged, (bool, np.bool_)) and not converged:
        raise Unusable("the calculation did not converge")
    names = [name for name in (*wanted, "free_energy") if results.get(name) is not None]
    for name in NEEDED:
        if name not in names:
            raise Unusable(f"the calculator returned no {name}")
    return {name: _checked(name, results[name], len(atoms)) for name in names}


def with_initial_charges(atoms: Atoms) -> Atoms:
    """Return atoms whose initial charges sum to the total charge, where calculators of ASE look for it."""
    charge = total_charge(atoms)
    if not charge_entries(atoms) or abs(atoms.get_initial_charges().sum() - charge) < 1e-6:
        return atoms
    charged = atoms.copy()
    charged.set_initial_charges(np.full(len(atoms), charge / len(atoms)))
    return charged


_SHAPES: dict[str, tuple[int | None, ...]] = {"forces": (None, 3), "stress": (6,), "dipole": (3,)}


def _checked(name: str, value: Any, n_atoms: int) -> Any:
    """Return a result in float64; Unusable for a wrong shape or values that are not finite."""
    array = np.array(value, dtype=float)
    if name == "stress" and array.shape == (3, 3):
        array = array.ravel()[[0, 4, 8, 5, 2, 1]]
    shape = tuple(n_atoms if length is None else length for length in _SHAPES.get(name, ()))
    if array.shape != shape:
        raise Unusable(f"{name} has the shape {array.shape}, expected {shape}")
    if not np.isfinite(array).all():
        raise Unusable(f"{name} is not finite")
    return array if shape else float(array)

"""A calculator that evaluates a potential, and asks a teacher where the potential is unsure."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, InputError, all_changes

from lrc_ase.calculator import LRCCalculator
from lrc_ase.files.atomic import write_atomically
from lrc_ase.files.potential_file import Potential, save_potential
from lrc_ase.files.pretrained import absolute_potential
from lrc_ase.learning.call_limits import CallLimits, Ending
from lrc_ase.learning.label_store import LabelStore
from lrc_ase.learning.prediction import check_deviations, predict
from lrc_ase.learning.retraining import Retraining, RetrainingError, check_options
from lrc_ase.learning.teacher import TeacherSettings
from lrc_ase.learning.teacher_pool import Failure, TeacherPool
from lrc_ase.structures.changes import changed_inputs
from lrc_ase.structures.electric_field import field_entry

__all__ = ["OnTheFlyCalculator", "TeacherCall"]


@dataclass(frozen=True)
class TeacherCall:
    """A structure for which the teacher was asked, and how wrong the potential would have been."""

    evaluation: int
    """Number of the evaluation, counted from 0."""
    reasons: tuple[str, ...]
    """Why the potential was not trusted, one sentence each."""
    deviation: float
    """Largest predicted deviation of the force on an atom, eV/Angstrom; NaN if the potential has none."""
    force_error: float
    """Norm of the largest error of the potential's forces, eV/Angstrom; NaN if it could not evaluate the structure."""
    energy_difference: float
    """Energy of the teacher minus that of the potential, eV: the step of the total energy at this structure; NaN as
    before."""
    seconds: float
    """Duration of the call; 0 if the label was stored already."""


class OnTheFlyCalculator(Calculator):
    r"""Evaluate a potential; where it is unsure, ask a teacher, keep the label and learn from it.

    The potential answers if both conditions hold. Otherwise the teacher answers, and `labels` stores its energy, forces
    and stress.

    - The predicted deviation of the force on every atom is at most `threshold`, with
      :math:`|\sigma_i| = \sqrt{\sigma_{ix}^2 + \sigma_{iy}^2 + \sigma_{iz}^2}`. Deviations are those of an ensemble
      (`LRCCalculator.get_forces_std`): nine of ten errors of a component lie within :math:`1.645\,\sigma`.
    - The structure does not lie far outside the training domain (`LRCCalculator.extrapolation`), and training has seen
      its total charge.

    The calculator works in any driver of ASE for dynamics and relaxation. Use it as a context, or call `close`, so that
    the teacher's process ends.

    The total energy steps where teacher and potential take turns (`TeacherCall.energy_difference`). Thermostats and
    relaxations bear this. In NVE dynamics the conserved energy is meaningful only between two calls: run NVE with a
    potential that needs no calls any more.

    Parameters
    ----------
    potential
        A potential file, the folder of a training run, the name of a shipped potential, or a loaded `Potential`.
    teacher
        Settings of the teacher; one process labels, whatever `processes` says.
    threshold
        Largest deviation of the force on an atom that is trusted, eV/Angstrom. Without an ensemble there is no
        deviation, and the training domain alone decides.
    labels
        File that stores labels (`LabelStore`), with `reason`, `predicted_deviation` and `force_error` of each call in
        `Atoms.info`. A structure in it is not computed again.
    spacing
        Smallest number of evaluations between two calculations of the teacher. In between the potential answers,
        because neighboring steps of a run are nearly the same structure. A structure that the potential cannot evaluate
        goes to the teacher in any case.
    max_calls
        Largest number of calculations of the teacher, failed ones included. None: no limit.
    at_limit
        Behavior when a further call is needed: ``"stop"`` raises `CalculationFailed`, ``"warn"`` warns once and goes on
        with the potential.
    retrain
        Number of new labels after which the potential is trained further, from its weights, on `known` and all labels.
        None never retrains.
    background
        True goes on with the present potential while another process retrains. The result is taken over at the first
        evaluation after its end.
    known
        Files of the frames that the potential was trained on. Without them the retrained potential forgets structures
        that the labels do not cover.
    training
        Options of `lrc_ase.training.train` for retraining, such as ``{"epochs": 20, "n_threads": 1}``.
    folder
        Folder for retrained potentials, ``1``, ``2`` and so on; ``LABELS-potentials`` beside `labels` if not named.
    **options
        Options of `LRCCalculator`: `device`, `dtype`, `skin`.

    Raises
    ------
    TypeError, ValueError
        An option is not valid; the potential has neither deviations nor a training domain.
    TeacherError
        At the first call: the teacher cannot be built, or its labels change from call to call.
    ase.calculators.calculator.CalculationFailed
        At evaluation: the teacher failed, retraining failed and `background` is False, or `max_calls` is reached.
    ase.calculators.calculator.InputError
        At evaluation: a structure in an electric field, of which the teacher does not know.

    Warns
    -----
    UserWarning
        The potential has no deviations; `threshold` lies below all of its deviations; retraining in the background
        failed; `max_calls` is reached.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def __init__(
        self,
        potential: str | os.PathLike[str] | Potential,
        teacher: TeacherSettings,
        threshold: float,
        *,
        labels: str | os.PathLike[str],
        spacing: int = 1,
        max_calls: int | None = None,
        at_limit: Ending = "stop",
        retrain: int | None = None,
        background: bool = False,
        known: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        training: Mapping[str, Any] | None = None,
        folder: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        if not (np.isfinite(threshold) and threshold > 0):
            raise ValueError(f"`threshold` must be a positive deviation of forces in eV/Angstrom, got {threshold}")
        if retrain is not None and retrain < 1:
            raise ValueError(f"`retrain` must be a number of labels of 1 or more, or None, got {retrain}")
        if "electric_field" in options:
            raise TypeError("OnTheFlyCalculator has no electric field: the teacher would not know of it")
        check_options(training or {})
        super().__init__()
        self.use_cache = False
        self.threshold = threshold
        self.calls: list[TeacherCall] = []
        self.n_evaluations = 0
        self.limits = CallLimits(spacing, max_calls, at_limit)
        self.n_unsure = 0
        """Number of evaluations in which the unsure potential answered, because of `spacing` or `max_calls`."""
        self.potential_path: Path | str | None = None
        self._teacher = teacher.model_copy(update={"processes": 1})
        self._retrain, self._background = retrain, background
        self._known = [os.path.abspath(path) for path in ([known] if isinstance(known, (str, os.PathLike)) else known)]
        self._training, self._options = dict(training or {}), options
        path = Path(labels)
        self._folder = Path(folder) if folder is not None else path.with_name(f"{path.stem}-potentials")
        if not isinstance(potential, Potential):
            self.potential_path = absolute_potential(potential, os.getcwd())
        self._use(LRCCalculator(potential, **options))
        self._stack = ExitStack()
        self.labels = self._stack.enter_context(LabelStore(path))
        self._n_trained = len(self.labels)
        self._pool: TeacherPool | None = None
        self._retraining: Retraining | None = None

    def __enter__(self) -> OnTheFlyCalculator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the teacher's process and a retraining in the background, and release the file of labels."""
        self._stack.close()
        self._pool = None
        if self._retraining is not None:
            self._retraining.close()
            self._retraining = None

    @property
    def potential(self) -> Potential:
        """Return the potential that is evaluated now."""
        return self.calculator.potential

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return the reasons why the teacher was asked about the structure evaluated last; empty if it was not."""
        asked = self.calls and self.calls[-1].evaluation == self.n_evaluations - 1
        return self.calls[-1].reasons if asked else ()

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return the inputs, total charge included, that differ in any bit from the last evaluation."""
        return changed_inputs(self.atoms, atoms)

    def reset(self) -> None:
        """Forget results and neighbors, so that the next evaluation depends only on the structure."""
        super().reset()
        self.calculator.reset()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = ("energy",),
        system_changes: Sequence[str] | None = all_changes,
    ) -> None:
        """Evaluate the potential, or the teacher where the potential is unsure."""
        properties = ("energy",) if properties is None else properties
        system_changes = all_changes if system_changes is None else system_changes
        if system_changes:
            self.results = {}
        super().calculate(atoms, properties, system_changes)
        if self.atoms is None:
            raise InputError("OnTheFlyCalculator needs atoms, got None: set atoms.calc and ask the atoms")
        if field_entry(self.atoms) is not None:
            raise InputError("atoms.info names an electric field, of which the teacher does not know: remove the entry")
        if not self.results:
            self._take_over()
            self.results = self._evaluate(self.atoms)
            self.n_evaluations += 1
        # a stress costs extra, and dynamics at constant volume does not want it
        if "stress" in properties and "stress" not in self.results and not self.reasons and self.atoms.pbc.all():
            self.results["stress"] = self.calculator.get_property("stress", self.atoms)

    def finish_retraining(self) -> None:
        """Wait for a retraining in the background, if there is one, and take its potential over."""
        self._take_over(wait=True)

    def _evaluate(self, atoms: Atoms) -> dict[str, Any]:
        """Return energy and forces of the potential if it is sure of them, else all labels of the teacher."""
        prediction = predict(self.calculator, atoms, self.threshold)
        predicted, reasons = prediction.results, prediction.reasons
        if not reasons:
            return predicted
        began, seconds = time.perf_counter(), 0.0
        label = self.labels.get(atoms)
        is_new = label is None
        if label is None:
            if self.limits.spare(self.n_evaluations, reasons, can_answer=bool(predicted)):
                self.n_unsure += 1
                return predicted
            label = self._ask(atoms, reasons)
            seconds = time.perf_counter() - began
        results = dict(label.calc.results)
        # the energy of which the forces are the derivative, as in training
        results["energy"] = results.setdefault("free_energy", results["energy"])
        results.pop("dipole", None)
        errors = np.linalg.norm(results["forces"] - predicted.get("forces", np.nan), axis=1)
        call = TeacherCall(
            self.n_evaluations,
            reasons,
            prediction.deviation,
            float(errors.max()),
            float(results["energy"] - predicted.get("energy", np.nan)),
            seconds,
        )
        if is_new:
            known = {"predicted_deviation": call.deviation, "force_error": call.force_error}
            notes = {name: value for name, value in known.items() if np.isfinite(value)}
            self.labels.add(label, reason="; ".join(reasons), **notes)
        self.calls.append(call)
        if is_new:
            self._learn()
        return results

    def _ask(self, atoms: Atoms, reasons: tuple[str, ...]) -> Atoms:
        """Return the atoms with labels of the teacher."""
        if self._pool is None:
            scratch = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="lrc-ase-teacher-"))
            self._pool = self._stack.enter_context(TeacherPool(self._teacher, Path(scratch)))
        self.limits.count(self.n_evaluations)
        [result] = self._pool.label([atoms])
        if isinstance(result, Failure):
            raise CalculationFailed(f"the teacher failed: {result.reason}. It was asked because {'; '.join(reasons)}")
        return result.atoms

    def _use(self, calculator: LRCCalculator) -> None:
        """Evaluate the potential of `calculator` from now on."""
        self.calculator = calculator
        check_deviations(calculator.potential, self.threshold)

    def _learn(self) -> None:
        """Start a retraining if there are enough new labels."""
        if self._retrain is None or self._retraining is not None or len(self.labels) - self._n_trained < self._retrain:
            return
        self._n_trained = len(self.labels)
        self._folder.mkdir(parents=True, exist_ok=True)
        number = 1
        while (run := self._folder / str(number)).exists() or run.with_name(f"{number}-labels.extxyz").exists():
            number += 1
        # labels go on being appended to their file while the training reads
        frames = run.with_name(f"{number}-labels.extxyz").absolute()
        write_atomically(frames, self.labels.path.read_bytes())
        if self.potential_path is None:
            self.potential_path = (self._folder / f"{number}-start.safetensors").absolute()
            save_potential(self.potential_path, self.potential)
        start = os.fspath(self.potential_path)
        self._retraining = Retraining([*self._known, str(frames)], run.absolute(), start, self._training)
        if not self._background:
            try:
                self._take_over(wait=True)
            except RetrainingError as error:
                raise CalculationFailed(str(error)) from error

    def _take_over(self, *, wait: bool = False) -> None:
        """Use the potential of a retraining that has ended."""
        if self._retraining is None or not (wait or self._retraining.has_ended):
            return
        retraining, self._retraining = self._retraining, None
        try:
            path = retraining.wait()
        except RetrainingError as error:
            if not self._background:
                raise
            warnings.warn(f"{error}; the potential stays as it is", stacklevel=4)
            return
        self.potential_path = path
        self._use(LRCCalculator(path, **self._options))

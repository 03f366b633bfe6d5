"""Goals of active learning: the error that is good enough, the deviation that follows from it, and reasons to end."""

from __future__ import annotations

from collections.abc import Sequence

from lrc_ase.dataset import Atoms, force_rms, label_frame
from lrc_ase.learning.fresh_errors import agrees
from lrc_ase.learning.settings import BudgetSettings, ExplorationSettings
from lrc_ase.learning.state import FreshErrors, IterationRecord, LearnState

__all__ = ["budget_end", "convergence", "target_error", "threshold"]

RELATIVE_TARGET = 0.05
"""Target of the force error if the settings leave it open, as a part of the root mean square force label."""


def target_error(budget: BudgetSettings, labelled: Sequence[Atoms]) -> float:
    """Return the force error that is good enough, meV/Angstrom."""
    if budget.target_error is not None:
        return budget.target_error
    return 1e3 * RELATIVE_TARGET * force_rms([label_frame(atoms) for atoms in labelled])


def threshold(exploring: ExplorationSettings, held_out: FreshErrors | None, target: float) -> float:
    """Return the deviation at which walkers stop, eV/Angstrom: of the error on held-out frames, at least of `target`.

    `target` is in meV/Angstrom, as the errors.
    """
    if exploring.threshold is not None:
        return exploring.threshold
    error = 0.0 if held_out is None else held_out.forces_rmse
    return exploring.tolerance * 1e-3 * max(error, target)


def convergence(records: Sequence[IterationRecord], target: float) -> str | None:
    """Return the sentence on convergence; None if the loop must go on.

    The last exploration met nothing unknown, and the errors on the labels drawn from it are within the `target`
    (meV/Angstrom) and as predicted.
    """
    if len(records) < 2:
        return None
    explored, fresh = records[-2], records[-1].fresh
    if not explored.complete or "all" not in fresh or not agrees(fresh["all"]):
        return None
    errors = fresh.get("random", fresh["all"])
    if errors.forces_rmse > target:
        return None
    return (
        f"an exploration of {explored.picoseconds:.3g} ps raised no alarm, and the force error on fresh labels, "
        f"{errors.forces_rmse:.1f} meV/Angstrom, is within the target of {target:.1f} and as predicted"
    )


def budget_end(budget: BudgetSettings, state: LearnState, *, out_of_time: bool) -> str | None:
    """Return the sentence on the budget that has ended, or None."""
    if budget.teacher_calls is not None and state.calls >= budget.teacher_calls:
        return f"the budget of {budget.teacher_calls} teacher calls is used up"
    if out_of_time:
        return f"the budget of {budget.minutes:g} minutes is used up"
    if state.iteration >= budget.iterations:
        return f"the budget of {budget.iterations} iterations is used up"
    return None

"""Limits on how often a run asks its teacher: a spacing between two calculations, and a largest number of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, get_args

from ase.calculators.calculator import CalculationFailed

__all__ = ["CallLimits", "Ending"]

Ending = Literal["stop", "warn"]


class CallLimits:
    """Count calculations of a teacher, and say which ones a run does without.

    Parameters
    ----------
    spacing
        Smallest number of evaluations from one calculation to the next.
    max_calls
        Largest number of calculations; None: no limit.
    at_limit
        ``"stop"`` raises an error beyond the limit, ``"warn"`` warns once.

    Raises
    ------
    ValueError
        A parameter is not valid.
    """

    def __init__(self, spacing: int = 1, max_calls: int | None = None, at_limit: Ending = "stop") -> None:
        if spacing < 1:
            raise ValueError(f"`spacing` must be a number of evaluations of 1 or more, got {spacing}")
        if max_calls is not None and max_calls < 0:
            raise ValueError(f"`max_calls` must be a number of calculations of 0 or more, or None, got {max_calls}")
        if at_limit not in get_args(Ending):
            raise ValueError(f'`at_limit` must be "stop" or "warn", got {at_limit!r}')
        self.spacing, self.max_calls, self.at_limit = spacing, max_calls, at_limit
        self.n_calls = 0
        """Calculations so far, failed ones included."""
        self._next_evaluation = 0
        self._has_warned = False

    def count(self, evaluation: int) -> None:
        """Record that the teacher calculates the structure of an evaluation."""
        self.n_calls += 1
        self._next_evaluation = evaluation + self.spacing

    def spare(self, evaluation: int, reasons: Sequence[str], *, can_answer: bool) -> bool:
        """Return True if the teacher is not asked in this evaluation although there are `reasons`.

        `can_answer` is False where the potential cannot evaluate the structure: the teacher is asked within the spacing
        too, and beyond the limit the run cannot go on.

        Raises
        ------
        ase.calculators.calculator.CalculationFailed
            The largest number of calculations is reached, and the run is to stop there or cannot go on.
        """
        if can_answer and evaluation < self._next_evaluation:
            return True
        if self.max_calls is None or self.n_calls < self.max_calls:
            return False
        limit = f"the budget of {self.max_calls} calculations of the teacher is used up (`max_calls`)"
        if self.at_limit == "stop" or not can_answer:
            raise CalculationFailed(
                f"{limit}, and it is needed again: {'; '.join(reasons)}. Retrain on the labels, raise the budget, or "
                'go on with the unsure potential by at_limit="warn"'
            )
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{limit}: from here on the potential answers, sure or not; `n_unsure` counts how often it is unsure",
                stacklevel=6,
            )
        return True

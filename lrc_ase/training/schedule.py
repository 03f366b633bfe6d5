"""How the step size rises and falls in the course of a stage."""

from __future__ import annotations

import math

from lrc_ase.training.configuration import StageConfiguration

__all__ = ["learning_rate"]


def learning_rate(stage: StageConfiguration, step: int, n_steps: int) -> float:
    """Step size of step number `step` of `n_steps`: linear warm-up, then the schedule of the stage.

    >>> stage = StageConfiguration(name="s", learning_rate=1.0, warmup=0.2, schedule="exponential")
    >>> [round(learning_rate(stage, step, 10), 3) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.01]
    """
    n_warmup = round(stage.warmup * n_steps)
    if step < n_warmup:
        return stage.learning_rate * (step + 1) / n_warmup
    passed = min((step - n_warmup) / max(n_steps - n_warmup - 1, 1), 1.0)
    final = stage.final_learning_rate
    if stage.schedule == "constant":
        return stage.learning_rate
    if stage.schedule == "exponential":
        return stage.learning_rate * final**passed
    return stage.learning_rate * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * passed)))

"""Schedule of the step size of the optimizer in a stage: warm-up and decay."""

from __future__ import annotations

import math

from lrc_ase.training.configuration import StageConfiguration

__all__ = ["learning_rate"]

_LEAST_WARMUP = 50
"""Steps that the warm-up takes at least, if it has so many. A slow first step would otherwise end it where a stage has
a time limit: without warm-up, forces of acetylacetone start at 19 eV/Angstrom, and features never recover."""


def learning_rate(stage: StageConfiguration, step: int, n_steps: int, *, seconds: float = 0.0) -> float:
    """Return the step size of step number `step` of `n_steps`: linear warm-up, then the schedule of the stage.

    A stage with a time limit moves through its schedule by steps or by `seconds` since its beginning, whichever is
    further. The step size thus reaches its final value when the time is up. The warm-up takes 50 steps at least, if it
    has so many, however much time has passed.

    >>> stage = StageConfiguration(name="s", learning_rate=1.0, warmup=0.2, schedule="exponential")
    >>> [round(learning_rate(stage, step, 10), 3) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.01]
    >>> limited = stage.model_copy(update={"time_limit": 1.0})
    >>> [round(learning_rate(limited, 2, 10, seconds=seconds), 3) for seconds in (0, 30, 60)]
    [1.0, 0.193, 0.01]
    >>> learning_rate(limited, 0, 10, seconds=60)  # the first step took all the time
    0.01
    """
    position: float = step
    if stage.time_limit is not None:
        position = max(step, min(seconds / (60 * stage.time_limit), 1.0) * (n_steps - 1))
    n_warmup = round(stage.warmup * n_steps)
    if position < n_warmup:
        rate = stage.learning_rate * min((position + 1) / n_warmup, 1.0)
    else:
        rate = _decayed(stage, position - n_warmup, n_steps - n_warmup)
    least = min(n_warmup, _LEAST_WARMUP)
    return min(rate, stage.learning_rate * (step + 1) / least) if step < least else rate


def _decayed(stage: StageConfiguration, position: float, n_steps: int) -> float:
    """Return the step size at a `position` of the `n_steps` that follow the warm-up."""
    # fraction of the way from the end of the warm-up to the last step
    passed = min(position / max(n_steps - 1, 1), 1.0)
    final = stage.final_learning_rate
    if stage.schedule == "constant":
        return stage.learning_rate
    if stage.schedule == "exponential":
        return stage.learning_rate * final**passed
    return stage.learning_rate * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * passed)))

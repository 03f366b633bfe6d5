"""Reset of calculators that ASE gives no method for it."""

from __future__ import annotations

from typing import Any

__all__ = ["forget_results"]


def forget_results(calculator: Any) -> None:
    """Reset a calculator, or all calculators of a sum or mean, so that the next results depend on the structure alone.

    Sums and means of ASE (`ase.calculators.mixing`) have no method `reset`, and keep what their parts remember.
    """
    if hasattr(calculator, "reset"):
        calculator.reset()
        return
    for part in getattr(getattr(calculator, "mixer", None), "calcs", ()):
        forget_results(part)
    calculator.atoms, calculator.results = None, {}

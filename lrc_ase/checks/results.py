"""Results of checks: quantities with their limits, figures as plain numbers, and verdicts that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, TypeAdapter

from lrc_ase.files.strict_json import finite

__all__ = ["CheckResult", "Curve", "Figure", "NotApplicable", "Quantity", "Verdict"]

Verdict = Literal["passed", "failed", "not applicable", "informative"]
_Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""Number that JSON holds as null if it is not finite."""
LARGEST_CURVE = 400
"""Largest number of points of a curve that is kept for its plot."""


class NotApplicable(Exception):
    """Reason why a check does not apply to a system."""


@dataclass(frozen=True)
class Quantity:
    """Number with its unit, statistical error and limits."""

    name: str
    value: _Number
    unit: str = ""
    error: float | None = None
    """Standard error; None for a number without statistical error."""
    at_most: float | None = None
    """Largest value that passes; None without such a limit."""
    at_least: float | None = None
    """Smallest value that passes; None without such a limit."""
    reference: float | None = None
    """Value of the reference calculator."""
    is_main: bool = False
    """True for one of the few numbers that stand beside the verdict."""

    @property
    def is_limited(self) -> bool:
        """Return True if the quantity has a limit."""
        return self.at_most is not None or self.at_least is not None

    @property
    def is_within(self) -> bool:
        """Return False for a value beyond a limit by more than two standard errors, or for one that is not finite."""
        margin = 2 * self.error if self.error is not None and math.isfinite(self.error) else 0.0
        if not self.is_limited:
            return True
        if not math.isfinite(self.value):
            return False
        above = self.at_most is not None and self.value - margin > self.at_most
        below = self.at_least is not None and self.value + margin < self.at_least
        return not (above or below)

    @property
    def value_text(self) -> str:
        """Return the value with its error and unit.

        >>> Quantity("density", 1.54321, "g/cm^3", error=0.0123).value_text
        '1.543 +- 0.012 g/cm^3'
        """
        if self.error is None or not math.isfinite(self.error) or self.error == 0:
            text = f"{self.value:.4g}"
        else:
            digits = max(1 - math.floor(math.log10(self.error)), 0)
            text = f"{self.value:.{digits}f} +- {self.error:.{digits}f}" if digits < 7 else f"{self.value:.2g}"
            text = text if digits < 7 else f"{text} +- {self.error:.1g}"
        return f"{text} {self.unit}".strip()

    @property
    def limit_text(self) -> str:
        """Return the limits, empty without any.

        >>> Quantity("drift", 1e-4, "eV", at_most=0.01).limit_text
        'at most 0.01'
        """
        parts = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        parts += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Curve:
    """Points of a plot."""

    name: str
    x: tuple[_Number, ...]
    y: tuple[_Number, ...]
    style: Literal["line", "points"] = "line"

    @classmethod
    def of(
        cls, name: str, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, *, points: bool = False
    ) -> Curve:
        """Return the curve through arrays (n_points,), thinned to `LARGEST_CURVE` points."""
        kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), LARGEST_CURVE)).astype(int))
        rounded = [tuple(float(f"{float(values[index]):.6g}") for index in kept) for values in (x, y)]
        return cls(name, rounded[0], rounded[1], "points" if points else "line")


@dataclass(frozen=True)
class Figure:
    """Plot as numbers: the report draws it."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    caption: str = ""
    log_x: bool = False
    log_y: bool = False
    y_range: tuple[float, float] | None = None

    def beside(self, reference: Figure) -> Figure:
        """Return the plot with the curves of a reference calculator, in a range that holds both."""
        curves = tuple(replace(each, name=f"{each.name}, reference") for each in reference.curves)
        y_range = self.y_range
        if y_range is not None and reference.y_range is not None:
            y_range = min(y_range[0], reference.y_range[0]), max(y_range[1], reference.y_range[1])
        return replace(self, curves=self.curves + curves, y_range=y_range)


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check on one system."""

    name: str
    verdict: Verdict
    sentence: str
    """Finding in one sentence."""
    quantities: tuple[Quantity, ...] = ()
    figures: tuple[Figure, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    @classmethod
    def judged(
        cls, name: str, sentence: str, quantities: Sequence[Quantity], figures: Sequence[Figure] = ()
    ) -> CheckResult:
        """Return a result whose verdict follows from the limits of its quantities.

        One quantity beyond its limit fails the check. A check without any limit is informative.
        """
        limited = [quantity for quantity in quantities if quantity.is_limited]
        verdict: Verdict = "passed" if limited else "informative"
        beyond = [quantity for quantity in limited if not quantity.is_within]
        if beyond:
            verdict = "failed"
            broken = "; ".join(f"{each.name} is {each.value_text}, limit {each.limit_text}" for each in beyond)
            sentence = f"{broken}. {sentence}"
        return cls(name, verdict, sentence, tuple(quantities), tuple(figures))

    def beside(self, reference: CheckResult) -> CheckResult:
        """Return the result with the values and curves of a reference calculator beside its values and curves."""
        values = {quantity.name: quantity.value for quantity in reference.quantities}
        quantities = tuple(replace(each, reference=values.get(each.name)) for each in self.quantities)
        others = {figure.title: figure for figure in reference.figures}
        figures = tuple(each.beside(others[each.title]) if each.title in others else each for each in self.figures)
        return replace(self, quantities=quantities, figures=figures)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values; numbers that are not finite become None."""
        return finite(asdict(self))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CheckResult:
        """Build the result that `to_json` wrote; ValueError for other values."""
        return TypeAdapter(cls).validate_python(values)

"""Result of one check of a set of frames: a verdict, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Check", "centered", "nearest_meaning", "slope_and_correlation"]


@dataclass(frozen=True)
class Check:
    """Result of a check: quantities compared, samples, and a warning or the reason why there is no verdict."""

    subject: str
    """Quantities that were compared, such as "energies against forces"."""
    basis: str | None = None
    """Number and kind of samples. None: the check could not be made."""
    obstacle: str = ""
    """Reason why the check could not be made or gives no verdict."""
    warning: str | None = None
    """Sentence about what looks wrong."""


def nearest_meaning(ratio: float, meanings: Mapping[str, float], tolerance: float) -> str | None:
    """Return the text in `meanings` whose factor is nearest to `ratio`; None if none of the same sign is near.

    Distances are differences of logarithms: a tolerance of 0.1 accepts about 10%.

    >>> nearest_meaning(23.5, {"kcal/mol": 23.06, "kJ/mol": 96.5}, 0.1)
    'kcal/mol'
    """

    def distance(factor: float) -> float:
        """Return the logarithmic distance of a factor from the ratio; infinite for another sign."""
        return abs(math.log(ratio / factor)) if ratio * factor > 0 else math.inf  # NaN is near nothing

    best = min(meanings, key=lambda text: distance(meanings[text]))
    return best if distance(meanings[best]) < tolerance else None


def centered(groups: Iterable[np.ndarray]) -> np.ndarray:
    """Join samples (n_samples, n_quantities) of several groups, each without its mean; (n_quantities, n_samples)."""
    return np.concatenate([group - group.mean(axis=0) for group in groups]).T


def slope_and_correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    r"""Return slope and correlation of samples (n_samples,) about the origin; zeros for a quantity that is always zero.

    .. math:: \frac{x \cdot y}{x \cdot x}, \qquad \frac{x \cdot y}{|x| |y|}

    >>> slope_and_correlation(np.array([1.0, 2.0]), np.array([-2.0, -4.0]))
    (-2.0, -1.0)
    """
    xx, yy, xy = float(x @ x), float(y @ y), float(x @ y)
    return (xy / xx, xy / (xx * yy) ** 0.5) if xx > 0 and yy > 0 else (0.0, 0.0)

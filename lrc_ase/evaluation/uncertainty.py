r"""Calibration of the deviations of an ensemble, and their comparison with errors.

The spread s of a few members underestimates the error, and errors common to all members do not show up in it. We
therefore predict deviations

.. math:: \sigma^2 = b^2 + (a s)^2

with a scale a and a floor b. Both are fitted to the errors on held-out frames by the likelihood of normal errors.
Where the held-out frames resemble the training set, spread and errors may be uncorrelated, and the likelihood alone
would choose a = 0: deviations that never change, not even far from the training set. The scale is therefore at least
0.5, the ratio of the error of a mean of four independent members to their spread.
Energies have no floor, because it would have to grow with the structure. The deviations are then stretched so that the
interval :math:`\pm 1.645\,\sigma` holds nine true values in ten. The stretch contains the finite-sample correction of
conformal prediction (Vovk, Gammerman, Shafer, *Algorithmic Learning in a Random World*, 2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.optimize import minimize

__all__ = [
    "INTERVAL_LEVEL",
    "Calibration",
    "UncertaintySummary",
    "calibrate_spread",
    "coverage",
    "crossed_coverage",
    "crossed_deviations",
    "negative_log_likelihood",
    "summarize_uncertainty",
]

INTERVAL_LEVEL = 0.9
"""Probability for which deviations are calibrated."""
_FEWEST = 5
"""Smallest number of held-out values that are calibrated on."""
_SMALLEST_SCALE = 0.5
"""Smallest scale of the spread next to a floor, before the deviations are stretched."""
_LARGEST_FIT = 20_000
"""Largest number of errors in the likelihood; of more an even sample is taken."""


@dataclass(frozen=True)
class UncertaintySummary:
    """Comparison of predicted deviations with actual errors, both in the unit that `Evaluation.uncertainty` names."""

    coverage: float
    """Part of the errors inside the 90% interval."""
    negative_log_likelihood: float
    """Mean of :math:`\\tfrac12 \\ln 2\\pi\\sigma^2 + e^2/2\\sigma^2`, e and :math:`\\sigma` in the unit of the
    errors: a unit a thousand times smaller adds :math:`\\ln 1000`."""
    correlation: float
    """Rank correlation (Spearman) of deviations and absolute errors."""
    mean_deviation: float
    """Root mean square of the deviations, in the unit of the errors."""
    n_errors: int = 0
    """Number of errors with a deviation."""


@dataclass(frozen=True)
class Calibration:
    """Map from the spread of the members to deviations."""

    scale: float = 1.0
    """Factor a of the spread."""
    floor: float = 0.0
    """Smallest deviation b, in the unit of the spread."""

    def deviations(self, spread: np.ndarray) -> np.ndarray:
        r"""Return the calibrated deviations :math:`\sqrt{b^2 + (a s)^2}`."""
        return np.asarray(np.hypot(self.floor, self.scale * spread))


def calibrate_spread(errors: np.ndarray, spread: np.ndarray, *, with_floor: bool) -> Calibration:
    """Fit a calibration of `spread` to errors of the same shape; NaN errors do not count.

    Fewer than 5 errors, or errors that are all zero, give the identity.
    """
    known = _known(errors, spread)
    sizes, spreads = np.abs(errors[known]), spread[known]
    if sizes.size < _FEWEST or not sizes.any():
        return Calibration()
    shape = _most_likely(sizes, spreads) if with_floor else Calibration()
    # conformal prediction: the rank is that of n + 1 values, as the next error is one of them
    ratios = np.sort(sizes / shape.deviations(spreads))
    rank = min(math.ceil((len(ratios) + 1) * INTERVAL_LEVEL), len(ratios))
    stretch = float(ratios[rank - 1] / _quantile(INTERVAL_LEVEL))
    return Calibration(stretch * shape.scale, stretch * shape.floor)


def _most_likely(errors: np.ndarray, spread: np.ndarray) -> Calibration:
    """Fit scale and floor by maximum likelihood."""
    step = max(errors.size // _LARGEST_FIT, 1)
    errors, spread = errors[::step], spread[::step]
    # in logarithms both stay positive; the small number stands for a median of zero
    scale = max(np.sqrt(np.mean(errors**2) / np.mean(spread**2)), _SMALLEST_SCALE)
    start = np.log([scale, np.median(errors) + 1e-12])
    bounds = [(math.log(_SMALLEST_SCALE), None), (None, None)]

    def cost(logarithms: np.ndarray) -> float:
        scale, floor = np.exp(logarithms)
        return negative_log_likelihood(errors, Calibration(scale, floor).deviations(spread))

    scale, floor = np.exp(minimize(cost, start, method="Nelder-Mead", bounds=bounds).x)
    return Calibration(float(scale), float(floor))


def coverage(errors: np.ndarray, deviations: np.ndarray, level: float = INTERVAL_LEVEL) -> float:
    """Return the part of the errors inside the normal interval of probability `level`; NaN without errors."""
    ratios = _ratios(errors, deviations)
    return float((ratios <= _quantile(level)).mean()) if ratios.size else math.nan


def crossed_deviations(errors: np.ndarray, spread: np.ndarray, group: np.ndarray, *, with_floor: bool) -> np.ndarray:
    """Return calibrated deviations (shape of `spread`), each half of the groups (frames) calibrated on the other half.

    A calibration is thus never compared with the errors that it was fitted to. NaN where the other half has fewer than
    5 errors.
    """
    second = np.isin(group, np.unique(group)[1::2])
    deviations = np.full(spread.shape, math.nan)
    for half in (second, ~second):
        if _known(errors[~half], spread[~half]).sum() >= _FEWEST:
            calibration = calibrate_spread(errors[~half], spread[~half], with_floor=with_floor)
            deviations[half] = calibration.deviations(spread[half])
    return deviations


def crossed_coverage(errors: np.ndarray, spread: np.ndarray, group: np.ndarray, *, with_floor: bool) -> float:
    """Return the coverage of the errors by `crossed_deviations`; NaN where there are too few errors."""
    return coverage(errors, crossed_deviations(errors, spread, group, with_floor=with_floor))


def negative_log_likelihood(errors: np.ndarray, deviations: np.ndarray) -> float:
    r"""Return the mean of :math:`\tfrac12 \ln 2\pi\sigma^2 + e^2 / 2\sigma^2` for errors e and deviations sigma."""
    known = np.isfinite(errors) & (deviations > 0)
    variance = deviations[known] ** 2
    if not known.any():
        return math.nan
    return float(np.mean(0.5 * np.log(2 * np.pi * variance) + errors[known] ** 2 / (2 * variance)))


def summarize_uncertainty(errors: np.ndarray, deviations: np.ndarray) -> UncertaintySummary:
    """Compare deviations with errors of the same shape; NaN errors do not count."""
    from scipy.stats import spearmanr  # half a second to import, for every training and evaluation

    known = np.isfinite(errors) & np.isfinite(deviations)
    sizes, expected = np.abs(errors[known]), deviations[known]
    # a rank correlation needs values that differ
    varied = sizes.size > 2 and np.ptp(sizes) > 0 and np.ptp(expected) > 0
    return UncertaintySummary(
        coverage=coverage(sizes, expected),
        negative_log_likelihood=negative_log_likelihood(sizes, expected),
        correlation=float(spearmanr(expected, sizes).statistic) if varied else math.nan,
        mean_deviation=float(np.sqrt(np.mean(expected**2))) if sizes.size else math.nan,
        n_errors=int(sizes.size),
    )


def _known(errors: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return the mask of the values that a calibration can use."""
    return np.asarray(np.isfinite(errors) & np.isfinite(spread) & (spread > 0))


def _quantile(level: float) -> float:
    """Return the half width of the normal interval of probability `level`, in standard deviations."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def _ratios(errors: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Return known absolute errors over their deviations; infinite for an error without deviation."""
    known = np.isfinite(errors) & np.isfinite(deviations)
    sizes, expected = np.abs(errors[known]), deviations[known]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = sizes / expected
    return np.where((sizes == 0) & (expected == 0), 0.0, ratios)

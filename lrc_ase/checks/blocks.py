"""Means of correlated samples, with standard errors from blocks."""

from __future__ import annotations

import numpy as np

__all__ = ["block_error", "slope_with_error"]

N_BLOCKS = 5
"""Blocks for the error of a mean."""
N_BLOCKS_OF_SLOPE = 10


def block_error(samples: np.ndarray) -> float:
    r"""Return the standard error of the mean of correlated samples (n_samples,).

    .. math:: \sigma^2 = \frac{1}{B (B - 1)} \sum_b (\bar{x}_b - \bar{x})^2

    over the means of B consecutive blocks, which must be longer than the correlation time (Flyvbjerg and Petersen,
    doi:10.1063/1.457480). NaN for fewer samples than blocks.
    """
    if len(samples) < N_BLOCKS:
        return float("nan")
    means = np.array([block.mean() for block in np.array_split(samples, N_BLOCKS)])
    return float(means.std(ddof=1) / np.sqrt(N_BLOCKS))


def slope_with_error(times: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Return the slope of a straight line through block means of `values` over `times`, and its standard error.

    Fluctuations within a block, such as those of the total energy in a vibration, cancel in its mean.
    """
    blocks = min(N_BLOCKS_OF_SLOPE, len(values))
    x, y = (np.array([block.mean() for block in np.array_split(each, blocks)]) for each in (times, values))
    if blocks < 3:
        return float(np.polyfit(x, y, 1)[0]), float("nan")
    centered = x - x.mean()
    slope = float(centered @ y / (centered @ centered))
    residual = y - y.mean() - slope * centered
    return slope, float(np.sqrt(residual @ residual / (blocks - 2) / (centered @ centered)))

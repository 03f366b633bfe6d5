"""Means of correlated samples, with standard errors from blocks."""

from __future__ import annotations

import numpy as np

__all__ = ["block_error", "slope_with_error"]

N_BLOCKS = 5


def block_error(samples: np.ndarray, n_blocks: int = N_BLOCKS) -> float:
    r"""Return the standard error of the mean of correlated samples (n_samples,).

    .. math:: \sigma^2 = \frac{1}{B (B - 1)} \sum_b (\bar{x}_b - \bar{x})^2

    over the means of B consecutive blocks, which must be longer than the correlation time (Flyvbjerg and Petersen,
    doi:10.1063/1.457480). NaN for fewer samples than blocks.
    """
    if len(samples) < n_blocks:
        return float("nan")
    means = np.array([block.mean() for block in np.array_split(samples, n_blocks)])
    return float(means.std(ddof=1) / np.sqrt(n_blocks))


def slope_with_error(times: np.ndarray, values: np.ndarray, n_blocks: int = 10) -> tuple[float, float]:
    """Return the slope of a straight line through block means of `values` over `times`, and its standard error.

    Fluctuations within a block, such as those of the total energy in a vibration, cancel in its mean.
    """
    blocks = min(n_blocks, len(values))
    x, y = (np.array([block.mean() for block in np.array_split(each, blocks)]) for each in (times, values))
    if blocks < 3:
        return float(np.polyfit(x, y, 1)[0]), float("nan")
    centered = x - x.mean()
    slope = float(centered @ y / (centered @ centered))
    residual = y - y.mean() - slope * centered
    return slope, float(np.sqrt(residual @ residual / (blocks - 2) / (centered @ centered)))

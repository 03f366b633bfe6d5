"""Calibration of deviations, and their comparison with errors."""

from __future__ import annotations

import numpy as np
import pytest

from lrc_ase.evaluation.uncertainty import (
    Calibration,
    calibrate_spread,
    coverage,
    crossed_coverage,
    negative_log_likelihood,
    summarize_uncertainty,
)


@pytest.mark.parametrize("factor", [0.6, 1.0, 4.0])
@pytest.mark.parametrize("floor", [0.0, 2.0])
def test_calibration_recovers_a_known_law(factor, floor):
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.1, 3.0, size=20000)
    errors = np.hypot(floor, factor * spread) * rng.normal(size=20000)
    actual = calibrate_spread(errors, spread, with_floor=floor > 0)
    assert actual.scale == pytest.approx(factor, rel=0.2 if floor else 0.03)
    assert actual.floor == pytest.approx(floor, rel=0.1)
    deviations = actual.deviations(spread)
    assert coverage(errors, deviations) == pytest.approx(0.9, abs=1e-3)
    assert coverage(errors, deviations, 0.5) == pytest.approx(0.5, abs=0.02)
    frames = np.repeat(np.arange(200), 100)
    assert crossed_coverage(errors, spread, frames, with_floor=floor > 0) == pytest.approx(0.9, abs=0.01)
    likelihoods = [negative_log_likelihood(errors, stretch * deviations) for stretch in (0.7, 1.0, 1.4)]
    assert min(likelihoods) == likelihoods[1]
    assert summarize_uncertainty(errors, deviations).correlation > 0.02


def test_deviations_grow_with_the_spread_even_if_held_out_errors_do_not():
    # frames like those of training: the likelihood alone would choose a scale of zero, blind far from the training set
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.5, 1.5, size=5000)
    errors = 3.0 * rng.normal(size=5000)
    calibration = calibrate_spread(errors, spread, with_floor=True)
    assert calibration.scale == pytest.approx(0.5, rel=0.05)
    assert calibration.deviations(np.array(30.0)) > 14
    assert coverage(errors, calibration.deviations(spread)) == pytest.approx(0.9, abs=1e-3)


def test_calibration_counts_its_finite_sample():
    # nine errors of their own deviation and the rank ceil(10 * 0.9) = 9: the largest decides
    actual = calibrate_spread(np.arange(1.0, 10.0), np.ones(9), with_floor=False)
    assert actual.scale == pytest.approx(9 / 1.6448536269514722)


def test_a_summary_of_deviations_is_its_formulas():
    """By hand: 1/2 ln 2 pi = 0.918939, ln sigma = 0, 0.693147, 1.098612, e^2 / 2 sigma^2 = 8, 1/2, 1/72."""
    errors, deviations = np.array([4.0, -2.0, np.nan, 0.5]), np.array([1.0, 2.0, 1.0, 3.0])
    summary = summarize_uncertainty(errors, deviations)
    assert summary.negative_log_likelihood == pytest.approx(4.354155, abs=1e-6)
    assert summary.coverage == pytest.approx(2 / 3)  # 4 lies outside 1.645
    assert summary.mean_deviation == pytest.approx((14 / 3) ** 0.5)
    assert (summary.correlation, summary.n_errors) == (pytest.approx(-1.0), 3)
    few = summarize_uncertainty(errors[:2], deviations[:2])
    assert np.isnan(few.correlation)
    assert few.coverage == 0.5


def test_too_few_errors_calibrate_nothing():
    assert calibrate_spread(np.ones(4), np.ones(4), with_floor=True) == Calibration(1.0, 0.0)
    assert np.isnan(coverage(np.array([np.nan]), np.ones(1)))

"""Figures 7 (left) and 8: test error against the number of large snapshots, for one-scale and two-scale training.

One-scale: everything is learned from large snapshots. Two-scale, as in the paper: the short-range model alone learns
from many small snapshots; then read-out and long-range part from a few large ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lrc_ase.paper.problems import Problem, screened_coulomb
from lrc_ase.paper.recipes import force_error, train_ours
from lrc_ase.paper.run_folder import PaperRun

__all__ = ["CURVES", "Curve", "CurveSize", "curve_points", "run_curve"]


@dataclass(frozen=True)
class CurveSize:
    """How much work a curve is."""

    n_small: int
    n_large: tuple[int, ...]
    n_test: int
    n_iterations: int
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Curve:
    """A figure of the paper: two strategies on one pair of problems."""

    name: str
    title: str
    small: Problem
    large: Problem
    n_modes: int
    full: CurveSize
    quick: CurveSize


def _curve_2d(name: str, figure: str, weights: tuple[float, float]) -> Curve:
    small, large = (screened_coulomb(2, length, [10.0, 1.0], weights) for length in (3.0, 15.0))
    return Curve(
        name,
        f"Figure 8 ({figure}): two dimensions, mu = 10 and 1, weights {weights[0]:g} and {weights[1]:g}",
        small,
        large,
        31,
        full=CurveSize(10_000, (1, 3, 10, 30, 100), n_test=100, n_iterations=80),
        quick=CurveSize(100, (1, 3, 10), n_test=5, n_iterations=25, seeds=(0,)),
    )


CURVES: dict[str, Curve] = {
    curve.name: curve
    for curve in (
        Curve(
            "figure7",
            "Figure 7 (left): one dimension, mu = 5 and 0.5",
            screened_coulomb(1, 5.0, [5.0, 0.5], [0.5, 0.5]),
            screened_coulomb(1, 50.0, [5.0, 0.5], [0.5, 0.5]),
            501,
            full=CurveSize(10_000, (1, 2, 5, 10, 20, 50, 100), n_test=100, n_iterations=80),
            quick=CurveSize(200, (1, 2, 5, 10), n_test=20, n_iterations=40),
        ),
        _curve_2d("figure8-left", "left", (0.9, 0.1)),
        _curve_2d("figure8-right", "right", (0.5, 0.5)),
    )
}


def run_curve(run: PaperRun, curve: Curve, *, quick: bool) -> None:
    """Work out what is missing of a curve."""
    size = curve.quick if quick else curve.full
    for seed in size.seeds:
        for strategy in ("one-scale", "two-scale"):
            _run_strategy(run, curve, size, strategy, seed, quick=quick)


def curve_points(run: PaperRun, curve: Curve, *, quick: bool) -> dict[str, dict[int, list[float]]]:
    """Errors by strategy and number of large snapshots, one per finished seed."""
    points: dict[str, dict[int, list[float]]] = {"one-scale": {}, "two-scale": {}}
    for result in run.results().values():
        if result.get("curve") == curve.name and result["quick"] == quick:
            for n_large, error in result["errors"].items():
                points[result["strategy"]].setdefault(int(n_large), []).append(error)
    return points


def _run_strategy(run: PaperRun, curve: Curve, size: CurveSize, strategy: str, seed: int, *, quick: bool) -> None:
    name = f"{curve.name}-{strategy}-{seed}-{'quick' if quick else 'full'}"

    def work() -> dict[str, Any]:
        def report(text: str) -> None:
            run.report(f"{name}: {text}")

        start = None
        if strategy == "two-scale":
            small = run.training_snapshots(curve.small, size.n_small, seed=seed)
            start = train_ours(small, n_modes=None, seed=seed, n_iterations=size.n_iterations, report=report)
        large = run.training_snapshots(curve.large, max(size.n_large), seed=seed)
        test = run.test_snapshots(curve.large, size.n_test)
        errors = {}
        for n_large in size.n_large:
            model = train_ours(
                large.first(n_large),
                n_modes=curve.n_modes,
                seed=seed,
                n_iterations=size.n_iterations,
                start=start,
                report=report,
            )
            errors[n_large] = force_error(model, test)
            report(f"{n_large} large snapshots: error {errors[n_large]:.2e}")
        return {"curve": curve.name, "strategy": strategy, "seed": seed, "quick": quick, "errors": errors}

    run.once(name, work)

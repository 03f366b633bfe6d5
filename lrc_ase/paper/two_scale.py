"""Figures 7 (left) and 8: test error against the number of large snapshots, for one-scale and two-scale training.

One-scale training uses large snapshots only. Two-scale training uses many small snapshots first, then a few large ones.
The recipes differ in the first scale:

- `paper` trains the networks without the layer, then all networks with the layer. Both strategies take the same number
  of steps on batches of equally many points, since the figures compare amounts of data, not times.
- `ours` trains everything, since kernel and descriptor do not depend on the box. It then solves for the read-out on
  small and large snapshots together; no large snapshot is needed at all.

In either box the screenings are found with the paper's number of modes; in the small box these are shorter waves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lrc_ase.paper.model import PointCloudModel, highest_wave
from lrc_ase.paper.networks import Stage, train_networks
from lrc_ase.paper.problems import Problem, Snapshots, screened_coulomb
from lrc_ase.paper.recipes import for_shaping, force_error, in_another_box, refit, train_ours
from lrc_ase.paper.run_folder import PaperRun
from lrc_ase.paper.screenings import find_screenings
from lrc_ase.paper.tables import Recipe

__all__ = ["CURVES", "Curve", "CurveSize", "Strategy", "curve_points", "run_curve"]

Strategy = Literal["one-scale", "two-scale"]
Report = Callable[[str], None]

_RATES = {"rate": 1e-2, "last_rate": 3e-5}
"""Of the networks, at the beginning and at the end of either scale."""
_FIRST_SCALE = 0.25
"""Part of the networks' steps that the first of two scales takes."""


@dataclass(frozen=True)
class CurveSize:
    """Amount of data and steps of a curve by one recipe."""

    n_small: int
    n_large: Mapping[Strategy, tuple[int, ...]]
    n_test: int
    n_steps: int
    """Iterations of our recipe; steps of the networks, over both scales."""
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Curve:
    """A figure of the paper: two strategies on one pair of problems."""

    name: str
    title: str
    small: Problem
    large: Problem
    n_modes: int
    sizes: Mapping[tuple[Recipe, Literal["full", "quick"]], CurveSize]

    def size(self, recipe: Recipe, *, quick: bool) -> CurveSize:
        """Return the amount of data and steps for `recipe`."""
        return self.sizes[recipe, "quick" if quick else "full"]


_SOME: dict[Strategy, tuple[int, ...]] = {"one-scale": (1, 3, 10, 30), "two-scale": (0, 1, 3)}
_FEW: dict[Strategy, tuple[int, ...]] = {"one-scale": (1, 3, 10), "two-scale": (0, 1)}
_PAPER: dict[Strategy, tuple[int, ...]] = {"one-scale": (10, 30, 100, 300, 1000), "two-scale": (1, 3, 10, 30, 100)}
_PAPER_FEW: dict[Strategy, tuple[int, ...]] = {"one-scale": (3, 10, 30), "two-scale": (1, 3)}


def _curve_2d(name: str, figure: str, weights: tuple[float, float]) -> Curve:
    small, large = (screened_coulomb(2, length, [10.0, 1.0], weights) for length in (3.0, 15.0))
    return Curve(
        name,
        f"Figure 8 ({figure}): two dimensions, mu = 10 and 1, weights {weights[0]:g} and {weights[1]:g}",
        small,
        large,
        31,
        sizes={
            ("ours", "full"): CurveSize(1000, _SOME, n_test=100, n_steps=150),
            ("ours", "quick"): CurveSize(500, _FEW, n_test=20, n_steps=150),
            ("paper", "full"): CurveSize(10_000, _PAPER, n_test=100, n_steps=100_000),
            ("paper", "quick"): CurveSize(200, _PAPER_FEW, n_test=5, n_steps=200, seeds=(0,)),
        },
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
            sizes={
                ("ours", "full"): CurveSize(1000, _SOME, n_test=100, n_steps=100),
                ("ours", "quick"): CurveSize(200, _FEW, n_test=20, n_steps=100),
                ("paper", "full"): CurveSize(10_000, _PAPER, n_test=100, n_steps=100_000),
                ("paper", "quick"): CurveSize(2000, _PAPER_FEW, n_test=20, n_steps=4000),
            },
        ),
        _curve_2d("figure8-left", "left", (0.9, 0.1)),
        _curve_2d("figure8-right", "right", (0.5, 0.5)),
    )
}


def run_curve(run: PaperRun, curve: Curve, *, quick: bool, recipe: Recipe = "ours") -> None:
    """Run the missing parts of a curve."""
    size = curve.size(recipe, quick=quick)
    strategies: tuple[Strategy, ...] = ("one-scale", "two-scale")
    for seed in size.seeds:
        for strategy in strategies:
            _run_strategy(run, curve, size, strategy, seed, quick=quick, recipe=recipe)


def curve_points(
    run: PaperRun, curve: Curve, *, quick: bool, recipe: Recipe = "ours"
) -> dict[str, dict[int, list[float]]]:
    """Return errors by strategy and number of large snapshots, one per finished seed."""
    points: dict[str, dict[int, list[float]]] = {"one-scale": {}, "two-scale": {}}
    for result in run.results().values():
        if result.get("curve") == curve.name and (result["quick"], result["recipe"]) == (quick, recipe):
            for n_large, error in result["errors"].items():
                points[result["strategy"]].setdefault(int(n_large), []).append(error)
    return points


def _run_strategy(
    run: PaperRun, curve: Curve, size: CurveSize, strategy: Strategy, seed: int, *, quick: bool, recipe: Recipe
) -> None:
    name = f"{curve.name}-{strategy}-{seed}-{recipe}-{'quick' if quick else 'full'}"

    def report(text: str) -> None:
        run.report(f"{name}: {text}")

    def work() -> dict[str, Any]:
        numbers = size.n_large[strategy]
        large = run.training_snapshots(curve.large, max(numbers), seed=seed)
        test = run.test_snapshots(curve.large, size.n_test)
        small = None
        if strategy == "two-scale":
            small = run.training_snapshots(curve.small, size.n_small, seed=seed)
        models = (_ours if recipe == "ours" else _networks)(curve, size, small, large, numbers, seed, report)
        errors = {}
        for n_large, model in zip(numbers, models, strict=True):
            errors[n_large] = force_error(model, test)
            report(f"{n_large} large snapshots: error {errors[n_large]:.2e}")
        return {
            "curve": curve.name,
            "strategy": strategy,
            "seed": seed,
            "quick": quick,
            "recipe": recipe,
            "errors": errors,
        }

    run.once(name, work)


def _ours(
    curve: Curve,
    size: CurveSize,
    small: Snapshots | None,
    large: Snapshots,
    numbers: Sequence[int],
    seed: int,
    report: Report,
) -> Iterator[PointCloudModel]:
    """Yield a model of our recipe for each of the `numbers` of large snapshots; two-scale if `small` is not None."""
    highest = highest_wave(curve.large, curve.n_modes)

    def train(snapshots: Snapshots) -> PointCloudModel:
        highest_of_box = highest_wave(snapshots.problem, curve.n_modes)
        screening = find_screenings(for_shaping(snapshots), highest=highest_of_box)
        return train_ours(
            snapshots, highest=highest, seed=seed, n_iterations=size.n_steps, screening=screening, report=report
        )

    first = None if small is None else in_another_box(train(small), curve.large)
    for n_large in numbers:
        if first is None or small is None:
            yield train(large.first(n_large))
        else:
            if n_large:
                refit(first, [small, large.first(n_large)])
            yield first


def _networks(
    curve: Curve,
    size: CurveSize,
    small: Snapshots | None,
    large: Snapshots,
    numbers: Sequence[int],
    seed: int,
    report: Report,
) -> Iterator[PointCloudModel]:
    """Yield a model with the paper's networks for each of the `numbers`; two-scale if `small` is not None."""
    first, n_first = None, 0
    if small is not None:
        n_first = round(_FIRST_SCALE * size.n_steps)
        # as many points in a batch as in one large snapshot
        stage = Stage(n_first, curve.large.n_points // curve.small.n_points, optimizer="soap", **_RATES)
        first = train_networks(small, n_modes=None, seed=seed, schedule=[stage], report=report)
    stage = Stage(size.n_steps - n_first, 1, optimizer="soap", **_RATES)
    for n_large in numbers:
        yield train_networks(
            large.first(n_large), n_modes=curve.n_modes, seed=seed, schedule=[stage], start=first, report=report
        )

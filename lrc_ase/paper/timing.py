"""Figure 7 (right): time of the layer against the direct all-to-all sum, in one dimension at constant density."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from lrc_ase.layer.convolution import LongRangeConvolution
from lrc_ase.layer.kernels import Exponential
from lrc_ase.layer.windows import semicircle_window
from lrc_ase.paper.model import STARTING_SCREENING
from lrc_ase.paper.run_folder import PaperRun

__all__ = ["TIMING", "run_timing"]

TIMING = "figure7-right"
_DENSITY, _SPACING = 4.0, 0.1
"""Points and modes as in the paper's large box: 200 and 501 on [0, 50]."""
_SIZES = {True: (250, 1000, 4000, 16000), False: (250, 1000, 4000, 16000, 64000, 256000)}
_LARGEST_DIRECT = 16000
_SECONDS = 2.0


def run_timing(run: PaperRun, *, quick: bool) -> dict[str, Any]:
    """Measure seconds by number of points, for the layer and for the sum over all pairs."""

    def work() -> dict[str, Any]:
        layer, direct = {}, {}
        for n_points in _SIZES[quick]:
            layer[n_points] = _seconds(_convolution(n_points, "mesh"), n_points)
            if n_points <= _LARGEST_DIRECT:
                direct[n_points] = _seconds(_convolution(n_points, "direct"), n_points)
            run.report(f"{TIMING}: {n_points} points, {layer[n_points]:.2e} s")
        return {"layer": layer, "direct": direct}

    return run.once(f"{TIMING}-{'quick' if quick else 'full'}", work)


def _convolution(n_points: int, method: str) -> LongRangeConvolution:
    # in one dimension the screened Coulomb kernel is an exponential
    kernel = Exponential(STARTING_SCREENING).requires_grad_(False)
    n_modes = round(n_points / _DENSITY / _SPACING) + 1
    if method == "direct":
        return LongRangeConvolution(kernel, method="direct")
    return LongRangeConvolution(kernel, mesh_shape=(n_modes,), window=semicircle_window(7))


def _seconds(convolution: LongRangeConvolution, n_points: int) -> float:
    """Return the best time of one evaluation, after a first one that is not counted."""
    fractional = torch.rand(n_points, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cell = torch.tensor([[[n_points / _DENSITY]]], dtype=torch.float64)
    weights = torch.ones(n_points, convolution.multiplier.n_channels, dtype=torch.float64)
    pbc = torch.tensor([[convolution.method == "mesh"]])

    def evaluate() -> None:
        convolution(weights, fractional, cell, pbc=pbc)

    evaluate()
    return _best(evaluate)


def _best(function: Callable[[], None]) -> float:
    best, end = math.inf, time.perf_counter() + _SECONDS
    while True:
        begin = time.perf_counter()
        function()
        now = time.perf_counter()
        best = min(best, now - begin)
        if now > end:
            return best

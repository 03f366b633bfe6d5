"""Figures of docs/notebook/performance.md."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from performance_page import Times

__all__ = ["draw_crossover", "draw_programs", "draw_scaling"]

STYLES = {
    "lrc-ase": ("black", "-", "o"),
    "finufft": ("tab:blue", "-", "s"),
    "finufft packed": ("tab:blue", "--", "s"),
    "ducc0": ("tab:green", "-", "^"),
    "ducc0 packed": ("tab:green", "--", "^"),
    "nvalchemi fused": ("tab:orange", "--", "v"),
    "nvalchemi": ("tab:orange", "-", "v"),
    "torch-pme": ("tab:red", "-", "D"),
    "direct torch": ("tab:red", "-", "D"),
    "direct KeOps": ("tab:blue", "-", "s"),
    "direct lrc-ase": ("black", ":", "x"),
}


def _curve(axes: Axes, times: Times, program: str, job: str, scale_by_atoms: bool, **own: object) -> None:
    """Time against atoms of one program, in ms or in microseconds per atom; nothing where it was not measured."""
    sizes = sorted({row["n_atoms"] for row in times.rows if row["program"] == program})
    points = [(n_atoms, times.seconds(program, job, n_atoms, **own)) for n_atoms in sizes]
    points = [(n_atoms, seconds) for n_atoms, seconds in points if not math.isnan(seconds)]
    if not points:
        return
    color, line, marker = STYLES[program]
    values = [1e6 * seconds / n_atoms if scale_by_atoms else 1e3 * seconds for n_atoms, seconds in points]
    label = program if not own else f"{program}, {own['threads']} threads"
    weight = 2.2 if program == "lrc-ase" else 1.3
    axes.plot([n for n, _ in points], values, line, color=color, marker=marker, ms=5, lw=weight, label=label)


def _finish(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=150, metadata={"Software": None})


def draw_programs(times: Times, path: Path) -> None:
    """Time per atom of the three jobs with derivatives."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, job in zip(panels, ("forces", "gradient", "training"), strict=True):
        for program in STYLES:
            _curve(axes, times, program, job, True)
        axes.set(xscale="log", yscale="log", xlabel="atoms", title=job)
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("microseconds per atom, 1 thread, float64")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    _finish(figure, path)


def draw_scaling(times: Times, path: Path) -> None:
    """Cost of the layer to a million atoms; a flat line is linear cost."""
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axes = figure.subplots()
    for threads in (1, 2):
        sizes = (10_000, 30_000, 100_000, 300_000, 1_000_000)
        for job, line in (("forces", "-"), ("field", "--")):
            values = [1e6 * times.alone(job, n, threads) / n for n in sizes]
            color = ("tab:gray", "black")[threads - 1]
            axes.plot(
                sizes, values, line, marker="o", color=color, label=f"{job}, {threads} thread{'s' * (threads > 1)}"
            )
    axes.set(xscale="log", xlabel="atoms", ylabel="microseconds per atom")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _finish(figure, path)


def draw_crossover(times: Times, path: Path) -> None:
    """Mesh against all pairs, as the paper's Fig. 7, right."""
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axes = figure.subplots()
    for program in ("lrc-ase", "direct torch", "direct KeOps", "direct lrc-ase"):
        _curve(axes, times, program, "field", False)
    axes.set(xscale="log", yscale="log", xlabel="atoms", ylabel="ms for the field, 1 thread, float64")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    _finish(figure, path)

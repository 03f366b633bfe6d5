"""Experiments by name."""

from __future__ import annotations

from lrc_ase.paper.experiments import TABLES
from lrc_ase.paper.run_folder import PaperRun
from lrc_ase.paper.tables import Recipe, run_table
from lrc_ase.paper.timing import TIMING, run_timing
from lrc_ase.paper.two_scale import CURVES, run_curve

__all__ = ["experiment_names", "run_experiment"]


def experiment_names() -> list[str]:
    """Return the names of all experiments, cheapest first."""
    return [*TABLES, *CURVES, TIMING]


def run_experiment(run: PaperRun, name: str, *, quick: bool, recipe: Recipe = "ours") -> None:
    """Run one experiment, or all; report runs nothing.

    Raises
    ------
    ValueError
        The name is unknown, or the recipe of the paper was requested for the timing.
    """
    known = experiment_names()
    if name not in (*known, "all", "report"):
        raise ValueError(f"`name` must be one of {', '.join(known)}, all or report, got '{name}'")
    if recipe == "paper" and name == TIMING:
        raise ValueError(f"`recipe` paper is there for tables and curves, got the experiment '{name}': leave it out")
    chosen = {"all": known, "report": []}.get(name, [name])
    for experiment in chosen:
        if experiment in TABLES:
            run_table(run, experiment, quick=quick, recipe=recipe)
        elif experiment in CURVES:
            run_curve(run, CURVES[experiment], quick=quick, recipe=recipe)
        elif recipe == "ours":
            run_timing(run, quick=quick)

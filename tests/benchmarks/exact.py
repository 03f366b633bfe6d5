"""Exact answers of the jobs, by ducc0 at twelve digits with waves until the kernel has died out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from nufft_peers import Ducc0, NufftJobs
from problem import JOBS, Problem

__all__ = ["exact_answers"]

SPACING = 0.5
"""Angstrom; the smeared kernel is 3e-9 of its largest where the waves end."""
COARSER_ABOVE = 300_000
COARSER_SPACING = 0.65
"""Ends at 1e-5 of the largest, 2e-8 in the norm of u: for a million atoms this still fits into memory."""


def exact_answers(problem: Problem, folder: Path, jobs: tuple[str, ...] = JOBS) -> dict[str, np.ndarray]:
    """Arrays named job_0, job_1; kept in `folder`."""
    name = f"exact-{problem.n_atoms}-{problem.n_channels}-{problem.screening}.npz"
    path = folder / name
    known = dict(np.load(path)) if path.exists() else {}
    missing = [job for job in jobs if f"{job}_0" not in known]
    if missing:
        spacing = SPACING if problem.n_atoms < COARSER_ABOVE else COARSER_SPACING
        n_modes = 2 * int(problem.length / spacing / 2) + 1
        double = replace(problem, precision="float64")
        transforms = Ducc0(n_modes, problem.length, 1e-12, "float64", problem.threads)
        exact = NufftJobs(double, transforms, n_modes)
        for job in missing:
            known |= {f"{job}_{slot}": array for slot, array in enumerate(getattr(exact, job)())}
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, **known)
    return known

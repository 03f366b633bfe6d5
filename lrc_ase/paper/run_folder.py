"""Folder of finished cells and their data, which are never computed twice."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrc_ase.files.atomic import write_atomically
from lrc_ase.files.hardware import processor_name
from lrc_ase.paper.problems import Problem, Snapshots

__all__ = ["PaperRun"]

Report = Callable[[str], None]
_TRAIN, _TEST = 1, 2
_PART_SECONDS = 60.0


class PaperRun:
    """Data and results of a run of the paper's experiments.

    ``snapshots/`` holds data sets, which several cells share, ``results/`` one JSON file per finished piece of work.
    """

    def __init__(self, path: Path, *, report: Report = lambda text: None) -> None:
        self.path, self.report = path, report
        (path / "snapshots").mkdir(parents=True, exist_ok=True)
        (path / "results").mkdir(exist_ok=True)

    def training_snapshots(self, problem: Problem, n_snapshots: int, *, seed: int = 0) -> Snapshots:
        """Return the first `n_snapshots` of the training stream of a problem and seed."""
        return self._snapshots(problem, n_snapshots, _TRAIN, seed)

    def test_snapshots(self, problem: Problem, n_snapshots: int) -> Snapshots:
        """Return snapshots of a stream that is never used for training."""
        return self._snapshots(problem, n_snapshots, _TEST, 0)

    def once(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Read the result called `name`, or run `work`, time it and save its result."""
        path = self.path / "results" / f"{name}.json"
        if not path.exists():
            begin = time.monotonic()
            result = work()
            result |= {"name": name, "seconds": round(time.monotonic() - begin, 1), "machine": _machine()}
            write_atomically(path, (json.dumps(result, indent=1) + "\n").encode())
        return dict(json.loads(path.read_text(encoding="utf-8")))

    def results(self) -> dict[str, dict[str, Any]]:
        """Return all finished results by name."""
        paths = sorted((self.path / "results").glob("*.json"))
        return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}

    def _snapshots(self, problem: Problem, n_snapshots: int, purpose: int, seed: int) -> Snapshots:
        """Draw snapshots, each with a separate generator: the first ones do not depend on the total number."""
        digest = hashlib.sha256(f"{problem} {purpose} {seed}".encode()).hexdigest()[:16]
        path = self.path / "snapshots" / f"{problem.dimension}d-{problem.n_points}-{digest}.npz"
        known = Snapshots.load(path, problem) if path.exists() else Snapshots(problem, *_nothing(problem))
        saved = time.monotonic()
        positions, forces = list(known.positions), list(known.forces)
        while len(positions) < n_snapshots:
            generator = np.random.default_rng([purpose, seed, len(positions)])
            new_positions, new_forces = problem.draw(generator)
            positions.append(new_positions)
            forces.append(new_forces)
            done = len(positions) == n_snapshots
            if done or time.monotonic() - saved > _PART_SECONDS:  # an interrupted run goes on from the last part
                self.report(f"snapshots {len(positions)}/{n_snapshots}")
                known, saved = Snapshots(problem, np.array(positions), np.array(forces)), time.monotonic()
                known.save(path)
        return known.first(n_snapshots)


def _nothing(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    empty = np.empty((0, problem.n_points, problem.dimension))
    return empty, empty


def _machine() -> dict[str, Any]:
    return {"processor": processor_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}

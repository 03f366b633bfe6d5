"""Check that a system survives half as much temperature again."""

from __future__ import annotations

from itertools import product

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.neighborlist import neighbor_list

from lrc_ase.checks import runs
from lrc_ase.checks.results import CheckResult, Curve, Figure, Quantity
from lrc_ase.checks.subject import Subject
from lrc_ase.simulation.conditions import MDFiles
from lrc_ase.simulation.dynamics import SimulationStopped
from lrc_ase.simulation.output import ThermodynamicLog
from lrc_ase.structures.domain import FAR_DISTANCE

__all__ = ["stability"]

COVALENT = 0.6
"""Part of the sum of covalent radii below which a distance is an event, where no training domain is known."""
REACH = 4.0
"""Largest distance that is looked at, Angstrom."""


def stability(subject: Subject, rng: np.random.Generator) -> CheckResult:
    """Count events in a run at 1.5 times the temperature: an explosion, and frames with atoms that are too close.

    Too close is less than 0.8 times the shortest distance of the pair in training, or 0.6 times the sum of covalent
    radii where the training is not known.
    """
    explosion = ""
    length = subject.settings.length("hot_run")
    try:
        files = runs.hot(subject)
    except SimulationStopped as stop:
        explosion = str(stop).partition(". The last sane frame")[0]
        files = MDFiles.beside(subject.folder / "hot.traj")
    log = ThermodynamicLog.read(files.log)
    reached = float(log["time_ps"][-1]) if len(log["time_ps"]) else 0.0
    frames = runs.frames(files) if files.frames.exists() else []
    limits = _limits(subject)
    ratios = np.array([_closest(frame, limits) for frame in frames])
    quantities = [
        Quantity("explosions", float(bool(explosion)), at_most=0.0),
        Quantity("frames with atoms too close", float((ratios < 1).sum()), at_most=0.0),
        Quantity("shortest distance / limit", float(ratios.min()) if len(ratios) else float("nan")),
        Quantity("time", reached, "ps"),
        Quantity(
            "mean temperature", float(log["temperature_K"].mean()) if len(log["temperature_K"]) else float("nan"), "K"
        ),
    ]
    figure = Figure(
        f"Temperature at {runs.HOT:g} times {subject.temperature:g} K",
        "Time (ps)",
        "Temperature (K)",
        (Curve.of("temperature", log["time_ps"], log["temperature_K"]),),
        y_range=(0.0, 1.2 * float(log["temperature_K"].max(initial=runs.HOT * subject.temperature))),
    )
    source = "training" if subject.candidate.shortest else "covalent radii"
    sentence = (
        f"{reached:.3g} of {length:g} ps at {runs.HOT * subject.temperature:g} K; limits of distances from {source}."
    )
    if explosion:
        sentence = f"{sentence} The run {explosion}."
    return CheckResult.judged("stability", sentence, quantities, [figure])


def _closest(frame: Atoms, limits: np.ndarray) -> float:
    """Return the smallest ratio of a distance to its limit in a frame, `inf` without a pair within `REACH`."""
    first, second, distances = neighbor_list("ijd", frame, REACH)
    return float((distances / limits[frame.numbers[first], frame.numbers[second]]).min(initial=np.inf))


def _limits(subject: Subject) -> np.ndarray:
    """Return the distance below which a pair of atoms is too close by their atomic numbers, Angstrom."""
    limits = COVALENT * (covalent_radii[:, None] + covalent_radii)
    for first, second in product(subject.elements, repeat=2):
        if (shortest := subject.candidate.shortest_distance(first, second)) is not None:
            limits[atomic_numbers[first], atomic_numbers[second]] = FAR_DISTANCE * shortest
    return limits

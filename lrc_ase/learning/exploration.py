"""Exploration: walkers at all conditions, and the choice of frames to label from what they met."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from ase.data import atomic_masses

from lrc_ase.calculator import LRCCalculator
from lrc_ase.dataset import Atoms
from lrc_ase.evaluation import select_frames
from lrc_ase.files.counted import counted
from lrc_ase.files.potential_file import Potential
from lrc_ase.learning.settings import ExplorationSettings, LearnSettings
from lrc_ase.learning.training_steps import number_held_out, single_members
from lrc_ase.learning.walker import Plan, Walk, run_walker
from lrc_ase.structures.charge import charge_entries

__all__ = ["Exploration", "choose_frames", "explore", "levels", "time_step"]

ATTEMPTS = 4
"""Largest number of runs for each walker in an iteration."""
_PLAN = ("start", "cycle", "first_temperature", "last_temperature")
"""Entries of `Atoms.info` of a walker's state besides `step`."""


@dataclass
class Exploration:
    """Snapshots, end states and alarms of all walkers of an iteration."""

    snapshots: list[Atoms] = field(default_factory=list)
    walkers: list[Atoms] = field(default_factory=list)
    """States from which the walkers go on."""
    picoseconds: float = 0.0
    runs: int = 0
    alarms: int = 0
    explosions: int = 0
    complete: bool = True
    """True if every walker ran its whole length without an alarm."""
    reasons: list[str] = field(default_factory=list)
    """One sentence for each walker that stopped early."""

    def add(self, walker: int, walk: Walk, plan: Plan, first_step: int) -> None:
        """Count the run of a walker that began at `first_step` of its plan, and keep its snapshots."""
        for snapshot in walk.snapshots:
            snapshot.info.update(walker=walker)
        self.snapshots += walk.snapshots
        self.runs += 1
        self.picoseconds += 1e-3 * walk.steps * plan.timestep
        if walk.alarm:
            self.explosions += walk.exploded
            self.alarms += not walk.exploded
            heat = plan.temperature(first_step + walk.steps)
            self.reasons.append(
                f"walker {walker + 1} after {counted(walk.steps, 'step')}, at {heat:.0f} K: {walk.alarm}"
            )
        self.complete &= walk.finished and first_step == 0


def time_step(starts: Sequence[Atoms], settings: ExplorationSettings) -> float:
    """Return the time step, fs: that of the settings, or half a femtosecond times the root of the lightest mass."""
    if settings.timestep is not None:
        return settings.timestep
    lightest = min(float(atomic_masses[atoms.numbers].min()) for atoms in starts)
    return round(min(max(0.5 * math.sqrt(lightest), 0.25), 4.0), 2)


def levels(settings: ExplorationSettings, n_walkers: int) -> list[float]:
    """Return the temperature of each walker of a start, K: the given ones, evenly filled up; the highest first.

    >>> levels(ExplorationSettings(temperatures=(300, 1200)), 4)
    [1200.0, 900.0, 600.0, 300.0]
    """
    low, high = min(settings.temperatures), max(settings.temperatures)
    if n_walkers == 1:
        return [high]
    return [float(value) for value in np.linspace(high, low, n_walkers)]


def explore(
    potential: Potential,
    starts: Sequence[Atoms],
    settings: LearnSettings,
    previous: Sequence[Atoms],
    *,
    threshold: float,
    correction: float = 1.0,
    iteration: int,
    out_of_time: Callable[[], bool] = lambda: False,
    report: Callable[[int, int, int], None] | None = None,
) -> Exploration:
    """Run all walkers with the potential of an ensemble.

    The members of the ensemble take turns: each walker is moved by one of them, and the whole ensemble evaluates it
    every `settings.exploration.check_every` steps.

    Walkers that stop early leave few frames to choose from. While these are fewer than `settings.frames_per_iteration`,
    further walkers begin with the starts, up to `ATTEMPTS` times as many as usual.

    Parameters
    ----------
    previous
        States of the walkers after the iteration before, empty in the first. A walker that had stopped goes on from its
        last snapshot. One that had come to its end alternately goes on from there, cooled or heated to another
        temperature, and begins anew with its start at the lowest temperature, so that a structure that melts is met
        as solid, on its way, as liquid and supercooled.
    threshold
        Deviation at which a walker stops, eV/Angstrom per component.
    correction
        Factor of the deviations of the ensemble before they are compared.
    iteration
        Number that seeds noise and choices, with `settings.seed`.
    out_of_time
        True ends the walker that runs and leaves the remaining ones where they are.
    report
        Called with the walker, its number of steps and the total number of steps of a walker.
    """
    exploring = settings.exploration
    assert settings.frames_per_iteration is not None  # filled in by `with_counts`
    ensemble = LRCCalculator(potential, dtype=exploring.dtype)
    movers = [LRCCalculator(member, dtype=exploring.dtype) for member in single_members(potential)]
    timestep = time_step(starts, exploring)
    n_walkers = max(exploring.walkers, len(starts))
    result = Exploration()
    for number in range(ATTEMPTS * n_walkers):
        walker, attempt = number % n_walkers, number // n_walkers
        if attempt and len(result.snapshots) >= settings.frames_per_iteration:
            break
        if out_of_time():
            result.complete = False
            result.walkers += list(previous[number:]) if not attempt else []
            break
        rng = np.random.default_rng([settings.seed, iteration, number])
        start = starts[walker % len(starts)]
        before = previous if not attempt else ()
        atoms = _state(walker, start, len(starts), n_walkers, exploring, before, rng)
        first_step = int(atoms.info["step"])
        notes = {key: atoms.info[key] for key in _PLAN}
        plan = _plan(notes, start, exploring, timestep, threshold, correction)
        atoms.calc = movers[walker % len(movers)]
        for calculator in (ensemble, atoms.calc):
            calculator.reset()
        progress = None if report is None else partial(report, walker, plan.steps)
        walk = run_walker(
            atoms, plan, rng, ensemble=ensemble, first_step=first_step, out_of_time=out_of_time, report=progress
        )
        result.add(walker, walk, plan, first_step)
        if not attempt:
            result.walkers.append(_next_state(walk, start, notes))
    return result


def _plan(
    notes: dict[str, float],
    start: Atoms,
    settings: ExplorationSettings,
    timestep: float,
    threshold: float,
    correction: float,
) -> Plan:
    """Return the conditions of a walker of a `start` whose state holds `notes`."""
    assert settings.snapshots is not None  # filled in by `with_counts`
    return Plan(
        first_temperature=notes["first_temperature"],
        last_temperature=notes["last_temperature"],
        pressure=settings.pressure if start.pbc.all() else None,
        steps=max(round(1000 * settings.length / timestep), 1),
        timestep=timestep,
        friction=settings.friction,
        snapshots=settings.snapshots,
        check_every=settings.check_every,
        threshold=threshold,
        relative_threshold=settings.relative_threshold,
        correction=correction,
        start_volume=start.get_volume() if start.pbc.all() else 0.0,
    )


def _state(
    walker: int,
    start: Atoms,
    n_starts: int,
    n_walkers: int,
    settings: ExplorationSettings,
    previous: Sequence[Atoms],
    rng: np.random.Generator,
) -> Atoms:
    """Return the state in which a walker begins, with its plan in `Atoms.info`."""
    of_start = len(range(walker % n_starts, n_walkers, n_starts))
    temperatures = levels(settings, of_start)
    before = previous[walker] if walker < len(previous) else None
    if before is not None and before.info["step"] > 0:
        return before.copy()
    cycle = 0 if before is None else int(before.info["cycle"])
    if before is not None and cycle % 2 == 1:
        atoms = before.copy()
        first = float(before.info["last_temperature"])
        others = [each for each in temperatures if each != first] or temperatures
        last = float(rng.choice(others))
    else:
        atoms = start.copy()
        first, last = min(settings.temperatures), temperatures[walker // n_starts]
    atoms.info.update(start=walker % n_starts, cycle=cycle, first_temperature=first, last_temperature=last, step=0)
    return atoms


def _next_state(walk: Walk, start: Atoms, notes: dict[str, float]) -> Atoms:
    """Return the state of a walker after a run; one that made no progress begins anew with its start."""
    cycle = int(notes["cycle"])
    if walk.last is None:
        state, step, cycle = start.copy(), 0, 2 * (cycle // 2 + 1)
    else:
        state = walk.last.copy()
        step = 0 if walk.finished else int(walk.last.info["step"])
        cycle += walk.finished
    state.info = {**charge_entries(start), **notes, "step": step, "cycle": cycle}
    return state


def choose_frames(
    potential: Potential,
    snapshots: Sequence[Atoms],
    known: Sequence[Atoms],
    settings: LearnSettings,
    count: int,
    rng: np.random.Generator,
) -> list[Atoms]:
    """Choose `count` of the snapshots for labeling, those that are held out first.

    `settings.random_fraction` of them are drawn at random among the frames of the dynamics, without those at which a
    walker stopped. The others are chosen by `select_frames`: the ensemble disagrees about them, and they are unlike
    each other and unlike `known`. The entry `origin` of `Atoms.info` is `random` or `chosen`, `held_out` is True for
    one frame in `settings.training.held_out`, random ones where there are any.
    """
    count = min(count, len(snapshots))
    if count == 0:  # the time was over before the first walker
        return []
    calm = [index for index, atoms in enumerate(snapshots) if "alarm" not in atoms.info]
    n_random = min(round(settings.random_fraction * count), len(calm))
    drawn = [] if not n_random else rng.choice(calm, n_random, replace=False).tolist()
    others = [index for index in range(len(snapshots)) if index not in set(drawn)]
    chosen: list[int] = []
    if count > n_random and others:
        bare = [snapshots[index].copy() for index in others]
        selection = select_frames(potential, bare, count - n_random, known=[*known, *(snapshots[i] for i in drawn)])
        chosen = [others[index] for index in selection.frames]
    # the drawn frames stand in random order: those held out come from any walker and start
    n_held_out = number_held_out(count, settings.training.held_out)
    frames = []
    for position, index in enumerate([*drawn, *chosen]):
        atoms = snapshots[index].copy()
        atoms.arrays.pop("momenta", None)
        atoms.info.update(origin="random" if position < n_random else "chosen", held_out=position < n_held_out)
        frames.append(atoms)
    return frames

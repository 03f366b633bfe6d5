r"""Sample structures around given ones by dynamics of a cheap teacher, with its labels, to pretrain a model on.

A model that has learned a semi-empirical method first needs fewer frames of the expensive one: it begins with the shape
of the energy, and learns the difference (Gardner, Baker and Deringer, *Synthetic pre-training for neural-network
interatomic potentials*, Mach. Learn.: Sci. Technol. 5, 015003 (2024), doi:10.1088/2632-2153/ad1626).
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
from ase.data import atomic_masses
from pydantic import Field, field_validator

from lrc_ase.dataset import SOURCE_KEY, Atoms
from lrc_ase.learning.label_store import LabelStore
from lrc_ase.learning.starts import read_starts, strain_at_random
from lrc_ase.learning.teacher import TeacherError, TeacherSettings
from lrc_ase.learning.teacher_dynamics import Segment
from lrc_ase.learning.teacher_pool import Failure, TeacherPool
from lrc_ase.models.settings import Settings
from lrc_ase.simulation import thermalize
from lrc_ase.structures.charge import total_charge

__all__ = ["SampleSettings", "SampleSummary", "sample"]

_TEACHER_KEY = "teacher"
"""Entry of `Atoms.info` that holds the teacher of a frame and its options."""
_ATOMS, _COUNTS = 60_000, (1000, 4000)
"""Atoms in all frames by default, and the smallest and largest number of frames: the time of a teacher grows at least
with the number of atoms, and a large frame teaches more."""
_HOPELESS = 10
"""Failures in a row that end the sampling."""


Temperature = Annotated[float, Field(gt=0, le=20000)]


class SampleSettings(Settings):
    """Settings of `sample`."""

    teacher: TeacherSettings
    """Method that moves and labels the structures."""
    count: int | None = Field(None, ge=1)
    """Number of labelled frames. Null: as many as hold 60,000 atoms, at least 1000 and at most 4000."""
    temperatures: tuple[Temperature, Temperature] = (300.0, 1200.0)
    """Lowest and highest temperature, K. Each run has one in between, drawn at random."""
    length: int | None = Field(None, ge=1)
    """Number of frames of a run. The first runs start from a structure of each composition, in random order, later ones
    from any. Null: 60; where compositions are many, as few as give each of them a run, at least 10."""
    spacing: int = Field(8, ge=1)
    """Steps from one frame of a run to the next."""
    timestep: float | None = Field(None, gt=0, le=10)
    """Length of a step, fs. Null: the root of the lightest mass in amu, at most 4."""
    friction: float = Field(0.02, gt=0)
    """Friction of the Langevin thermostat, 1/fs."""
    strain: float = Field(0.05, ge=0, le=0.5)
    """Largest strain of periodic directions at the start of a run; fully periodic cells may grow by twice as much on
    top. Cells do not change during a run."""
    minutes: float | None = Field(None, gt=0)
    """Wall time after which no further frame is begun. Null: no limit."""
    seed: int = Field(0, ge=0)
    """Seed of starts, temperatures and dynamics."""

    @field_validator("temperatures")
    @classmethod
    def _rise(cls, temperatures: tuple[float, float]) -> tuple[float, float]:
        if temperatures[0] > temperatures[1]:
            raise ValueError(f"expected the lowest and the highest temperature, got {temperatures}")
        return temperatures


@dataclass
class SampleSummary:
    """Result of sampling."""

    n_frames: int = 0
    """Labelled frames in the file, those of earlier calls included."""
    n_wanted: int = 0
    """Number of frames asked for, by default one that follows from their size."""
    teacher_seconds: float = 0.0
    """Time of the teacher's processes."""
    failures: list[str] = field(default_factory=list)
    """Reasons why runs ended early."""
    is_complete: bool = True
    """False if the time was over before the number of frames was reached."""


@dataclass
class _Run:
    """Dynamics of one structure."""

    atoms: Atoms
    temperature: float
    remaining: int


def sample(
    starts: Sequence[str | os.PathLike[str]],
    settings: SampleSettings,
    output: str | os.PathLike[str],
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> SampleSummary:
    """Write labelled frames of dynamics with a teacher to an extended XYZ file.

    Parameters
    ----------
    starts
        Files with structures, in any format of ASE: the frames that a model is to be trained on later, or a few of
        their kind. Their labels are not read.
    settings
        Teacher, number of frames, conditions.
    output
        File of the frames. Each frame is on disk the moment it is labelled. A file that exists is extended until it
        holds the number of frames that the settings name.
    report
        Called with the number of frames so far and in the end.

    Raises
    ------
    TeacherError
        The teacher cannot be built, changes its labels from call to call, or fails ten times in a row.
    ValueError
        No start has two atoms, or one is no usable structure; the file holds frames of another teacher.
    """
    structures = _by_composition(read_starts([os.fspath(path) for path in starts]))
    count = settings.count or _default_count(list(chain.from_iterable(structures)))
    length = settings.length or min(max(count // len(structures), 10), 60)
    path = Path(output)
    deadline = math.inf if settings.minutes is None else time.monotonic() + 60 * settings.minutes
    summary = SampleSummary(n_wanted=count)
    with (
        LabelStore(path) as store,
        tempfile.TemporaryDirectory(prefix="lrc-ase-teacher-") as scratch,
        TeacherPool(settings.teacher, Path(scratch)) as pool,
    ):
        _check_teacher(store, settings.teacher)
        report(len(store), count)
        # another sequence of random numbers where a file is extended: no run is repeated
        rng = np.random.default_rng([settings.seed, len(store)])
        first = [structures[index] for index in rng.permutation(len(structures))]
        later = list(chain.from_iterable(structures))
        waiting: list[_Run] = []
        running: dict[int, _Run] = {}
        failures_in_a_row = 0

        def segments() -> Iterator[Segment]:
            index = 0
            while len(store) + len(running) < count:
                if time.monotonic() > deadline:
                    summary.is_complete = False
                    return
                run = waiting.pop() if waiting else _new_run(first.pop() if first else later, settings, length, rng)
                running[index] = run
                index += 1
                yield _next_segment(run, settings, rng)

        for result in pool.label(segments()):
            run = running.pop(result.index)
            summary.teacher_seconds += result.seconds
            if isinstance(result, Failure):  # the run is given up; another one begins
                summary.failures.append(f"{run.temperature:.0f} K: {result.reason}")
                failures_in_a_row += 1
                if failures_in_a_row == _HOPELESS:
                    raise TeacherError(
                        f"the teacher failed {_HOPELESS} times in a row, the last time with {result.reason}; {path} "
                        f"holds {len(store)} frames"
                    )
                continue
            failures_in_a_row = 0
            run.atoms, run.remaining = result.atoms, run.remaining - 1
            _store(store, result.atoms, run.temperature, settings.teacher)
            if run.remaining:
                waiting.append(run)
            report(len(store), count)
        summary.n_frames = len(store)
    return summary


def _by_composition(structures: Sequence[Atoms]) -> list[list[Atoms]]:
    """Return the structures of each composition and charge, without single atoms, which have no forces to learn."""
    groups: dict[tuple[str, float], list[Atoms]] = {}
    for atoms in structures:
        if len(atoms) > 1:
            groups.setdefault((atoms.get_chemical_formula(), total_charge(atoms)), []).append(atoms)
    if not groups:
        raise ValueError("no structure to start from has two atoms or more")
    return list(groups.values())


def _default_count(structures: Sequence[Atoms]) -> int:
    """Return the number of frames that hold `_ATOMS` atoms, within `_COUNTS`."""
    n_atoms = sum(map(len, structures)) / len(structures)
    fewest, most = _COUNTS
    return min(max(round(_ATOMS / n_atoms), fewest), most)


def _new_run(structures: Sequence[Atoms], settings: SampleSettings, length: int, rng: np.random.Generator) -> _Run:
    """Return a run from a structure drawn at random, strained if it is periodic, with momenta of its temperature."""
    atoms = structures[int(rng.integers(len(structures)))].copy()
    strain_at_random(atoms, settings.strain, rng)
    temperature = float(rng.uniform(*settings.temperatures))
    thermalize(atoms, temperature, rng)
    return _Run(atoms, temperature, length)


def _next_segment(run: _Run, settings: SampleSettings, rng: np.random.Generator) -> Segment:
    lightest = float(atomic_masses[run.atoms.numbers].min())
    return Segment(
        run.atoms,
        steps=settings.spacing,
        timestep=settings.timestep or min(math.sqrt(lightest), 4.0),
        temperature=run.temperature,
        friction=settings.friction,
        seed=int(rng.integers(2**31)),
    )


def _described(teacher: TeacherSettings) -> str:
    """Return the calculator and its options as a text.

    >>> _described(TeacherSettings(calculator="tblite.ase:TBLite", options={"method": "GFN2-xTB"}))
    'tblite.ase:TBLite method=GFN2-xTB'
    """
    return " ".join([teacher.calculator, *(f"{name}={value}" for name, value in sorted(teacher.options.items()))])


def _check_teacher(store: LabelStore, teacher: TeacherSettings) -> None:
    """Raise ValueError if the file holds labels of another teacher: energies of two methods do not fit together."""
    for atoms in store.frames():
        if (other := atoms.info.get(_TEACHER_KEY)) != _described(teacher):
            raise ValueError(
                f"{store.path} holds frames of another teacher ({other or 'unknown'}), expected "
                f"{_described(teacher)}: choose another output"
            )


def _store(store: LabelStore, atoms: Atoms, temperature: float, teacher: TeacherSettings) -> None:
    """Append a frame without its momenta and without the name of the file of its start."""
    frame = atoms.copy()
    frame.calc = atoms.calc
    frame.arrays.pop("momenta", None)
    frame.info.pop(SOURCE_KEY, None)
    store.add(frame, temperature=round(temperature, 1), **{_TEACHER_KEY: _described(teacher)})

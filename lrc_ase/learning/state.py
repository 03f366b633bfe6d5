"""State of active learning on disk: what is done, and the folder that holds the files of each iteration.

Every phase of an iteration (label, train, explore) reads its input from files and ends with an atomic write of the
state. A process that is killed at any moment therefore repeats one phase at most, with the same input.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from lrc_ase.dataset import Atoms, read_frames
from lrc_ase.files.atomic import remove_leftovers, write_atomically
from lrc_ase.files.lock import exclusive_use
from lrc_ase.models.settings import Settings

__all__ = ["FreshErrors", "IterationRecord", "LearnFolder", "LearnState", "Phase", "stored_frames"]

Phase = Literal["label", "train", "explore", "final", "done"]


class FreshErrors(Settings):
    """Errors of a potential on labels that it was not trained on, and the deviations that it predicted for them."""

    n_frames: int
    forces_rmse: float
    """Root mean square over force components, meV/Angstrom."""
    forces_predicted: float | None = None
    """Root mean square of the calibrated deviations of the same components, meV/Angstrom."""
    energy_rmse: float | None = None
    """meV/atom."""


class IterationRecord(Settings):
    """Record of one iteration; fields stand in the order in which they become known."""

    iteration: int
    requested: int = 0
    """Frames that were to be labelled."""
    labelled: int = 0
    failed: int = 0
    """Frames that the teacher could not label."""
    teacher_seconds: float = 0.0
    """Sum of the time of the teacher's calculations."""
    label_seconds: float = 0.0
    """Wall time of the labelling."""
    fresh: dict[str, FreshErrors] = Field(default_factory=dict)
    """Errors of the potential of the iteration before on these labels, before they were trained on: `random` frames of
    its dynamics, frames that were `chosen` for disagreement, and `all`."""
    train_seconds: float = 0.0
    held_out: FreshErrors | None = None
    """Errors of the potential of this iteration on the held-out frames, which chose its best epoch."""
    explore_seconds: float = 0.0
    threshold: float | None = None
    """Deviation at which walkers stopped, eV/Angstrom per component."""
    correction: float = 1.0
    """Factor of deviations before they were compared with the threshold: the ratio of actual to predicted errors of
    the labels of this iteration, see `lrc_ase.learning.fresh_errors.correction`."""
    hottest: float | None = None
    """Highest temperature of a snapshot's thermostat, K."""
    picoseconds: float = 0.0
    """Explored time, over all walkers."""
    runs: int = 0
    """Runs of walkers."""
    alarms: int = 0
    """Runs that stopped at the threshold or left the training domain."""
    explosions: int = 0
    """Runs whose dynamics broke down."""
    complete: bool = False
    """True if every walker ran the whole length without an alarm."""


class LearnState(Settings):
    """Progress of active learning."""

    phase: Phase = "label"
    iteration: int = 0
    calls: int = 0
    """Calculations of the teacher, failed ones included."""
    seconds: float = 0.0
    """Wall time, over all sessions."""
    records: tuple[IterationRecord, ...] = ()
    end: str = ""
    """Sentence on why the loop ended."""
    converged: bool = False
    final_seconds: float = 0.0
    """Time of the final training."""

    @property
    def record(self) -> IterationRecord:
        """Return the record of the present iteration."""
        if self.records and self.records[-1].iteration == self.iteration:
            return self.records[-1]
        return IterationRecord(iteration=self.iteration)

    def recorded(self, **values: object) -> LearnState:
        """Return the state with values of the record of the present iteration replaced."""
        others = tuple(record for record in self.records if record.iteration != self.iteration)
        return self.model_copy(update={"records": (*others, self.record.model_copy(update=values))})


class LearnFolder:
    """Paths of the files of a run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.settings = self.path / "learn.yaml"
        self.state_file = self.path / "state.json"
        self.labels = self.path / "labels.extxyz"
        self.potential = self.path / "potential.safetensors"
        self.log_file = self.path / "log.txt"
        self.report = self.path / "report.html"
        self.scratch = self.path / "scratch"

    def iteration(self, number: int) -> Path:
        """Return the folder of an iteration."""
        return self.path / f"iteration-{number:02d}"

    def requested(self, number: int) -> Path:
        """Return the path of the frames that an iteration labels."""
        return self.iteration(number) / "requested.extxyz"

    def explored(self, number: int) -> Path:
        """Return the path of the snapshots of the exploration of an iteration."""
        return self.iteration(number) / "explored.extxyz"

    def walkers(self, number: int) -> Path:
        """Return the path of the state of the walkers after an iteration, in full precision."""
        return self.iteration(number) / "walkers.traj"

    def training(self, number: int) -> Path:
        """Return the run folder of the training of an iteration."""
        return self.iteration(number) / "training"

    @property
    def final_training(self) -> Path:
        """Return the run folder of the final training."""
        return self.path / "final"

    def by_hand(self, number: int) -> Path:
        """Return the path of frames that the user labels."""
        return self.path / f"to-label-{number}.extxyz"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and lock it against other processes."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file, expected a folder")
        self.path.mkdir(parents=True, exist_ok=True)
        with exclusive_use(self.path / ".lock", f"the run folder {self.path}"):
            for file in (self.state_file, self.settings):
                remove_leftovers(file)
            yield

    def read(self) -> LearnState:
        """Read the state; ValueError if there is none or it cannot be used."""
        try:
            return LearnState.model_validate_json(self.state_file.read_bytes())
        except FileNotFoundError:
            raise ValueError(f"{self.path} holds no run of `lrc-ase learn` to resume") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ValueError(
                f"{self.state_file}: {where}: {first['msg']}; it was edited or is of another version"
            ) from None

    def write(self, state: LearnState) -> None:
        """Write the state atomically."""
        write_atomically(self.state_file, state.model_dump_json(indent=1).encode())


def stored_frames(path: Path) -> list[Atoms]:
    """Return the frames of a file of a run; none if it is absent, or empty because the time was over."""
    return read_frames(path) if path.exists() and path.stat().st_size else []

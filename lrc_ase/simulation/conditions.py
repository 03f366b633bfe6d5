"""Settings of a molecular-dynamics run, the names of its files, and what a continuation must have in common with it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.io.jsonio import encode

from lrc_ase.simulation.output import grows
from lrc_ase.structures.charge import total_charge

__all__ = ["MDFiles", "MDSettings", "check_same_run", "run_identity"]

# settings that may differ between a run and its continuation
FREE_ON_RESUME = {"steps", "seed", "log_every", "write_every", "restart_every", "max_temperature", "extrapolate"}


@dataclass(frozen=True)
class MDSettings:
    """How a molecular-dynamics run goes."""

    ensemble: Literal["nve", "nvt", "npt"]
    """nve: velocity Verlet. nvt: Langevin. npt: Martyna-Tobias-Klein."""
    steps: int
    """Steps in all, those before a restart counted."""
    timestep: float = 1.0
    """fs."""
    temperature: float | None = None
    """K. Momenta are drawn at it; None keeps the momenta of the structure (nve only)."""
    pressure: float = 0.0
    """GPa, npt only."""
    npt_mode: Literal["isotropic", "flexible"] = "isotropic"
    """isotropic: the cell is scaled as a whole. flexible: lengths and angles change; a liquid may shear without end."""
    friction: float = 0.01
    """1/fs, nvt only."""
    thermostat_time: float = 100.0
    """Period of the Nose-Hoover chain, fs, npt only."""
    barostat_time: float = 1000.0
    """Period of the barostat, fs, npt only."""
    seed: int = 0
    log_every: int = 10
    """Steps between rows of the log."""
    write_every: int = 100
    """Steps between frames of the trajectory."""
    restart_every: int = 100
    """Steps between restart files."""
    max_temperature: float = 20000.0
    """K, the run stops above it."""
    extrapolate: bool = False
    """Whether to go on where the calculator says that a structure lies far outside its training set."""

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        if self.ensemble not in ("nve", "nvt", "npt"):
            raise ValueError(f"`ensemble` must be nve, nvt or npt, got {self.ensemble!r}")
        if self.npt_mode not in ("isotropic", "flexible"):
            raise ValueError(f"`npt_mode` must be isotropic or flexible, got {self.npt_mode!r}")
        if self.steps < 0:
            raise ValueError(f"`steps` must not be negative, got {self.steps}")
        names = ("timestep", "thermostat_time", "barostat_time", "log_every", "write_every", "restart_every")
        for name in names:
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        if self.friction < 0:
            raise ValueError(f"`friction` must not be negative, got {self.friction}")
        if self.ensemble != "nve" and self.temperature is None:
            raise ValueError(f"the {self.ensemble} ensemble needs a `temperature`")
        if self.temperature is not None and not 0 <= self.temperature < self.max_temperature:
            raise ValueError(
                f"`temperature` must lie between 0 and `max_temperature` = {self.max_temperature:g} K, "
                f"got {self.temperature}"
            )
        if self.ensemble == "npt" and not self.temperature:
            raise ValueError("the npt ensemble needs a `temperature` above zero")


@dataclass(frozen=True)
class MDFiles:
    """Where a run writes."""

    trajectory: Path
    """As asked for."""
    frames: Path
    """Where frames are added while the run goes on: the trajectory, or a ``.traj`` that becomes it at the end."""
    log: Path
    plot: Path
    restart: Path
    last_sane: Path
    lock: Path
    """There as long as a process writes the others."""

    @classmethod
    def beside(cls, trajectory: str | Path) -> MDFiles:
        """Derive all names from that of the trajectory; ValueError where ASE cannot write a trajectory of that name."""
        trajectory = Path(trajectory)
        stem = trajectory.with_suffix("")
        return cls(
            trajectory,
            trajectory if grows(trajectory) else stem.with_name(stem.name + ".traj"),
            stem.with_name(stem.name + ".csv"),
            stem.with_name(stem.name + ".png"),
            stem.with_name(stem.name + ".restart.npz"),
            stem.with_name(stem.name + ".last-sane.extxyz"),
            stem.with_name(stem.name + ".lock"),
        )

    def existing(self) -> list[Path]:
        """Return the files that are there already."""
        return [path for path in (self.trajectory, self.frames, self.log, self.restart) if path.exists()]

    def check_free(self) -> None:
        """Raise FileExistsError if a run is there, and say how to go on with it or replace it."""
        if there := self.existing():
            remedy = "--resume goes on with that run" if self.restart.exists() else self.no_restart()
            raise FileExistsError(f"{there[0]} exists already: {remedy}, --overwrite replaces it")

    def check_resumable(self) -> None:
        """Raise FileNotFoundError if there is no restart file, and say what can be done instead."""
        if self.restart.exists():
            return
        if self.existing():
            raise FileNotFoundError(f"{self.no_restart()}, --overwrite replaces it")
        raise FileNotFoundError(f"no restart file {self.restart}: start the run without --resume")

    def no_restart(self) -> str:
        """Return the message that a run without a restart file cannot go on, and from where a new one can start."""
        return (
            f"the run has no restart file {self.restart.name}, so that --resume cannot go on with it; a new run can "
            f"start from its last frame, '{self.frames.name}@-1'"
        )


def run_identity(atoms: Atoms) -> dict[str, Any]:
    """Describe what a continuation must have in common with a run beside its settings.

    The total charge in e, a digest of the masses, the constraints, and what the calculator says of itself in its
    attribute `fingerprint` (for `LRCCalculator` a digest of the potential, and its precision).
    """
    identity: dict[str, Any] = {
        "charge": total_charge(atoms),
        "masses": hashlib.sha256(np.ascontiguousarray(atoms.get_masses(), dtype="<f8").tobytes()).hexdigest(),
        "constraints": hashlib.sha256(encode([each.todict() for each in atoms.constraints]).encode()).hexdigest(),
    }
    return identity | dict(getattr(atoms.calc, "fingerprint", {}))


_OTHERS = {
    "charge": "the run that is there has total charge {before:g} e, the structure {now:g} e: give the same structure",
    "masses": "the atoms of the run that is there have other masses: give the same structure",
    "constraints": "the run that is there has other constraints: give the same structure",
    "potential": "the run that is there was made with another potential: give the same one",
    "precision": "the run that is there was made in {before}, not {now}: give --dtype {before}",
}
"""Messages on an identity that differs."""


def check_same_run(before: dict[str, Any], settings: MDSettings, identity: dict[str, Any]) -> None:
    """Compare the settings and the identity in a restart file with those of its continuation.

    Entries that the file lacks were added by later versions; they are not compared.

    Raises
    ------
    ValueError
        One of them differs; the message ends with how to start a new run instead.
    """
    new_run = "or start a new run from its last frame with another --output"
    for name, value in asdict(settings).items():
        if name not in FREE_ON_RESUME and name in before and before[name] != value:
            raise ValueError(
                f"the run that is there has {name} {before[name]}, asked for {value}: resume with the same settings, "
                + new_run
            )
    for name, value in identity.items():
        if name in before and before[name] != value:
            message = _OTHERS.get(name, "the run that is there has {name} {before}, not {now}")
            raise ValueError(f"{message.format(name=name, before=before[name], now=value)}, {new_run}")

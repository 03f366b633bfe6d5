"""Settings of a molecular-dynamics run, names of its files, and the conditions under which it can be continued."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.io.jsonio import encode

from lrc_ase.simulation.output import grows
from lrc_ase.structures.charge import total_charge
from lrc_ase.structures.electric_field import external_field, field_text

__all__ = ["MDFiles", "MDSettings", "check_same_run", "check_structure", "run_identity"]

# settings that may differ between a run and its continuation
FREE_ON_RESUME = {"steps", "seed", "log_every", "write_every", "restart_every", "max_temperature", "extrapolate"}


@dataclass(frozen=True)
class MDSettings:
    """Settings of a molecular-dynamics run."""

    ensemble: Literal["nve", "nvt", "npt"]
    """nve: velocity Verlet. nvt: Langevin. npt: Martyna-Tobias-Klein."""
    steps: int
    """Total number of steps, including those before a restart."""
    timestep: float = 1.0
    """Length of a step, fs."""
    temperature: float | None = None
    """Temperature of initial momenta and thermostat, K; None keeps the momenta of the structure (nve only)."""
    pressure: float = 0.0
    """Target pressure, GPa, npt only."""
    npt_mode: Literal["isotropic", "flexible"] = "isotropic"
    """isotropic: the cell is scaled as a whole. flexible: lengths and angles change; a liquid may shear without end."""
    friction: float = 0.01
    """Friction of the Langevin thermostat, 1/fs, nvt only."""
    thermostat_time: float = 100.0
    """Period of the Nose-Hoover chain, fs, npt only."""
    barostat_time: float = 1000.0
    """Period of the barostat, fs, npt only."""
    seed: int = 0
    log_every: int = 10
    """Steps between rows of the log."""
    write_every: int = 100
    """Steps between frames of the trajectory."""
    current_every: int | None = None
    """Steps between rows of the polarization current; None writes none."""
    restart_every: int = 100
    """Steps between restart files."""
    max_temperature: float = 20000.0
    """Temperature above which the run stops, K."""
    extrapolate: bool = False
    """True continues a run where the calculator reports a structure far outside its training set."""

    def __post_init__(self) -> None:
        """Raise ValueError for a setting without meaning."""
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
        if self.current_every is not None and self.current_every < 1:
            raise ValueError(f"`current_every` must be positive, got {self.current_every}")
        if not 0 <= self.friction < math.inf:
            raise ValueError(f"`friction` must be zero or a positive number, got {self.friction}")
        if not math.isfinite(self.pressure):
            raise ValueError(f"`pressure` must be finite, got {self.pressure}")
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
    """Paths of the files of a run."""

    trajectory: Path
    """Trajectory in the format that the user chose."""
    frames: Path
    """File that frames are appended to during the run: the trajectory, or a ``.traj`` that is converted at the end."""
    log: Path
    current: Path
    """Polarization current, with `MDSettings.current_every`."""
    plot: Path
    restart: Path
    last_sane: Path
    lock: Path
    """Lock file; it exists while a process writes the other files."""

    @classmethod
    def beside(cls, trajectory: str | Path) -> MDFiles:
        """Derive all paths from that of the trajectory; ValueError if ASE cannot write a trajectory of that name."""
        trajectory = Path(trajectory)
        stem = trajectory.with_suffix("")
        return cls(
            trajectory,
            trajectory if grows(trajectory) else stem.with_name(stem.name + ".traj"),
            stem.with_name(stem.name + ".csv"),
            stem.with_name(stem.name + ".current.csv"),
            stem.with_name(stem.name + ".png"),
            stem.with_name(stem.name + ".restart.npz"),
            stem.with_name(stem.name + ".last-sane.extxyz"),
            stem.with_name(stem.name + ".lock"),
        )

    def existing(self) -> list[Path]:
        """Return the files of a run that exist already."""
        return [path for path in (self.trajectory, self.frames, self.log, self.current, self.restart) if path.exists()]

    def check_free(self) -> None:
        """Raise FileExistsError if files of a run exist; the message says how to continue or replace that run."""
        if existing := self.existing():
            remedy = "--resume goes on with that run" if self.restart.exists() else self.no_restart()
            raise FileExistsError(f"{existing[0]} exists already: {remedy}, --overwrite replaces it")

    def check_resumable(self) -> None:
        """Raise FileNotFoundError if there is no restart file; the message says what can be done instead."""
        if self.restart.exists():
            return
        if self.existing():
            raise FileNotFoundError(f"{self.no_restart()}, --overwrite replaces it")
        raise FileNotFoundError(f"no restart file {self.restart}: start the run without --resume")

    def no_restart(self) -> str:
        """Return the message that a run without a restart file cannot continue, and where a new run can start."""
        return (
            f"the run has no restart file {self.restart.name}, so that --resume cannot go on with it; a new run can "
            f"start from its last frame, '{self.frames.name}@-1'"
        )


def check_structure(atoms: Atoms, settings: MDSettings) -> None:
    """Raise ValueError for a structure that cannot be run with these settings."""
    if len(atoms) == 0:
        raise ValueError("`atoms` must hold at least one atom, got none")
    if atoms.calc is None:
        raise ValueError("`atoms` must have a calculator, got none")
    if settings.temperature is None and not atoms.has("momenta"):
        raise ValueError("the structure has no momenta: give the `temperature` from which to draw them")
    if settings.ensemble == "npt" and not (atoms.pbc.all() and atoms.cell.rank == 3):
        raise ValueError(f"the npt ensemble needs three periodic directions, got pbc {atoms.pbc.tolist()}: use nvt")
    if settings.ensemble == "npt" and atoms.constraints:
        raise ValueError("the npt ensemble cannot hold constraints; take them off or use nvt")


def run_identity(atoms: Atoms) -> dict[str, Any]:
    """Return the properties besides its settings that a run and its continuation must have in common.

    These are the total charge in e, the electric field in `Atoms.info`, digests of masses and constraints, and the
    entries of the calculator's attribute `fingerprint` (for `LRCCalculator` a digest of the potential, its precision,
    and its electric field).
    """
    identity: dict[str, Any] = {
        "charge": total_charge(atoms),
        "external_field": field_text(external_field(atoms)),
        "masses": hashlib.sha256(np.ascontiguousarray(atoms.get_masses(), dtype="<f8").tobytes()).hexdigest(),
        "constraints": hashlib.sha256(encode([each.todict() for each in atoms.constraints]).encode()).hexdigest(),
    }
    return identity | dict(getattr(atoms.calc, "fingerprint", {}))


_BEFORE_FIELDS = {"external_field": "none", "electric_field": "none"}
"""Entries of runs of versions that knew no electric field."""
_OTHERS = {
    "charge": "the existing run has total charge {before:g} e, the structure {now:g} e: give the same structure",
    "external_field": "the existing run has the electric field {before} V/Angstrom, not {now}: give the same field",
    "masses": "the atoms of the existing run have other masses: give the same structure",
    "constraints": "the existing run has other constraints: give the same structure",
    "potential": "the existing run used another potential: give the same one",
    "precision": "the existing run used {before}, not {now}: give --dtype {before}",
}
"""Messages about an entry of `run_identity` that differs."""


def check_same_run(before: dict[str, Any], settings: MDSettings, identity: dict[str, Any]) -> None:
    """Compare the settings and the identity in a restart file with those of its continuation.

    Entries that the file lacks were added by later versions; they are not compared.

    Raises
    ------
    ValueError
        One of them differs; the message ends with how to start a new run instead.
    """
    new_run = "or start a new run from its last frame with another --output"
    # settings that older files lack are not compared, as nobody knows their values
    for name, value in asdict(settings).items():
        if name not in FREE_ON_RESUME and name in before and before[name] != value:
            raise ValueError(
                f"the existing run has {name} {before[name]}, got {value}: resume with the same settings, " + new_run
            )
    before = _BEFORE_FIELDS | before
    for name, value in identity.items():
        if name in before and before[name] != value:
            message = _OTHERS.get(name, "the existing run has {name} {before}, not {now}")
            raise ValueError(f"{message.format(name=name, before=before[name], now=value)}, {new_run}")

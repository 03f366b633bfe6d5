"""How a molecular-dynamics run goes and where it writes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lrc_ase.simulation.output import grows

__all__ = ["MDFiles", "MDSettings", "check_same_settings"]

# settings that may differ between a run and its continuation
FREE_ON_RESUME = {"steps", "seed", "log_every", "write_every", "restart_every", "max_temperature", "extrapolate"}


@dataclass(frozen=True)
class MDSettings:
    """How a molecular-dynamics run goes."""

    ensemble: Literal["nve", "nvt", "npt"]
    """nve: velocity Verlet. nvt: Langevin. npt: Martyna-Tobias-Klein, the cell scaled as a whole."""
    steps: int
    """Steps in all, those before a restart counted."""
    timestep: float = 1.0
    """fs."""
    temperature: float | None = None
    """K. Momenta are drawn at it; None keeps the momenta of the structure (nve only)."""
    pressure: float = 0.0
    """GPa, npt only."""
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

    @classmethod
    def beside(cls, trajectory: str | Path) -> MDFiles:
        """Names derived from that of the trajectory; ValueError where ASE cannot write a trajectory of that name."""
        trajectory = Path(trajectory)
        stem = trajectory.with_suffix("")
        return cls(
            trajectory,
            trajectory if grows(trajectory) else stem.with_name(stem.name + ".traj"),
            stem.with_name(stem.name + ".csv"),
            stem.with_name(stem.name + ".png"),
            stem.with_name(stem.name + ".restart.npz"),
            stem.with_name(stem.name + ".last-sane.extxyz"),
        )

    def existing(self) -> list[Path]:
        """Those that are there already."""
        return [path for path in (self.trajectory, self.frames, self.log, self.restart) if path.exists()]


def check_same_settings(before: dict[str, Any], settings: MDSettings) -> None:
    """ValueError when a run with other settings, as a restart file has them, cannot go on with `settings`."""
    for name, value in asdict(settings).items():
        if name not in FREE_ON_RESUME and before.get(name) != value:
            raise ValueError(
                f"the run that is there has {name} {before.get(name)}, asked for {value}: resume with the same settings"
            )

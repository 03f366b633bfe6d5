"""Settings of the checks: conditions, lengths of runs, size of cells."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CheckSettings"]


@dataclass(frozen=True)
class CheckSettings:
    """Settings of the checks.

    None stands for a choice by system or mode: `quick` shortens runs so that two systems of some hundred atoms take
    minutes. All other lengths are those of the full mode.
    """

    quick: bool = False
    """True for runs of a few ps, whose error bars are wide."""
    temperature: float | None = None
    """Temperature, K; None takes ``atoms.info["temperature"]`` of each system, 300 K where there is none."""
    timestep: float | None = None
    """Time step, fs; None takes 0.5 fs with hydrogen and 1 fs without."""
    equilibration: float | None = None
    """Length of the run at constant temperature before the production run, ps; None: 20, quick 2."""
    production: float | None = None
    """Length of the production run at constant energy, ps; None: 50, quick 8."""
    density_run: float | None = None
    """Length of the run at constant pressure, ps; None: 100, quick 6."""
    hot_run: float | None = None
    """Length of the run at 1.5 times the temperature, ps; None: 100, quick 4."""
    smallest_cell: float | None = None
    """Smallest width of the cell of a run, Angstrom; smaller crystals are repeated. None: 15, quick 10."""
    seed: int = 0
    """Seed of displacements, momenta and thermostats."""

    def __post_init__(self) -> None:
        """Raise ValueError for a setting without meaning."""
        lengths = ("equilibration", "production", "density_run", "hot_run")
        for name in ("temperature", "timestep", *lengths, "smallest_cell"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"`{name}` must be positive, got {value}")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, got {self.seed}")

    def length(self, name: str) -> float:
        """Return the length of a run in ps: that of its field, or the default of the mode."""
        value = getattr(self, name)
        return float(_LENGTHS[name][self.quick] if value is None else value)

    @property
    def cell_width(self) -> float:
        """Return the smallest width of the cell of a run, Angstrom."""
        return self.length("smallest_cell")


_LENGTHS = {
    "equilibration": (20.0, 2.0),
    "production": (50.0, 8.0),
    "density_run": (100.0, 6.0),
    "hot_run": (100.0, 4.0),
    "smallest_cell": (15.0, 10.0),
}
"""Defaults in the full and the quick mode."""

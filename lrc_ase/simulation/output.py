"""Files that a simulation writes as it runs, cut back to a known step when it resumes."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat
from ase.io.trajectory import Trajectory

from lrc_ase.files.atomic import replacing, writing
from lrc_ase.simulation.observables import ThermodynamicState

__all__ = ["ThermodynamicLog", "TrajectoryFile", "convert_frames", "grows", "snapshot", "trajectory_format"]

COLUMNS = (
    "step",
    "time_ps",
    "potential_eV",
    "kinetic_eV",
    "total_eV",
    "temperature_K",
    "pressure_GPa",
    "volume_A3",
)
KEPT_RESULTS = ("energy", "free_energy", "forces", "stress", "charges")


def snapshot(atoms: Atoms) -> Atoms:
    """Copy of `atoms` that carries the results at hand instead of a calculator."""
    frame = atoms.copy()
    results = {name: value for name, value in atoms.calc.results.items() if name in KEPT_RESULTS}
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


class ThermodynamicLog:
    """CSV table of a run, one row per sample, each on disk when `write` returns."""

    def __init__(self, path: Path, *, last_step: int | None = None) -> None:
        """Begin a new table, or keep the rows of an old one up to `last_step`."""
        rows = [list(COLUMNS)] if last_step is None else self._rows_until(path, last_step)
        with writing(path, text=True) as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        self._file = open(path, "a", newline="", encoding="utf-8")  # noqa: SIM115 - open as long as the run
        self._writer = csv.writer(self._file, lineterminator="\n")

    @staticmethod
    def _rows_until(path: Path, last_step: int) -> list[list[str]]:
        if not path.exists():
            return [list(COLUMNS)]
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        if not rows or tuple(rows[0]) != COLUMNS:
            raise ValueError(f"{path} is not a thermodynamic log of lrc-ase, so the run cannot continue it")
        # a row cut short by a kill lacks columns
        return [rows[0]] + [row for row in rows[1:] if len(row) == len(COLUMNS) and int(row[0]) <= last_step]

    def write(self, step: int, time: float, state: ThermodynamicState) -> None:
        """Append a row; `time` in ps. Energies keep every digit, as a drift is a small difference of large numbers."""
        values = (state.potential, state.kinetic, state.total, state.temperature, state.pressure, state.volume)
        self._writer.writerow([step, f"{time:.10g}", *(repr(value) for value in values)])
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def trajectory_format(path: Path) -> str:
    """Name of ASE's format for `path`; ValueError where it cannot hold several frames."""
    try:
        name = str(filetype(str(path), read=False))
        written = get_ioformat(name)
    except UnknownFileTypeError:
        raise ValueError(f"{path.name}: ASE knows no format of this name; write .traj or .extxyz") from None
    if written.single or not written.can_write or name == "bundletrajectory":  # the last is a folder
        raise ValueError(f"{path.name}: ASE cannot write several frames to a file of format {name}; write .traj")
    return "extxyz" if name == "xyz" else name


def grows(path: Path) -> bool:
    """Whether frames are added to the file one by one, and taken off again where a run resumes."""
    return trajectory_format(path) in ("traj", "extxyz")


def convert_frames(source: Path, target: Path) -> None:
    """Write all frames of `source` to `target`, in the format of that name."""
    with replacing(target) as temporary:
        ase.io.write(temporary, ase.io.read(source, ":"), format=trajectory_format(target))


class TrajectoryFile:
    """Trajectory that grows by one frame at a time."""

    def __init__(self, path: Path, *, keep: dict[str, int] | None = None) -> None:
        """Begin a new file, or cut an old one back to the `position` it had at a restart."""
        self.path = path
        self._format = trajectory_format(path)
        self._n_frames = 0
        if keep is None:
            path.unlink(missing_ok=True)
        elif self._format == "traj":
            self._keep_frames(keep["frames"])
        else:
            self._keep_bytes(keep["bytes"])
            self._n_frames = keep["frames"]
        self._traj: Any = Trajectory(path, "a" if path.exists() else "w") if self._format == "traj" else None

    def _keep_frames(self, n_frames: int) -> None:
        with Trajectory(self.path) as old:
            if len(old) < n_frames:
                raise ValueError(f"{self.path} holds {len(old)} frames, the restart file counts {n_frames}")
            if len(old) > n_frames:
                with replacing(self.path) as temporary, Trajectory(temporary, "w") as new:
                    for index in range(n_frames):
                        new.write(old[index])
        self._n_frames = n_frames

    def _keep_bytes(self, n_bytes: int) -> None:
        size = self.path.stat().st_size
        if size < n_bytes:
            raise ValueError(f"{self.path} holds {size} bytes, the restart file counts {n_bytes}")
        os.truncate(self.path, n_bytes)

    @property
    def position(self) -> dict[str, int]:
        """Frames and bytes so far, to be kept in a restart file."""
        return {"frames": self._n_frames, "bytes": self.path.stat().st_size if self.path.exists() else 0}

    def write(self, atoms: Atoms) -> None:
        """Append `atoms` with the results at hand."""
        frame = snapshot(atoms)
        if self._traj is not None:
            self._traj.write(frame)
        else:
            ase.io.write(self.path, frame, format=self._format, append=True)
        self._n_frames += 1

    def close(self) -> None:
        """Close the file."""
        if self._traj is not None:
            self._traj.close()

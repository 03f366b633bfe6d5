"""Files of a simulation: checks of outputs before the work begins, logs, trajectories, and their cut on resume."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ase.io
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.formats import IOFormat, UnknownFileTypeError, filetype, get_ioformat
from ase.io.trajectory import Trajectory

from lrc_ase.files.atomic import replacing
from lrc_ase.simulation.observables import ThermodynamicState
from lrc_ase.simulation.tables import RunTable, naming

__all__ = [
    "TIME",
    "ThermodynamicLog",
    "TrajectoryFile",
    "check_structure_output",
    "check_trajectory_output",
    "convert_frames",
    "grows",
    "snapshot",
    "structure_format",
    "trajectory_format",
    "write_structure",
]

TIME = "time_ps"
"""Entry of `Atoms.info` with the time of a frame, ps."""
KEPT_RESULTS = ("energy", "free_energy", "forces", "stress", "charges")
"""Results of a calculator that are written with a frame."""
_PLAIN = (str, int, float, bool)
"""Types of parameters of a calculator that every file can hold."""


def snapshot(atoms: Atoms) -> Atoms:
    """Return a copy of `atoms` that carries results, name and parameters of the calculator instead of itself."""
    frame = atoms.copy()
    results = {name: value for name, value in atoms.calc.results.items() if name in KEPT_RESULTS}
    frame.calc = SinglePointCalculator(frame, **results)
    # ASE's own format stores them: of a potential its name and digest
    frame.calc.name = getattr(atoms.calc, "name", "unknown")
    parameters: dict[str, Any] = getattr(atoms.calc, "todict", dict)()
    frame.calc.parameters.update({key: value for key, value in parameters.items() if isinstance(value, _PLAIN)})
    return frame


class ThermodynamicLog(RunTable):
    """Log of a run: energies, temperature, pressure and volume, one row per sample."""

    kind = "thermodynamic log"
    columns = (
        "step",
        "time_ps",
        "potential_eV",
        "kinetic_eV",
        "total_eV",
        "temperature_K",
        "pressure_GPa",
        "volume_A3",
        "conserved_eV",
    )
    n_columns_before = 8  # logs of version 0.1 lack the conserved quantity

    def write(self, step: int, time: float, state: ThermodynamicState, conserved: float) -> None:
        """Append a row; `time` in ps.

        `conserved` is the conserved quantity of the equations of motion, eV; NaN for a stochastic thermostat.
        """
        energies = (state.potential, state.kinetic, state.total)
        self.append(step, time, (*energies, state.temperature, state.pressure, state.volume, conserved))


def structure_format(path: Path) -> str:
    """Return the name of ASE's format for one structure at `path`; ValueError if ASE cannot write and read it."""
    written = _format_of(path)
    if not written.can_write or written.name == "bundletrajectory":  # the last is a folder
        raise ValueError(f"{path.name}: ASE cannot write files of format {written.name}; write .extxyz")
    if not written.can_read:
        raise ValueError(f"{path.name}: ASE cannot read format {written.name} back; write .extxyz")
    return "extxyz" if written.name == "xyz" else written.name


def write_structure(path: Path, atoms: Atoms) -> None:
    """Write one structure atomically, in the format that the suffix of `path` names."""
    with replacing(path) as temporary:
        ase.io.write(temporary, atoms, format=structure_format(path))


def check_structure_output(path: Path, atoms: Atoms) -> None:
    """Raise ValueError or OSError if `atoms` cannot be written to `path` : format, folder, permission, space.

    The check writes a copy without results to a temporary file in the same folder.
    """
    _try_to_write(path, atoms.copy(), structure_format(path))


def check_trajectory_output(path: Path, atoms: Atoms) -> None:
    """Raise ValueError or OSError if a trajectory of `atoms` cannot be written; see `check_structure_output`."""
    _try_to_write(path, [atoms.copy(), atoms.copy()], trajectory_format(path))


def _try_to_write(path: Path, frames: Atoms | list[Atoms], name: str) -> None:
    """Write `frames` in the format `name` to a temporary folder beside `path`, to see whether it works."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist")
    try:
        folder = TemporaryDirectory(dir=path.parent, prefix=".lrc-ase-")
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path.parent)) from error
    with folder as trial:
        try:
            ase.io.write(Path(trial, path.name), frames, format=name)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        except Exception as error:  # writers of ASE raise anything for a structure that their format cannot hold
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{path.name}: ASE cannot write this structure in format {name} ({type(error).__name__}: {reason}); "
                "write .extxyz"
            ) from error


def _format_of(path: Path) -> IOFormat:
    """Return ASE's format for a file of that name; ValueError for an unknown one."""
    try:
        return get_ioformat(filetype(str(path), read=False))
    except UnknownFileTypeError:
        raise ValueError(f"{path.name}: ASE knows no format of this name; write .traj or .extxyz") from None


def trajectory_format(path: Path) -> str:
    """Return the name of ASE's format for `path`; ValueError if it cannot hold several frames."""
    written = _format_of(path)
    if written.single or not written.can_write or written.name == "bundletrajectory":  # the last is a folder
        raise ValueError(
            f"{path.name}: ASE cannot write several frames to a file of format {written.name}; write .traj"
        )
    return "extxyz" if written.name == "xyz" else written.name


def grows(path: Path) -> bool:
    """Return True if the format allows frames to be appended, and removed again on resume."""
    return trajectory_format(path) in ("traj", "extxyz")


def convert_frames(source: Path, target: Path) -> None:
    """Write all frames of `source` to `target`, in the format that the suffix of `target` names."""
    with replacing(target) as temporary:
        ase.io.write(temporary, ase.io.read(source, ":"), format=trajectory_format(target))


class TrajectoryFile:
    """Trajectory that grows by one frame at a time."""

    def __init__(self, path: Path, *, keep: dict[str, int] | None = None) -> None:
        """Begin a new file, or cut an existing one back to the `position` of the restart."""
        self.path = path
        self._format = trajectory_format(path)
        self._n_frames = 0
        if keep is not None and keep["frames"] and not path.exists():
            raise FileNotFoundError(
                f"{path} is missing, but the restart file counts {keep['frames']} frames in it: restore it, or replace "
                "the run with --overwrite"
            )
        if keep is None:
            path.unlink(missing_ok=True)
        elif self._format == "traj":
            self._keep_frames(keep["frames"])
        else:
            self._keep_bytes(keep["bytes"])
            self._n_frames = keep["frames"]
        self._traj: Any = Trajectory(path, "a" if path.exists() else "w") if self._format == "traj" else None

    def _keep_frames(self, n_frames: int) -> None:
        """Remove the frames after the first `n_frames` from a file of ASE's own format."""
        with Trajectory(self.path) as old:
            if len(old) < n_frames:
                raise ValueError(f"{self.path} holds {len(old)} frames, the restart file counts {n_frames}")
            if len(old) > n_frames:
                # ASE's format has an index of frames in its head: cutting off the end is not enough
                with replacing(self.path) as temporary, Trajectory(temporary, "w") as new:
                    for index in range(n_frames):
                        new.write(old[index])
        self._n_frames = n_frames

    def _keep_bytes(self, n_bytes: int) -> None:
        """Remove the bytes after the first `n_bytes` from a text file."""
        size = self.path.stat().st_size
        if size < n_bytes:
            raise ValueError(f"{self.path} holds {size} bytes, the restart file counts {n_bytes}")
        os.truncate(self.path, n_bytes)

    @property
    def position(self) -> dict[str, int]:
        """Return the number of frames and bytes so far, for a restart file."""
        return {"frames": self._n_frames, "bytes": self.path.stat().st_size if self.path.exists() else 0}

    def write(self, atoms: Atoms, time: float) -> None:
        """Append `atoms` with the computed results and the `time` of the frame, ps."""
        frame = snapshot(atoms)
        frame.info[TIME] = time
        with naming(self.path):
            if self._traj is not None:
                self._traj.write(frame)
            else:
                ase.io.write(self.path, frame, format=self._format, append=True)
        self._n_frames += 1

    def close(self) -> None:
        """Close the file."""
        if self._traj is not None:
            with naming(self.path):
                self._traj.close()

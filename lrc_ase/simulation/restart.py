"""The restart file of a molecular-dynamics run: an ``.npz`` archive, written whole or not at all, nothing pickled."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.md.md import MolecularDynamics

from lrc_ase.files.atomic import writing

__all__ = ["Restart", "integrator_state", "read_restart", "restore_integrator", "write_restart"]

FORMAT_VERSION = 1

# What ASE's isotropic Martyna-Tobias-Klein integrator carries from step to step beside positions, momenta and cell.
# ASE offers no way to read it out; a test of bit-equal continuation guards these names.
INTEGRATOR_STATE = (
    "_eps",
    "_p_eps",
    "_cell0",
    "_volume0",
    "_thermostat._eta",
    "_thermostat._p_eta",
    "_barostat._xi",
    "_barostat._p_xi",
)


@dataclass(frozen=True)
class Restart:
    """All that a run needs to go on as if it had never stopped."""

    step: int
    settings: dict[str, Any]
    """The run's settings, compared with those of the run that resumes."""
    numbers: np.ndarray
    positions: np.ndarray
    momenta: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    random_state: dict[str, Any]
    trajectory: dict[str, int]
    integrator: dict[str, np.ndarray]

    def apply(self, atoms: Atoms) -> None:
        """Give `atoms` the positions, momenta and cell of the restart."""
        if not np.array_equal(atoms.numbers, self.numbers):
            raise ValueError(
                f"the restart file is of {len(self.numbers)} atoms, the structure has {len(atoms)} or other elements; "
                "resume with the same structure and --repeat"
            )
        atoms.set_cell(self.cell)
        atoms.pbc = self.pbc
        atoms.set_positions(self.positions, apply_constraint=False)
        atoms.set_momenta(self.momenta, apply_constraint=False)


def write_restart(path: Path, restart: Restart) -> None:
    """Write `restart` to `path` atomically."""
    description = {
        "format_version": FORMAT_VERSION,
        "step": restart.step,
        "settings": restart.settings,
        "random_state": restart.random_state,
        "trajectory": restart.trajectory,
    }
    arrays = {name: getattr(restart, name) for name in ("numbers", "positions", "momenta", "cell", "pbc")}
    arrays |= {f"integrator.{name}": value for name, value in restart.integrator.items()}
    with writing(path) as file:
        np.savez(file, allow_pickle=False, description=np.array(json.dumps(description)), **arrays)


def read_restart(path: Path) -> Restart:
    """Read a file of `write_restart`; ValueError when it is none, or of a later format."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        description = json.loads(str(arrays.pop("description")))
        version = description["format_version"]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no restart file {path}: start the run without --resume") from error
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a restart file of lrc-ase, or is damaged") from error
    if version > FORMAT_VERSION:
        raise ValueError(f"{path} has format version {version}, this lrc-ase reads up to {FORMAT_VERSION}: upgrade it")
    integrator = {name.removeprefix("integrator."): arrays[name] for name in arrays if name.startswith("integrator.")}
    return Restart(
        step=int(description["step"]),
        settings=description["settings"],
        random_state=description["random_state"],
        trajectory=description["trajectory"],
        integrator=integrator,
        **{name: arrays[name] for name in ("numbers", "positions", "momenta", "cell", "pbc")},
    )


def integrator_state(integrator: MolecularDynamics) -> dict[str, np.ndarray]:
    """Variables of a thermostat and barostat chain, by dotted name; empty for integrators without any."""
    state = {}
    for name in INTEGRATOR_STATE:
        value: Any = integrator
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is not None:
            state[name] = np.array(value)
    return state


def restore_integrator(integrator: MolecularDynamics, state: dict[str, np.ndarray]) -> None:
    """Put back what `integrator_state` read."""
    for name, value in state.items():
        *owners, attribute = name.split(".")
        owner: Any = integrator
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, attribute, value.copy() if value.ndim else float(value))

"""Restart file of a molecular-dynamics run: an ``.npz`` archive, written atomically and without pickling."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from ase import Atoms
from ase.md.md import MolecularDynamics
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from lrc_ase.files.atomic import writing
from lrc_ase.files.bounded_json import first_mistake, json_object

__all__ = ["Restart", "integrator_state", "read_restart", "restore_integrator", "write_restart"]

FORMAT_VERSION = 1
_INTEGRATOR = "integrator."
"""Prefix of arrays with variables of the integrator."""
_MOST_MEMBERS = 64
"""Largest number of arrays in an archive; a run writes at most fourteen."""

# What ASE's Martyna-Tobias-Klein integrators, isotropic or of the whole cell, carry from step to step beside positions,
# momenta and cell. ASE offers no way to read it out; a test of bit-equal continuation guards these names.
INTEGRATOR_STATE = (
    "_eps",
    "_p_eps",
    "_p_g",
    "_cell0",
    "_volume0",
    "_thermostat._eta",
    "_thermostat._p_eta",
    "_barostat._xi",
    "_barostat._p_xi",
)


_Count = Annotated[int, Field(ge=0, le=10**15)]
_LONGEST_TEXT = 200
_Text = Annotated[str, StringConstraints(max_length=_LONGEST_TEXT)]


class _Strict(BaseModel):
    """Base of the models of a restart file: exact types, no unknown entries, finite numbers."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _GeneratorWords(_Strict):
    """Two numbers of 128 bits, the state of NumPy's PCG64."""

    state: Annotated[int, Field(ge=0, lt=2**128)]
    inc: Annotated[int, Field(ge=0, lt=2**128)]


class _RandomState(_Strict):
    """State of NumPy's default generator."""

    bit_generator: Literal["PCG64"]
    state: _GeneratorWords
    has_uint32: Annotated[int, Field(ge=0, le=1)]
    uinteger: Annotated[int, Field(ge=0, lt=2**32)]


class _Position(_Strict):
    """Length of the trajectory at the restart."""

    frames: _Count
    bytes: _Count


class _Description(_Strict):
    """JSON part of a restart file."""

    format_version: Annotated[int, Field(ge=1, le=FORMAT_VERSION)]
    step: _Count
    settings: dict[_Text, Any]
    random_state: _RandomState
    trajectory: _Position

    @field_validator("settings")
    @classmethod
    def _plain_values(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Refuse settings that are neither numbers, short texts nor null."""
        for name, value in settings.items():
            if not isinstance(value, (str, int, float, type(None))) or len(str(value)) > _LONGEST_TEXT:
                raise ValueError(f"expected a number, a short text or null for {name!r}")
        return settings


@dataclass(frozen=True)
class Restart:
    """Complete state of a run, from which its continuation equals an uninterrupted run."""

    step: int
    settings: dict[str, Any]
    """Settings and identity of the run, compared with those of its continuation."""
    numbers: np.ndarray
    positions: np.ndarray
    momenta: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    random_state: dict[str, Any]
    trajectory: dict[str, int]
    integrator: dict[str, np.ndarray]

    def apply(self, atoms: Atoms) -> None:
        """Set positions, momenta, cell and boundaries of `atoms` to those of the restart."""
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
    arrays["description"] = np.array(json.dumps(description))
    # before 2.1 np.savez has no `allow_pickle`, and would store it as one more array
    with writing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=False)
            archive.writestr(f"{name}.npy", content.getvalue())


def read_restart(path: Path) -> Restart:
    """Read a file written by `write_restart`.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    ValueError
        The file is no restart file, damaged, of a later format, or holds an entry that no run writes, such as a
        compressed array, a negative step, or an unknown variable of an integrator. The message is one line and names
        file and entry.
    """
    try:
        arrays = _read_arrays(path)
        content = json_object(str(arrays.pop("description")))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no restart file {path}: start the run without --resume") from error
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError, struct.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not a restart file of lrc-ase, or is damaged ({reason})") from error
    version = content.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version!r:.20}, this lrc-ase reads up to {FORMAT_VERSION}: upgrade it"
        )
    try:
        description = _Description.model_validate(content)
        integrator = {
            name.removeprefix(_INTEGRATOR): arrays.pop(name) for name in [*arrays] if name.startswith(_INTEGRATOR)
        }
        _check_arrays(arrays, integrator)
    except ValidationError as error:
        raise ValueError(f"{path}: {first_mistake(error)}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Restart(
        step=description.step,
        settings=description.settings,
        random_state=description.random_state.model_dump(),
        trajectory=description.trajectory.model_dump(),
        integrator=integrator,
        **arrays,
    )


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an archive; ValueError if they claim more memory than the file has bytes."""
    whole = path.read_bytes()
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = archive.infolist()
        # np.savez compresses nothing, so that 4 MB cannot become 4 GB; overlapping members would multiply a size
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it holds compressed arrays")
        if len({member.filename for member in members}) < len(members):
            raise ValueError("an array occurs twice")
        if len(members) > _MOST_MEMBERS:
            raise ValueError(f"it holds {len(members)} arrays, a restart file at most {_MOST_MEMBERS}")
        if sum(member.file_size for member in members) > len(whole):
            raise ValueError("its arrays are larger than the file")
        for member in members:
            content = io.BytesIO(archive.read(member))  # to the end, where zipfile compares the check sum
            _check_array_size(content, member)
            arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(content, allow_pickle=False)
    return arrays


def _check_array_size(content: io.BytesIO, member: zipfile.ZipInfo) -> None:
    """Check that shape and type in the header of an array fit its size, before NumPy allocates the array."""
    if np.lib.format.read_magic(content) != (1, 0):  # later versions have headers of more than 64 KiB
        raise ValueError(f"the array {member.filename} has an unknown version")
    shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != member.file_size - content.tell():
        raise ValueError(f"the array {member.filename} does not fit its header")
    content.seek(0)


def _check_arrays(arrays: dict[str, np.ndarray], integrator: dict[str, np.ndarray]) -> None:
    """Check names, shapes and types of all arrays, and that all numbers are finite."""
    n_atoms = arrays["numbers"].size if "numbers" in arrays else 0
    expected = {
        "numbers": ((n_atoms,), "iu"),
        "positions": ((n_atoms, 3), "f"),
        "momenta": ((n_atoms, 3), "f"),
        "cell": ((3, 3), "f"),
        "pbc": ((3,), "b"),
    }
    for name, (shape, kinds) in expected.items():
        if name not in arrays:
            raise ValueError(f"the array {name} is missing")
        array = arrays[name]
        if array.shape != shape or array.dtype.kind not in kinds or not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers of shape {shape}, got {array.dtype} {array.shape}")
    if surplus := sorted(arrays.keys() - expected.keys()):
        raise ValueError(f"unknown array {surplus[0]!r:.50}")
    for name, array in integrator.items():
        if name not in INTEGRATOR_STATE:
            raise ValueError(f"{name!r:.50} is no variable of an integrator")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{_INTEGRATOR}{name}: expected finite numbers, got {array.dtype} {array.shape}")


def integrator_state(integrator: MolecularDynamics) -> dict[str, np.ndarray]:
    """Return the variables of thermostat and barostat by dotted name; other integrators have none."""
    state = {}
    for name in INTEGRATOR_STATE:
        value: Any = integrator
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is not None:
            state[name] = np.array(value)
    return state


def restore_integrator(integrator: MolecularDynamics, state: dict[str, np.ndarray]) -> None:
    """Set the variables that `integrator_state` returned; ValueError if they do not fit the integrator."""
    present = integrator_state(integrator)
    if state.keys() != present.keys():
        different = ", ".join(sorted(state.keys() ^ present.keys()))
        raise ValueError(
            f"the restart file belongs to another integrator than {type(integrator).__name__}: {different}"
        )
    for name, value in state.items():
        if value.shape != present[name].shape:
            raise ValueError(
                f"{name} of the restart file has shape {value.shape}, the integrator {present[name].shape}"
            )
    for name, value in state.items():
        *owners, attribute = name.split(".")
        owner: Any = integrator
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, attribute, value.copy() if value.ndim else float(value))

"""Reading and writing of frames: files in any format of ASE and folders of DeePMD-kit, with their origin."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.formats import UnknownFileTypeError, filetype
from ase.utils import string2index

from lrc_ase.dataset.deepmd import deepmd_files, is_deepmd_folder, iterate_deepmd
from lrc_ase.dataset.label_values import DETECTED_KEYS
from lrc_ase.dataset.paths import matching_files
from lrc_ase.files.counted import counted
from lrc_ase.structures.charge import charge_entries, total_charge

__all__ = ["CONVERSION", "SOURCE_KEY", "is_of_cp2k", "iterate_frames", "read_frames", "source_files", "write_frames"]

SOURCE_KEY = "lrc_ase_source"
"""Entry of `Atoms.info` in which `read_frames` stores the origin of a frame as ASE writes it: file@frame."""
CONVERSION = (
    "The program dpdata (pip install dpdata) reads more: `dpdata {path} -i cp2k/output -o deepmd/npy -O frames` "
    "converts output of CP2K, `-i cp2k/aimd_output` the folder of a CP2K trajectory, `-i qe/cp/traj` that of cp.x "
    "(`md` for md.pos, md.for, ...); then name the folder frames"
)
"""Advice for files that ASE does not read."""
_OF_STRUCTURES = frozenset(DETECTED_KEYS["stress"] + DETECTED_KEYS["virial"]).union(
    DETECTED_KEYS["dipole"] + DETECTED_KEYS["polarizability"]
)
"""Names of labels of whole structures, whose length may equal the number of atoms."""
_SHOWN = 5
"""Largest number of files that a message names."""
_PEEKED = 1 << 16
"""Bytes of a file in which the program that wrote it is looked for."""


def read_frames(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Atoms]:
    """Read structures from files in any format of ASE, or from folders of DeePMD-kit.

    A path may hold wildcards (``run*/frames.traj``) and end in ASE's slice (``frames.traj@::10``, ``@-1``); without a
    slice all frames are read. The origin of each frame is stored in ``atoms.info["lrc_ase_source"]``. Key-value pairs
    and data of an ASE database are stored in `Atoms.info` and `Atoms.arrays`.

    Raises
    ------
    ValueError
        Files cannot be read, or hold no frame of their slice; the message says why the first cannot, and names others.
    """
    entries = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    frames: list[Atoms] = []
    failures: dict[str, ValueError] = {}
    for path, index in (file for entry in entries for file in matching_files(os.fspath(entry))):
        try:
            frames += iterate_frames(path, index)
        except ValueError as error:  # of several hundred calculations a few are often unfinished: name them at once
            failures[path] = error
    if failures:
        first, *others = failures
        if not others:
            raise failures[first]
        names = ", ".join(others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else "")
        raise ValueError(f"{failures[first]}. {counted(len(others), 'file')} more cannot be read: {names}")
    return frames


def write_frames(path: str | os.PathLike[str], frames: Sequence[Atoms]) -> None:
    """Write frames to a file in the format of ASE that its suffix names.

    Extended XYZ and ASE's trajectories keep total charges. ASE's databases keep no `Atoms.info`; total charges become
    key-value pairs `total_charge`. Other formats lose total charges, with a warning. Tensors of atoms, such as Born
    effective charges, become rows of numbers in extended XYZ.
    """
    target = Path(path)
    if target.suffix in (".db", ".json"):
        with ase.db.connect(target, append=False) as database:
            for atoms in frames:
                database.write(atoms, {"total_charge": total_charge(atoms)} if charge_entries(atoms) else {})
        return
    if target.suffix not in (".extxyz", ".xyz", ".traj") and any(total_charge(atoms) for atoms in frames):
        warnings.warn(f"{target}: this format keeps no total charge of a frame; write .extxyz or .traj", stacklevel=2)
    ase.io.write(
        target, [_in_rows(atoms) for atoms in frames] if target.suffix in (".extxyz", ".xyz") else list(frames)
    )


def _in_rows(atoms: Atoms) -> Atoms:
    """Return the atoms with arrays and results of shape (n_atoms, a, b) as (n_atoms, a b), which ASE can write."""
    n_atoms = len(atoms)
    results = {} if atoms.calc is None else atoms.calc.results
    entries = {**results, **atoms.arrays}
    if not any(np.ndim(value) > 2 and len(value) == n_atoms for value in entries.values()):
        return atoms
    written = atoms.copy()
    for name, value in entries.items():
        rows = np.reshape(value, (n_atoms, -1)) if np.ndim(value) > 2 and len(value) == n_atoms else value
        if name in results:
            results = {**results, name: rows}
        else:
            written.arrays[name] = rows
    if results:
        written.calc = SinglePointCalculator(written)
        written.calc.results = dict(results)
    return written


def iterate_frames(path: str, index: str) -> Iterator[Atoms]:
    """Yield the structures of one file one by one, without holding all of them in memory if the format allows it.

    `index` is ASE's slice as a text, or a query of an ASE database.

    Raises
    ------
    ValueError
        The file cannot be read, or holds no frame of that slice.
    """
    selection = string2index(index)
    if isinstance(selection, int):
        selection = slice(selection, selection + 1 or None)
    frames = _numbered(path, selection)
    empty = True
    while True:
        try:
            numbered = next(frames, None)
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # readers of ASE raise whatever their parser meets
            raise _named(error, path) from error
        if numbered is None:
            break
        empty = False
        number, atoms = numbered
        atoms.info[SOURCE_KEY] = f"{path}@{number}"
        yield atoms
    if empty:
        raise ValueError(f"{path}@{index} holds no frame" + (_advice(path) if _is_cp2k(path) else ""))


def source_files(path: str) -> list[Path]:
    """Return the files that `iterate_frames` reads for a path of `matching_files`."""
    return deepmd_files(path) if is_deepmd_folder(path) else [Path(path)]


def _numbered(path: str, selection: slice | str) -> Iterator[tuple[int, Atoms]]:
    """Yield the selected frames with their numbers in the file."""
    if isinstance(selection, str):
        yield from enumerate(_frames(path, selection))
    elif min(selection.start or 0, selection.stop or 0, selection.step or 1) >= 0:
        yield from zip(count(selection.start or 0, selection.step or 1), _frames(path, selection), strict=False)
    else:  # from the end or backwards: all frames first
        frames = list(_frames(path, slice(None)))
        yield from ((number, frames[number]) for number in range(len(frames))[selection])


def _frames(path: str, selection: slice | str) -> Iterator[Atoms]:
    """Yield the selected frames of a file of any kind."""
    if is_deepmd_folder(path):
        frames = iterate_deepmd(path)
    elif path.endswith((".db", ".json")) and filetype(path) in ("db", "json"):
        frames = _rows(path, selection if isinstance(selection, str) else None)
    else:
        return iter(ase.io.iread(path, selection, do_not_split_by_at_sign=True))
    if isinstance(selection, str):
        return frames
    return islice(frames, selection.start, selection.stop, selection.step)


def _rows(path: str, query: str | None) -> Iterator[Atoms]:
    """Yield the rows of an ASE database, with key-value pairs and data, which `ase.io` leaves out.

    Files of this format keep no `Atoms.info`; a total charge or another name of a label can stand there alone.
    """
    with ase.db.connect(path, serial=True) as database:
        for row in database.select(query):
            atoms = row.toatoms()
            for name, value in {**row.key_value_pairs, **row.data}.items():
                of_atoms = np.shape(value)[:1] == (len(atoms),) and name not in _OF_STRUCTURES
                if of_atoms and name not in atoms.arrays:
                    atoms.set_array(name, np.asarray(value))
                else:
                    atoms.info[name] = value
            yield atoms


def _named(error: Exception, path: str) -> ValueError:
    """Return an error that names the file and the remedy, if one is known."""
    if is_deepmd_folder(path) and isinstance(error, ValueError):
        return error
    if isinstance(error, KeyError) and re.fullmatch("[A-Z][a-z]?", str(error.args[0])):
        return ValueError(
            f"{path} holds atoms of '{error.args[0]}', which is no element to ASE; isotopes such as D are written as "
            "their element, since energies do not depend on masses"
        )
    advised = isinstance(error, UnknownFileTypeError) or _is_cp2k(path)
    return ValueError(f"ASE cannot read {path}: {type(error).__name__}: {error}" + (_advice(path) if advised else ""))


def _advice(path: str) -> str:
    """Return the sentence on the conversion of files that ASE does not read."""
    return f". {CONVERSION.format(path=path)}"


def is_of_cp2k(atoms: Atoms) -> bool:
    """Return True for a frame of a trajectory of CP2K, whose comment has an energy in Hartree and no forces."""
    return {"i", "time", "E"} <= set(atoms.info)


def _is_cp2k(path: str) -> bool:
    """Return True for output of CP2K, which ASE takes for a file of another program."""
    if is_deepmd_folder(path):
        return False
    with open(path, "rb") as file:
        return b"CP2K|" in file.read(_PEEKED)

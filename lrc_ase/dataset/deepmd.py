"""Folders of DeePMD-kit: `type.raw`, `type_map.raw` and, per set, NumPy arrays of coordinates and labels.

Folders before their division into sets hold the same arrays as text, `coord.raw` and its like, a frame per line.

Format: https://docs.deepmodeling.com/projects/deepmd/en/stable/data/system.html (units eV and Angstrom; the virial is
the negative derivative of the energy by the strain, so that stress = -virial / volume).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

__all__ = ["deepmd_files", "is_deepmd_folder", "iterate_deepmd"]

_ARRAYS = ("coord", "box", "energy", "force", "virial", "real_atom_types")
"""Arrays of a set that are read; only `coord` is required."""


def is_deepmd_folder(path: str | Path) -> bool:
    """Return True for a folder that holds `type.raw`."""
    return (Path(path) / "type.raw").is_file()


def deepmd_files(folder: str | Path) -> list[Path]:
    """Return all files of a folder that `iterate_deepmd` reads, in a fixed order."""
    root = Path(folder)
    named = [root / name for name in ("type.raw", "type_map.raw", "nopbc")]
    named += [each / f"{name}{_suffix(each, root)}" for each in _sets(root) for name in _ARRAYS]
    return [path for path in named if path.is_file()]


def iterate_deepmd(folder: str | Path) -> Iterator[Atoms]:
    """Yield the frames of a folder, set after set, with energies, forces and virials where the folder has them.

    Raises
    ------
    ValueError
        A file is missing, is no plain NumPy array, or has a shape that does not fit the others.
    """
    root = Path(folder)
    types = _types(root)
    symbols = _symbols(root)
    sets = _sets(root)
    if not sets:
        raise ValueError(
            f"{root}: a folder of DeePMD-kit needs folders set.000, set.001, ... with coord.npy, or coord.raw beside "
            "type.raw"
        )
    for each in sets:
        yield from _frames(each, _suffix(each, root), types, symbols, periodic=not (root / "nopbc").exists())


def _sets(root: Path) -> list[Path]:
    """Return the folders of sets in alphabetical order; the folder itself where it holds text alone."""
    sets = sorted(path for path in root.glob("set.*") if path.is_dir())
    return sets or ([root] if (root / "coord.raw").is_file() else [])


def _suffix(folder: Path, root: Path) -> str:
    """Return the suffix of the arrays of a set."""
    return ".raw" if folder == root else ".npy"


def _frames(folder: Path, suffix: str, types: np.ndarray, symbols: np.ndarray, *, periodic: bool) -> Iterator[Atoms]:
    """Yield the frames of one set."""
    n = len(types)
    widths = {"coord": 3 * n, "box": 9, "energy": 1, "force": 3 * n, "virial": 9, "real_atom_types": n}
    paths = {name: folder / f"{name}{suffix}" for name in _ARRAYS}
    arrays = {name: _array(path, widths[name]) for name, path in paths.items() if path.exists()}
    known = {"type.raw", "type_map.raw", *(path.name for path in paths.values())}
    if unread := sorted({path.name for path in folder.glob(f"*{suffix}")} - known):
        warnings.warn(f"{folder}: {', '.join(unread)} not read; a total charge belongs into `Atoms.info`", stacklevel=2)
    if "coord" not in arrays:
        raise ValueError(f"{folder}: coord{suffix} is missing")
    if periodic and "box" not in arrays:
        raise ValueError(f"{folder}: box{suffix} is missing; an empty file `nopbc` beside type.raw means no cell")
    n_frames = len(arrays["coord"])
    for name, array in arrays.items():
        if len(array) != n_frames:
            raise ValueError(f"{folder}: coord{suffix} holds {n_frames} frames but {name}{suffix} {len(array)}")
    for index in range(n_frames):
        frame = {name: np.array(array[index], dtype=np.float64) for name, array in arrays.items()}
        of_atoms = types if "real_atom_types" not in frame else frame["real_atom_types"].astype(int)
        real = of_atoms >= 0  # frames of mixed size are filled up by atoms of type -1
        if of_atoms.max(initial=0) >= len(symbols):
            raise ValueError(f"{folder}: type {of_atoms.max()} has no element: type_map.raw names {len(symbols)}")
        atoms = Atoms(symbols[of_atoms[real]], positions=frame["coord"].reshape(-1, 3)[real], pbc=periodic)
        if periodic:
            atoms.cell = frame["box"].reshape(3, 3)
            if "virial" in frame:
                atoms.info["virial"] = frame["virial"].reshape(3, 3)
        results = {"energy": float(frame["energy"][0])} if "energy" in frame else {}
        forces = {"forces": frame["force"].reshape(-1, 3)[real]} if "force" in frame else {}
        if results or forces:
            atoms.calc = SinglePointCalculator(atoms, **results, **forces)
        yield atoms


def _types(root: Path) -> np.ndarray:
    """Return the type of each atom, (n_atoms,)."""
    words = (root / "type.raw").read_text(encoding="utf-8").split()
    if not words or not all(word.isdecimal() for word in words):
        raise ValueError(f"{root / 'type.raw'} must hold the type of each atom, numbers from 0 on")
    return np.array(words, dtype=int)


def _symbols(root: Path) -> np.ndarray:
    """Return the element of each type, (n_types,)."""
    path = root / "type_map.raw"
    if not path.is_file():
        raise ValueError(f"{path} is missing: write the element of each type into it, one a line")
    symbols = path.read_text(encoding="utf-8").split()
    if unknown := [symbol for symbol in symbols if not atomic_numbers.get(symbol)]:
        raise ValueError(f"{path}: {unknown} are no elements")
    return np.array(symbols)


def _array(path: Path, width: int) -> np.ndarray:
    """Map an array into memory as (n_frames, width), or read it from text; ValueError for one that does not fit."""
    if path.suffix == ".raw":
        try:
            return _text_array(path, width)
        except ValueError as error:
            raise ValueError(f"{path} must have {width} numbers per line and frame: {error}") from error
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OverflowError, SyntaxError) as error:
        raise ValueError(f"{path} is no plain NumPy array: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError(f"{path} must hold an array of numbers")
    if array.ndim == 0 or array.size != len(array) * width:
        raise ValueError(f"{path} must have {width} numbers per frame, got shape {list(array.shape)}")
    return array.reshape(-1, width)


def _text_array(path: Path, width: int) -> np.ndarray:
    """Return the numbers of a text file, (n_frames, width)."""
    array = np.loadtxt(path, ndmin=2, encoding="utf-8")
    if array.shape[1] != width:
        raise ValueError(f"got {array.shape[1]}")
    return array

"""Labels on disk: one extended XYZ file that grows by a frame at a time and survives being killed."""

from __future__ import annotations

import io
import math
import os
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import output_column_format
from ase.stress import voigt_6_to_full_3x3_stress

from lrc_ase.files.atomic import write_atomically
from lrc_ase.files.lock import exclusive_use
from lrc_ase.learning.teacher import described
from lrc_ase.structures.charge import total_charge

__all__ = ["LabelStore", "exact_extxyz"]

_SAME = 1e-6
"""Difference of positions and cell vectors up to which two structures are the same one, Angstrom."""
_NEEDED = ("energy", "forces")
_KEPT = ("energy", "free_energy", "forces", "stress", "dipole")


class LabelStore:
    """Keep labelled frames in an extended XYZ file, each on disk when `add` returns and none of them twice.

    Numbers are written with all their bits. A process that is killed while it writes leaves at most one incomplete
    frame at the end. It is moved to ``NAME.incomplete`` when the file is opened next.

    Parameters
    ----------
    path
        The file; it is created with the first label. Another process that holds it is an error.

    Raises
    ------
    InUseError
        Another store has the file open.
    ValueError
        The file is no extended XYZ file with energies and forces, or is damaged before its last frame.

    Warns
    -----
    UserWarning
        The last frame was incomplete.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._stack = ExitStack()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stack.enter_context(exclusive_use(self.path.with_name(f"{self.path.name}.lock"), str(self.path)))
        self._frames: list[Atoms] = []
        self._in_bucket: dict[_Bucket, list[int]] = {}
        try:
            for atoms in self._read():
                self._remember(atoms)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._stack.close()

    def __len__(self) -> int:
        return len(self._frames)

    def __contains__(self, atoms: Atoms) -> bool:
        return self._index(atoms) is not None

    def frames(self) -> list[Atoms]:
        """Return copies of all frames with their labels, in the order in which they were added."""
        return [_copy(atoms) for atoms in self._frames]

    def get(self, atoms: Atoms) -> Atoms | None:
        """Return the labelled frame of the geometry of `atoms`; None if there is none.

        Two geometries are the same if their elements and periodic directions agree, their total charges to 1e-6 e and
        positions and cell vectors to 1e-6 Angstrom.
        """
        index = self._index(atoms)
        return None if index is None else _copy(self._frames[index])

    def add(self, atoms: Atoms, **info: Any) -> bool:
        """Append a frame with the labels of its calculator, and wait until it is on disk.

        Parameters
        ----------
        atoms
            Structure whose calculator holds `energy` and `forces`, and `stress`, `dipole` or `free_energy`. They are
            read, not computed.
        **info
            Entries of `Atoms.info` to store with the frame.

        Returns
        -------
        bool
            False if the geometry is stored already; nothing is written then.

        Raises
        ------
        ValueError
            Energy or forces are missing, a label is not finite, or an entry of `Atoms.info` or an array cannot be
            written.
        """
        frame = _labelled(atoms, info)
        if frame in self:
            return False
        text = exact_extxyz(frame)
        kept = _read_back(text, frame)
        is_first = not self.path.exists()
        size = 0 if is_first else self.path.stat().st_size
        try:
            with self.path.open("ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            # on a full disk a part is written: the next frame must not follow half of this one
            if self.path.exists():
                os.truncate(self.path, size)
            raise
        if is_first:
            _synchronize_folder(self.path.parent)
        self._remember(kept)
        return True

    def _index(self, atoms: Atoms) -> int | None:
        charge = total_charge(atoms)
        for index in (index for bucket in _buckets(atoms) for index in self._in_bucket.get(bucket, ())):
            stored = self._frames[index]
            if (
                np.abs(stored.positions - atoms.positions).max(initial=0.0) <= _SAME
                and np.abs(stored.cell.array - atoms.cell.array).max() <= _SAME
                and abs(total_charge(stored) - charge) <= _SAME
            ):
                return index
        return None

    def _remember(self, atoms: Atoms) -> None:
        if atoms in self:
            raise ValueError(f"{self.path} holds one geometry twice: was it merged by hand? remove one of them")
        self._in_bucket.setdefault(_buckets(atoms)[0], []).append(len(self._frames))
        self._frames.append(atoms)

    def _read(self) -> list[Atoms]:
        """Read the frames; move an incomplete last one aside."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        frames: list[Atoms] = []
        start = 0
        while start < len(content):
            end = _end_of_frame(content, start)
            if end is None and _is_cut(content[start:]):
                self._move_aside(content[start:])
                os.truncate(self.path, start)
                break
            try:
                frames.append(_parsed(content[start:end].decode()))
            except Exception as error:  # readers of ASE raise whatever their parser meets
                raise ValueError(
                    f"{self.path}: frame {len(frames)}, at byte {start}, cannot be read ({described(error)}): repair "
                    "or remove it"
                ) from error
            start = len(content) if end is None else end
        return frames

    def _move_aside(self, remainder: bytes) -> None:
        aside = self.path.with_name(f"{self.path.name}.incomplete")
        write_atomically(aside, remainder)
        warnings.warn(
            f"{self.path}: the last frame is incomplete, as after a crash; moved to {aside.name}, its label counts as "
            "not computed",
            stacklevel=4,
        )


def exact_extxyz(atoms: Atoms) -> str:
    """Return a frame in extended XYZ, numbers with all their bits; ASE's own writer keeps eight decimals.

    Results of the calculator are columns and entries under their own names.
    """
    frame = atoms.copy()
    frame.set_constraint()
    results = {} if atoms.calc is None else atoms.calc.results
    for name, value in results.items():
        if name == "forces":
            frame.arrays[name] = np.asarray(value)
        else:
            frame.info[name] = voigt_6_to_full_3x3_stress(value) if name == "stress" else value
    columns = ["symbols", "positions", *(name for name in frame.arrays if name not in ("numbers", "positions"))]
    arrays = {**frame.arrays, "symbols": np.array(list(frame.symbols))}
    comment = output_column_format(frame, columns, arrays)[0]
    rows = zip(*(_texts(arrays[name]) for name in columns), strict=True)
    return "\n".join([str(len(frame)), comment, *(" ".join(row) for row in rows)]) + "\n"


def _texts(array: np.ndarray) -> list[str]:
    """Return the text of each row of a column, the shortest that reads back as the same number."""
    return [" ".join(_text(value) for value in np.ravel(row)) for row in array]


def _text(value: Any) -> str:
    if isinstance(value, np.bool_):
        return "T" if value else "F"
    return repr(float(value)) if isinstance(value, np.floating) else str(value)


def _parsed(text: str) -> Atoms:
    """Read one frame."""
    atoms = ase.io.read(io.StringIO(text), format="extxyz")
    assert isinstance(atoms, Atoms)
    missing = [name for name in _NEEDED if atoms.calc is None or name not in atoms.calc.results]
    if missing:
        raise ValueError(f"it has no {' and no '.join(missing)}")
    return atoms


def _labelled(atoms: Atoms, info: dict[str, Any]) -> Atoms:
    """Return the frame that is written: bare structure, labels, and entries of `Atoms.info`."""
    results = {} if atoms.calc is None else atoms.calc.results
    missing = [name for name in _NEEDED if results.get(name) is None]
    if missing:
        raise ValueError(
            f"a labelled frame needs energy and forces in its calculator's results, {missing[0]} is missing"
        )
    frame = atoms.copy()
    frame.set_constraint()
    # results of another calculation, which a reader of the file would take for labels of this one
    for name in set(frame.arrays) & set(all_properties):
        del frame.arrays[name]
    entries = {name: value for name, value in atoms.info.items() if name not in all_properties} | info
    # a comment line has no room for line ends
    frame.info = {name: " ".join(value.split()) if isinstance(value, str) else value for name, value in entries.items()}
    labels = {name: np.array(results[name], dtype=float) for name in _KEPT if results.get(name) is not None}
    for name, value in {**labels, "positions": atoms.positions, "cell": atoms.cell.array}.items():
        if not np.isfinite(value).all():
            raise ValueError(f"a labelled frame must be finite, its {name} is not")
    frame.calc = SinglePointCalculator(
        frame, **{name: value if value.ndim else float(value) for name, value in labels.items()}
    )
    return frame


def _read_back(text: str, written: Atoms) -> Atoms:
    """Return the frame as it will be read; ValueError if a bit of structure or labels changes."""
    try:
        read = _parsed(text)
    except Exception as error:  # readers of ASE raise whatever their parser meets
        raise _Unwritable(written) from error
    results = read.calc.results
    agrees = (
        np.array_equal(read.numbers, written.numbers)
        and np.array_equal(read.positions, written.positions)
        and np.array_equal(read.cell.array, written.cell.array)
        and np.array_equal(read.pbc, written.pbc)
        and total_charge(read) == total_charge(written)
        and results.keys() == written.calc.results.keys()
        and all(np.array_equal(results[name], value) for name, value in written.calc.results.items())
    )
    if not agrees:
        raise _Unwritable(written)
    return read


class _Unwritable(ValueError):
    """Error about a frame that would be read back as another one."""

    def __init__(self, frame: Atoms) -> None:
        super().__init__(
            "extended XYZ cannot hold this frame: an entry of `Atoms.info` or an array is read back as something else; "
            f"its entries are {', '.join(sorted(map(str, frame.info))) or 'none'}"
        )


def _copy(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(copy, **atoms.calc.results)
    return copy


_Bucket = tuple[bytes, bytes, int]


def _buckets(atoms: Atoms) -> list[_Bucket]:
    """Return the bucket of a geometry, and its neighbors, in which the same geometry may lie after rounding.

    A weighted mean of all coordinates, with fixed weights in [-1, 1], numbers the buckets. It differs by no more than
    the coordinates do: geometries that agree to `_SAME` lie in one bucket or in neighbors.
    """
    weights = np.random.default_rng(len(atoms)).uniform(-1, 1, 3 * len(atoms))
    number = math.floor(float(weights @ atoms.positions.ravel()) / max(3 * len(atoms), 1) / (2 * _SAME))
    kind = atoms.numbers.astype(np.int64).tobytes(), atoms.pbc.tobytes()
    return [(*kind, number), (*kind, number - 1), (*kind, number + 1)]


def _end_of_frame(content: bytes, start: int) -> int | None:
    """Return the byte behind the frame that begins at `start`; None if the content ends before it does."""
    end = content.find(b"\n", start) + 1
    number = content[start : end - 1].strip()
    if end == 0 or not number.isdigit():
        return None
    for _ in range(int(number) + 1):
        end = content.find(b"\n", end) + 1
        if end == 0:
            return None
    return end


def _is_cut(remainder: bytes) -> bool:
    """Return True if bytes without the end of a frame are the beginning of one, followed by zeros or nothing.

    A damaged frame in the middle of a file is not: others follow it.
    """
    first = remainder.rstrip(b"\0").split(b"\n")[0]
    return (first.isdigit() or not first) and remainder.count(b"Properties=") < 2


def _synchronize_folder(folder: Path) -> None:
    """Wait until the name of a new file is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

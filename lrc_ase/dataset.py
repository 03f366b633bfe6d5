"""Labelled structures: from files that ASE reads to batches that a model learns from."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from ase.io.formats import string2index
from ase.stress import voigt_6_to_full_3x3_stress
from torch import Tensor

from lrc_ase.graph import Graph, collate
from lrc_ase.neighbors import neighbor_graph
from lrc_ase.settings import Settings

__all__ = [
    "SOURCE_KEY",
    "Atoms",
    "Label",
    "LabelKeys",
    "LabelledFrame",
    "LabelledGraph",
    "batch_indices",
    "collate_labelled",
    "elements_of",
    "force_rms",
    "label_frame",
    "labelled_graph",
    "read_frames",
    "split_indices",
]

SOURCE_KEY = "lrc_ase_source"
"""Where `read_frames` notes in `Atoms.info` which frame of which file an `Atoms` was, as ASE writes it: file@frame."""

Label = Literal["energy", "forces", "stress"]
DETECTED_KEYS: dict[Label, tuple[str, ...]] = {
    "energy": ("energy", "REF_energy", "ref_energy", "dft_energy", "DFT_energy"),
    "forces": ("forces", "REF_forces", "ref_forces", "dft_forces", "DFT_forces", "force"),
    "stress": ("stress", "REF_stress", "ref_stress", "dft_stress", "DFT_stress"),
}
"""Names under which labels are looked for when the user gives none."""


class LabelKeys(Settings):
    """Where the labels of a frame stand. None: looked for (see `label_frame`)."""

    energy: str | None = None
    """Key of the total energy, eV, in the results of the frame's calculator or in `Atoms.info`."""
    forces: str | None = None
    """Key of the forces, eV/Angstrom, in the results of the frame's calculator or in `Atoms.arrays`."""
    stress: str | None = None
    """Key of the stress, eV/Angstrom^3, positive in tension, in the calculator's results or in `Atoms.info`."""


@dataclass(frozen=True)
class LabelledFrame:
    """An `Atoms` with its labels, in float64."""

    atoms: Atoms
    energy: float
    """Total energy, eV; NaN without label."""
    forces: np.ndarray
    """eV/Angstrom, (n_atoms, 3); NaN without label. As stored: constraints do not zero them."""
    stress: np.ndarray
    """eV/Angstrom^3, (3, 3), positive in tension; NaN without label or where not all directions are periodic."""
    name: str
    """How messages call the frame."""
    weight: float = 1.0
    """Multiplies the frame's part of the loss."""


@dataclass(frozen=True)
class LabelledGraph:
    """One structure or a batch of several, with labels in float64."""

    graph: Graph
    energy: Tensor
    """Energy without element references in eV, (n_structures,); NaN without label."""
    forces: Tensor
    """eV/Angstrom, (n_atoms, 3); NaN without label."""
    stress: Tensor
    """eV/Angstrom^3, (n_structures, 3, 3); NaN without label."""
    weight: Tensor
    """Weight of each structure in the loss, (n_structures,)."""

    def to(self, device: torch.device | str) -> LabelledGraph:
        """Move to `device`."""
        return LabelledGraph(
            self.graph.to(device),
            self.energy.to(device),
            self.forces.to(device),
            self.stress.to(device),
            self.weight.to(device),
        )


def read_frames(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Atoms]:
    """Read structures from files in any format of ASE.

    A path may hold wildcards (``run*/frames.traj``) and end in ASE's slice (``frames.traj@::10``, ``@-1``); without a
    slice all frames are read. The origin of each frame is noted in ``atoms.info["lrc_ase_source"]``.
    """
    frames: list[Atoms] = []
    for entry in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        for path, index in _expand(os.fspath(entry)):
            frames.extend(_read_file(path, index))
    return frames


def label_frame(
    atoms: Atoms,
    keys: LabelKeys | None = None,
    *,
    required: Sequence[Label] = ("energy", "forces"),
    weight: float = 1.0,
    name: str | None = None,
) -> LabelledFrame:
    """Collect the labels of a frame.

    Without a key of the user, a label is looked for among the results of the frame's calculator and then in
    `Atoms.info` (energy, stress) or `Atoms.arrays` (forces), under the names of `DETECTED_KEYS`. Two different values
    under two of these names are an error: only the user knows which is meant.

    Raises
    ------
    ValueError
        A required label is absent, has another shape than expected, or is not finite.
    """
    keys = keys or LabelKeys()
    name = name or atoms.info.get(SOURCE_KEY, "the frame")
    values = {}
    shapes: dict[Label, tuple[int, ...]] = {"energy": (), "forces": (len(atoms), 3), "stress": (3, 3)}
    for label, shape in shapes.items():
        value = _find_label(atoms, label, getattr(keys, label), required=label in required, name=name)
        if value is None:
            values[label] = np.full(shape, np.nan)
            continue
        value = np.asarray(value, dtype=np.float64)
        if label == "stress" and value.shape == (6,):
            value = voigt_6_to_full_3x3_stress(value)
        if value.size != np.prod(shape):
            raise ValueError(f"{name}: {label} must have shape {list(shape)}, got {list(value.shape)}")
        if label in required and not np.isfinite(value).all():
            raise ValueError(f"{name}: {label} is not finite; remove the frame or repair its label")
        values[label] = value.reshape(shape)
    if not atoms.pbc.all():
        values["stress"] = np.full((3, 3), np.nan)
    return LabelledFrame(atoms, float(values["energy"]), values["forces"], values["stress"], name, weight)


def labelled_graph(
    frame: LabelledFrame,
    elements: Sequence[str],
    cutoff: float,
    references: Tensor,
) -> LabelledGraph:
    """Graph and labels of a frame, in float64; the element `references` (n_elements,) in eV are subtracted."""
    try:
        graph = neighbor_graph(frame.atoms, elements, cutoff)
    except ValueError as error:
        raise ValueError(f"{frame.name}: {error}") from error
    energy = torch.tensor([frame.energy], dtype=torch.float64) - references.to(torch.float64)[graph.species].sum()
    return LabelledGraph(
        graph,
        energy,
        torch.tensor(frame.forces, dtype=torch.float64),
        torch.tensor(frame.stress, dtype=torch.float64)[None],
        torch.tensor([frame.weight], dtype=torch.float64),
    )


def collate_labelled(graphs: Sequence[LabelledGraph]) -> LabelledGraph:
    """Join labelled graphs into one batch."""
    return LabelledGraph(
        collate([item.graph for item in graphs]),
        torch.cat([item.energy for item in graphs]),
        torch.cat([item.forces for item in graphs]),
        torch.cat([item.stress for item in graphs]),
        torch.cat([item.weight for item in graphs]),
    )


def elements_of(frames: Sequence[Atoms]) -> tuple[str, ...]:
    """Chemical symbols that occur, by atomic number."""
    numbers = sorted({int(number) for atoms in frames for number in atoms.numbers})
    return tuple(chemical_symbols[number] for number in numbers)


def force_rms(frames: Sequence[LabelledFrame]) -> float:
    """Root mean square of the labelled force components, eV/Angstrom."""
    forces = np.concatenate([frame.forces.ravel() for frame in frames])
    forces = forces[np.isfinite(forces)]
    return float(np.sqrt(np.mean(forces**2))) if forces.size else 0.0


def split_indices(n_frames: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Divide frames at random into training and validation, `fraction` of them (at least one, if any) for validation.

    >>> split_indices(5, 0.4, seed=0)
    ([0, 1, 3], [2, 4])
    """
    n_validation = min(max(round(fraction * n_frames), 1), n_frames - 1) if fraction > 0 and n_frames > 1 else 0
    order = np.random.default_rng([seed, 0x5B11]).permutation(n_frames)
    return sorted(order[n_validation:].tolist()), sorted(order[:n_validation].tolist())


def batch_indices(n_frames: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Frames of each batch of an epoch, in an order that depends on `seed` and `epoch` alone."""
    order = np.random.default_rng([seed, epoch]).permutation(n_frames).tolist()
    return [order[start : start + batch_size] for start in range(0, n_frames, batch_size)]


def _expand(entry: str) -> Iterator[tuple[str, str]]:
    """Files and slice that a path of the user stands for."""
    path, index = entry, ":"
    if not Path(entry).exists() and "@" in entry:
        path, _, index = entry.rpartition("@")
    matches = [path] if Path(path).is_file() else sorted(glob.glob(path, recursive=True))
    if not matches:
        raise FileNotFoundError(f"no file matches {path!r}")
    for match in matches:
        yield match, index


def _read_file(path: str, index: str) -> list[Atoms]:
    selection = string2index(index)
    if isinstance(selection, int):
        selection = slice(selection, selection + 1 or None)
    ahead = isinstance(selection, slice) and min(selection.start or 0, selection.stop or 0, selection.step or 1) >= 0
    try:
        # a slice counted from the end, or backwards, needs all frames to know each one's number
        wanted = selection if ahead or isinstance(selection, str) else slice(None)
        frames = cast("list[Atoms]", ase.io.read(path, wanted, do_not_split_by_at_sign=True))
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # readers of ASE raise whatever their parser meets
        raise ValueError(f"ASE cannot read {path}: {type(error).__name__}: {error}") from error
    if isinstance(selection, str):  # a query to an ASE database
        numbers: Sequence[int] = range(len(frames))
    elif ahead:
        numbers = [(selection.start or 0) + (selection.step or 1) * position for position in range(len(frames))]
    else:
        numbers = range(len(frames))[selection]
        frames = frames[selection]
    if not frames:
        raise ValueError(f"{path}@{index} holds no frame")
    for number, atoms in zip(numbers, frames, strict=True):
        atoms.info[SOURCE_KEY] = f"{path}@{number}"
    return frames


def _find_label(atoms: Atoms, label: Label, key: str | None, *, required: bool, name: str) -> Any:
    # raw results: Atoms.get_forces() would zero the forces of constrained atoms
    results = {} if atoms.calc is None else atoms.calc.results
    stored = atoms.arrays if label == "forces" else atoms.info
    places: list[tuple[str, Callable[[str], Any]]] = [
        ("calculator result", results.get),
        ("array" if label == "forces" else "info entry", stored.get),
    ]
    found = [
        (f"{place} '{candidate}'", value)
        for place, get in places
        for candidate in ((key,) if key else DETECTED_KEYS[label])
        if (value := get(candidate)) is not None
    ]
    if not found:
        if not required:
            return None
        known = sorted({*results, *atoms.info, *atoms.arrays} - {SOURCE_KEY, "numbers", "positions"})
        looked = f"under the key '{key}'" if key else f"under any of {list(DETECTED_KEYS[label])}"
        raise ValueError(f"{name} has no {label} {looked}; it holds {known}. Name the right one as the {label} key")
    for other, value in found[1:]:
        if np.shape(value) == np.shape(found[0][1]) and not np.allclose(value, found[0][1], equal_nan=True):
            raise ValueError(f"{name}: {found[0][0]} and {other} differ; say which is meant by the {label} key")
    return found[0][1]

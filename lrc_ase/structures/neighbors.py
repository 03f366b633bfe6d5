"""Graphs of ASE atoms: neighbor lists, reused during dynamics while atoms move less than half a skin."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from torch import Tensor

from lrc_ase.layer.tables import MultiplierTables
from lrc_ase.structures.caller_warnings import warn_caller
from lrc_ase.structures.charge import total_charge
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.rows import with_neighbors
from lrc_ase.structures.skin import Skin

__all__ = [
    "NeighborList",
    "check_structure",
    "complete_cell",
    "graph_without_neighbors",
    "is_continuation",
    "neighbor_graph",
]

_LARGEST_STRAIN = 0.02
"""Largest strain between two searches of one structure; a larger one marks another structure."""
_LARGEST_MOVE = 1.0
"""Largest displacement of an atom relative to its cell between two searches of one structure, Angstrom."""
_MESH_OF_VACUUM = 5_000_000
"""Mesh points, half a second of transforms, from which a cell is looked at for vacuum."""
_POINTS_OF_AN_ATOM = 20_000
"""Mesh points per atom of a cell that is nearly empty; condensed matter has some 10 to 100."""


def complete_cell(cell: np.ndarray, pbc: Sequence[bool]) -> np.ndarray:
    """Return a cell whose vectors in open directions are unit vectors perpendicular to the periodic ones.

    The vectors of open directions carry no information for the model. The user's vectors are replaced, so that vacuum
    around a molecule or slab changes nothing.

    Raises
    ------
    ValueError
        A periodic direction has a zero vector, or the periodic vectors are linearly dependent.
    """
    cell = np.asarray(cell, dtype=float)
    periodic = np.flatnonzero(pbc)
    lengths = np.linalg.norm(cell, axis=1)
    if not np.isfinite(cell).all():
        raise ValueError(f"the cell holds values that are not finite: {cell.tolist()}")
    for axis in periodic:
        if lengths[axis] < 1e-6:
            raise ValueError(
                f"pbc is True along cell vector {axis}, which is zero: give the cell a length there or set pbc to False"
            )
    directions = cell[periodic] / lengths[periodic, None]
    if len(periodic) and np.linalg.svd(directions, compute_uv=False)[-1] < 1e-6:
        raise ValueError(f"the periodic cell vectors are linearly dependent (singular cell): {cell.tolist()}")
    completed = cell.copy()
    missing = [axis for axis in range(3) if not pbc[axis]]
    if missing:
        # the null space of the periodic vectors, oriented so that a complete orthogonal cell stays right-handed
        basis = np.linalg.svd(directions, full_matrices=True)[2][len(periodic) :] if len(periodic) else np.eye(3)
        completed[missing] = basis
        if len(missing) < 3 and np.linalg.det(completed) < 0:
            completed[missing[0]] *= -1
    return completed


def check_structure(atoms: Atoms, elements: Sequence[str]) -> None:
    """Raise a `ValueError` for atoms that a model of these elements cannot evaluate."""
    if len(atoms) == 0:
        raise ValueError("`atoms` is empty: a structure needs at least one atom")
    finite = np.isfinite(atoms.positions).all(axis=1)
    if not finite.all():
        raise ValueError(f"positions are not finite (NaN or infinite) for atoms {np.flatnonzero(~finite)[:5].tolist()}")
    unknown = sorted(set(atoms.get_chemical_symbols()) - set(elements))
    if unknown:
        raise ValueError(f"unknown element {', '.join(unknown)}: this model knows {', '.join(elements)}")


def neighbor_graph(
    atoms: Atoms,
    elements: Sequence[str],
    cutoff: float,
    *,
    device: torch.device | str = "cpu",
) -> Graph:
    """Build the graph of one structure with all neighbors within `cutoff` (Angstrom).

    Positions are never wrapped. `lrc_ase.structures.charge.total_charge` reads the total charge.

    Raises
    ------
    ValueError
        Empty atoms, positions that are not finite, an unknown element, a zero or singular cell in a periodic
        direction, two atoms at the same position.
    """
    return with_neighbors(graph_without_neighbors(atoms, elements).to(device), cutoff)


def graph_without_neighbors(atoms: Atoms, elements: Sequence[str]) -> Graph:
    """Build the graph of one structure on the host, with empty rows of neighbors; raises as `neighbor_graph` does."""
    check_structure(atoms, elements)
    cell = complete_cell(atoms.cell.array, atoms.pbc)
    n_atoms = len(atoms)
    # atomic number -> index in the model's elements
    lookup = np.full(max(atomic_numbers.values()) + 1, -1)
    lookup[[atomic_numbers[symbol] for symbol in elements]] = np.arange(len(elements))
    return Graph(
        # a copy in native float64: files may give Atoms big-endian or single-precision positions
        positions=torch.from_numpy(np.array(atoms.positions, dtype=np.float64)),
        species=torch.from_numpy(lookup[atoms.numbers]),
        structure=torch.zeros(n_atoms, dtype=torch.int64, device="cpu"),
        cell=torch.from_numpy(cell)[None],
        pbc=torch.from_numpy(np.array(atoms.pbc))[None],
        charge=torch.tensor([total_charge(atoms)], dtype=torch.float64, device="cpu"),
        neighbors=torch.zeros(n_atoms, 0, dtype=torch.int64, device="cpu"),
        shifts=torch.zeros(n_atoms, 0, 3, dtype=torch.float64, device="cpu"),
        neighbor_mask=torch.zeros(n_atoms, 0, dtype=torch.bool, device="cpu"),
    )


def is_continuation(before: Atoms, after: Atoms) -> bool:
    """Return True if `after` is a small change of `before`: a step of dynamics, a relaxation, a scan of strains.

    Such structures share a mesh, so that energies stay smooth while a cell changes. Unrelated structures do not: the
    energy of a structure must not depend on the structures evaluated before.
    """
    if not (np.array_equal(before.numbers, after.numbers) and np.array_equal(before.pbc, after.pbc)):
        return False
    if not abs(before.cell.volume) > 0:
        return False
    deformation = np.linalg.solve(before.cell.array, after.cell.array)
    if not np.abs(deformation - np.eye(3)).max() < _LARGEST_STRAIN:
        return False
    moved = np.linalg.norm(after.positions - before.positions @ deformation, axis=1)
    return bool(moved.max(initial=0.0) < _LARGEST_MOVE)


class NeighborList:
    """Graphs of a moving structure, with a new neighbor search only when an atom has moved by half the skin.

    Between searches the pairs are those within cutoff + skin, and positions are never wrapped. A change of elements,
    boundary or charge starts a new search too, and so does a change of the cell, unless all directions are periodic and
    the skin covers the strain. All graphs of a list share the tables of the long-range kernel, which are computed once
    per cell.

    Parameters
    ----------
    elements, cutoff
        As in `neighbor_graph`.
    skin
        Extra range in Angstrom.
    mesh_shape_for
        Function that returns the mesh for a periodic cell and the mesh to keep if possible; a method of the model. The
        second argument is the mesh of the last search if `is_continuation` holds for the structures, else None.
    """

    def __init__(
        self,
        elements: Sequence[str],
        cutoff: float,
        *,
        skin: float = 0.5,
        device: torch.device | str = "cpu",
        mesh_shape_for: Callable[[np.ndarray, tuple[int, ...] | None], tuple[int, ...] | None] | None = None,
    ) -> None:
        self.elements, self.cutoff, self.skin = tuple(elements), cutoff, skin
        self.device = device
        self.mesh_shape_for = mesh_shape_for
        self._skin = Skin(skin, cutoff)
        self._atoms: Atoms | None = None
        self._graph: Graph | None = None
        self._cell: Tensor | None = None
        self._unmoving: tuple[Any, ...] = ()
        self._mesh_shape: tuple[int, ...] | None = None
        self._tables = MultiplierTables()

    @property
    def n_searches(self) -> int:
        """Return the number of searches so far."""
        return self._skin.n_searches

    def graph(self, atoms: Atoms) -> Graph:
        """Return the graph of `atoms`; raises as `neighbor_graph` does."""
        positions = torch.from_numpy(np.array(atoms.arrays["positions"], dtype=np.float64))
        unmoving, cell = _unmoving(atoms), None
        if atoms.pbc.all():
            cell = torch.from_numpy(np.array(atoms.cell.array, dtype=np.float64))
        if (
            self._graph is not None
            and unmoving == self._unmoving
            and self._skin.holds(positions, (), cell)
            and self._follows(cell, atoms)
        ):
            return self._graph.at(positions.to(self.device))
        graph = neighbor_graph(atoms, self.elements, self.cutoff + self.skin, device=self.device)
        graph = replace(graph, tables=self._tables)
        if cell is not None:
            if self._atoms is not None and not is_continuation(self._atoms, atoms):
                self._mesh_shape = None
            graph = self._on_mesh(graph, cell)
        self._atoms, self._graph, self._cell = atoms.copy(), graph, cell
        self._unmoving = unmoving
        self._skin.searched(positions, (), cell)
        return graph

    def _follows(self, cell: Tensor | None, atoms: Atoms) -> bool:
        """Take the graph of the last search to another cell; False if that is not the cell of a continuation."""
        assert self._graph is not None
        assert self._atoms is not None
        if cell is None or self._cell is None or torch.equal(cell, self._cell):
            return True
        if not is_continuation(self._atoms, atoms):
            return False
        # from here on the same tensors in every step, as long as the cell stays
        self._graph, self._cell = self._on_mesh(self._graph.in_cell(cell[None]), cell), cell
        return True

    def _on_mesh(self, graph: Graph, cell: Tensor) -> Graph:
        if self.mesh_shape_for is None:
            return graph
        held, self._mesh_shape = self._mesh_shape, self.mesh_shape_for(cell.numpy(), self._mesh_shape)
        if self._mesh_shape is not None and self._mesh_shape != held:
            _warn_of_vacuum(self._mesh_shape, len(graph.positions))
        return replace(graph, mesh_shapes=None if self._mesh_shape is None else (self._mesh_shape,))

    def forget(self) -> None:
        """Drop list, mesh and tables: the next graph needs a new search."""
        self._atoms = self._graph = self._mesh_shape = None
        self._tables.clear()


def _warn_of_vacuum(mesh_shape: tuple[int, ...], n_atoms: int) -> None:
    """Report by a warning that nearly all points of a mesh lie in vacuum."""
    n_points = math.prod(mesh_shape)
    if n_points > max(_MESH_OF_VACUUM, _POINTS_OF_AN_ATOM * n_atoms):
        shape = " x ".join(map(str, mesh_shape))
        warn_caller(
            f"the cell is nearly empty: its mesh has {shape} points for {n_atoms} atoms, which takes time and memory; "
            "set pbc to False along the vacuum, where no mesh is needed",
        )


def _unmoving(atoms: Atoms) -> tuple[Any, ...]:
    """Return everything that a graph depends on, except positions, and a cell that is periodic in all directions."""
    numbers, pbc = np.asarray(atoms.arrays["numbers"], np.int64).tobytes(), atoms.pbc.tolist()
    cell = b"" if all(pbc) else np.asarray(atoms.cell.array, np.float64).tobytes()
    return numbers, pbc, cell, total_charge(atoms)

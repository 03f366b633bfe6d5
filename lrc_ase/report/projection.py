"""Projection of a structure onto paper, from the side that shows most of its atoms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from lrc_ase.dataset import Atoms

__all__ = ["Projection", "project"]

_TILT = np.deg2rad([9.0, 6.0])
"""Rotation about the horizontal and the vertical axis of the paper: rows of atoms along the view then come apart."""
_RIGHT_AND_UP = ((1, 2), (0, 2), (0, 1))
"""Axes drawn to the right and up when seen along each axis."""
_VACUUM, _THICK = 5.0, 3.0
"""Angstrom: a gap along a direction that makes a slab, and its thickness from which it is not seen from above."""
_SIZE = 0.42
"""Radius over the distance to the nearest neighbor: circles of neighbors do not touch."""
_LARGEST_RADIUS = 0.9
"""Angstrom, of a lone atom."""


@dataclass(frozen=True)
class Projection:
    """Two-dimensional drawing of a structure: circles for atoms, lines for the edges of the cell."""

    positions: np.ndarray
    """Centers of the circles, Angstrom, (n_atoms, 2)."""
    depths: np.ndarray
    """Distance towards the viewer, Angstrom, (n_atoms,)."""
    radii: np.ndarray
    """Radii of the circles, Angstrom, (n_atoms,)."""
    hidden: np.ndarray
    """True where another atom covers the center of an atom, bool (n_atoms,)."""
    cell_edges: np.ndarray
    """Ends of the cell's edges, Angstrom, (12, 2, 2); empty for an open structure."""
    view: str
    """Name of the direction, for a title."""


def project(atoms: Atoms) -> Projection:
    """Return the projection that hides the fewest atoms.

    Three directions are compared: the principal axes of a molecule, or x, y and z of a periodic structure, tilted by a
    few degrees. A slab is seen from a side, so that its layers do not lie on each other. Among directions that hide
    equally many atoms, the one that shows the largest area wins.
    """
    positions = atoms.positions - atoms.positions.mean(axis=0)
    radii = _radii(positions)
    if atoms.pbc.any():
        axes, names = np.eye(3), ("seen along x", "seen along y", "seen along z")
        tilt = _TILT
    else:
        # rows of V^T: principal axes, the longest extent first
        axes = np.linalg.svd(positions, full_matrices=True)[2] if len(positions) > 1 else np.eye(3)
        names = ("seen along its length", "seen from its edge", "seen from its flat side")
        tilt = np.zeros(2)
    best: tuple[tuple[float, float], Projection] | None = None
    above = _above_slab(atoms)
    for index, name in enumerate(names):
        if index == above:
            continue
        frame = _rotation(axes, index, tilt)
        seen = positions @ frame.T
        hidden = _hidden(seen, radii)
        edges = _cell_edges(atoms) @ frame.T
        projection = Projection(seen[:, :2], seen[:, 2], radii, hidden, edges[..., :2], name)
        # the Angstrom keeps the area of a chain or a plane above zero
        area = float(np.prod(np.ptp(seen[:, :2], axis=0) + 1.0))
        rank = (float(hidden.sum()), -area)
        if best is None or rank < best[0]:
            best = rank, projection
    assert best is not None
    return best[1]


def _above_slab(atoms: Atoms) -> int | None:
    """Return the direction (0, 1 or 2 for x, y, z) across a slab of several layers; None for other structures."""
    if not atoms.pbc.any():
        return None
    thickness = np.ptp(atoms.positions, axis=0)
    gaps = np.abs(np.diag(atoms.cell.array)) - thickness
    across = [axis for axis in range(3) if (gaps[axis] > _VACUUM or not atoms.pbc[axis]) and thickness[axis] > _THICK]
    return across[0] if len(across) == 1 else None


def _rotation(axes: np.ndarray, view: int, tilt: np.ndarray) -> np.ndarray:
    """Return the directions right, up and towards the viewer as rows, seen along the row `view` of `axes`."""
    right, up = (axes[index] for index in _RIGHT_AND_UP[view])
    frame = np.array([right, up, np.cross(right, up)])  # right-handed: molecules keep their chirality
    cos, sin = np.cos(tilt), np.sin(tilt)
    about_right = np.array([[1, 0, 0], [0, cos[0], -sin[0]], [0, sin[0], cos[0]]])
    about_up = np.array([[cos[1], 0, sin[1]], [0, 1, 0], [-sin[1], 0, cos[1]]])
    return np.asarray(about_up @ about_right @ frame)


def _radii(positions: np.ndarray) -> np.ndarray:
    """Return equal radii for all atoms, from the typical distance to the nearest neighbor."""
    if len(positions) < 2:
        return np.full(len(positions), _LARGEST_RADIUS)
    nearest = cKDTree(positions).query(positions, k=2)[0][:, 1]  # the first neighbor is the atom itself
    return np.full(len(positions), min(_SIZE * float(np.median(nearest)), _LARGEST_RADIUS) or _LARGEST_RADIUS)


def _hidden(seen: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return a mask of the atoms whose center is covered by an atom in front of them."""
    hidden = np.zeros(len(seen), dtype=bool)
    pairs = cKDTree(seen[:, :2]).query_pairs(float(radii.max()), output_type="ndarray")
    first, second = pairs[:, 0], pairs[:, 1]
    hidden[np.where(seen[first, 2] < seen[second, 2], first, second)] = True
    return hidden


def _cell_edges(atoms: Atoms) -> np.ndarray:
    """Return the ends of the cell's edges relative to the center of the atoms, (12, 2, 3)."""
    if not atoms.pbc.any():
        return np.empty((0, 2, 3))
    # an edge leads from each corner along each axis that the corner does not lie at the end of: 12 in all
    corners = np.array([[(n >> axis) & 1 for axis in range(3)] for n in range(8)])
    ends = [
        (corner, corner + np.eye(3, dtype=int)[axis]) for corner in corners for axis in range(3) if corner[axis] == 0
    ]
    return np.asarray(np.array(ends) @ atoms.cell.array - atoms.positions.mean(axis=0))

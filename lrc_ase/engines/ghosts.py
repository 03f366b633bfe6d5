"""Neighbors of local atoms among local atoms and ghosts, for engines that divide space between processes."""

from __future__ import annotations

import numpy as np
import torch

from lrc_ase.layer.exchange import Exchange
from lrc_ase.layer.tables import MultiplierTables
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.neighbors import complete_cell
from lrc_ase.structures.owners import Owners
from lrc_ase.structures.pairs import pairs_within
from lrc_ase.structures.rows import padded_rows
from lrc_ase.structures.skin import Skin

__all__ = ["GhostNeighbors"]


class GhostNeighbors:
    """Graphs of the atoms of one process, local atoms first, then ghosts.

    A ghost has the position of the image that it represents, so that no pair needs a lattice translation. Pairs within
    `cutoff` + `skin` (Angstrom) stay valid until an atom has moved by half the skin, or the engine has redistributed
    the atoms among processes.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        self.cutoff = cutoff
        self._skin = Skin(skin)
        self._tables = MultiplierTables()
        self._tensors: dict[str, torch.Tensor] = {}

    @property
    def n_searches(self) -> int:
        """Return the number of searches so far."""
        return self._skin.n_searches

    def is_valid(self, tags: np.ndarray, positions: np.ndarray, n_local: int) -> bool:
        """Return True if the last pairs are valid for atoms `tags` (n_atoms,) at `positions` (n_atoms, 3)."""
        return self._skin.holds(torch.from_numpy(positions), _unmoving(tags, n_local))

    def search(self, tags: np.ndarray, positions: np.ndarray, n_local: int) -> None:
        """Search all pairs.

        Raises
        ------
        ValueError
            Positions are not finite, or two atoms are at the same position.
        """
        finite = np.isfinite(positions).all(axis=1)
        if not finite.all():
            raise ValueError(f"positions are not finite (NaN or infinite) for atoms {tags[~finite][:5].tolist()}")
        self._skin.searched(torch.from_numpy(positions), _unmoving(tags, n_local))
        first, second, distances, _ = pairs_within(positions, np.eye(3), [False] * 3, self.cutoff + self._skin.width)
        n_pairs = int(np.searchsorted(first, n_local))  # pairs are sorted; rows of ghosts are not needed
        if n_pairs and distances[:n_pairs].min() < 1e-6:
            pair = int(distances[:n_pairs].argmin())
            raise ValueError(f"atoms {tags[first[pair]]} and {tags[second[pair]]} are at the same position")
        neighbors, mask, _ = padded_rows(first[:n_pairs], second[:n_pairs], n_local)
        self._neighbors, self._mask = torch.from_numpy(neighbors), torch.from_numpy(mask)
        self._shifts = torch.zeros(*neighbors.shape, 3, dtype=torch.float64)
        self._structure = torch.zeros(len(positions), dtype=torch.int64)

    def graph(
        self,
        positions: np.ndarray,
        species: np.ndarray,
        cell: np.ndarray,
        pbc: tuple[bool, ...],
        *,
        charge: float = 0.0,
        mesh_shape: tuple[int, ...] | None = None,
        exchange: Exchange | None = None,
        owners: Owners | None = None,
    ) -> Graph:
        """Build the graph with the pairs of the last search; `species` (n_atoms,) index the model's elements."""
        return Graph(
            positions=torch.from_numpy(positions.copy()),
            species=self._kept("species", species),
            structure=self._structure,
            cell=self._kept("cell", complete_cell(cell, pbc)[None]),
            pbc=self._kept("pbc", np.array([pbc])),
            charge=self._kept("charge", np.array([charge])),
            neighbors=self._neighbors,
            shifts=self._shifts,
            neighbor_mask=self._mask,
            mesh_shapes=None if mesh_shape is None else (mesh_shape,),
            exchange=exchange,
            tables=self._tables,
            owners=owners,
        )

    def _kept(self, name: str, values: np.ndarray) -> torch.Tensor:
        """Return values as a tensor, the last one while they are the same: a `Plan` of a step lasts as long."""
        tensor = self._tensors.get(name)
        if tensor is None or not np.array_equal(tensor.numpy(), values):
            tensor = self._tensors[name] = torch.from_numpy(values.copy())
        return tensor


def _unmoving(tags: np.ndarray, n_local: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the quantities that change when LAMMPS redistributes atoms among processes."""
    return torch.from_numpy(np.ascontiguousarray(tags)), torch.tensor(n_local, device="cpu")

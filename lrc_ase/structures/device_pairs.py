"""Search for the neighbors of atoms on the device that holds them: a cell list of sorted atoms, in PyTorch.

It serves GPUs, where atoms, pairs and all that follows stay on the device; `pairs` serves the CPU. Bins are never
stored: atoms are sorted by the number of their bin, and a binary search finds the atoms of another one. Atoms far
apart therefore cost no memory. Every operation has one order, so that a structure gives the same rows in every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Rows", "rows_on_device"]

_MOST_BINS = 2**16
"""Bins along one direction, so that the numbers of the bins of 32,000 structures fit into 64 bits."""
_MOST_CANDIDATES = 2**24
"""Pairs whose distances are computed at once; each takes about 100 bytes."""


class Rows(NamedTuple):
    """Padded rows of neighbors, as in `Graph`, and the closest pair."""

    neighbors: Tensor
    shifts: Tensor
    mask: Tensor
    closest: tuple[int, int, float]
    """Indices and distance in Angstrom of the two closest neighbors; an infinite distance without any."""


@dataclass(frozen=True)
class _Bins:
    """Atoms of all structures, sorted into bins at least as long as the cutoff where the cell is.

    Bins are counted along each cell vector, (n_structures, 3). An atom at `wrapped` (n_atoms, 3), Angstrom, stands for
    the caller's atom `images` (n_atoms, 3) whole cells away, which is in the bin `place` (n_atoms, 3).
    """

    n_bins: Tensor
    first_bin: Tensor
    """Number of the first bin of each structure, (n_structures,)."""
    periodic: Tensor
    cell: Tensor
    reach: Tensor
    """Bins to look at in both directions, (n_structures, 3)."""
    wrapped: Tensor
    images: Tensor
    place: Tensor
    structure: Tensor
    order: Tensor
    """Atoms sorted by their bins, (n_atoms,)."""
    sorted_numbers: Tensor
    """Numbers of their bins, ascending, (n_atoms,)."""

    def number(self, place: Tensor, structure: Tensor) -> Tensor:
        """Return the number of the bin at `place` (..., 3) in `structure` (...)."""
        n_bins = self.n_bins[structure]
        inside = (place[..., 0] * n_bins[..., 1] + place[..., 1]) * n_bins[..., 2] + place[..., 2]
        return self.first_bin[structure] + inside


def rows_on_device(positions: Tensor, cell: Tensor, pbc: Tensor, structure: Tensor, cutoff: float) -> Rows:
    """Search all neighbors closer than `cutoff` of the atoms of one or more structures.

    Parameters
    ----------
    positions, cell, pbc, structure
        As in `Graph`, all on one device: positions finite and anywhere in space, cells not singular, with unit vectors
        perpendicular to the periodic ones along open directions.
    cutoff
        Angstrom.
    """
    n_atoms = len(positions)
    bins = _bins(positions, cell, pbc, structure, cutoff)
    offsets = _offsets(bins.reach)
    largest = int(torch.unique_consecutive(bins.sorted_numbers, return_counts=True)[1].max())
    at_once = max(1, _MOST_CANDIDATES // (len(offsets) * largest))
    # atom by atom in the order of the bins, as neighboring atoms then read the same memory
    parts = [_pairs_of(bins, atoms, offsets, cutoff) for atoms in bins.order.split(at_once)]
    first, second = (torch.cat([part[field] for part in parts]) for field in (0, 1))
    shifts, squares = torch.cat([part[2] for part in parts]), torch.cat([part[3] for part in parts])
    counts = torch.bincount(first, minlength=n_atoms)
    in_order = counts[bins.order]
    starts = torch.empty_like(counts)
    starts[bins.order] = in_order.cumsum(0) - in_order
    width = max(int(counts.max()), 1)
    column = torch.arange(len(first), device=first.device) - starts[first]
    neighbors = torch.arange(n_atoms, device=first.device)[:, None].repeat(1, width)
    neighbors[first, column] = second
    padded = positions.new_zeros(n_atoms, width, 3)
    padded[first, column] = shifts.to(positions)
    mask = torch.arange(width, device=first.device) < counts[:, None]
    closest = (0, 0, float("inf"))
    if len(squares):
        pair = int(squares.argmin())
        closest = (int(first[pair]), int(second[pair]), float(squares[pair].sqrt()))
    return Rows(neighbors, padded, mask, closest)


def _bins(positions: Tensor, cell: Tensor, pbc: Tensor, structure: Tensor, cutoff: float) -> _Bins:
    """Sort the atoms into bins."""
    inverse = torch.linalg.inv(cell)
    fractional = torch.einsum("na,nab->nb", positions, inverse[structure])
    images = torch.where(pbc[structure], fractional.floor(), 0.0)
    fractional = fractional - images
    # along open directions bins start at the lowest atom, and vectors are of unit length
    rows = structure[:, None].expand(-1, 3)
    lowest, highest = (
        torch.zeros_like(cell[:, 0]).scatter_reduce(0, rows, fractional, how, include_self=False)
        for how in ("amin", "amax")
    )
    lowest, extent = torch.where(pbc, 0.0, lowest), torch.where(pbc, 1.0, highest - lowest)
    heights = extent / inverse.norm(dim=1)
    n_bins = (heights / cutoff).floor().clamp(1, _MOST_BINS)
    # rounding must not add a bin to the reach; one bin holds all atoms of an open direction, without images
    reach = (cutoff * n_bins / heights - 1e-9).ceil().nan_to_num(0.0, posinf=0.0)
    reach = torch.where(~pbc & (n_bins == 1), 0.0, reach).long()
    place = (fractional - lowest[structure]) / extent.clamp(min=1e-300)[structure] * n_bins[structure]
    place = torch.minimum(place.floor().clamp(min=0.0), n_bins[structure] - 1).long()
    n_bins = n_bins.long()
    totals = n_bins.prod(dim=1)
    wrapped = torch.einsum("na,nab->nb", fractional, cell[structure])
    unsorted = (totals.cumsum(0) - totals, pbc, cell, reach, wrapped, images.long(), place, structure)
    bins = _Bins(n_bins, *unsorted, order=structure, sorted_numbers=structure)
    numbers, order = torch.sort(bins.number(place, structure), stable=True)
    return _Bins(n_bins, *unsorted, order=order, sorted_numbers=numbers)


def _offsets(reach: Tensor) -> Tensor:
    """Return the steps from a bin to all bins within the farthest reach, (n_offsets, 3)."""
    ranges = [torch.arange(-extent, extent + 1, device=reach.device) for extent in reach.amax(dim=0).tolist()]
    return torch.cartesian_prod(*ranges)


def _pairs_of(bins: _Bins, atoms: Tensor, offsets: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the pairs of some atoms, grouped by the first one: first, second, shifts, squared distances."""
    structure = bins.structure[atoms]
    place = bins.place[atoms][:, None] + offsets
    n_bins, reach = bins.n_bins[structure][:, None], bins.reach[structure][:, None]
    crossed = torch.where(bins.periodic[structure][:, None], place.div(n_bins, rounding_mode="floor"), 0)
    place = place - crossed * n_bins
    exists = ((place >= 0) & (place < n_bins) & (offsets.abs() <= reach)).all(dim=2)
    number = bins.number(place, structure[:, None].expand(exists.shape))
    start = torch.searchsorted(bins.sorted_numbers, number)
    counts = torch.searchsorted(bins.sorted_numbers, number, right=True) - start
    counts = torch.where(exists, counts, 0).flatten()
    # one entry for each atom of each bin around each atom
    visit = torch.repeat_interleave(counts)
    rank = torch.arange(len(visit), device=visit.device) - (counts.cumsum(0) - counts)[visit]
    second = bins.order[start.flatten()[visit] + rank]
    moved = torch.einsum("noa,nab->nob", crossed.to(bins.cell), bins.cell[structure]) - bins.wrapped[atoms][:, None]
    squares = (bins.wrapped[second] + moved.flatten(0, 1)[visit]).square().sum(dim=1)
    first = atoms[visit.div(len(offsets), rounding_mode="floor")]
    other = (first != second) | (crossed != 0).any(dim=2).flatten()[visit]
    kept = torch.nonzero((squares < cutoff**2) & other)[:, 0]
    first, second = first[kept], second[kept]
    shifts = crossed.flatten(0, 1)[visit[kept]] - bins.images[second] + bins.images[first]
    return first, second, shifts.to(torch.int32), squares[kept]

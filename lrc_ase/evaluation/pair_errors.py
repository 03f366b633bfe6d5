r"""Average force errors along the line between two atoms, by their distance.

.. math:: e(r) = \Big\langle \tfrac12 (\Delta F_j - \Delta F_i) \cdot \hat r_{ij} \Big\rangle_{r_{ij} = r},
          \qquad \Delta F = F_{\mathrm{predicted}} - F_{\mathrm{reference}}.

Errors of independent atoms average to zero. A pair force that the model lacks does not: beyond the cutoff the curve is
the missing pair force itself, smoothed by what the forces of other neighbors compensate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lrc_ase.dataset import Atoms, elements_of
from lrc_ase.evaluation.evaluate import Evaluation
from lrc_ase.structures.neighbors import neighbor_graph
from lrc_ase.structures.vectors import neighbor_vectors

__all__ = ["PairErrors", "pair_errors"]

_LARGEST_SAMPLE = 40
"""Frames that are averaged over; pairs within twice the cutoff are many."""
_FEWEST_PAIRS = 2
"""Pairs in a bin from which its mean has a standard error."""


@dataclass(frozen=True)
class PairErrors:
    """Mean force error along the line between two elements."""

    distances: np.ndarray
    """Middle of each bin, Angstrom, (n_bins,)."""
    mean: np.ndarray
    """meV/Angstrom, positive where the predicted force is too repulsive, (n_bins,); NaN without pairs."""
    uncertainty: np.ndarray
    """Standard error of the mean, as if pairs were independent, (n_bins,); NaN for a single pair."""
    n_pairs: int
    """Pairs in all bins."""


def pair_errors(
    frames: Sequence[Atoms], evaluation: Evaluation, *, largest_distance: float, n_bins: int = 40
) -> dict[str, PairErrors]:
    """Return mean force errors along pairs of atoms, by pair of elements (``"Na-Cl"``).

    `frames` are those of `evaluation`; distances go up to `largest_distance` (Angstrom). Pairs without force labels are
    left out. An atom and its periodic image are no pair: both have the same force, so that their error is always zero.
    """
    errors = evaluation.force_errors
    first_atoms = np.concatenate([[0], np.cumsum(evaluation.n_atoms)])
    elements = elements_of(frames)
    edges = np.linspace(0, largest_distance, n_bins + 1)
    pairs: dict[tuple[int, int], list[np.ndarray]] = {}
    for index in range(0, len(frames), max(len(frames) // _LARGEST_SAMPLE, 1)):
        frame_errors = errors[first_atoms[index] : first_atoms[index + 1]]
        graph = neighbor_graph(frames[index], elements, largest_distance)
        vectors = neighbor_vectors(
            graph.positions, graph.cell, graph.neighbors, graph.shifts, graph.structure, torch.float64
        ).numpy()
        # rows of padded neighbors (n_atoms, n_neighbors) become a flat list of pairs, each from both of its ends
        mask, neighbors, species = graph.neighbor_mask.numpy(), graph.neighbors.numpy(), graph.species.numpy()
        atom, column = np.nonzero(mask)
        other = neighbors[atom, column]
        lengths = np.linalg.norm(vectors[atom, column], axis=1)
        along = 0.5 * ((frame_errors[other] - frame_errors[atom]) * vectors[atom, column]).sum(axis=1) / lengths
        # Na-Cl and Cl-Na are one kind
        kinds = np.sort(np.stack([species[atom], species[other]], axis=1), axis=1)
        known = np.isfinite(along) & (atom != other)
        for kind in np.unique(kinds[known], axis=0):
            chosen = known & (kinds == kind).all(axis=1)
            pairs.setdefault((int(kind[0]), int(kind[1])), []).append(np.stack([lengths[chosen], along[chosen]]))
    return {
        f"{elements[a]}-{elements[b]}": _binned(np.concatenate(parts, axis=1), edges)
        for (a, b), parts in sorted(pairs.items())
    }


def _binned(pairs: np.ndarray, edges: np.ndarray) -> PairErrors:
    """Average the errors of `pairs`, rows of distances and errors (2, n_pairs), in bins of distance."""
    distances, errors = pairs
    n_bins = len(edges) - 1
    bin_index = np.clip(np.digitize(distances, edges) - 1, 0, n_bins - 1)
    counts = np.bincount(bin_index, minlength=n_bins) / 2  # every pair is counted from both ends
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(bin_index, errors, minlength=n_bins) / 2 / counts
        square = np.bincount(bin_index, errors**2, minlength=n_bins) / 2 / counts
        uncertainty = np.sqrt(np.maximum(square - mean**2, 0) / counts)
    uncertainty[counts < _FEWEST_PAIRS] = np.nan
    return PairErrors(0.5 * (edges[1:] + edges[:-1]), mean, uncertainty, n_pairs=len(errors) // 2)

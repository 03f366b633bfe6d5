"""Fragments of structures, and the way in which latent charges suit them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lrc_ase.models.compositions import element_charge_space
from lrc_ase.models.settings import LongRangeSettings
from lrc_ase.structures.graph import Graph

__all__ = ["SHIFTED_REMARK", "charge_scheme", "fragments"]

SHIFTED_REMARK = (
    "training frames hold molecules farther apart than the cutoff, whose elements do not tell whether they are ions: "
    "latent charges are shifted evenly (`model.long_range.charges: shifted`); set `transfers` if all are neutral; "
    "`n_dipoles: 4` may help much where ions meet molecules"
)


def fragments(graph: Graph, n_elements: int) -> np.ndarray:
    """Count the atoms of each element in the fragments of a structure, (n_fragments, n_elements).

    A fragment is a set of atoms that chains of neighbors within the cutoff connect.
    """
    # empty places of the table of neighbors point to the atom itself
    neighbors = torch.where(graph.neighbor_mask, graph.neighbors, torch.arange(graph.n_atoms)[:, None]).numpy()
    atoms = np.repeat(np.arange(graph.n_atoms), neighbors.shape[1])
    edges = coo_array((np.ones(len(atoms), bool), (atoms, neighbors.ravel())), shape=(graph.n_atoms, graph.n_atoms))
    n_fragments, fragment = connected_components(edges, directed=False)
    counts = np.zeros((n_fragments, n_elements), int)
    np.add.at(counts, (fragment, graph.species.numpy()), 1)
    return counts


def charge_scheme(long_range: LongRangeSettings, graphs: Iterable[Graph], elements: Sequence[str]) -> str:
    """Return how latent charges come to sum to the total charge, for the `charges` of a configuration.

    Transfers between neighbors keep the charge of every fragment at the sum of its element charges. Where compositions
    fix these, they cannot tell an ion from a neutral molecule of the same elements: two ions that only meet beyond the
    cutoff would both be neutral. Such frames are trained with shifted charges, unless the configuration decides.
    """
    if long_range.charges is not None:
        return long_range.charges
    _, projector = element_charge_space(long_range.compositions or {}, elements)
    for graph in graphs:
        counts = fragments(graph, len(elements))
        molecules = counts[counts.sum(axis=1) > 1]
        is_fixed = np.abs(molecules @ projector).max(axis=1, initial=0.0) < _FREE
        if len(molecules) > 1 and is_fixed.all():
            return "shifted"
    return "transfers"


_FREE = 1e-9
"""Length of the part of a composition that element charges may give any charge, above rounding errors."""

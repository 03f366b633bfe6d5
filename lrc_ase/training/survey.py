"""Statistics of training graphs, in one pass over sets that need not fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lrc_ase.dataset import LabelledGraph
from lrc_ase.structures.domain import summarize

__all__ = ["survey"]

_CHUNK = 256
"""Number of graphs in memory at once."""


def survey(graphs: Sequence[LabelledGraph], elements: Sequence[str]) -> tuple[dict[str, Any], float]:
    """Return the domain of the graphs (see `lrc_ase.structures.domain.summarize`) and the mean number of neighbors."""
    n_neighbors = n_atoms = 0
    domain: dict[str, Any] = {}
    for start in range(0, len(graphs), _CHUNK):
        chunk = [graphs[index] for index in range(start, min(start + _CHUNK, len(graphs)))]
        n_neighbors += sum(int(each.graph.neighbor_mask.sum()) for each in chunk)
        n_atoms += sum(each.graph.n_atoms for each in chunk)
        chunk_domain = summarize([each.graph for each in chunk], elements, [each.forces for each in chunk])
        domain = chunk_domain if not domain else _joined_domains(domain, chunk_domain)
    return domain, n_neighbors / n_atoms


def _joined_domains(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """Return the domain that covers two domains."""
    distances = [each["shortest_distances"] for each in (one, two)]
    pairs = dict.fromkeys([*distances[0], *distances[1]])
    both = {
        "shortest_distances": {pair: min(each[pair] for each in distances if pair in each) for pair in pairs},
        "total_charges": sorted({*one["total_charges"], *two["total_charges"]}),
        "neighbors": [
            min(one["neighbors"][0], two["neighbors"][0]),
            max(one["neighbors"][1], two["neighbors"][1]),
        ],
    }
    largest = max(one.get("largest_force", 0.0), two.get("largest_force", 0.0))
    return both | ({"largest_force": largest} if largest else {})

"""What training graphs hold, in one pass over sets that need not fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lrc_ase.dataset import LabelledGraph
from lrc_ase.structures.domain import summarize

__all__ = ["survey"]

_CHUNK = 256
"""Graphs held at once."""


def survey(graphs: Sequence[LabelledGraph], elements: Sequence[str]) -> tuple[dict[str, Any], float]:
    """Domain of the graphs (see `lrc_ase.structures.domain.summarize`) and mean number of neighbors of an atom."""
    n_neighbors = n_atoms = 0
    domain: dict[str, Any] = {}
    for start in range(0, len(graphs), _CHUNK):
        chunk = [graphs[place] for place in range(start, min(start + _CHUNK, len(graphs)))]
        n_neighbors += sum(int(each.graph.neighbor_mask.sum()) for each in chunk)
        n_atoms += sum(each.graph.n_atoms for each in chunk)
        own = summarize([each.graph for each in chunk], elements, [each.forces for each in chunk])
        domain = own if not domain else _joined_domains(domain, own)
    return domain, n_neighbors / n_atoms


def _joined_domains(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """Domain of the graphs of both."""
    distances = [each["shortest_distances"] for each in (one, two)]
    pairs = dict.fromkeys([*distances[0], *distances[1]])
    found = {
        "shortest_distances": {pair: min(own[pair] for own in distances if pair in own) for pair in pairs},
        "total_charges": sorted({*one["total_charges"], *two["total_charges"]}),
        "neighbors": [
            min(one["neighbors"][0], two["neighbors"][0]),
            max(one["neighbors"][1], two["neighbors"][1]),
        ],
    }
    largest = max(one.get("largest_force", 0.0), two.get("largest_force", 0.0))
    return found | ({"largest_force": largest} if largest else {})

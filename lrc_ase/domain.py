"""What a potential saw in training, as far as its file says, and whether a structure lies beyond.

The header's description may hold ``training_domain``, an object with ``shortest_distances`` (Angstrom, by pairs of
elements as ``"Na-Cl"``) and ``total_charges`` (e, one of each kind). Potentials without it warn of nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .descriptors import neighbor_vectors
from .graph import Graph

__all__ = ["DOMAIN_KEY", "ExtrapolationWarning", "TrainingDomain", "summarize"]

DOMAIN_KEY = "training_domain"
_CHARGE_DIGITS = 6


class ExtrapolationWarning(UserWarning):
    """A structure lies beyond what the potential was trained on."""


@dataclass(frozen=True)
class TrainingDomain:
    """Limits of the training set that a structure can be held against."""

    elements: tuple[str, ...]
    shortest: Tensor | None
    """Shortest distance of each pair of elements, Angstrom, (n_elements, n_elements); 0 where not recorded."""
    total_charges: tuple[float, ...] | None
    """Every total charge that occurred, e."""

    @classmethod
    def from_description(cls, description: Mapping[str, Any], elements: Sequence[str]) -> TrainingDomain:
        """Read the description of a potential file."""
        known = description.get(DOMAIN_KEY, {})
        shortest = None
        if distances := known.get("shortest_distances"):
            shortest = torch.zeros(len(elements), len(elements), dtype=torch.float64)
            for pair, distance in distances.items():
                first, second = (elements.index(symbol) for symbol in pair.split("-"))
                shortest[first, second] = shortest[second, first] = distance
        charges = known.get("total_charges")
        return cls(tuple(elements), shortest, None if charges is None else tuple(charges))

    def too_close(self, graph: Graph) -> str | None:
        """Say which atoms are closer than any such pair in training, if there are; the worst of them."""
        if self.shortest is None:
            return None
        distances = _distances(graph)
        limits = self.shortest.to(distances)[graph.species[:, None], graph.species[graph.neighbors]]
        ratio = torch.where(graph.neighbor_mask & (limits > 0), distances / limits, torch.inf)
        if ratio.numel() == 0 or not bool(ratio.min() < 1):
            return None
        atom, column = divmod(int(ratio.argmin()), ratio.shape[1])
        pair = sorted((atom, int(graph.neighbors[atom, column])))
        names = [f"{index} ({self.elements[int(graph.species[index])]})" for index in pair]
        limit = float(limits[atom, column])
        return (
            f"atoms {names[0]} and {names[1]} are {float(distances[atom, column]):.3f} Angstrom apart; the closest "
            f"such pair in training was {limit:.3f} Angstrom: energies and forces from here on are extrapolated"
        )

    def unseen_charge(self, graph: Graph) -> str | None:
        """Say which total charge never occurred in training, if there is one."""
        if self.total_charges is None:
            return None
        for charge in graph.charge.tolist():
            if round(charge, _CHARGE_DIGITS) not in self.total_charges:
                seen = ", ".join(f"{value:g}" for value in self.total_charges)
                return f"a total charge of {charge:g} e never occurred in training, which saw {seen}"
        return None


def summarize(graphs: Sequence[Graph], elements: Sequence[str]) -> dict[str, Any]:
    """Describe the domain of training graphs, for the header of a potential file."""
    n_elements = len(elements)
    shortest = torch.full((n_elements * n_elements,), torch.inf, dtype=torch.float64)
    for graph in graphs:
        pairs = graph.species[:, None] * n_elements + graph.species[graph.neighbors]
        mask = graph.neighbor_mask
        shortest = shortest.scatter_reduce(0, pairs[mask].cpu(), _distances(graph)[mask].cpu(), "amin")
    table = shortest.reshape(n_elements, n_elements)
    table = torch.minimum(table, table.T)
    charges = {round(charge, _CHARGE_DIGITS) for graph in graphs for charge in graph.charge.tolist()}
    return {
        "shortest_distances": {
            f"{elements[a]}-{elements[b]}": round(float(table[a, b]), 6)
            for a in range(n_elements)
            for b in range(a, n_elements)
            if torch.isfinite(table[a, b])
        },
        "total_charges": sorted(charges),
    }


def _distances(graph: Graph) -> Tensor:
    """Distance from each atom to each neighbor, (n_atoms, n_neighbors), Angstrom."""
    with torch.no_grad():
        vectors = neighbor_vectors(
            graph.positions, graph.cell, graph.neighbors, graph.shifts, graph.structure, torch.float64
        )
        return vectors.norm(dim=-1)

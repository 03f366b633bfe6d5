"""Training domain of a potential: limits of the training set, and the comparison of structures with them.

The header's description may hold ``training_domain``, an object with

- ``shortest_distances``, Angstrom, by pairs of elements as ``"Na-Cl"``;
- ``total_charges``, e, one of each kind;
- ``neighbors``, the fewest and the most that an atom had within the cutoff;
- ``largest_force``, the norm of the largest force label, eV/Angstrom.

A missing entry is not checked. A structure slightly beyond the limits causes a warning. Predictions for a structure
far outside the limits are not reliable.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import Tensor

from lrc_ase.structures.caller_warnings import warn_caller
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.vectors import neighbor_vectors

__all__ = ["CHARGE_DIGITS", "DOMAIN_KEY", "ExtrapolationWarning", "Lookout", "TrainingDomain", "Watch", "summarize"]

DOMAIN_KEY = "training_domain"
NEAR_DISTANCE = 0.98
"""Fraction of the shortest training distance below which a pair of atoms is outside: a longer run always finds pairs
that are slightly closer than those of a short one, and a warning, given once, should not be spent on them."""
FAR_DISTANCE = 0.8
"""Fraction of the shortest training distance below which a pair of atoms is far outside."""
FAR_NEIGHBORS = 2.0
"""Factor above the most, or below the fewest, neighbors in training beyond which an atom is far outside."""
FAR_FORCE = 2.0
"""Factor above the largest training force beyond which a force is far outside."""
CHARGE_DIGITS = 6
"""Digits after the point to which total charges are compared."""


class ExtrapolationWarning(UserWarning):
    """Warning that a structure lies outside the training set of the potential."""


_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Count = Annotated[int, Field(strict=True, ge=0)]


class _RecordedDomain(BaseModel):
    """Entry ``training_domain`` of a description, as stored in a file."""

    model_config = ConfigDict(extra="forbid")

    shortest_distances: dict[str, Annotated[_Number, Field(ge=0)]] | None = None
    total_charges: tuple[_Number, ...] | None = None
    neighbors: tuple[_Count, _Count] | None = None
    largest_force: Annotated[_Number, Field(ge=0)] | None = None

    @field_validator("neighbors")
    @classmethod
    def _in_order(cls, neighbors: tuple[int, int] | None) -> tuple[int, int] | None:
        if neighbors is not None and neighbors[0] > neighbors[1]:
            raise ValueError("expected the fewest and the most neighbors in this order")
        return neighbors


@dataclass(frozen=True)
class TrainingDomain:
    """Limits of the training set with which structures are compared; None where not recorded."""

    elements: tuple[str, ...]
    shortest: Tensor | None = None
    """Shortest distance of each pair of elements, Angstrom, (n_elements, n_elements); 0 where not recorded."""
    total_charges: tuple[float, ...] | None = None
    """Every total charge that occurred, e."""
    neighbors: tuple[int, int] | None = None
    """Fewest and most neighbors of an atom within the cutoff."""
    largest_force: float | None = None
    """eV/Angstrom."""

    @classmethod
    def from_description(cls, description: Mapping[str, Any], elements: Sequence[str]) -> TrainingDomain:
        """Read the description of a potential file; a ValueError names the entry that cannot be used."""
        try:
            recorded = _RecordedDomain.model_validate(description.get(DOMAIN_KEY) or {})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in (DOMAIN_KEY, *first["loc"]))
            raise ValueError(f"{key[:100]}: {first['msg']}, got {reprlib.repr(first['input'])}") from error
        shortest = None
        if recorded.shortest_distances:
            shortest = torch.zeros(len(elements), len(elements), dtype=torch.float64)
            for pair, distance in recorded.shortest_distances.items():
                symbols = pair.split("-")
                if len(symbols) != 2 or not set(symbols) <= set(elements):
                    raise ValueError(
                        f"{DOMAIN_KEY}.shortest_distances: expected pairs of the model's elements, such as "
                        f"'{elements[0]}-{elements[-1]}', got {reprlib.repr(pair)}"
                    )
                a, b = (elements.index(symbol) for symbol in symbols)
                shortest[a, b] = shortest[b, a] = distance
        return cls(tuple(elements), shortest, recorded.total_charges, recorded.neighbors, recorded.largest_force)

    def unseen_charge(self, graph: Graph) -> str | None:
        """Return a sentence on the first total charge that is absent from the training set, or None."""
        if self.total_charges is None:
            return None
        for charge in graph.charge.tolist():
            if round(charge, CHARGE_DIGITS) not in self.total_charges:
                seen = ", ".join(f"{value:g}" for value in self.total_charges)
                return f"a total charge of {charge:g} e never occurred in training, which saw {seen}"
        return None

    def far_force(self, forces: np.ndarray, names: Names) -> str | None:
        """Return a sentence on the largest of the forces (n_atoms, 3) if it is far above training, else None."""
        if self.largest_force is None:
            return None
        squared = np.einsum("ij,ij->i", forces, forces)
        atom = int(squared.argmax())
        norm = float(np.sqrt(squared[atom]))
        if not norm > FAR_FORCE * self.largest_force:  # None for NaN too: callers refuse forces that are not finite
            return None
        return (
            f"the force on atom {names[atom]} is {norm:.1f} eV/Angstrom, the largest in training "
            f"{self.largest_force:.1f}"
        )

    def watch(self, graph: Graph, cutoff: float, skin: float, numbers: np.ndarray | None = None) -> Watch:
        """Collect the checks to repeat at each step while the neighbor list of `graph`, cutoff + skin, is valid."""
        names = Names(self.elements, graph.species.cpu().numpy(), numbers)
        if self.shortest is None and self.neighbors is None:
            return Watch(names)
        distances = _distances(graph)
        far_neighbors = self._far_neighbors((graph.neighbor_mask & (distances < cutoff)).sum(1).tolist(), names)
        if self.shortest is None:
            return Watch(names, far_neighbors)
        limits = self.shortest.to(distances)[graph.of_local(graph.species)[:, None], graph.species[graph.neighbors]]
        # between two searches a pair comes closer by the skin at most, whatever the cell does: see `Skin`
        near = graph.neighbor_mask & (limits > 0) & (distances < limits + skin)
        first, column = near.nonzero(as_tuple=True)
        second = graph.neighbors[first, column]
        once = first <= second  # each pair has an edge in both directions; an atom and its own image have equal indices
        first, second, column = first[once], second[once], column[once]
        of_pairs = torch.stack([first, second]), graph.shifts[first, column], graph.structure[first]
        pairs, shifts, structure = (each.cpu().numpy() for each in of_pairs)
        return Watch(names, far_neighbors, pairs, shifts, structure, limits[first, column].cpu().numpy())

    def _far_neighbors(self, counts: Sequence[int], names: Names) -> str | None:
        if self.neighbors is None:
            return None
        fewest, most = self.neighbors
        for count in (min(counts), max(counts)):
            if count > FAR_NEIGHBORS * most or count < fewest / FAR_NEIGHBORS:
                atom = counts.index(count)
                return (
                    f"atom {names[atom]} has {count} neighbors within the cutoff, "
                    f"atoms in training had {fewest} to {most}"
                )
        return None


@dataclass(frozen=True)
class Names:
    """Names of atoms in messages, such as ``12 (Na)``."""

    elements: tuple[str, ...]
    species: np.ndarray
    """Index of each atom's element, (n_atoms,)."""
    numbers: np.ndarray | None = None
    """Number of each atom in messages, (n_atoms,); None: its index."""

    def __getitem__(self, atom: int) -> str:
        number = atom if self.numbers is None else self.numbers[atom]
        return f"{number} ({self.elements[self.species[atom]]})"


@dataclass(frozen=True)
class Watch:
    """Pairs of a neighbor list that may approach closer than in training before the next search."""

    names: Names
    far_neighbors: str | None = None
    """Sentence on an atom with far more or fewer neighbors than in training, or None."""
    pairs: np.ndarray = field(default_factory=lambda: np.empty((2, 0), dtype=int))
    """Indices of the atoms, (2, n_pairs)."""
    shifts: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))
    """Lattice translation of the second atoms in units of the cell vectors, (n_pairs, 3)."""
    structure: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))
    """Structure of each pair, (n_pairs,)."""
    limits: np.ndarray = field(default_factory=lambda: np.empty(0))
    """Shortest distance of such a pair in training, Angstrom, (n_pairs,)."""

    def closest(self, positions: np.ndarray, cell: np.ndarray) -> tuple[float, str] | None:
        """Return the ratio of distance to training distance, if below 0.98, and a sentence for the worst pair, or None.

        `positions` (n_atoms, 3), `cell` (n_structures, 3, 3) in Angstrom.
        """
        if not len(self.limits):
            return None
        first, second = self.pairs
        # one structure, as in dynamics: no matrix for each pair
        offsets = (
            self.shifts @ cell[0] if len(cell) == 1 else np.einsum("pa,pab->pb", self.shifts, cell[self.structure])
        )
        vectors = positions[second] + offsets - positions[first]
        distances = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        ratios = distances / self.limits
        worst = int(ratios.argmin())
        if not ratios[worst] < NEAR_DISTANCE:
            return None
        one, other = self.pairs[:, worst].tolist()
        return float(ratios[worst]), (
            f"atoms {self.names[one]} and {self.names[other]} are {distances[worst]:.3f} Angstrom apart; the closest "
            f"such pair in training was {self.limits[worst]:.3f} Angstrom"
        )


class Lookout:
    """Comparison of a moving structure with the training domain, with one warning per kind of violation.

    `cutoff` + `skin` (Angstrom) is the range of the neighbor lists.
    """

    def __init__(self, domain: TrainingDomain, cutoff: float, skin: float) -> None:
        self.domain, self.cutoff, self.skin = domain, cutoff, skin
        self._warned: set[str] = set()
        self._followed: int | None = None
        self._watch: Watch | None = None
        self._unseen: str | None = None

    def far_outside(
        self, graph: Graph, forces: np.ndarray, n_searches: int, numbers: np.ndarray | None = None
    ) -> tuple[str, ...]:
        """Return the reasons why the structure lies far outside the training set, one sentence each.

        Parameters
        ----------
        graph, forces
            The structure, and the forces on its local atoms, (n_local, 3), eV/Angstrom.
        n_searches
            Number of neighbor searches so far: a new search means a new list of pairs to check.
        numbers
            Numbers of the atoms in messages, (n_atoms,); their indices by default.
        """
        if len(forces) == 0:
            return ()
        if self._watch is None or self._followed != n_searches:
            self._followed, self._watch = n_searches, self.domain.watch(graph, self.cutoff, self.skin, numbers)
            self._unseen = self.domain.unseen_charge(graph)  # another charge starts a new search
        watch, far = self._watch, []
        cell = graph.cell.cpu() if graph.on_host is None else graph.on_host.cell
        if closest := watch.closest(graph.positions.detach().cpu().numpy(), cell.numpy()):
            ratio, message = closest
            self._warn("distance", f"{message}: energies and forces from here on are extrapolated")
            far += [message] if ratio < FAR_DISTANCE else []
        if self._unseen:
            self._warn("charge", self._unseen)
        for kind, reason in (
            ("neighbors", watch.far_neighbors),
            ("force", self.domain.far_force(forces, watch.names)),
        ):
            if reason:
                self._warn(kind, f"far outside the training set: {reason}")
                far.append(reason)
        return tuple(far)

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warn_caller(message, ExtrapolationWarning)


def summarize(graphs: Sequence[Graph], elements: Sequence[str], forces: Sequence[Tensor] = ()) -> dict[str, Any]:
    """Describe the domain of training graphs, for the header of a potential file.

    `forces` are labels (n_atoms, 3) in eV/Angstrom, NaN where there are none.
    """
    n_elements = len(elements)
    shortest = torch.full((n_elements * n_elements,), torch.inf, dtype=torch.float64)
    counts = []
    for graph in graphs:
        pairs = graph.species[:, None] * n_elements + graph.species[graph.neighbors]
        mask = graph.neighbor_mask
        shortest = shortest.scatter_reduce(0, pairs[mask].cpu(), _distances(graph)[mask].cpu(), "amin")
        counts.append(mask.sum(1))
    table = shortest.reshape(n_elements, n_elements)
    table = torch.minimum(table, table.T)  # a pair (a, b) may have been met as (b, a) alone
    charges = {round(charge, CHARGE_DIGITS) for graph in graphs for charge in graph.charge.tolist()}
    domain: dict[str, Any] = {
        "shortest_distances": {
            f"{elements[a]}-{elements[b]}": round(float(table[a, b]), 6)
            for a in range(n_elements)
            for b in range(a, n_elements)
            if torch.isfinite(table[a, b])
        },
        "total_charges": sorted(charges),
        "neighbors": [min(int(each.min()) for each in counts), max(int(each.max()) for each in counts)],
    }
    largest = max((float(labels.norm(dim=1).nan_to_num(0.0).max()) for labels in forces), default=0.0)
    return domain | ({"largest_force": round(largest, 6)} if largest else {})


def _distances(graph: Graph) -> Tensor:
    """Compute the distance from each atom to each neighbor, (n_atoms, n_neighbors), Angstrom."""
    with torch.no_grad():
        vectors = neighbor_vectors(
            graph.positions, graph.cell, graph.neighbors, graph.shifts, graph.structure, torch.float64
        )
        return vectors.norm(dim=-1)

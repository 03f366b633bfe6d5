"""Element references: the part of the energy that only depends on the composition, subtracted before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, BeforeValidator, TypeAdapter
from torch import Tensor

from lrc_ase.dataset import NEAREST_IMAGE, LabelledFrame, is_isolated_atom
from lrc_ase.models.compositions import independent_compositions
from lrc_ase.models.elements import check_elements
from lrc_ase.structures.charge import total_charge

__all__ = ["ReferenceSetting", "References", "charged_compositions", "fit_references", "isolated_references"]

_SAME_ENERGY = 1e-3
"""Difference up to which two energies of an isolated atom count as the same, eV."""


Element = Annotated[str, AfterValidator(lambda symbol: check_elements((symbol,))[0])]
"""A chemical symbol."""


def _references(value: Any) -> Any:
    """Validate the branch of the union that `value` means: pydantic would list the mistakes of both."""
    if isinstance(value, Mapping):
        return TypeAdapter(dict[Element, float]).validate_python(value)
    if value not in ("fit", "isolated-atoms"):
        raise ValueError(f"expected fit, isolated-atoms, or energies in eV by element, got {value!r:.80}")
    return value


ReferenceSetting = Annotated[Literal["fit", "isolated-atoms"] | dict[Element, float], BeforeValidator(_references)]
"""Choice of the element references in a configuration."""


@dataclass(frozen=True)
class References:
    """Energy of each element, subtracted before training."""

    values: Tensor
    """Energies, eV, float64 (n_elements,)."""
    rank: int
    """Number of independent compositions. If it is below the number of elements, the values have minimum norm."""

    @property
    def rank_deficient(self) -> bool:
        """Return True if the compositions do not determine the energy of each element."""
        return self.rank < len(self.values)


def fit_references(
    frames: Sequence[LabelledFrame], elements: Sequence[str], known: Mapping[str, float] | None = None
) -> References:
    r"""Fit the energy of each element by least squares, :math:`\min_e \sum_s (E_s - n_s \cdot e)^2 / N_s^2`.

    The fit is in float64. If compositions do not determine the solution (as many Na as Cl in every frame), the result
    has minimum norm. Frames of a single atom take part only if there are no others: the energy of an isolated atom is
    not that of an atom in the condensed phase. Elements in `known` keep their energy, in eV.
    """
    known = known or {}
    values = np.array([known.get(element, 0.0) for element in elements])
    free = np.array([element not in known for element in elements])
    rank = 0
    rows = [(frame.energy, _composition(frame, elements)) for frame in frames if np.isfinite(frame.energy)]
    rows = [row for row in rows if sum(row[1]) > 1] or rows
    if rows and free.any():
        counts = np.array([composition for _, composition in rows], dtype=np.float64)
        sizes = counts.sum(axis=1)
        # energies per atom: large frames would otherwise decide alone
        rest = np.array([energy for energy, _ in rows]) - counts @ values
        values[free], _, rank, _ = np.linalg.lstsq(counts[:, free] / sizes[:, None], rest / sizes, rcond=1e-8)
    return References(torch.tensor(values, dtype=torch.float64), int(rank) + int((~free).sum()))


def charged_compositions(frames: Sequence[LabelledFrame], elements: Sequence[str]) -> dict[str, float]:
    """Return independent compositions of the frames with their total charges in e, see `independent_compositions`.

    Neutral single atoms, frames for the reference energies, are left out: they would make the ions of a salt neutral.
    """
    compositions = {(tuple(_composition(frame, elements)), total_charge(frame.atoms)) for frame in frames}
    return independent_compositions([each for each in compositions if sum(each[0]) > 1 or each[1]], elements)


def isolated_references(frames: Sequence[LabelledFrame], elements: Sequence[str]) -> References:
    """Return the energy of each element from frames of one isolated, neutral atom; forces are not needed.

    `lrc_ase.dataset.is_isolated_atom` says which atoms count as isolated.

    Raises
    ------
    ValueError
        An element has no such frame, or two whose energies differ by more than 1 meV.
    """
    energies: dict[str, float] = {}
    names: dict[str, str] = {}
    for frame in frames:
        if not is_isolated_atom(frame):
            continue
        (element,) = frame.atoms.get_chemical_symbols()
        if abs(frame.energy - energies.get(element, frame.energy)) > _SAME_ENERGY:
            raise ValueError(
                f"two isolated atoms of {element} differ: {energies[element]:.4f} eV in {names[element]}, "
                f"{frame.energy:.4f} eV in {frame.name}; keep one, or give `references` in eV"
            )
        energies.setdefault(element, frame.energy)
        names.setdefault(element, frame.name)
    missing = [element for element in elements if not np.isfinite(energies.get(element, np.nan))]
    if missing:
        raise ValueError(
            f"element references from isolated atoms need a one-atom frame with energy for {missing}: a neutral atom "
            f"without periodic images within {NEAREST_IMAGE:g} Angstrom"
        )
    return References(torch.tensor([energies[element] for element in elements], dtype=torch.float64), len(elements))


def _composition(frame: LabelledFrame, elements: Sequence[str]) -> list[int]:
    """Return the number of atoms of each element."""
    symbols = frame.atoms.get_chemical_symbols()
    return [symbols.count(element) for element in elements]

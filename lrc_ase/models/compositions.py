r"""Charges per element that the compositions of the training structures determine.

A composition counts the atoms of each element, :math:`n_{sz}`. Element charges :math:`\nu_z` with
:math:`\sum_z n_{sz} \nu_z = Q_s` give every structure s its total charge without any sum over the structure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np

__all__ = ["counts_of", "element_charge_space", "independent_compositions"]

Composition = tuple[tuple[int, ...], float]
"""Number of atoms of each element, and total charge in e."""
_PART = re.compile(r"([A-Z][a-z]?)(\d*)")


def independent_compositions(compositions: Iterable[Composition], elements: Sequence[str]) -> dict[str, float]:
    """Reduce compositions to linearly independent ones; return their formulas with their total charges in e.

    Neutral compositions are used always. Charged ones are used only if all compositions agree and each element that
    they determine gets a whole number, an oxidation state: Na+ and Cl-, or water with OH- and H3O+. Otherwise (C10H2
    and C10H3+) all charged compositions are left out: their charge is no property of the elements.
    """
    unique = sorted(set(compositions), key=lambda each: (sum(each[0]), each))
    neutral = [each for each in unique if abs(each[1]) < _NO_CHARGE]
    basis = _Basis(len(elements))
    chosen = [each for each in neutral if basis.add(each)]
    charged = [each for each in unique if abs(each[1]) >= _NO_CHARGE]
    added = [each for each in charged if basis.add(each)]
    if basis.is_consistent and all(value.denominator == 1 for value in basis.determined()):
        chosen += added
    formulas: dict[str, float] = {}
    for counts, charge in chosen:
        divisor = math.gcd(*counts) if abs(charge) < _NO_CHARGE else 1
        formula = "".join(
            f"{element}{count // divisor if count != divisor else ''}"
            for element, count in zip(elements, counts, strict=True)
            if count
        )
        formulas[formula] = float(charge)
    return formulas


def counts_of(formula: str) -> dict[str, int]:
    """Return the number of atoms of each element in a formula such as ``Na4Cl4`` or ``CH3CH2OH``.

    Raises
    ------
    ValueError
        The text is no formula.
    """
    if not formula or _PART.sub("", formula):
        raise ValueError(f"'{formula:.100}' is no chemical formula such as 'NaCl' or 'C10H2'")
    counts: dict[str, int] = {}
    for element, number in _PART.findall(formula):
        counts[element] = counts.get(element, 0) + int((number or "1")[:9])
    return counts


def element_charge_space(compositions: Mapping[str, float], elements: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the element charges of least norm that fulfil `compositions`, and the projector on what they leave free.

    Least-norm charges (n_elements,) in e; projector (n_elements, n_elements) on the null space of the compositions.
    Both in float64. Charges that the compositions do not determine may be added: least norm + projector @ anything.
    """
    counts = np.zeros((len(compositions), len(elements)))
    for row, formula in enumerate(compositions):
        for element, number in counts_of(formula).items():
            if element in elements:
                counts[row, elements.index(element)] = number
    if not len(counts):
        return np.zeros(len(elements)), np.eye(len(elements))
    inverse = np.linalg.pinv(counts)
    projector = np.eye(len(elements)) - inverse @ counts
    # exact zeros where the compositions determine all charges
    projector[np.abs(projector) < 1e-12] = 0.0
    return inverse @ np.array(list(compositions.values()), dtype=float), projector


_NO_CHARGE = 1e-6


class _Basis:
    """Linearly independent equations, in reduced row echelon form and in exact fractions."""

    def __init__(self, n_unknowns: int) -> None:
        self.n_unknowns = n_unknowns
        self.is_consistent = True
        self._rows: dict[int, list[Fraction]] = {}
        """By pivot; the last entry is the right-hand side."""

    def add(self, composition: Composition) -> bool:
        """Add an equation; return False if the equations before it imply or contradict it."""
        counts, charge = composition
        row = [Fraction(count) for count in counts] + [Fraction(charge).limit_denominator(10**6)]
        for pivot, known in self._rows.items():
            row = _eliminated(row, known, pivot)
        pivot = next((index for index in range(self.n_unknowns) if row[index]), self.n_unknowns)
        if pivot == self.n_unknowns:
            self.is_consistent &= row[-1] == 0
            return False
        row = [value / row[pivot] for value in row]
        self._rows = {index: _eliminated(known, row, pivot) for index, known in self._rows.items()} | {pivot: row}
        return True

    def determined(self) -> list[Fraction]:
        """Return the values of the unknowns that the equations determine."""
        return [row[-1] for row in self._rows.values() if sum(value != 0 for value in row[:-1]) == 1]


def _eliminated(row: list[Fraction], known: list[Fraction], pivot: int) -> list[Fraction]:
    factor = row[pivot]
    return [value - factor * other for value, other in zip(row, known, strict=True)] if factor else row

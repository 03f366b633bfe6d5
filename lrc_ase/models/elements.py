"""The chemical symbols that a model may know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["SYMBOLS", "check_elements"]

SYMBOLS = tuple(
    """
    H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo
    Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl
    Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
    """.split()  # noqa: SIM905
)
"""By atomic number, from hydrogen."""

Symbols = TypeVar("Symbols", bound=Sequence[str] | None)


def check_elements(elements: Symbols) -> Symbols:
    """Return the chemical symbols of a model, None included; ValueError for an unknown one or one that occurs twice."""
    if elements is None:
        return elements
    for index, symbol in enumerate(elements):
        if symbol not in SYMBOLS:
            capitalized = symbol[:2].capitalize()
            hint = f"; did you mean {capitalized}?" if len(symbol) < 3 and capitalized in SYMBOLS else ""
            raise ValueError(
                f"{symbol[:20]!r} is no chemical symbol{hint or ' (isotopes and dummy atoms go by their element)'}"
            )
        if symbol in elements[:index]:
            raise ValueError(f"the element {symbol} occurs twice")
    return elements

"""Pauling electronegativities, which set the signs of untrained latent charges."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["electronegativities", "starting_charges"]

# Haynes (ed.), CRC Handbook of Chemistry and Physics, 97th ed. (2016), section 9, by atomic number from H
_PAULING = """
H 2.20  Li 0.98 Be 1.57 B 2.04  C 2.55  N 3.04  O 3.44  F 3.98  Na 0.93 Mg 1.31 Al 1.61 Si 1.90 P 2.19  S 2.58
Cl 3.16 K 0.82  Ca 1.00 Sc 1.36 Ti 1.54 V 1.63  Cr 1.66 Mn 1.55 Fe 1.83 Co 1.88 Ni 1.91 Cu 1.90 Zn 1.65 Ga 1.81
Ge 2.01 As 2.18 Se 2.55 Br 2.96 Rb 0.82 Sr 0.95 Y 1.22  Zr 1.33 Nb 1.60 Mo 2.16 Tc 2.10 Ru 2.20 Rh 2.28 Pd 2.20
Ag 1.93 Cd 1.69 In 1.78 Sn 1.96 Sb 2.05 Te 2.10 I 2.66  Xe 2.60 Cs 0.79 Ba 0.89 La 1.10 Ce 1.12 Pr 1.13 Nd 1.14
Sm 1.17 Gd 1.20 Dy 1.22 Ho 1.23 Er 1.24 Tm 1.25 Lu 1.00 Hf 1.30 Ta 1.50 W 1.70  Re 1.90 Os 2.20 Ir 2.20 Pt 2.20
Au 2.40 Hg 1.90 Tl 1.80 Pb 1.80 Bi 1.90 Po 2.00 At 2.20 Ra 0.90 Ac 1.10 Th 1.30 Pa 1.50 U 1.70  Np 1.30 Pu 1.30
"""
_TABLE = dict(zip(_PAULING.split()[::2], map(float, _PAULING.split()[1::2]), strict=True))
_UNLISTED = 1.9
"""Value for elements not in the table (noble gases, some lanthanides and actinides): about the mean of the table."""


def electronegativities(elements: Sequence[str]) -> list[float]:
    """Return the Pauling electronegativity of each chemical symbol."""
    return [_TABLE.get(element, _UNLISTED) for element in elements]


def starting_charges(elements: Sequence[str]) -> Tensor:
    """Return latent charges before training, (n_elements,) in e: positive for less electronegative elements."""
    values = torch.tensor(electronegativities(elements))
    return _CHARGE_PER_UNIT * (values.mean() - values)


_CHARGE_PER_UNIT = 0.5
"""Charge in e per unit of electronegativity: about that of ions in salts and of water."""

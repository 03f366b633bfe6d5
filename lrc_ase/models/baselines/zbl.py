r"""Screened repulsion of atomic cores: the universal potential of Ziegler, Biersack and Littmark, and a wall.

.. math:: V_{ij}(r) = \frac{k_e Z_i Z_j}{r}\, \phi\Big(\frac{r}{a_{ij}}\Big)\, w\Big(\frac{r}{R_{ij}}\Big)
          + W \Big(1 - \frac{r}{R_{ij}}\Big)^5, \qquad
          a_{ij} = \frac{0.46850}{Z_i^{0.23} + Z_j^{0.23}}\,\text{Angstrom},

.. math:: \phi(x) = 0.18175\, e^{-3.19980 x} + 0.50986\, e^{-0.94229 x} + 0.28022\, e^{-0.40290 x}
                    + 0.02817\, e^{-0.20162 x}

(J. F. Ziegler, J. P. Biersack and U. Littmark, The Stopping and Range of Ions in Solids, Pergamon 1985, in the digits
of LAMMPS' ``pair_style zbl``). The envelope :math:`w(y) = 1 - 28 y^6 + 48 y^7 - 21 y^8` ends the repulsion at the range
R of the pair of elements, as in MACE. MACE's range is the sum of the covalent radii, which is longer than most bonds at
some moment of a run. Here it is 0.95 of the shortest distance in the training set, see `ranges_from_data`. Labels of
training frames therefore hold none of the repulsion, and a model learns exactly what it would learn without.

A network may fall by more than any repulsion where it has learned nothing. The descriptor therefore sees a pair within
its range at the distance

.. math:: R\, \Big(1 - \frac{t}{(1 + (t / 0.1)^3)^{1/3}}\Big), \qquad t = 1 - \frac{r}{R},

which is r to third order at the range, and never shorter than 0.9 R. It still sees angles that no frame has, such as
that of two hydrogen atoms of a methyl group at a third of their distance. The repulsion of their cores, 4 eV there, is
less than what the network may fall; the wall of height W, 150 eV by default, adds 11 eV. It begins with the fifth
power, and adds 1.5 meV at 0.9 R.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lrc_ase.layer.recording import recording
from lrc_ase.models.baselines.radii import covalent_radius
from lrc_ase.models.charges import COULOMB_CONSTANT
from lrc_ase.models.descriptors.envelope import distances_and_envelope
from lrc_ase.models.elements import SYMBOLS
from lrc_ase.structures.graph import Graph

__all__ = ["EXPONENTS", "SHARES", "SOFTNESS", "CoreRepulsion", "ranges_from_data"]

SHARES = (0.18175, 0.50986, 0.28022, 0.02817)
EXPONENTS = (3.19980, 0.94229, 0.40290, 0.20162)
"""Of the screening function, in units of the screening length."""
_LENGTH, _POWER = 0.46850, 0.23
"""Screening length in Angstrom of two hydrogen atoms times two, and the power of the nuclear charges in it."""
MARGIN = 0.95
"""Derived range over the shortest distance in training."""
SOFTNESS = 0.1
"""Part of the range by which the distances that the descriptor sees become shorter."""


class CoreRepulsion(nn.Module):
    """Repulsion of all pairs closer than the range of their elements; it has no trainable parameters.

    Parameters
    ----------
    elements
        Chemical symbols, by the index of the species.
    ranges
        Distance in Angstrom at which the repulsion of each pair of elements ends, such as ``{"Na-Cl": 2.0}``. The
        descriptor cannot tell distances well below.
    wall
        Height W of the wall, eV.
    cutoff
        Longest range, Angstrom: that of the lists of neighbors.

    Raises
    ------
    ValueError
        `ranges` lacks a pair, names an element that is none of `elements`, or exceeds `cutoff`.
    """

    def __init__(self, elements: Sequence[str], ranges: Mapping[str, float], cutoff: float, wall: float = 0.0) -> None:
        super().__init__()
        numbers = torch.tensor([SYMBOLS.index(element) + 1.0 for element in elements], dtype=torch.float64)
        powers = numbers**_POWER
        # no buffers: these follow from the settings, and must not lose digits where a model is float32 for a while
        self.ranges = _matrix(elements, ranges, cutoff)
        """Angstrom, (n_elements, n_elements) as the following, float64 on the CPU."""
        self.longest = float(self.ranges.max())
        """Largest range, Angstrom."""
        self.wall = wall
        """eV."""
        self.strengths = COULOMB_CONSTANT * numbers[:, None] * numbers
        r""":math:`k_e Z_i Z_j`, eV Angstrom."""
        self.inverse_lengths = (powers[:, None] + powers) / _LENGTH
        r""":math:`1/a_{ij}`, 1/Angstrom."""
        self._cast: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    def forward(self, vectors: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        """Return the vectors that the descriptor sees, and half of the repulsion of each local atom's pairs.

        `vectors` (n_local, n_neighbors, 3) lead to the neighbors of `graph`. Return (n_local, n_neighbors, 3), and
        (n_local,) in eV.
        """
        squares = vectors.detach().square().sum(dim=-1)
        if recording():  # all pairs, as a step that is recorded cannot pick out the close ones
            pairs = graph.of_local(graph.species)[:, None].expand_as(graph.neighbors), graph.species[graph.neighbors]
            near = graph.neighbor_mask & (squares < self._tables(vectors)[0][pairs] ** 2)
            factors, repulsion = self._of_pairs(vectors, near, pairs)
            return vectors * factors[..., None], repulsion.sum(dim=1)
        energies = vectors.new_zeros(graph.n_local)
        atom, column = (graph.neighbor_mask & (squares < self.longest**2)).nonzero(as_tuple=True)
        if len(atom) == 0:  # the usual case
            return vectors, energies
        species, others = graph.species[atom], graph.species[graph.neighbors[atom, column]]
        near = squares[atom, column] < self._tables(vectors)[0][species, others] ** 2
        atom, column, pairs = atom[near], column[near], (species[near], others[near])
        if len(atom) == 0:
            return vectors, energies
        close = vectors[atom, column]
        factors, repulsion = self._of_pairs(close, torch.ones_like(near[near]), pairs)
        visible = vectors.index_put((atom, column), close * factors[:, None])
        return visible, energies.index_add(0, atom, repulsion)

    def _of_pairs(self, vectors: Tensor, near: Tensor, pairs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the factors of the vectors (..., 3) of pairs and half of their repulsion, 1 and 0 where not `near`.

        `pairs` are the elements of both atoms, (...).
        """
        ranges, strengths, inverse_lengths = (each[pairs] for each in self._tables(vectors))
        # in units of the range, so that one envelope serves all pairs
        _, y, envelope = distances_and_envelope(vectors / ranges[..., None], near, 1.0)
        r = y * ranges
        x = r * inverse_lengths
        screening = sum(share * torch.exp(-rate * x) for share, rate in zip(SHARES, EXPONENTS, strict=True))
        t = 1 - y
        factors = (1 - t * (1 + (t / SOFTNESS) ** 3) ** (-1 / 3)) / y
        # of pairs that are not near, y is 1 or any other number
        wall = self.wall * torch.where(near, t, 0.0) ** 5
        return factors, 0.5 * (strengths / r * screening * envelope + wall)

    def _tables(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ranges, strengths and inverse lengths in the type and on the device of `like`."""
        key = like.dtype, like.device
        if key not in self._cast:
            self._cast[key] = self.ranges.to(like), self.strengths.to(like), self.inverse_lengths.to(like)
        return self._cast[key]


def ranges_from_data(
    ranges: Mapping[str, float] | None, elements: Sequence[str], shortest: Mapping[str, float], cutoff: float
) -> dict[str, float]:
    """Return the range of each pair of `elements`, Angstrom, derived from training frames.

    A derived range is `MARGIN` times the shortest distance of such a pair in training, which `shortest` names as
    ``{"Na-Cl": 2.3}``; for a pair that never came within the cutoff it is the sum of the covalent radii. Neither
    exceeds the cutoff. `ranges` are upper limits: a derived range replaces a longer one, so that training goes on with
    frames closer than those before.

    Bonds of a longer run become shorter than any in training, and the network is right about them. With a margin of 1,
    a bond of O and H at 0.96 of its shortest length had an error of 1 eV/Angstrom instead of 0.04. A wide margin leaves
    the network alone where it knows nothing: with 0.9, sodium and oxygen of salt water met a fall of 3 eV.
    """
    limits = dict(ranges or {})
    for first, one in enumerate(elements):
        for two in elements[first:]:
            names = f"{one}-{two}", f"{two}-{one}"
            name = next((each for each in names if each in limits), names[0])
            distance = min((shortest[each] for each in names if each in shortest), default=None)
            radii = covalent_radius(one) + covalent_radius(two)
            longest = min(radii if distance is None else MARGIN * distance, cutoff)
            rounded = math.floor(1e4 * longest + 1e-6) / 1e4  # never beyond a distance of training
            limits[name] = min(limits.get(name, longest), rounded)
    return limits


def _matrix(elements: Sequence[str], ranges: Mapping[str, float], cutoff: float) -> Tensor:
    """Return the ranges of all pairs of elements, (n_elements, n_elements), Angstrom."""
    matrix = torch.zeros(len(elements), len(elements), dtype=torch.float64)
    for pair, distance in ranges.items():
        symbols = pair.split("-")
        if not set(symbols) <= set(elements):
            raise ValueError(f"`baseline.zbl.ranges` names {pair}, but the model knows {', '.join(elements)}")
        if distance > cutoff:
            raise ValueError(
                f"`baseline.zbl.ranges` of {pair} is {distance:g} Angstrom, beyond the cutoff of {cutoff:g} Angstrom"
            )
        a, b = (elements.index(symbol) for symbol in symbols)
        matrix[a, b] = matrix[b, a] = distance
    if missing := (matrix.triu() + torch.ones_like(matrix).tril(-1) == 0).nonzero().tolist():
        a, b = missing[0]
        raise ValueError(
            f"`baseline.zbl.ranges` lacks {elements[a]}-{elements[b]}: trainings derive it from their frames, and "
            "`lrc_ase.models.baselines.ranges_from_data` from covalent radii"
        )
    return matrix

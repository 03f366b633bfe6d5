r"""Dispersion correction D3 of density functionals, by the library s-dftd3 (package ``dftd3``).

.. math:: E = -\tfrac12 \sum_{i \ne j} \Big[ s_6 \frac{C_6^{ij}}{r^6 + f^6} + s_8 \frac{C_8^{ij}}{r^8 + f^8} \Big],
          \qquad f = a_1 \sqrt{C_8^{ij} / C_6^{ij}} + a_2

with Becke-Johnson damping (Grimme, Ehrlich and Goerigk, J. Comput. Chem. 32, 1456 (2011), doi:10.1002/jcc.21759), or
with zero damping (Grimme et al., J. Chem. Phys. 132, 154104 (2010), doi:10.1063/1.3382344). The coefficients follow the
coordination numbers. They have no trainable parameters, so that first derivatives by positions and cells suffice.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.constants import physical_constants
from torch import Tensor, nn

from lrc_ase.models.elements import SYMBOLS
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.vectors import strained_positions

__all__ = ["Dispersion", "damping_parameters"]

_BOHR = physical_constants["Bohr radius"][0] * 1e10
_HARTREE = physical_constants["Hartree energy in eV"][0]
_HEAVIEST = 94
"""Atomic number up to which D3 has coefficients."""
_REMEMBERED = 2**22
"""Numbers that results of earlier structures may take in memory, 32 MB."""
_THREE_BODY, _COORDINATION = 40.0, 40.0
"""Cutoffs of three-body terms and coordination numbers, Bohr: the defaults of the library."""
_WIDTH = 4.0
"""Range in which pairs and triples fade before their cutoffs, Bohr: forces have no jumps."""


class Known(NamedTuple):
    """Energy of a structure and its derivatives, eV and Angstrom."""

    energy: float
    gradient: np.ndarray
    """(n_atoms, 3)."""
    virial: np.ndarray
    """Derivative by strain, (3, 3)."""


class Dispersion(nn.Module):
    """D3 energies of structures; positions and cells must be whole in one process.

    Parameters
    ----------
    elements
        Chemical symbols, by the index of the species.
    damping
        bj or zero.
    parameters
        Numbers of the damping function: s6, s8, s9, alp and a1, a2 for bj, rs6, rs8 for zero.
    cutoff
        Of pairs, Angstrom.

    Raises
    ------
    ValueError
        The package dftd3 is not installed, a parameter is missing, or an element is heavier than plutonium.
    """

    def __init__(
        self, elements: Sequence[str], damping: str, parameters: Mapping[str, float] | None, cutoff: float
    ) -> None:
        super().__init__()
        _check_installed()
        from dftd3.interface import RationalDampingParam, ZeroDampingParam

        if parameters is None:
            raise ValueError("`baseline.d3.parameters` is missing: trainings look it up by the name of the functional")
        numbers = [SYMBOLS.index(element) + 1 for element in elements]
        if max(numbers) > _HEAVIEST:
            raise ValueError(f"D3 has no coefficients for {SYMBOLS[max(numbers) - 1]}: leave `d3` out of `baseline`")
        self.numbers = np.array(numbers, dtype=np.int32)
        kind = RationalDampingParam if damping == "bj" else ZeroDampingParam
        try:
            self._damping = kind(**parameters)
        except TypeError as error:
            raise ValueError(f"`baseline.d3.parameters` do not fit damping {damping}: {error}") from None
        self._arguments = tuple(elements), damping, dict(parameters), cutoff
        self._cutoff = cutoff / _BOHR
        self._memory = _Memory()

    def __deepcopy__(self, memo: dict[int, Any]) -> Dispersion:
        """Return a new module with the same memory: handles of the library cannot be copied."""
        copied = Dispersion(*self._arguments)
        copied._memory = self._memory  # a training copies its model for every validation
        return copied

    def forward(self, graph: Graph, strain: Tensor | None = None) -> Tensor:
        """Compute the energy of each structure, (n_structures,), eV in float64; differentiable once."""
        positions, cell = graph.positions, graph.cell
        if strain is not None:
            positions = strained_positions(positions, strain, graph.structure)
            cell = cell + torch.matmul(cell, strain)
        energies: Tensor = _Energies.apply(positions, cell, self.evaluate(graph), graph.structure)
        return energies

    def evaluate(self, graph: Graph) -> list[Known]:
        """Return energy, gradient and virial of each structure of a graph, at zero strain.

        Raises
        ------
        ValueError
            Processes share the structure.
        """
        if graph.exchange is not None or graph.n_local < graph.n_atoms:
            raise ValueError("D3 needs all atoms of a structure in one process: leave `d3` out of `baseline`")
        structure = graph.structure.cpu().numpy()
        starts = np.searchsorted(structure, np.arange(graph.n_structures + 1))
        positions, cells = (each.detach().double().cpu().numpy() for each in (graph.positions, graph.cell))
        numbers, pbc = self.numbers[graph.species.cpu().numpy()], graph.pbc.cpu().numpy()
        return [
            self._known(numbers[first:last], positions[first:last], cells[index], pbc[index])
            for index, (first, last) in enumerate(pairwise(starts))
        ]

    def _known(self, numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Known:
        """Return the results of one structure, of an earlier evaluation if there was one: trainings repeat theirs."""
        key = hashlib.sha256(b"".join(each.tobytes() for each in (numbers, positions, cell, pbc))).digest()
        if (earlier := self._memory.recall(key)) is not None:
            return earlier
        from dftd3.interface import DispersionModel

        positions, cell = _isolated(positions, cell, pbc, max(self._cutoff, _THREE_BODY, _COORDINATION) * _BOHR)
        lattice = (cell / _BOHR, pbc) if pbc.any() else ()
        model = DispersionModel(numbers, positions / _BOHR, *lattice)
        three_body = min(_THREE_BODY, self._cutoff)
        model.set_realspace_cutoff(self._cutoff, three_body, _COORDINATION, _WIDTH, _WIDTH)
        results = model.get_dispersion(self._damping, grad=True)
        known = Known(
            float(results["energy"]) * _HARTREE,
            results["gradient"] * (_HARTREE / _BOHR),
            results["virial"] * _HARTREE,
        )
        self._memory.keep(key, known)
        return known


def _isolated(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, vacuum: float) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and cell with `vacuum` along open directions, in whose middle the structure lies.

    The library sums images along open directions too, and wraps atoms into the cell.
    """
    if pbc.all() or not pbc.any():
        return positions, cell
    normals = cell[~pbc] / np.linalg.norm(cell[~pbc], axis=1, keepdims=True)
    heights = positions @ normals.T
    isolated = cell.copy()
    isolated[~pbc] = normals * (np.ptp(heights, axis=0) + vacuum)[:, None]
    return positions + (0.5 * vacuum - heights.min(axis=0)) @ normals, isolated


class _Memory:
    """Results of the structures evaluated last."""

    def __init__(self) -> None:
        self._results: OrderedDict[bytes, Known] = OrderedDict()
        self._n_numbers = 0

    def recall(self, key: bytes) -> Known | None:
        """Return the results of a structure, None if they are not here."""
        if key in self._results:
            self._results.move_to_end(key)
        return self._results.get(key)

    def keep(self, key: bytes, known: Known) -> None:
        """Add the results of a structure and drop the oldest ones beyond `_REMEMBERED` numbers."""
        self._results[key] = known
        self._n_numbers += known.gradient.size
        while self._n_numbers > _REMEMBERED and len(self._results) > 1:
            self._n_numbers -= self._results.popitem(last=False)[1].gradient.size


class _Energies(torch.autograd.Function):
    """Energies of structures from known derivatives by positions and cells, which count as constants."""

    @staticmethod
    def forward(ctx: Any, positions: Tensor, cell: Tensor, known: list[Known], structure: Tensor) -> Tensor:
        gradient = torch.from_numpy(np.concatenate([each.gradient for each in known])).to(positions)
        virials = torch.from_numpy(np.stack([each.virial for each in known])).to(cell)
        # a strain moves positions and cell: the derivative by the cell alone is the rest of the virial
        of_positions = torch.zeros_like(virials).index_add(0, structure, positions[:, :, None] * gradient[:, None])
        by_cell = torch.linalg.solve(cell.transpose(-1, -2), virials - of_positions)
        ctx.save_for_backward(gradient, by_cell, structure)
        return torch.tensor([each.energy for each in known], dtype=torch.float64, device=positions.device)

    @staticmethod
    def backward(ctx: Any, by_energies: Tensor) -> tuple[Tensor, Tensor, None, None]:
        gradient, by_cell, structure = ctx.saved_tensors
        return by_energies[structure, None] * gradient, by_energies[:, None, None] * by_cell, None, None


def damping_parameters(functional: str, damping: str, *, three_body: bool) -> dict[str, float]:
    """Return the numbers of a functional's damping function from the tables of the library.

    Raises
    ------
    ValueError
        The package dftd3 is not installed, or knows no such functional.
    """
    _check_installed()
    from dftd3.parameters import get_damping_param

    try:
        values = get_damping_param(functional, defaults=[damping])
    except KeyError:
        raise ValueError(f"dftd3 has no parameters of '{functional:.40}' with damping {damping}") from None
    return {name: float(value) for name, value in values.items()} | {"s9": float(three_body)}


def _check_installed() -> None:
    if find_spec("dftd3") is None:
        raise ValueError("the baseline `d3` needs the package dftd3: pip install 'lrc-ase[d3]'")

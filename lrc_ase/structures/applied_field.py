"""The electric field that a calculator applies to a moving structure, and the branch of its polarization."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms

from lrc_ase.structures.electric_field import FIELD_NAME, as_field, external_field, field_text
from lrc_ase.structures.graph import Graph
from lrc_ase.structures.images import CellImages

__all__ = ["AppliedField"]


class AppliedField:
    """Field of each structure, from `Atoms.info` or else a constant, and whole cells of wrapped atoms.

    Parameters
    ----------
    constant
        Field in V/Angstrom, (3,), on structures whose `Atoms.info` has no entry `FIELD_NAME`; None for no field.
    """

    def __init__(self, constant: Sequence[float] | np.ndarray | None) -> None:
        self._constant = None if constant is None else as_field(constant, "`electric_field`")
        self._images = CellImages()

    def __bool__(self) -> bool:
        """Return True for a constant field other than zero."""
        return self._constant is not None and bool(self._constant.any())

    @property
    def constant(self) -> list[float] | None:
        """Return the constant field in V/Angstrom."""
        return None if self._constant is None else [float(component) for component in self._constant]

    def __str__(self) -> str:
        """Return the constant field as text with all digits."""
        return field_text(self._constant)

    def forget(self) -> None:
        """Forget the whole cells of wrapped atoms."""
        self._images.forget()

    def on(self, atoms: Atoms, graph: Graph, *, unwrap: bool = False) -> Graph:
        """Return the graph of `atoms` with their field, and with `Graph.images` in a field or if asked to `unwrap`.

        Raises
        ------
        ValueError
            `external_field` refuses the entry of the atoms, or it differs from the constant field.
        """
        field = external_field(atoms) if atoms.info else None
        if field is None:
            field = self._constant
        elif self._constant is not None and not np.array_equal(field, self._constant):
            raise ValueError(
                f'atoms.info["{FIELD_NAME}"] is {field.tolist()} V/Angstrom, the keyword `electric_field` '
                f"{self._constant.tolist()}: give one of them"
            )
        if field is not None and field.any():
            strength: torch.Tensor | None = torch.from_numpy(field)[None].to(graph.cell)
        elif unwrap:
            strength = graph.field
        else:  # without a field nothing depends on whole cells
            return graph
        images = self._images.images(graph.positions, graph.cell, graph.pbc, graph.structure, (graph.species,))
        return graph.with_images(images, strength)

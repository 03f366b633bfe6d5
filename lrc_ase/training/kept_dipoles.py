"""Dipoles that the potential to start from predicts, as labels of molecules that have none.

Energies and forces hardly fix the charges of a molecule within the cutoff. A potential that has learned charges from
dipoles forgets them in a training on energies and forces alone, unless its predictions stay labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lrc_ase.dataset import LabelledGraph
from lrc_ase.files.potential_file import Potential
from lrc_ase.models.derivatives import dipole_moment
from lrc_ase.training.configuration import ConfigurationError

__all__ = ["with_kept_dipoles"]


def with_kept_dipoles(graphs: Sequence[LabelledGraph], start: Potential) -> tuple[LabelledGraph, ...]:
    """Return the graphs; those of molecules without a dipole have the one that `start` predicts.

    Periodic structures, and those with elements that `start` does not know, stay as they are.

    Raises
    ------
    ConfigurationError
        The potential has no latent charges.
    """
    long_range = start.settings.long_range
    if long_range is None or not long_range.electrostatics:
        raise ConfigurationError(
            "`keep_dipoles` needs a potential with latent charges in `start`: leave it out, or start from another one"
        )
    model = start.for_evaluation("cpu", "float64").model
    n_known = len(start.settings.elements)

    def is_lacking(labelled: LabelledGraph) -> bool:
        graph = labelled.graph
        has_dipole = labelled.dipole is not None and bool(labelled.dipole.isfinite().any())
        return not has_dipole and not bool(graph.pbc.any()) and int(graph.species.max()) < n_known

    return tuple(
        replace(labelled, dipole=dipole_moment(model, labelled.graph)) if is_lacking(labelled) else labelled
        for labelled in graphs
    )

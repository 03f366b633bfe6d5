"""Compilation of the kernels of a model before they are needed, for a machine on which many processes will start."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms

from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.inference.evaluator import Evaluator
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.structures.graph import Graph, collate
from lrc_ase.structures.neighbors import neighbor_graph
from lrc_ase.structures.vectors import neighbor_vectors

__all__ = ["compile_kernels"]

_PER_CUTOFF = 1.8
"""Lattice constant of the structures in units of the cutoff, over one: an atom has neighbors on all sides."""


def compile_kernels(model: ShortRangeModel, *, training: bool = False) -> None:
    """Run every kernel that evaluations of a model need, which compiles those that the cache on disk does not hold.

    Kernels depend on the settings of the model and its precision, and not on elements or sizes of structures.

    Parameters
    ----------
    model
        On the CPU.
    training
        Run those of a training on energies, forces and stress as well, with the parameters' gradients.
    """
    model.requires_grad_(False)
    crystal, molecule, few = (_graph(model, *which) for which in ((4, True), (2, False), (1, True)))
    evaluator = Evaluator(model)
    for graph in (crystal, few, molecule):
        evaluator(graph, dipole=True)
        if graph.pbc.all():
            evaluator.stress()
        # engines and batches go by autograd
        evaluate(model, graph, stress=bool(graph.pbc.all()))
    if training:
        # trainings measure their frames in double precision, whatever the model's
        neighbor_vectors(
            crystal.positions, crystal.cell, crystal.neighbors, crystal.shifts, crystal.structure, torch.float64
        )
        model.requires_grad_(True)
        results = evaluate(model, collate([crystal, molecule]), stress=True, training=True)
        assert results.forces is not None
        assert results.stress is not None
        loss = results.energy.square().sum() + results.forces.square().sum() + results.stress.square().sum()
        loss.backward()
        model.zero_grad()
        model.requires_grad_(False)


def _graph(model: ShortRangeModel, edge: int, periodic: bool) -> Graph:
    """Return a cube of `edge`^3 atoms on a shaken lattice, of all elements in turn."""
    settings = model.settings
    spacing = settings.cutoff / _PER_CUTOFF
    sites = np.stack(np.meshgrid(*3 * [np.arange(edge)], indexing="ij"), axis=-1).reshape(-1, 3)
    positions = spacing * (sites + 0.05 * np.random.default_rng(0).normal(size=sites.shape))
    symbols = [settings.elements[index % len(settings.elements)] for index in range(len(sites))]
    atoms = Atoms(symbols, positions=positions, cell=3 * [edge * spacing] if periodic else None, pbc=periodic)
    return neighbor_graph(atoms, settings.elements, settings.cutoff)

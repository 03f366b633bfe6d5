"""Error under rotation: the change of a model's predictions when the structure is rotated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.descriptors.orientations import random_rotation
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.structures.graph import Graph

__all__ = ["RotationError", "rotation_error"]


@dataclass(frozen=True)
class RotationError:
    """Root mean square changes, over rotations and atoms, of quantities that an exact model leaves unchanged."""

    features: float
    """Change of the descriptor's features, in units of their root mean square."""
    energy: float
    """Change of the energy per atom, eV."""
    forces: float
    """Forces of the rotated structure, rotated back, minus forces before, per component, eV/Angstrom."""
    relative_forces: float
    """`forces` in units of the root mean square force."""


def rotation_error(
    model: ShortRangeModel, graph: Graph, *, n_rotations: int = 8, generator: torch.Generator | None = None
) -> RotationError:
    """Rotate the structures of `graph`, positions and cells, at random and compare the predictions.

    The error of `sphere` is rounding. The error of `ponita` comes from its finite number of orientations. A long-range
    part adds the error of its mesh. A small error under rotation says nothing about the accuracy of the predictions.
    """
    # a mesh held for the old cell would not fit the rotated one
    graph = replace(graph, mesh_shapes=None)
    features = _features(model, graph)
    before = evaluate(model, graph)
    assert before.forces is not None
    n_atoms = torch.bincount(graph.structure, minlength=graph.n_structures)
    squares = torch.zeros(3, dtype=torch.float64)
    for _ in range(n_rotations):
        turn = random_rotation(generator).to(graph.positions)
        turned = replace(graph, positions=graph.positions @ turn.T, cell=graph.cell @ turn.T)
        after = evaluate(model, turned)
        assert after.forces is not None
        differences = [
            _features(model, turned) - features,
            (after.energy - before.energy) / n_atoms,
            after.forces @ turn - before.forces,  # rows were rotated by turn.T; `turn` rotates them back
        ]
        squares += torch.tensor([float(difference.double().square().mean()) for difference in differences])
    errors = (squares / n_rotations).sqrt()
    return RotationError(
        features=float(errors[0] / features.double().square().mean().sqrt()),
        energy=float(errors[1]),
        forces=float(errors[2]),
        relative_forces=float(errors[2] / before.forces.square().mean().sqrt()),
    )


@torch.no_grad()
def _features(model: ShortRangeModel, graph: Graph) -> torch.Tensor:
    """Return the features (n_atoms, n_features) that the descriptor passes to the rest of the model."""
    caught: list[torch.Tensor] = []
    hook = model.descriptor.register_forward_hook(lambda module, inputs, output: caught.append(output))
    try:
        model(graph)
    finally:
        hook.remove()
    return caught[0]

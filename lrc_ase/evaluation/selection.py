r"""Choice of frames for labeling: frames that an ensemble disagrees about and that differ from each other.

The method is farthest-point sampling with weights. Frames are chosen one by one. Each choice is the frame with the
largest product of disagreement and distance to the nearest frame that is chosen or known,

.. math:: i = \arg\max_i\; s_i \min_{j \in \mathrm{chosen}} |d_i - d_j|.

The disagreement s is the largest norm of an atom's force deviation, or the mean over atoms. The descriptor d of a frame
is the mean feature vector of each element's atoms, in units of its spread over all frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lrc_ase.dataset import SOURCE_KEY, Atoms
from lrc_ase.files.potential_file import Potential, check_potential
from lrc_ase.models.derivatives import evaluate
from lrc_ase.models.ensemble import members_of
from lrc_ase.models.model import ShortRangeModel
from lrc_ase.structures.charge import take_charge_from
from lrc_ase.structures.graph import Graph, collate
from lrc_ase.structures.neighbors import neighbor_graph

__all__ = ["Selection", "farthest_points", "select_frames"]

Disagreement = Literal["max", "mean"]


@dataclass(frozen=True)
class Selection:
    """Frames chosen from a trajectory, in the order of their choice."""

    frames: tuple[int, ...]
    """Indices of the chosen frames."""
    disagreement: np.ndarray
    """Force deviation of every frame of the trajectory, eV/Angstrom, (n_frames,)."""
    descriptors: np.ndarray
    """Mean features of every frame, in units of their spread, (n_frames, n_features)."""


def select_frames(
    potential: Potential,
    frames: Sequence[Atoms],
    count: int,
    *,
    known: Sequence[Atoms] = (),
    by: Disagreement = "max",
    charge_key: str | None = None,
    batch_size: int = 4,
    report_progress: Callable[[int, int], None] | None = None,
) -> Selection:
    """Choose `count` of `frames` for labeling.

    Parameters
    ----------
    potential
        Potential of an ensemble; a single model has no disagreement.
    frames
        Structures; labels, if any, are ignored.
    count
        Number of frames to choose; all frames are chosen where there are fewer.
    known
        Structures that are labeled already; frames similar to them are not chosen.
    by
        Disagreement of a frame: the largest force deviation of an atom (max), or the mean over atoms (mean).
    charge_key
        Name of the total charge in `Atoms.info`; common names are tried if None.
    report_progress
        Called with the number of frames evaluated and their total.

    Raises
    ------
    ValueError
        The potential is a single model, `count` is below 1, or there are no frames.
    """
    check_potential(potential)
    if potential.n_members < 2:
        raise ValueError(
            "choosing frames needs the potential of an ensemble, got a single model: train with `--ensemble 4`"
        )
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}")
    if not frames:
        raise ValueError("`frames` must hold at least one frame, got none")
    every = [*frames, *known]
    scores, features = [], []
    for start in range(0, len(every), batch_size):
        graph = _graph(potential, every[start : start + batch_size], start, charge_key)
        if start < len(frames):  # of known frames the descriptor is enough
            scores.append(_disagreement(potential.model, graph, by))
        features.append(_mean_descriptors(potential, graph))
        if report_progress is not None:
            report_progress(min(start + batch_size, len(every)), len(every))
    descriptors = torch.cat(features).double().numpy()
    spread = descriptors.std(axis=0)
    # a feature that never changes has no spread to be divided by
    descriptors = descriptors / np.where(spread > 0, spread, 1.0) / np.sqrt(descriptors.shape[1])
    disagreement = torch.cat(scores).double().numpy()[: len(frames)]
    chosen = farthest_points(descriptors[: len(frames)], count, disagreement, descriptors[len(frames) :])
    return Selection(tuple(chosen), disagreement, descriptors[: len(frames)])


def farthest_points(points: np.ndarray, count: int, weights: np.ndarray, known: np.ndarray) -> list[int]:
    """Return indices of `count` of `points` (n, d), far from each other and from `known` (m, d), by `weights`.

    Each choice maximizes the weight times the distance to the nearest point that is chosen or known.

    >>> line = np.array([[0.0], [0.1], [5.0], [9.0]])
    >>> farthest_points(line, 3, np.array([1.0, 2.0, 1.0, 1.0]), np.empty((0, 1)))
    [1, 3, 2]
    """
    distances = np.full(len(points), np.inf)
    for point in known:
        distances = np.minimum(distances, np.linalg.norm(points - point, axis=1))
    chosen: list[int] = []
    while len(chosen) < min(count, len(points)):
        # nothing chosen or known: all distances are infinite, and the weights alone decide
        merit = weights * distances if np.isfinite(distances).all() else weights.astype(float)
        merit[chosen] = -np.inf
        chosen.append(int(merit.argmax()))
        distances = np.minimum(distances, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def _graph(potential: Potential, frames: Sequence[Atoms], first: int, charge_key: str | None) -> Graph:
    """Return the batched graph of `frames`; `first` is the number of the first one in messages."""
    settings = potential.settings
    graphs = []
    for index, atoms in enumerate(frames, start=first):
        try:
            structure = atoms if charge_key is None else take_charge_from(atoms, charge_key)
            graphs.append(neighbor_graph(structure, settings.elements, settings.cutoff))
        except ValueError as error:
            raise ValueError(f"{atoms.info.get(SOURCE_KEY, f'frame {index}')}: {error}") from error
    return collate(graphs).to(next(potential.model.parameters()).device)


def _disagreement(model: ShortRangeModel, graph: Graph, by: Disagreement) -> Tensor:
    """Return the disagreement of the members about each structure, eV/Angstrom, (n_structures,)."""
    forces_std = evaluate(model, graph).forces_std
    assert forces_std is not None
    norms = forces_std.norm(dim=1)
    start = norms.new_zeros(graph.n_structures)
    reduction = "amax" if by == "max" else "mean"
    return start.scatter_reduce(0, graph.structure, norms, reduction, include_self=False).cpu()


@torch.no_grad()
def _mean_descriptors(potential: Potential, graph: Graph) -> Tensor:
    """Return the mean features of each element's atoms, (n_structures, n_elements * n_features).

    Features of an absent element are zero.
    """
    member = members_of(potential.model)[0]  # members share the descriptor, not its weights; one is enough
    features = member.local(graph, None).features
    n_elements = len(potential.settings.elements)
    # one row of sums for each structure and element
    kind = graph.structure * n_elements + graph.species
    sums = features.new_zeros(graph.n_structures * n_elements, features.shape[1]).index_add(0, kind, features)
    counts = torch.bincount(kind, minlength=len(sums)).clamp(min=1)
    return (sums / counts[:, None]).reshape(graph.n_structures, -1).cpu()

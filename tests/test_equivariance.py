"""The error under rotation, of a model whose error is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from structures import ELEMENTS, rattled_crystal
from torch import nn

from lrc_ase.models.descriptors.orientations import random_rotation
from lrc_ase.models.equivariance import rotation_error
from lrc_ase.models.model import ModelOutput
from lrc_ase.structures.neighbors import neighbor_graph

SLOPE = 0.3  # eV/Angstrom


class HeightDescriptor(nn.Module):
    """Features 1 and z of each atom: the second one is not invariant."""

    def forward(self, positions):
        return torch.stack([torch.ones_like(positions[:, 2]), positions[:, 2]], dim=1)


class Gravity(nn.Module):
    """Energy proportional to z."""

    def __init__(self):
        super().__init__()
        self.descriptor = HeightDescriptor()

    def forward(self, graph, strain=None):
        return ModelOutput(SLOPE * self.descriptor(graph.positions)[:, 1])


def test_rotation_error_of_a_weight_is_that_of_the_direction_of_gravity():
    graph = neighbor_graph(rattled_crystal(), ELEMENTS, 3.0)
    positions, n_rotations = graph.positions.numpy(), 5
    error = rotation_error(Gravity(), graph, n_rotations=n_rotations, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    turns = [random_rotation(generator).numpy() for _ in range(n_rotations)]
    up = np.array([0, 0, 1.0])
    heights = [positions @ turn.T @ up - positions @ up for turn in turns]
    features = np.stack([np.ones(len(positions)), positions @ up])
    forces = SLOPE * np.sqrt(np.mean([(turn.T @ up - up) ** 2 for turn in turns]))
    assert error.features == pytest.approx(np.sqrt(np.mean(np.square(heights)) / 2 / np.mean(features**2)))
    assert error.energy == pytest.approx(SLOPE * np.sqrt(np.mean(np.mean(heights, axis=1) ** 2)))
    assert error.forces == pytest.approx(forces)
    assert error.relative_forces == pytest.approx(forces / (SLOPE / np.sqrt(3)))


def test_random_rotations_are_rotations_without_a_preferred_direction():
    generator = torch.Generator().manual_seed(0)
    turns = torch.stack([random_rotation(generator) for _ in range(4000)])
    torch.testing.assert_close(turns @ turns.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand_as(turns))
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(4000, dtype=torch.float64))
    # uniform rotations: entries have mean 0 and mean square 1/3
    assert turns.mean(dim=0).abs().max() < 0.04
    assert (turns.square().mean(dim=0) - 1 / 3).abs().max() < 0.03
    # the mean of the cosine of the angle, (trace - 1) / 2, is -1/2 for uniform rotations
    assert float((turns.diagonal(dim1=1, dim2=2).sum(dim=1) - 1).mean() / 2) == pytest.approx(-0.5, abs=0.03)

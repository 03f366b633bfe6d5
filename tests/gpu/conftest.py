"""Everything on a GPU beside the same on the CPU; `run.sh` says how to run it.

With LRC_ASE_REHEARSAL=1 the "GPU" is the CPU, by the code that a GPU would run: it finds mistakes of the tests.
"""

from __future__ import annotations

import os
from copy import deepcopy

import pytest
import torch

from lrc_ase.models.descriptors.sphere import SphereDescriptor

REHEARSAL = os.environ.get("LRC_ASE_REHEARSAL") == "1"


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available() or REHEARSAL:
        return
    for item in items:
        if "gpu" in item.path.parent.name:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def device():
    return torch.device("cpu" if REHEARSAL else "cuda")


@pytest.fixture
def moved(device):
    """Return a copy of a module on the device."""

    def move(module):
        copy = deepcopy(module).to(device)
        if REHEARSAL:
            for part in copy.modules():
                if isinstance(part, SphereDescriptor):
                    part.engine = "reference"
        return copy

    return move


@pytest.fixture
def agree():
    """Return a check that tensors agree relative to the largest entry of the second."""

    def check(actual, expected, tolerance):
        assert (actual is None) == (expected is None)
        if expected is None:
            return
        actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
        assert actual.shape == expected.shape
        scale = max(float(expected.abs().max()) if expected.numel() else 0.0, 1e-6)
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)

    return check

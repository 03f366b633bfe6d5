"""The contract on every calculator: all descriptors at all boundaries, and the black boxes."""

from functools import lru_cache
from itertools import product

import numpy as np
import pytest
import torch
from ase import Atoms
from contract import Case, Contract
from structures import ELEMENTS, potential, rattled_crystal, settings

from lrc_ase import LongRangeSettings, LRCCalculator
from lrc_ase.models.baselines import ranges_from_data
from lrc_ase.models.settings import PaperSettings, PonitaSettings, SphereSettings
from lrc_ase.potentials.calculator import KernelCalculator
from lrc_ase.potentials.kernels import ScreenedCoulomb

DESCRIPTORS = {
    "sphere": SphereSettings(n_channels=10),
    "two blocks": SphereSettings(n_channels=10, n_blocks=2),
    "vectors": SphereSettings(n_channels=10, n_blocks=2, neighbor_degree=1),
    "ponita": PonitaSettings(n_channels=6, n_basis=8, n_layers=2),
    "paper": PaperSettings(widths=(2, 4, 8)),
}
ACCURACY = 1e-6
ROTATION = {"sphere": 1e-5, "two blocks": 1e-5, "vectors": 1e-5, "ponita": 0.3, "paper": None}
"""Relative change of forces under rotation: from the orientations of `ponita`, otherwise from the mesh."""
PERIODIC = {"bulk": 3, "slab": 2, "wire": 1, "cluster": 0}


def crystal(boundary):
    """Eight ions in a slanted cell, the open directions without a vector."""
    atoms = rattled_crystal()
    n_periodic = PERIODIC[boundary]
    cell = atoms.cell.array.copy()
    cell[n_periodic:] = 0
    atoms.set_cell(cell)
    atoms.pbc = np.arange(3) < n_periodic
    return atoms


@lru_cache
def untrained(descriptor):
    long_range = LongRangeSettings(n_channels=2, accuracy=ACCURACY, compositions={"NaCl": 0})
    return potential(settings(descriptor=DESCRIPTORS[descriptor], long_range=long_range))


def case_of(make_potential, boundary, rotation):
    """Return what the calculator of a potential promises for the crystal at a boundary."""
    offered = {"charges", "born_effective_charges"}
    offered |= {"stress", "stresses"} if boundary == "bulk" else set()
    offered |= {"dipole"} if boundary != "bulk" else set()
    changes = {"positions", "numbers", "pbc", "charge"} | ({"cell"} if boundary != "cluster" else set())
    return Case(
        make=lambda: LRCCalculator(make_potential()),
        atoms=lambda: crystal(boundary),
        offered=frozenset(offered),
        absent=frozenset({"stress", "stresses", "dipole", "magmoms"} - offered),
        mesh=10 * ACCURACY if boundary != "cluster" else 1e-9,
        rotation=rotation,
        supercell={"bulk": (1, 2, 1), "slab": (2, 1, 1), "wire": (2, 1, 1), "cluster": None}[boundary],
        changes_noticed=frozenset(changes),
    )


class TestLRCCalculator(Contract):
    @pytest.fixture(
        params=[(descriptor, boundary) for descriptor in DESCRIPTORS for boundary in PERIODIC], ids="-".join
    )
    def case(self, request):
        descriptor, boundary = request.param
        return case_of(lambda: untrained(descriptor), boundary, ROTATION[descriptor])


@lru_cache
def responding():
    """Permanent dipoles and polarizabilities, of a size that shows in all derivatives."""
    long_range = LongRangeSettings(
        n_channels=2, accuracy=ACCURACY, compositions={"NaCl": 0}, polarizable=True, n_dipoles=2
    )
    some = potential(settings(descriptor=DESCRIPTORS["sphere"], long_range=long_range))
    with torch.no_grad():
        some.model.long_range.weights.last.weight[-3:] *= 10
    return some


@lru_cache
def oriented():
    """Latent tensors whose fields change the energy."""
    long_range = LongRangeSettings(n_channels=1, n_tensors=2, accuracy=ACCURACY, compositions={"NaCl": 0})
    some = potential(settings(descriptor=DESCRIPTORS["sphere"], long_range=long_range))
    with torch.no_grad():
        some.model.long_range.to_hidden.weight *= 5
    return some


class TestLongRangeTerms(Contract):
    @pytest.fixture(params=product([responding, oriented], PERIODIC), ids=lambda pair: f"{pair[0].__name__}-{pair[1]}")
    def case(self, request):
        make_potential, boundary = request.param
        return case_of(make_potential, boundary, ROTATION["sphere"])


@lru_cache
def repelling():
    """Core repulsion of a range at which neighbors feel it."""
    ranges = ranges_from_data({"Na-Cl": 3.2, "Na-Na": 4.4}, ELEMENTS, {}, 4.5)
    long_range = LongRangeSettings(n_channels=2, accuracy=ACCURACY, compositions={"NaCl": 0})
    return potential(
        settings(descriptor=DESCRIPTORS["sphere"], long_range=long_range, baseline=[{"zbl": {"ranges": ranges}}])
    )


class TestCoreRepulsion(Contract):
    @pytest.fixture(params=PERIODIC)
    def case(self, request):
        return case_of(repelling, request.param, ROTATION["sphere"])


class TestKernelCalculator(Contract):
    @pytest.fixture(params=["bulk", "slab", "wire"])
    def case(self, request):
        n_periodic = PERIODIC[request.param]
        cell = np.diag([6.0, 5.5, 7.0])
        cell[1, 0] = 0.8 * (n_periodic > 1)
        positions = np.random.default_rng(2).uniform(0, 5, (5, 3))

        def atoms():
            return Atoms("H5", positions=positions, cell=cell, pbc=np.arange(3) < n_periodic)

        return Case(
            make=lambda: KernelCalculator(ScreenedCoulomb(mu=1.2), smoothing=0.5, self_images=True),
            atoms=atoms,
            offered=frozenset({"stress", "energies"}),
            absent=frozenset({"charges", "dipole", "stresses"}),
            # a kernel of fewer coordinates is tied to the Cartesian axes of its periodic directions
            rotation=1e-9 if n_periodic == 3 else None,
            supercell=(2, 1, 1),
            changes_noticed=frozenset({"positions", "cell"}),
        )

"""The programs compared, each behind the same four jobs of `problem`.

`make_peer(name, problem)` makes everything that stays the same from step to step (plans, tables, contexts); its methods
`field`, `forces`, `gradient` and `training`, where it has them, take positions as they come and return numpy arrays.
Window, mesh and tolerances are those that `calibrate.py` found cheapest for the accuracy asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
from direct_sums import DenseSum, KeopsSum, LayerSum
from nufft_peers import Ducc0, Finufft, NufftJobs
from problem import JOBS, SMEARING, Problem, relative_error
from torch_peers import Layer, Nvalchemi, NvalchemiFused, TorchPme

__all__ = ["MAKERS", "SETTINGS", "errors_of", "jobs_of", "make_peer"]

ARRAYS = {
    "field": ("u",),
    "forces": ("u", "forces"),
    "gradient": ("u", "gradient"),
    "training": ("by weights", "by parameters"),
}
COULOMB_CONSTANT = 138.935456
"""OpenMM's, kJ/mol nm."""

SETTINGS: dict[str, dict[float, dict[str, Any]]] = {
    "lrc-ase": {1e-4: {"accuracy": 1e-3}, 1e-6: {"accuracy": 1e-5}},
    "torch-pme": {1e-4: {"nodes": 5, "spacing": 0.79}, 1e-6: {"nodes": 5, "spacing": 0.395}},
    "nvalchemi": {1e-4: {"order": 5, "spacing": 0.7}, 1e-6: {"order": 6, "spacing": 0.4}},
    "finufft": {1e-4: {"spacing": 0.91, "tolerance": 3e-4}, 1e-6: {"spacing": 0.68, "tolerance": 1e-5}},
    "ducc0": {1e-4: {"spacing": 0.91, "tolerance": 3e-4}, 1e-6: {"spacing": 0.68, "tolerance": 1e-5}},
    "openmm": {1e-4: {"spacing": 0.7}},
}
"""By accuracy of u: mesh spacing in Angstrom, points of the window, tolerance of a nonuniform FFT.

torch-pme makes a power of two of the mesh; the next finer one would cost eight times the FFT, so at half of all sizes
its error is up to 3 times the one asked for, in its favor.
"""


class OpenMM:
    """The reciprocal part of OpenMM's PME on its CPU platform: float32, order 5, Coulomb alone.

    Positions are handed over once, outside of the time; results stay in OpenMM's own arrays while timed.
    """

    jobs = ("forces",)

    def __init__(self, problem: Problem, spacing: float) -> None:
        import openmm

        if problem.screening != 0 or problem.n_channels != 1 or problem.precision != "float32":
            raise ValueError(f"OpenMM sums Coulomb interactions of one channel in float32, got {problem}")
        system, force = openmm.System(), openmm.NonbondedForce()
        edge = problem.length / 10  # nm
        system.setDefaultPeriodicBoxVectors(*(edge * np.eye(3)))
        for weight in problem.weights[:, 0]:
            system.addParticle(1.0)
            force.addParticle(float(weight), 0.1, 0.0)
        n_mesh = scipy.fft.next_fast_len(math.ceil(problem.length / spacing), real=True)
        force.setNonbondedMethod(openmm.NonbondedForce.PME)
        force.setCutoffDistance(0.3)  # the pair part, of another group, is never computed
        force.setPMEParameters(10 / (math.sqrt(2) * SMEARING), n_mesh, n_mesh, n_mesh)
        force.setReciprocalSpaceForceGroup(1)
        system.addForce(force)
        platform = openmm.Platform.getPlatformByName("CPU")
        self.context = openmm.Context(
            system, openmm.VerletIntegrator(0.001), platform, {"Threads": str(problem.threads)}
        )
        self.context.setPositions(problem.positions / 10)

    def forces(self) -> Any:
        return self.context.getState(energy=True, forces=True, groups={1})

    @staticmethod
    def arrays(state: Any) -> tuple[np.ndarray | None, ...]:
        """No field, and forces per squared Angstrom from kJ/mol/nm."""
        import openmm

        unit = openmm.unit.kilojoule_per_mole / openmm.unit.nanometer
        return None, state.getForces(asNumpy=True).value_in_unit(unit) / (100 * COULOMB_CONSTANT)


def arrays(peer: Any, result: Any) -> tuple[np.ndarray | None, ...]:
    """What a job gave, as arrays; outside of the time."""
    return peer.arrays(result) if hasattr(peer, "arrays") else result


def jobs_of(name: str) -> tuple[str, ...]:
    """Jobs that a program can do."""
    if name.endswith(" packed"):
        return JOBS[:3]  # its training step would be that of the plain way
    return getattr(MAKERS[name], "jobs", JOBS)


def _nufft(library: type[Finufft] | type[Ducc0], *, packed: bool) -> Callable[..., NufftJobs]:
    def make(problem: Problem, spacing: float, tolerance: float) -> NufftJobs:
        # odd, so that every wave has its opposite
        n_modes = 2 * math.ceil((problem.length / spacing - 1) / 2) + 1
        transforms = library(n_modes, problem.length, tolerance, problem.precision, problem.threads)
        return NufftJobs(problem, transforms, n_modes, packed=packed)

    return make


MAKERS: dict[str, Callable[..., Any]] = {
    "lrc-ase": Layer,
    "torch-pme": TorchPme,
    "nvalchemi": Nvalchemi,
    "nvalchemi fused": NvalchemiFused,
    "finufft": _nufft(Finufft, packed=False),
    "finufft packed": _nufft(Finufft, packed=True),
    "ducc0": _nufft(Ducc0, packed=False),
    "ducc0 packed": _nufft(Ducc0, packed=True),
    "openmm": OpenMM,
    "direct torch": DenseSum,
    "direct KeOps": KeopsSum,
    "direct lrc-ase": LayerSum,
}


def make_peer(name: str, problem: Problem, **settings: Any) -> Any:
    """A program made ready for a problem; settings replace those of `SETTINGS`."""
    known = SETTINGS.get(name.split()[0], {}).get(problem.accuracy, {})
    return MAKERS[name](problem, **(known | settings))


def errors_of(peer: Any, job: str, exact: dict[str, np.ndarray]) -> dict[str, float]:
    """Relative l2 error of each array that a job gives, by its name in `ARRAYS`."""
    found = arrays(peer, getattr(peer, job)())
    return {
        name: relative_error(array, exact[f"{job}_{slot}"])
        for slot, (name, array) in enumerate(zip(ARRAYS[job], found, strict=True))
        if array is not None
    }

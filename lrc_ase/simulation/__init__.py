"""Relaxation, molecular dynamics and their observables, for any ASE calculator.

These are the functions behind ``lrc-ase relax`` and ``lrc-ase md``. ASE does the physics. This package adds restarts
that continue bit for bit, a stop before an exploding run ruins its output, and logs.
"""

from lrc_ase.simulation.conditions import MDFiles, MDSettings
from lrc_ase.simulation.current import CurrentRecord, read_current
from lrc_ase.simulation.dielectric import DielectricConstant, dielectric_constant
from lrc_ase.simulation.dynamics import MDState, MDSummary, SimulationStopped, run_md
from lrc_ase.simulation.infrared import InfraredSpectrum, infrared_spectrum
from lrc_ase.simulation.initial_velocities import thermalize
from lrc_ase.simulation.observables import (
    EnergyDrift,
    ReferenceRDF,
    energy_drift,
    radial_distribution,
    read_reference_rdf,
)
from lrc_ase.simulation.power_spectrum import SpectrumSettings
from lrc_ase.simulation.relaxation import Relaxation, RelaxationNotConverged, RelaxSettings, relax
from lrc_ase.simulation.vibrational_states import (
    VelocityRecord,
    VibrationalStates,
    read_velocities,
    vibrational_states,
)

__all__ = [
    "CurrentRecord",
    "DielectricConstant",
    "EnergyDrift",
    "InfraredSpectrum",
    "MDFiles",
    "MDSettings",
    "MDState",
    "MDSummary",
    "ReferenceRDF",
    "RelaxSettings",
    "Relaxation",
    "RelaxationNotConverged",
    "SimulationStopped",
    "SpectrumSettings",
    "VelocityRecord",
    "VibrationalStates",
    "dielectric_constant",
    "energy_drift",
    "infrared_spectrum",
    "radial_distribution",
    "read_current",
    "read_reference_rdf",
    "read_velocities",
    "relax",
    "run_md",
    "thermalize",
    "vibrational_states",
]

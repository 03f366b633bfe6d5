"""Checks by name, the suites that they form, and the run of one check."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from ase.calculators.calculator import CalculatorError, PropertyNotImplementedError

from lrc_ase.checks import (
    conservation,
    density,
    derivatives,
    diffusion,
    dimers,
    elasticity,
    equation_of_state,
    invariances,
    labelled_errors,
    locality,
    permittivity,
    phonons,
    radial_distributions,
    stability,
    surfaces,
    vibrations,
)
from lrc_ase.checks.results import CheckResult, NotApplicable
from lrc_ase.checks.subject import Kind, Subject
from lrc_ase.simulation.dynamics import SimulationStopped
from lrc_ase.simulation.relaxation import RelaxationNotConverged
from lrc_ase.structures.domain import ExtrapolationWarning

__all__ = ["CHECKS", "FAILURES", "SUITES", "Check", "run_check"]


@dataclass(frozen=True)
class Check:
    """Function of a check, and where it applies."""

    function: Callable[[Subject, np.random.Generator], CheckResult]
    kinds: tuple[Kind, ...] = ("crystal", "liquid", "molecule")
    """Kinds of systems that the check makes sense for."""
    of_potential: bool = False
    """True for a check that needs no system and runs once."""
    comparable: bool = False
    """True for a check that a reference calculator runs too, as it needs few evaluations."""
    runs: tuple[str, ...] = ()
    """Names of the runs of molecular dynamics that the check reads or makes."""


_PRODUCTION = ("equilibration", "production")


CHECKS: Mapping[str, Check] = {
    "dimers": Check(dimers.dimers, of_potential=True, comparable=True),
    "labelled errors": Check(labelled_errors.labelled_errors, of_potential=True),
    "finite differences": Check(derivatives.finite_differences),
    "invariances": Check(invariances.invariances),
    "locality": Check(locality.locality),
    "approaching pairs": Check(dimers.approaching_pairs, comparable=True),
    "equation of state": Check(equation_of_state.equation_of_state, ("crystal",), comparable=True),
    "elastic constants": Check(elasticity.elastic_constants, ("crystal",), comparable=True),
    "phonons": Check(phonons.phonon_frequencies, ("crystal",), comparable=True),
    "surface energy": Check(surfaces.surface_energies, ("crystal",), comparable=True),
    "normal modes": Check(vibrations.normal_modes, ("molecule",), comparable=True),
    "energy conservation": Check(conservation.energy_conservation, runs=(*_PRODUCTION, "production-float32")),
    "vibrational spectrum": Check(vibrations.vibrational_spectrum, runs=_PRODUCTION),
    "radial distributions": Check(radial_distributions.radial_distributions, ("crystal", "liquid"), runs=_PRODUCTION),
    "diffusion": Check(diffusion.diffusion, ("liquid",), runs=_PRODUCTION),
    "dielectric constant": Check(permittivity.permittivity, ("crystal", "liquid"), runs=_PRODUCTION),
    "density": Check(density.density_at_zero_pressure, ("crystal", "liquid"), runs=("constant-pressure",)),
    "stability": Check(stability.stability, runs=("hot",)),
}
"""All checks in the order in which they run: inexpensive ones first."""
SUITES: Mapping[str, tuple[str, ...]] = {
    kind: tuple(name for name, check in CHECKS.items() if kind in check.kinds)
    for kind in ("liquid", "crystal", "molecule")
} | {"all": tuple(CHECKS)}
"""Names of the checks of each suite."""


def run_check(name: str, subject: Subject) -> CheckResult:
    """Run one check on a system; errors of the calculator or of a run become the verdict `failed`.

    With a reference calculator, checks that need few evaluations run on it too.
    """
    check = CHECKS[name]
    begin = time.perf_counter()
    result = _outcome(name, check, subject)
    if check.comparable and subject.reference is not None and result.verdict != "not applicable":
        other = replace(
            subject,
            candidate=replace(subject.candidate, calculator=subject.reference, single=None),
            reference=None,
            folder=subject.folder / "reference",
        )
        reference = _outcome(name, check, other)
        if reference.quantities:
            result = result.beside(reference)
        else:
            result = replace(result, sentence=f"{result.sentence} The reference failed: {reference.sentence}")
    return replace(result, seconds=time.perf_counter() - begin)


def _outcome(name: str, check: Check, subject: Subject) -> CheckResult:
    """Run the function of a check with a random generator of its own."""
    words = hashlib.sha256(name.encode()).digest()
    rng = np.random.default_rng([subject.settings.seed, int.from_bytes(words[:8], "little")])
    try:
        if not check.of_potential:
            subject.require(*check.kinds)
        with warnings.catch_warnings():
            # scans and hot runs leave the training set on purpose; checks say so in numbers
            warnings.simplefilter("ignore", ExtrapolationWarning)
            return check.function(subject, rng)
    except (NotApplicable, PropertyNotImplementedError) as reason:
        return CheckResult(name, "not applicable", _sentence(reason))
    except FAILURES as error:
        return CheckResult(name, "failed", f"{type(error).__name__}: {_sentence(error)}")


FAILURES = (
    CalculatorError,
    SimulationStopped,
    RelaxationNotConverged,
    ArithmeticError,
    np.linalg.LinAlgError,
    RuntimeError,
    ValueError,
)
"""Errors of a calculator or of a run: findings about the potential, not faults of the check."""


def _sentence(error: Exception) -> str:
    """Return the text of an error as one sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text[:1].upper() + text[1:]).rstrip(".") + "."

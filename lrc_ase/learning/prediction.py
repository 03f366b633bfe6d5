"""Prediction of a potential together with the reasons not to trust it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed

from lrc_ase.calculator import LRCCalculator
from lrc_ase.files.potential_file import Potential
from lrc_ase.models.ensemble import Ensemble
from lrc_ase.structures.caller_warnings import warn_caller
from lrc_ase.structures.charge import total_charge
from lrc_ase.structures.domain import CHARGE_DIGITS, DOMAIN_KEY

__all__ = ["Prediction", "check_deviations", "predict"]

_BLIND_SCALE = 0.01
"""Scale of the spread below which deviations are the floor alone; lrc-ase 0.2 calibrated such potentials."""


@dataclass(frozen=True)
class Prediction:
    """Results of a potential for one structure, and the reasons not to trust them."""

    results: dict[str, Any] = field(default_factory=dict)
    """`energy`, `free_energy` and `forces`; empty if the potential cannot evaluate the structure."""
    deviation: float = math.nan
    """Largest predicted deviation of the force on an atom, eV/Angstrom; NaN without an ensemble."""
    reasons: tuple[str, ...] = ()
    """One sentence for each reason; empty if the results can be trusted."""


def predict(calculator: LRCCalculator, atoms: Atoms, threshold: float) -> Prediction:
    r"""Evaluate a potential and judge the result.

    Reasons are an element or a total charge that training did not see, a structure far outside the training domain
    (`LRCCalculator.extrapolation`), results that are not finite, and an atom whose force has a predicted deviation
    :math:`\sqrt{\sigma_x^2 + \sigma_y^2 + \sigma_z^2}` above `threshold`, eV/Angstrom.
    """
    potential = calculator.potential
    unknown = sorted(set(atoms.symbols) - set(potential.settings.elements))
    if unknown:
        return Prediction(reasons=(f"the potential does not know the element {', '.join(unknown)}",))
    charge = round(total_charge(atoms), CHARGE_DIGITS)
    if charge not in (potential.description.get(DOMAIN_KEY, {}).get("total_charges") or (charge,)):
        return Prediction(reasons=(f"a total charge of {charge:g} e never occurred in training",))
    try:
        energy = calculator.get_property("energy", atoms)
    except CalculationFailed as error:
        return Prediction(reasons=(str(error),))
    results = {"energy": energy, "free_energy": energy, "forces": calculator.get_property("forces", atoms)}
    reasons, deviation = list(calculator.extrapolation), math.nan
    if potential.n_members > 1:
        deviations = np.linalg.norm(calculator.get_forces_std(atoms), axis=1)
        atom = int(deviations.argmax())
        deviation = float(deviations[atom])
        if deviation > threshold:
            reasons.append(
                f"the force on atom {atom} ({atoms.symbols[atom]}) has a predicted deviation of {deviation:.3f} "
                f"eV/Angstrom, more than the threshold of {threshold:g}"
            )
    return Prediction(results, deviation, tuple(reasons))


def check_deviations(potential: Potential, threshold: float) -> None:
    """Check that the deviations of a potential can be compared with `threshold`, eV/Angstrom.

    Raises
    ------
    ValueError
        The potential is a single model, and records no training domain either.

    Warns
    -----
    UserWarning
        The potential is a single model, its deviations do not depend on the structure, or none of them lies below the
        threshold.
    """
    if isinstance(potential.model, Ensemble):
        scale = float(potential.model.uncertainty_scale[1])
        if scale < _BLIND_SCALE:
            warn_caller(
                f"the deviations of this potential hardly depend on the structure (the spread of its members counts "
                f"{scale:.1g} times): they will not tell where it is unsure; calibrate it anew by training from it",
            )
        smallest = 3**0.5 * float(potential.model.forces_floor)
        if threshold < smallest:
            warn_caller(
                f"`threshold` is {threshold:g} eV/Angstrom, and the smallest deviation of a force that this potential "
                f"predicts {smallest:.3g}: the teacher will be asked about every structure",
            )
    elif potential.description.get(DOMAIN_KEY):
        warn_caller(
            "the potential is a single model without deviations: the teacher is asked only where a structure lies far "
            "outside the training domain, whatever `threshold` says; train with ensemble=4 for deviations",
        )
    else:
        raise ValueError(
            "the potential is a single model and records no training domain: nothing tells where it is unsure; train "
            "with ensemble=4"
        )

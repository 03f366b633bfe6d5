r"""Infrared absorption spectrum from the polarization current of a run.

The absorption coefficient times the refractive index is, for classical nuclei,

.. math:: \alpha(\omega)\, n(\omega) = \frac{1}{6\, \epsilon_0\, c\, V k_B T}
          \int_{-\infty}^{\infty} \langle J(0) \cdot J(t) \rangle\, e^{-i \omega t}\, dt\; Q(\omega),

with the polarization current J = dM/dt. The factor Q restores what classical nuclei miss; the integral over
:math:`\omega` is :math:`\pi N q^2 / (2 \epsilon_0 c V m)` for N charges q of mass m on springs of any kind, with Q = 1.

Quantum corrections (Ramirez, Lopez-Ciudad, Kumar and Marx, doi:10.1063/1.1774986) with
:math:`x = \hbar \omega / k_B T` are, relative to the harmonic one: *harmonic* Q = 1, exact for harmonic vibrations;
*standard* :math:`2 \tanh(x/2) / x`; *schofield* :math:`2 \sinh(x/2) / x`; *none* :math:`(1 - e^{-x}) / x`, the quantum
mechanical prefactor with the classical correlation as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from ase import units
from scipy.constants import Avogadro, c, e, epsilon_0, h, k

from lrc_ase.simulation.current import CurrentRecord, check_eps_inf
from lrc_ase.simulation.power_spectrum import BlockSpectra, SpectrumSettings, power_spectrum, warn_of_aliasing

__all__ = ["QUANTUM_CORRECTIONS", "InfraredSpectrum", "infrared_spectrum"]

_LIGHT = c * 1e-5
"""Speed of light, Angstrom/fs."""
_EPSILON_0 = epsilon_0 / e * 1e-10
"""Vacuum permittivity, e^2/(eV Angstrom)."""
_PER_CM = 1e8
"""One over Angstrom in 1/cm."""
_KM_PER_MOL = Avogadro * 1e-16 * 1e-5
"""Cross section of 1 Angstrom^2 per molecule in km/mol per cm^-1: 6.022e7 cm^2 per mol, 1e5 cm per km."""

QUANTUM_CORRECTIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "harmonic": np.ones_like,
    "standard": lambda x: 2 * np.tanh(x / 2) / x,
    "schofield": lambda x: 2 * np.sinh(x / 2) / x,
    "none": lambda x: -np.expm1(-x) / x,
}
"""Factors of the classical spectrum by name, functions of hbar omega / kT > 0."""


@dataclass(frozen=True)
class InfraredSpectrum:
    """Absorption spectrum with error bars."""

    wavenumbers: np.ndarray
    """(n_wavenumbers,), cm^-1."""
    absorption: np.ndarray
    """(n_wavenumbers,), in `unit`."""
    error: np.ndarray
    """Standard error from blocks, (n_wavenumbers,); NaN for a single block."""
    unit: Literal["cm^-1", "km/mol per cm^-1"]
    """cm^-1: absorption coefficient (of the intensity, base e) times refractive index, of a periodic cell.
    km/mol per cm^-1: molar absorption coefficient of the whole structure, where no volume is defined; its integral over
    a band is the intensity that quantum chemists quote in km/mol."""
    temperature: float
    """K."""
    length: float
    """Length of all runs, ps."""
    n_blocks: int


def infrared_spectrum(
    records: Sequence[CurrentRecord],
    settings: SpectrumSettings | None = None,
    *,
    quantum_correction: str = "harmonic",
    temperature: float | None = None,
    eps_inf: float = 1.0,
) -> InfraredSpectrum:
    """Compute the infrared absorption spectrum of runs of one system.

    Parameters
    ----------
    records
        Polarization currents, at the same interval.
    quantum_correction
        A name of `QUANTUM_CORRECTIONS`.
    temperature
        Temperature in K; the mean kinetic temperature of each run if None.
    eps_inf
        Electronic permittivity, which screens the charges of the potential. Latent charges are smaller than true
        charges by its square root, so that the absorption is multiplied by `eps_inf`.

    Raises
    ------
    ValueError
        No runs, runs at different intervals, with and without a volume, or too short for the resolution; an unknown
        correction; a temperature that is not positive, an electronic permittivity below 1.

    Warns
    -----
    UserWarning
        The spectrum has not vanished at the Nyquist frequency: higher frequencies are folded into it.
    """
    settings = SpectrumSettings() if settings is None else settings
    if quantum_correction not in QUANTUM_CORRECTIONS:
        raise ValueError(
            f"`quantum_correction` must be one of {', '.join(QUANTUM_CORRECTIONS)}, got {quantum_correction!r}"
        )
    check_eps_inf(eps_inf)
    if not records:
        raise ValueError("`records` must hold at least one run, got none")
    intervals = sorted({round(record.interval, 6) for record in records})
    if len(intervals) > 1:
        raise ValueError(f"the runs must be sampled at one interval, got {intervals[0]:g} and {intervals[-1]:g} fs")
    if len({record.volume is None for record in records}) > 1:
        raise ValueError("the runs must be all periodic in three directions, or none: got both")
    if temperature is not None:
        records = [replace(record, temperature=temperature) for record in records]
    if not min(record.temperature for record in records) > 0:
        raise ValueError("the temperature of a run must be positive: atoms at rest have no spectrum")
    spectra = power_spectrum([_scaled(record) for record in records], records[0].interval, settings)
    warn_of_aliasing(spectra, records[0].interval)
    lengths = [len(record.current) for record in records]
    mean_temperature = float(np.average([record.temperature for record in records], weights=lengths))
    spectra = _corrected(spectra, quantum_correction, mean_temperature)
    return InfraredSpectrum(
        wavenumbers=spectra.wavenumbers,
        absorption=eps_inf * spectra.mean,
        error=eps_inf * spectra.error,
        unit="km/mol per cm^-1" if records[0].volume is None else "cm^-1",
        temperature=mean_temperature,
        length=sum(record.length for record in records),
        n_blocks=len(spectra.density),
    )


def _scaled(record: CurrentRecord) -> np.ndarray:
    """Scale a current so that its power spectrum is the absorption without quantum correction."""
    # 1 / (6 epsilon_0 c kT): Angstrom^2 of cross section per (e Angstrom/fs)^2 fs
    factor = 1 / (6 * _EPSILON_0 * _LIGHT * units.kB * record.temperature)
    factor *= _KM_PER_MOL if record.volume is None else _PER_CM / record.volume
    return np.sqrt(factor) * record.current


def _corrected(spectra: BlockSpectra, quantum_correction: str, temperature: float) -> BlockSpectra:
    """Multiply spectra by a quantum correction."""
    x = h * c * 100 * spectra.wavenumbers / (k * temperature)
    # every correction tends to one at zero
    factor = QUANTUM_CORRECTIONS[quantum_correction](np.maximum(x, 1e-8))
    return replace(spectra, density=spectra.density * factor)

r"""Static dielectric constant from the dipole moment of runs.

M is the dipole moment of the cell since the start of a run. With conducting surroundings, as in the energies of
periodic cells (see docs/reference/conventions.md), fluctuations without a field and the response to a field E give the
same constant:

.. math:: \epsilon = \epsilon_\infty
          \Big(1 + \frac{\langle M^2 \rangle - \langle M \rangle^2}{3\epsilon_0 V k_B T}\Big), \qquad
          \epsilon = \epsilon_\infty \Big(1 + \frac{1}{\epsilon_0 V} \frac{d\langle M \rangle}{dE}\Big).

Latent charges are smaller than true ones by the root of the electronic permittivity :math:`\epsilon_\infty`, so that
this factor multiplies the whole. For charges that are not screened take 1 and add :math:`\epsilon_\infty - 1`.

(Neumann, doi:10.1080/00268978300102721; finite field: Zhang and Sprik, doi:10.1103/PhysRevB.93.144201.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import units
from scipy.constants import e, epsilon_0
from scipy.integrate import cumulative_trapezoid

from lrc_ase.simulation.current import CurrentRecord, check_eps_inf

__all__ = ["DielectricConstant", "dielectric_constant", "dipole_moments"]

_EPSILON_0 = epsilon_0 / e * 1e-10
"""Vacuum permittivity, e/(V Angstrom)."""
_LARGEST_DIFFERENCE = 0.3
"""Largest difference between steps of the moment and integrals of the current, in units of the latter."""
_SETTLED = 3.0
"""Largest change of the estimate in the second half of the time, in standard errors; blocks that know too few slow
fluctuations have errors that are too small."""
_SLOW = 0.5
"""Largest share of the fluctuations in the means of blocks; blocks of three correlation times have 0.46 of an
exponential decay."""
_PARALLEL = 1e-6
"""Largest sine of the angle between fields that count as parallel."""


@dataclass(frozen=True)
class DielectricConstant:
    """Static dielectric constant."""

    method: str
    """fluctuation or finite field."""
    value: float
    error: float
    """Standard error from blocks; NaN for one block."""
    times: np.ndarray
    """Times of the running estimate, (n_times,), ps."""
    running: np.ndarray
    """Estimate from the time up to each of `times`, (n_times,)."""
    temperature: float
    """K."""
    length: float
    """Length of all runs without what was skipped, ps."""
    n_blocks: int
    """Number of blocks, of all runs."""
    slow_share: float
    """Variance of the means of blocks over the variance of the dipole moment: 1 for blocks shorter than its correlation
    time, 0 for much longer ones. 0 by a field."""

    @property
    def half_way(self) -> float:
        """Return the running estimate from half of the time."""
        return float(np.interp(0.5 * (self.times[0] + self.times[-1]), self.times, self.running))

    @property
    def settled(self) -> bool:
        """Return False if the standard error is too small, because the estimate still changes or blocks are correlated.

        The estimate still changes if that from half of the time differs by more than `_SETTLED` standard errors.
        """
        return not abs(self.value - self.half_way) > _SETTLED * self.error and not self.slow_share > _SLOW


def dipole_moments(record: CurrentRecord) -> np.ndarray:
    """Return the dipole moments since the first sample, (n_samples, 3), e Angstrom.

    The moments of the calculator are taken where they follow the current. Otherwise the current is integrated, as for
    potentials whose charges move between periodic images without a path. The forces of a thermostat with noise make the
    integral wander.
    """
    integral: np.ndarray = cumulative_trapezoid(record.current, dx=record.interval, axis=0, initial=0.0)
    if record.moments is None:
        return integral
    steps, moments = np.diff(integral, axis=0), record.moments - record.moments[0]
    difference = np.diff(moments, axis=0) - steps
    return moments if (difference**2).mean() < _LARGEST_DIFFERENCE**2 * (steps**2).mean() else integral


def dielectric_constant(
    records: Sequence[CurrentRecord],
    *,
    eps_inf: float = 1.0,
    skip: float = 0.0,
    n_blocks: int = 5,
    temperature: float | None = None,
) -> DielectricConstant:
    """Compute the static dielectric constant of runs of one periodic system.

    Runs without a field give the constant by the fluctuation of the dipole moment. Runs in different fields along one
    line, zero included, give it by the response. Such runs must begin at the same positions, from which the dipole
    moment is counted.

    Parameters
    ----------
    eps_inf
        Electronic permittivity that screens the charges of the potential.
    skip
        Time at the beginning of each run to leave out of the means, ps.
    n_blocks
        Number of blocks of each run, whose spread gives the error.
    temperature
        Temperature, K, for fluctuations; the mean kinetic temperature if None.

    Raises
    ------
    ValueError
        No runs, no volume, runs too short, fields that do not lie along one line or are all the same, or fluctuations
        at a temperature that is not positive.
    """
    if not records:
        raise ValueError("`records` must hold at least one run, got none")
    if any(record.volume is None for record in records):
        raise ValueError("a dielectric constant needs a volume: runs with three periodic directions")
    check_eps_inf(eps_inf)
    if n_blocks < 1:
        raise ValueError(f"`n_blocks` must be at least 1, got {n_blocks}")
    moments = []
    for record in records:
        kept = dipole_moments(record)[int(np.ceil(1000 * skip / record.interval - 1e-9)) :]
        if len(kept) < 2 * n_blocks:
            raise ValueError(
                f"{len(kept)} samples of a run are left after the first {skip:g} ps, expected {2 * n_blocks}"
            )
        moments.append(kept)
    in_a_field = any(record.field.any() for record in records)
    if temperature is None:
        temperature = float(np.mean([record.temperature for record in records]))
    if not in_a_field and not temperature > 0:
        raise ValueError(f"the temperature of fluctuations must be positive, got {temperature:g} K")
    estimate = _response if in_a_field else _fluctuation
    value, error = estimate(records, moments, temperature, n_blocks)
    shortest = min(map(len, moments))
    counts = np.unique(np.linspace(2, shortest, min(200, shortest - 1)).astype(int))
    running = [estimate(records, [each[:count] for each in moments], temperature, 1)[0] for count in counts]
    return DielectricConstant(
        method="finite field" if in_a_field else "fluctuation",
        value=eps_inf * (1 + value),
        error=eps_inf * error,
        times=skip + 1e-3 * records[0].interval * counts,
        running=eps_inf * (1 + np.array(running)),
        temperature=temperature,
        length=1e-3 * sum(len(each) * record.interval for each, record in zip(moments, records, strict=True)),
        n_blocks=n_blocks * len(records),
        slow_share=0.0 if in_a_field else _slow_share(moments, n_blocks),
    )


def _fluctuation(
    records: Sequence[CurrentRecord], moments: Sequence[np.ndarray], temperature: float, n_blocks: int
) -> tuple[float, float]:
    """Return susceptibility and standard error from the fluctuations of the dipole moments (n_samples, 3)."""
    blocks = []
    for record, each in zip(records, moments, strict=True):
        # the moment is known up to a constant: its mean over the run is the origin
        squares = ((each - each.mean(axis=0)) ** 2).sum(axis=1)
        assert record.volume is not None
        unit = 3 * _EPSILON_0 * record.volume * units.kB * temperature
        blocks += [block.mean() / unit for block in np.array_split(squares, n_blocks)]
    return float(np.mean(blocks)), _standard_error(np.array(blocks))


def _slow_share(moments: Sequence[np.ndarray], n_blocks: int) -> float:
    """Return the variance of the means of blocks over that of the moments (n_samples, 3); 0 for moments at rest."""
    centered = [each - each.mean(axis=0) for each in moments]
    means = [block.mean(axis=0) for each in centered for block in np.array_split(each, n_blocks)]
    variance = float(np.mean(np.concatenate(centered) ** 2))
    return float(np.mean(np.array(means) ** 2)) / variance if variance > 0 else 0.0


def _response(
    records: Sequence[CurrentRecord], moments: Sequence[np.ndarray], temperature: float, n_blocks: int
) -> tuple[float, float]:
    """Return susceptibility and standard error from the slope of the dipole moments over the field."""
    fields = np.array([record.field for record in records])
    differences = fields - fields[0]
    longest = differences[np.argmax(np.linalg.norm(differences, axis=1))]
    if not longest.any():
        raise ValueError(
            f"all runs have one field, {fields[0].tolist()} V/Angstrom: "
            "add a run without a field or in the opposite one"
        )
    direction = longest / np.linalg.norm(longest)
    strengths = differences @ direction
    if (np.linalg.norm(differences - strengths[:, None] * direction, axis=1) > _PARALLEL * abs(strengths).max()).any():
        raise ValueError(f"the fields must lie along one line, got {fields.tolist()} V/Angstrom")
    volume = float(np.mean([record.volume for record in records]))
    # least squares: slope = sum w_r <M>_r with the weights w of each run
    centered = strengths - strengths.mean()
    weights = centered / (centered**2).sum()
    along = [each @ direction for each in moments]
    slope = sum(weight * each.mean() for weight, each in zip(weights, along, strict=True))
    errors = [_standard_error(np.array([b.mean() for b in np.array_split(each, n_blocks)])) for each in along]
    return float(slope / (_EPSILON_0 * volume)), float(np.linalg.norm(weights * errors) / (_EPSILON_0 * volume))


def _standard_error(blocks: np.ndarray) -> float:
    """Return the standard error of the mean of independent blocks, NaN for one."""
    return float(blocks.std(ddof=1) / np.sqrt(len(blocks))) if len(blocks) > 1 else float("nan")

"""What the training set holds: the conditions of every frame, and the frames the pair potential is fitted to."""

from __future__ import annotations

from sampling import Condition, lattice_constant_at

MELT_DENSITIES = (1.45, 1.60, 1.75)  # g/cm^3; experiment at 1200 K: 1.49, scaled to the xTB lattice constant: 1.64


def fit_lattice_constants(equilibrium: float) -> tuple[float, ...]:
    """Return the lattice constants of the rattled crystals of the first fit, in Angstrom."""
    return tuple(round(ratio * equilibrium, 3) for ratio in (0.97, 1.0, 1.04, 1.08))


def fit_conditions(equilibrium: float) -> list[Condition]:
    """Return the conditions that a refinement of the pair potential draws from."""
    melts = [
        Condition("melt", temperature, lattice_constant_at(density), n_frames=2, origin="thermal")
        for density, temperature in ((1.45, 1100.0), (1.45, 1500.0), (1.60, 1200.0), (1.75, 1100.0), (1.75, 1500.0))
    ]
    crystals = [
        Condition("crystal", temperature, ratio * equilibrium, n_frames=2, strain=0.03, origin="strained")
        for temperature, ratio in ((300.0, 0.99), (600.0, 1.01), (900.0, 1.03))
    ]
    return melts + crystals


def small_conditions(equilibrium: float) -> list[Condition]:
    """Return the conditions of the 64-atom frames; `equilibrium` is the xTB lattice constant in Angstrom."""
    cold = [
        Condition("crystal", 30.0, ratio * equilibrium, origin="thermal") for ratio in (0.97, 0.985, 1.0, 1.015, 1.03)
    ]
    thermal = [
        Condition("crystal", temperature, ratio * equilibrium, n_frames=3, origin="thermal")
        for temperature in (300.0, 500.0, 750.0, 1000.0)
        for ratio in (0.98, 1.0, 1.02)
    ]
    strained = [
        Condition("crystal", temperature, 1.01 * equilibrium, n_frames=n_frames, strain=0.04, origin="strained")
        for temperature, n_frames in ((100.0, 6), (300.0, 10), (600.0, 8), (900.0, 8))
    ]
    vacancies = [
        Condition("crystal", temperature, 1.01 * equilibrium, n_frames=4, n_vacancy_pairs=1, origin="vacancy")
        for temperature in (500.0, 800.0)
    ]
    melts = [
        Condition("melt", temperature, lattice_constant_at(density), n_frames=9, origin="thermal")
        for temperature in (1100.0, 1200.0, 1350.0, 1500.0)
        for density in MELT_DENSITIES
    ]
    rattled = [
        Condition("melt", 1500.0, lattice_constant_at(density), n_frames=3, rattle=0.12, origin="rattled")
        for density in MELT_DENSITIES
    ]
    hot = [
        Condition("melt", 2500.0, lattice_constant_at(density), n_frames=6, origin="hot") for density in (1.75, 2.00)
    ]
    return cold + thermal + strained + vacancies + melts + rattled + hot


def large_conditions(equilibrium: float) -> list[Condition]:
    """Return the conditions of the 216-atom frames."""
    crystals = [
        Condition(
            "crystal",
            temperature,
            ratio * equilibrium,
            n_cells=3,
            n_frames=2,
            strain=strain,
            origin="strained" if strain > 0 else "thermal",
        )
        for temperature, ratio, strain in (
            (300.0, 1.00, 0.00),
            (1000.0, 1.02, 0.00),
            (600.0, 1.00, 0.03),
            (300.0, 1.02, 0.03),
            (900.0, 1.01, 0.03),
            (600.0, 0.98, 0.00),
            (300.0, 0.99, 0.04),
            (1000.0, 1.00, 0.00),
            (600.0, 1.02, 0.04),
        )
    ]
    melts = [
        Condition("melt", temperature, lattice_constant_at(density), n_cells=3, n_frames=3, origin="thermal")
        for temperature, density in (
            (1100.0, 1.60),
            (1500.0, 1.45),
            (1300.0, 1.75),
            (1500.0, 1.75),
            (1100.0, 1.45),
            (1300.0, 1.60),
            (1100.0, 1.75),
            (1500.0, 1.60),
            (1300.0, 1.45),
        )
    ]
    return crystals + melts

"""Settings of the baselines: parts of the energy that are known before training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from lrc_ase.models.elements import SYMBOLS
from lrc_ase.models.strict_settings import Settings

__all__ = ["BaselineSettings", "Baselines", "D3Settings", "ZBLSettings"]

_LONGEST = 100.0
"""Largest range, Angstrom."""


def _check_ranges(ranges: dict[str, float] | None) -> dict[str, float] | None:
    """Return the ranges with the elements of each pair by atomic number."""
    if ranges is None:
        return None
    sorted_ranges: dict[str, float] = {}
    for pair, distance in ranges.items():
        symbols = pair.split("-")
        if len(symbols) != 2 or not set(symbols) <= set(SYMBOLS):
            raise ValueError(f"expected pairs of elements such as 'Na-Cl', got {pair[:40]!r}")
        name = "-".join(sorted(symbols, key=SYMBOLS.index))
        if name in sorted_ranges:
            raise ValueError(f"the pair {name} occurs twice")
        sorted_ranges[name] = distance
    return sorted_ranges


class ZBLSettings(Settings):
    """Screened repulsion of atomic cores at distances shorter than any in training, `lrc_ase.models.baselines.zbl`."""

    name: Literal["zbl"] = "zbl"
    ranges: Annotated[dict[str, Annotated[float, Field(gt=0, le=_LONGEST)]] | None, AfterValidator(_check_ranges)] = (
        None
    )
    """Longest distance at which the repulsion of a pair of elements may begin, Angstrom: `{Na-Cl: 1.8}`. A potential
    holds where it begins: no further than 0.95 of the shortest distance of such a pair in the training frames, and the
    sum of the covalent radii if no frame has the pair."""
    wall: float = Field(150.0, ge=0, le=1e4)
    """Height in eV of a wall around every atom that begins at the same distances, where the repulsion of light atoms
    is too weak to hold what the network does; 0 leaves it out."""


class D3Settings(Settings):
    """Dispersion correction D3 of a density functional, `lrc_ase.models.baselines.d3`. Needs the package dftd3."""

    name: Literal["d3"] = "d3"
    functional: str = Field("PBE", max_length=40)
    """Functional by which `parameters` are looked up, in the spelling of dftd3."""
    damping: Literal["bj", "zero"] = "bj"
    """Becke-Johnson damping, or damping to zero."""
    three_body: bool = False
    """Include the energy of triples of atoms (Axilrod, Teller and Muto)."""
    cutoff: float = Field(31.7506, ge=5, le=_LONGEST)
    """Range of pairs, Angstrom; by default the 60 Bohr of the library."""
    parameters: dict[Annotated[str, Field(max_length=8)], float] | None = Field(None, max_length=16)
    """Numbers of the damping function, such as `{s6: 1.0, s8: 0.7875, s9: 0.0, a1: 0.4289, a2: 4.4407, alp: 14.0}`.
    Null: those of the functional."""


BaselineSettings = ZBLSettings | D3Settings
"""Settings of one baseline, told apart by `name`."""


def _named_baseline(value: Any) -> Any:
    """Return the settings of a baseline that is given by its name, `zbl`, or by name and settings, `{zbl: {...}}`."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and "name" not in value and len(value) == 1:
        ((name, entries),) = value.items()
        if entries is None or isinstance(entries, Mapping):
            return {"name": name, **(entries or {})}
    return value


def _check_baselines(baselines: tuple[BaselineSettings, ...]) -> tuple[BaselineSettings, ...]:
    names = [each.name for each in baselines]
    if len(set(names)) < len(names):
        raise ValueError(f"each baseline may stand there once, got {names}")
    return baselines


Baselines = Annotated[
    tuple[Annotated[BaselineSettings, Field(discriminator="name"), BeforeValidator(_named_baseline)], ...],
    AfterValidator(_check_baselines),
]
"""Baselines of a model, each at most once."""

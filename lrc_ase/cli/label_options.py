"""Options that name the labels of frames, the same for all commands that read frames."""

from __future__ import annotations

from typing import Annotated

import typer

from lrc_ase.dataset import LabelKeys

__all__ = [
    "BornKeyOption",
    "ChargeKeyOption",
    "DipoleKeyOption",
    "EnergyKeyOption",
    "ForcesKeyOption",
    "PolarizabilityKeyOption",
    "SkipUnlabelledOption",
    "StressKeyOption",
    "VirialKeyOption",
    "label_keys",
]

_PANEL = "Names of labels"
EnergyKeyOption = Annotated[
    str | None,
    typer.Option(
        "--energy-key",
        help="Name of the total energy, eV; common names if not given.",
        rich_help_panel=_PANEL,
    ),
]
ForcesKeyOption = Annotated[
    str | None, typer.Option("--forces-key", help="Name of the forces, eV/Angstrom.", rich_help_panel=_PANEL)
]
StressKeyOption = Annotated[
    str | None,
    typer.Option(
        "--stress-key", help="Name of the stress, eV/Angstrom^3, positive in tension.", rich_help_panel=_PANEL
    ),
]
VirialKeyOption = Annotated[
    str | None,
    typer.Option("--virial-key", help="Name of the virial, eV; stress = -virial / volume.", rich_help_panel=_PANEL),
]
ChargeKeyOption = Annotated[
    str | None, typer.Option("--charge-key", help="Name of the total charge, e.", rich_help_panel=_PANEL)
]
DipoleKeyOption = Annotated[
    str | None,
    typer.Option(
        "--dipole-key",
        help="Name of the dipole about the origin of the coordinates, e Angstrom.",
        rich_help_panel=_PANEL,
    ),
]
BornKeyOption = Annotated[
    str | None,
    typer.Option(
        "--born-key",
        help="Name of the Born effective charges, e, polarization first, displacement second.",
        rich_help_panel=_PANEL,
    ),
]
PolarizabilityKeyOption = Annotated[
    str | None,
    typer.Option("--polarizability-key", help="Name of the polarizability, e^2 Angstrom^2/eV.", rich_help_panel=_PANEL),
]
SkipUnlabelledOption = Annotated[
    bool,
    typer.Option(
        "--skip-unlabelled", help="Leave out frames without any label, and count them.", rich_help_panel=_PANEL
    ),
]


def label_keys(
    *,
    energy: str | None,
    forces: str | None,
    stress: str | None,
    virial: str | None,
    charge: str | None,
    dipole: str | None,
    born: str | None,
    polarizability: str | None,
) -> LabelKeys:
    """Return the keys that the options name; ValueError if stress and virial are both named."""
    if stress is not None and virial is not None:
        raise ValueError("give --stress-key or --virial-key, not both: a virial is read as stress = -virial / volume")
    return LabelKeys(
        energy=energy,
        forces=forces,
        stress=stress,
        virial=virial,
        charge=charge,
        dipole=dipole,
        born_effective_charges=born,
        polarizability=polarizability,
    )

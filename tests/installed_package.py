"""Evaluate every shipped potential with an installed package: `make release-check` does it in a clean environment."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import lrc_ase
from lrc_ase.files.pretrained import trained_potentials


def main() -> None:
    """Raise an error unless the package of this environment loads and evaluates what it ships."""
    folder = Path(lrc_ase.__file__).resolve()
    if Path(sys.prefix).resolve() not in folder.parents:
        raise SystemExit(f"lrc_ase was imported from {folder}, not from the environment {sys.prefix}")
    names = trained_potentials()
    if not names:
        raise SystemExit("the package ships no potential")
    for name in names:
        atoms = lrc_ase.start_structure(name)
        atoms.calc = lrc_ase.load(name)
        if not np.isfinite(atoms.get_forces()).all():
            raise SystemExit(f"forces of the shipped potential {name} are not finite")
        print(f"{name}: {atoms.get_potential_energy():.3f} eV for {len(atoms)} atoms")


if __name__ == "__main__":
    main()

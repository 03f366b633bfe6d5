"""Potentials that are shipped: folders of ``potentials/trained``, each with a ``potential.safetensors``.

They come in a package of their own beside this one, which is looked for and never imported.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ["POTENTIAL_FILE", "trained_potential", "trained_potentials"]

POTENTIAL_FILE = "potential.safetensors"


def trained_potentials() -> dict[str, Path]:
    """Files of the potentials that are installed, by name."""
    package = find_spec("lrc_ase.potentials")
    folders = [] if package is None else list(package.submodule_search_locations or ())
    files = [file for folder in folders for file in sorted(Path(folder, "trained").glob(f"*/{POTENTIAL_FILE}"))]
    return {file.parent.name: file for file in files}


def trained_potential(name: str) -> Path:
    """File of the shipped potential called `name`; ValueError lists what there is."""
    found = trained_potentials()
    if name not in found:
        there = f"there are {', '.join(sorted(found))}" if found else "none is installed"
        raise ValueError(
            f"no shipped potential is called {name!r}; {there}. A file of your own loads by its path: "
            '`LRCCalculator("path/potential.safetensors")`'
        )
    return found[name]

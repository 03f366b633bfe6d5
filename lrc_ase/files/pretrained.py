"""Paths of potentials: files, folders of training runs, and potentials shipped with the package.

Shipped potentials are folders of ``potentials/trained``, each with a ``potential.safetensors``, a card ``README.md``
and a structure to start from, ``start.extxyz``. They form the package `lrc_ase.potentials`, which is located and never
imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from lrc_ase.files.errors import PotentialFileError, ShadowedNameWarning
from lrc_ase.structures.caller_warnings import warn_caller

__all__ = [
    "POTENTIAL_FILE",
    "absolute_potential",
    "card_title",
    "find_potential",
    "is_potential",
    "start_file",
    "stored_name",
    "trained_potential",
    "trained_potentials",
]

POTENTIAL_FILE = "potential.safetensors"
"""Name of the final potential in a run folder and in the folder of a shipped potential."""
CARD_FILE = "README.md"
START_FILE = "start.extxyz"


def trained_potentials() -> dict[str, Path]:
    """Return the files of the shipped potentials by name."""
    package = find_spec("lrc_ase.potentials")
    folders = [] if package is None else list(package.submodule_search_locations or ())
    files = [file for folder in folders for file in sorted(Path(folder, "trained").glob(f"*/{POTENTIAL_FILE}"))]
    return {file.parent.name: file for file in files}


def trained_potential(name: str) -> Path:
    """Return the file of the shipped potential `name`, even if the working folder holds a file of that name.

    Raises
    ------
    PotentialFileError
        No shipped potential has that name; the message lists them.
    """
    shipped = trained_potentials()
    if name not in shipped:
        raise PotentialFileError(
            f"no shipped potential is called {name!r}; {_listed(shipped)}. A file or run folder loads by its path: "
            '`LRCCalculator("run/potential.safetensors")`'
        )
    return shipped[name]


def start_file(name_or_path: str | os.PathLike[str]) -> Path | None:
    """Return the file of the structure that a shipped potential brings along, None if there is none."""
    shipped = trained_potentials().get(os.fspath(name_or_path))
    file = None if shipped is None else shipped.with_name(START_FILE)
    return file if file is not None and file.is_file() else None


def card_title(file: Path) -> str:
    """Return the title of the card beside a shipped potential file, without the name; empty without a card.

    The first line of a card reads ``# name: title``.
    """
    card = file.with_name(CARD_FILE)
    if not card.is_file():
        return ""
    with card.open(encoding="utf-8") as lines:
        return lines.readline().lstrip("# ").partition(":")[2].strip()


def find_potential(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a potential.

    Parameters
    ----------
    name_or_path
        A potential file, the folder of a training run, or the name of a shipped potential. An existing file or run
        folder takes precedence over a shipped potential of the same name.

    Raises
    ------
    PotentialFileError
        There is no such file, folder or name, or the folder holds no potential.

    Warns
    -----
    ShadowedNameWarning
        A local file or folder has the name of a shipped potential; the warning says which of them is taken.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise TypeError(
            f"expected a potential file, a run folder or the name of a shipped potential, got {name_or_path!r}"
        )
    name = os.fspath(name_or_path)
    path = Path(name)
    shipped = trained_potentials().get(name)
    # the functions of os.path answer False where those of pathlib raise: unreadable folders, null characters
    if os.path.isfile(path):
        local = path
    elif os.path.isdir(path):
        local = path / POTENTIAL_FILE
        if not os.path.isfile(local):
            if shipped is None:
                raise PotentialFileError(_empty_folder(path))
            warn_caller(
                f"the local folder {path.absolute()} holds no {POTENTIAL_FILE}: taking the shipped potential {name!r}",
                ShadowedNameWarning,
            )
            return shipped
    elif shipped is not None:
        return shipped
    else:
        raise PotentialFileError(_absent(name))
    if shipped is not None:
        warn_caller(
            f"taking the local {local.absolute()}, not the shipped potential {name!r}: rename one of them, or write "
            f"./{name} for the local one",
            ShadowedNameWarning,
        )
    return local


def stored_name(file: Path) -> str:
    """Return the text by which any process finds a potential again: the name of a shipped one, or the absolute path."""
    shipped = {path.absolute(): name for name, path in trained_potentials().items()}
    return shipped.get(file.absolute(), str(file.absolute()))


def is_potential(name_or_path: str | os.PathLike[str]) -> bool:
    """Return True if an argument names a potential, not a file of frames.

    Potentials are names that end in ``.safetensors``, run folders, and names of shipped potentials unless a file has
    the same name.
    """
    name = os.fspath(name_or_path)
    if name.endswith(".safetensors") or os.path.isfile(os.path.join(name, POTENTIAL_FILE)):
        return True
    return not os.path.isfile(name) and name in trained_potentials()


def absolute_potential(name_or_path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> str:
    """Make a path absolute, starting from `folder`; leave the name of a shipped potential as it is.

    A file or run folder in `folder` takes precedence over a shipped potential of the same name.
    """
    name = os.fspath(name_or_path)
    path = os.path.abspath(os.path.join(folder, name))
    is_local = os.path.isfile(path) or os.path.isfile(os.path.join(path, POTENTIAL_FILE))
    return path if is_local or name not in trained_potentials() else name


def _empty_folder(folder: Path) -> str:
    """Return the message for a folder without a final potential; it lists the potentials of finished stages."""
    stages = sorted(file.name for file in folder.glob("potential-*.safetensors"))
    hint = f"name one of {', '.join(stages)} in it" if stages else "a run writes it after its first validation"
    return f"{folder} is a folder without a {POTENTIAL_FILE}: {hint}"


def _absent(name: str) -> str:
    """Return the message for a path or a name that does not exist."""
    if Path(name).suffix or len(Path(name).parts) > 1:
        return f"{name} does not exist: expected a potential file or a run folder"
    return f"no file, run folder or shipped potential is called {name!r}; {_listed(trained_potentials())}"


def _listed(shipped: Mapping[str, Path]) -> str:
    """Return a phrase that lists the shipped potentials."""
    return f"shipped are: {', '.join(sorted(shipped))}" if shipped else "no potential is shipped with this installation"

"""An ordinary input file of LAMMPS in which one line, ``pair_style lrc``, names our potential."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["LammpsInput", "read_input"]

PAIR_STYLE = "lrc"


@dataclass(frozen=True)
class LammpsInput:
    """An input file cut at the line that names the potential."""

    before: str
    """Commands that make the box and its atoms."""
    species: tuple[str, ...] | None
    """Elements of the atom types, as the line names them; None leaves them to the types' labels."""
    after: str
    """All that follows; what loops must lie here as a whole."""


def read_input(path: Path) -> LammpsInput:
    """Cut an input at ``pair_style lrc [element of type 1] [of type 2] ...``.

    Raises
    ------
    ValueError
        No such line or several, another pair style or ``clear`` after it, which would take the potential away.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    words = [line.partition("#")[0].split() for line in lines]
    found = [index for index, own in enumerate(words) if own[:2] == ["pair_style", PAIR_STYLE]]
    if len(found) != 1:
        raise ValueError(
            f"{path} must hold one line `pair_style {PAIR_STYLE} Na Cl` (elements of the atom types), or none of them "
            f"where `labelmap` names types, once the box and its atoms are there; found {len(found)}"
        )
    (index,) = found
    for later in range(index + 1, len(lines)):
        if words[later][:1] in (["pair_style"], ["clear"]):
            raise ValueError(
                f"{path}, line {later + 1}: `{lines[later].strip()}` after `pair_style {PAIR_STYLE}` takes the "
                "potential away: leave it out"
            )
    return LammpsInput("".join(lines[:index]), tuple(words[index][2:]) or None, "".join(lines[index + 1 :]))

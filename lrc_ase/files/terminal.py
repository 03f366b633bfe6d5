"""The console to which commands and trainings write."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console

__all__ = ["new_console"]


def new_console(**options: Any) -> Console:
    """Return a console that moves the cursor only on a terminal, and writes plain lines everywhere else.

    Jupyter and some queueing systems set FORCE_COLOR, by which rich takes a pipe for a terminal. A progress bar would
    leave its control codes there. In a cell of Python, rich would show each line as a display of its own.
    """
    # a process without a standard output, as under some schedulers, has None
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    return Console(force_terminal=None if on_terminal else False, force_jupyter=False, **options)

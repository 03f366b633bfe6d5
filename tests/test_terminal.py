"""Commands and trainings move the cursor on a terminal alone."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from lrc_ase.cli.console import one_line_errors, say
from lrc_ase.files.terminal import new_console


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_a_process_without_standard_output_has_no_terminal(monkeypatch):
    """As under schedulers, and in `lrc-ase md ... >&-`."""
    monkeypatch.setattr(sys, "stdout", None)
    assert not new_console().is_terminal


@pytest.mark.parametrize("forced", [True, False])
def test_only_a_terminal_is_one(monkeypatch, forced):
    """Jupyter sets FORCE_COLOR for the commands in its cells, whose output is a pipe."""
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    if forced:
        monkeypatch.setenv("FORCE_COLOR", "1")
        assert Console(file=io.StringIO()).is_terminal
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not new_console().is_terminal
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert new_console().is_terminal


def test_lines_in_a_notebook_are_one_stream(monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert Console().is_jupyter
    assert not new_console().is_jupyter


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # of a locale, and of the locale C
def test_letters_that_an_encoding_lacks_end_no_command(monkeypatch, errors):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", errors=errors))

    @one_line_errors
    def table(*, debug):
        say("meV/\N{LATIN CAPITAL LETTER A WITH RING ABOVE}")
        new_console().print("a\N{SUPERSCRIPT THREE}", markup=False)
        sys.stdout.flush()

    table(debug=True)
    assert written.getvalue() == b"meV/?\na?\n"

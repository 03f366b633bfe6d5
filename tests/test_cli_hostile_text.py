"""Text from files reaches the terminal letter by letter: no markup, no escape codes, nothing cut off."""

import re

import pytest
from rich.console import Console
from structures import potential
from typer.testing import CliRunner

from lrc_ase import Potential, save_potential
from lrc_ase.cli import app
from lrc_ase.files.printable import printable


def lrc_ase(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


HOSTILE_TEXTS = [
    "[/b]",
    "[link=file:///etc/passwd]click[/link]",
    "\x1b]0;title\x07\x1b[2J",
    "[bold]x",
    "a\u202eb",
    "\n\r",
]


@pytest.mark.parametrize("width", [None, 100], ids=["pipe", "terminal"])
def test_info_shows_text_from_files_letter_by_letter(tmp_path, width, monkeypatch):
    folder = tmp_path / "run[" / "b]"
    folder.mkdir(parents=True)
    path = folder / f"{'long-name-' * 12}.safetensors"
    shown = potential()
    description = {f"key {text}": text for text in HOSTILE_TEXTS}
    save_potential(path, Potential(shown.model, shown.references, description))
    if width is not None:
        terminal = Console(width=width, force_terminal=True, color_system=None)
        monkeypatch.setattr("lrc_ase.cli.printed_tables.console", terminal)
    code, output = lrc_ase("info", path)
    assert code == 0, output
    without_layout = re.sub(r"\s", "", output)
    assert str(path) in without_layout
    for text in HOSTILE_TEXTS:
        assert re.sub(r"\s", "", printable(text)) in without_layout
    assert not set(output) & set("\x1b\x07\u202e\r")
    assert "…" not in output
    if width is None:
        assert "key [bold]x: [bold]x" in output.splitlines()
    else:
        assert max(map(len, output.splitlines())) <= width


def test_errors_show_names_of_files_letter_by_letter(tmp_path):
    code, output = lrc_ase("info", tmp_path / "\x1b[2J[/b].safetensors")
    assert code == 1
    assert r"\x1b[2J[/b].safetensors does not exist" in output
    assert "\x1b" not in output

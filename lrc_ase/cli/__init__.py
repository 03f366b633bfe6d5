"""The command line: ``lrc-ase data | train | learn | sample | evaluate | check | select | relax | md | ...``.

Commands translate arguments, show progress and turn errors into one line; the work is done elsewhere in `lrc_ase`.
Each command is a function in a module of the same name, imported when the command is called: `lrc-ase --help` takes
one-line summaries from the docstrings in the sources and loads neither torch nor ASE.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import lrc_ase

__all__ = ["app"]


class _WithRepeat(TyperCommand):
    """Command whose option --repeat takes one word, ``2,1,1``, or three, ``2 1 1``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments after joining three numbers behind --repeat into one word."""
        joined = list(args)
        for index, word in enumerate(joined):
            numbers = joined[index + 1 : index + 4]
            if word == "--repeat" and len(numbers) == 3 and all(map(str.isdecimal, numbers)):
                joined[index + 1 : index + 4] = [",".join(numbers)]
                break
        return super().parse_args(ctx, joined)


_LISTS = ("--temperature", "-t", "--teacher-options")


class _WithLists(TyperCommand):
    """Command whose options `_LISTS` take several words: ``--temperature 300 1200``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments after repeating such an option before each of its words."""
        repeated: list[str] = []
        option, n_values = "", 0
        for word in args:
            if word in _LISTS:
                option, n_values = word, 0
            elif option and (n_values == 0 or _belongs(word, option)):
                repeated += [option] if n_values else []
                n_values += 1
            else:
                option = ""
            repeated.append(word)
        return super().parse_args(ctx, repeated)


def _belongs(word: str, option: str) -> bool:
    """Return True for a further value of an option: ``NAME=VALUE`` of the teacher's options, else a number."""
    if option == "--teacher-options":
        return "=" in word and not word.startswith("-")
    return re.fullmatch(r"\d+\.?\d*(e\d+)?|\.\d+", word) is not None


_COMMANDS: Mapping[str, dict[str, Any]] = {
    "data": {},
    "train": {"cls": _WithLists},
    "learn": {"cls": _WithLists},
    "sample": {"cls": _WithLists},
    "evaluate": {},
    "check": {},
    "select": {},
    "relax": {},
    "md": {"cls": _WithRepeat},
    "spectrum": {},
    "dielectric": {},
    # LAMMPS may know the arguments that the command does not
    "lammps": {"context_settings": {"allow_extra_args": True, "ignore_unknown_options": True}},
    "serve": {},
    "info": {},
    "models": {},
    "compile": {},
    "paper": {},
}
"""Commands in the order of `--help`, with the settings of `Typer.command`."""


class _Commands(TyperGroup):
    """Group of commands, each imported when it is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=_summary(name)) for name in _COMMANDS}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command itself instead of its entry in the list, which has a summary and no options."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else _imported(name), rest


def _imported(name: str) -> Any:
    """Import the module of a command and return the command."""
    function = getattr(import_module(f"{__name__}.{name}"), name)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, help=_unwrapped(function.__doc__), **_COMMANDS[name])(function)
    return typer.main.get_command(single)


def _unwrapped(docstring: str) -> str:
    """Join the lines of each paragraph; the help of a command is wrapped at the width of the terminal."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


def _summary(name: str) -> str:
    """Return the first paragraph of a command's docstring without importing its module."""
    spec: Any = find_spec(f"{__name__}.{name}")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return _unwrapped(ast.get_docstring(function) or "").partition("\n\n")[0]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"lrc-ase {lrc_ase.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options of `lrc-ase` itself, in front of a command."""


app = typer.Typer(
    name="lrc-ase",
    help="Machine-learned force fields with long-range electrostatics for ASE: train on your frames, then relax and "
    "simulate.",
    epilog="First steps: lrc-ase data frames.extxyz, then lrc-ase train frames.extxyz -o run, then lrc-ase md run "
    "start.cif --temperature 300. Each command shows its options and an example with --help.",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    callback=_options,
)

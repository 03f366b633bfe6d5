"""Write every command of ``lrc-ase`` with its arguments and options into the reference, from the Typer application."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx
from typer.main import get_command

from lrc_ase.cli import app

PAGE, PLACE = "reference/commands", "<!-- commands: written when the site is built -->"


def insert(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the sections of all commands into their page; the build fails where an option lacks its description."""
    if page == PAGE:
        source[0] = source[0].replace(PLACE, "\n".join(command_pages()))


def command_pages() -> Iterator[str]:
    """Yield Markdown for all commands, in the order of ``lrc-ase --help``."""
    group = get_command(app)
    context = group.make_context("lrc-ase", ["data"], resilient_parsing=True)
    for name in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [name])
        yield from command_lines(name, command, context)


def command_lines(name: str, command: Any, context: Any) -> Iterator[str]:
    """Yield the section of a command: usage, description, arguments, then options by panel of its help."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    usage = " ".join(["lrc-ase", name, *(placeholder(each) for each in arguments), "[OPTIONS]"])
    description, _, example = command.help.partition("Example: ")
    yield from (f"## lrc-ase {name}", "", "```bash", usage, "```", "", code_in(description), "")
    yield from ("For example:", "", "```bash", example.strip(), "```", "")
    if arguments:
        yield from table("argument", [(f"`{placeholder(each)}`", each) for each in arguments], name)
    panels: dict[str, list[Any]] = {"": []}
    for option in options:
        panels.setdefault(getattr(option, "rich_help_panel", None) or "", []).append(option)
    for panel, members in panels.items():
        if members:
            yield from table(
                panel.lower() or "option", [(f"`{spelling(each, context)}`", each) for each in members], name
            )


def table(kind: str, rows: list[tuple[str, Any]], command: str) -> Iterator[str]:
    """Yield a table of arguments or options; ValueError names one without a description."""
    yield from (f"| {kind} | meaning |", "|---|---|")
    for label, parameter in rows:
        text = getattr(parameter, "help", None)
        if not text:
            raise ValueError(f"{label} of `lrc-ase {command}` has no description: give it `help=`")
        yield f"| {escaped(label)} | {escaped(code_in(text))} {default(parameter)} |"
    yield ""


def placeholder(argument: Any) -> str:
    """Return how an argument stands in the line of usage."""
    return argument.metavar or argument.name.upper()


def spelling(option: Any, context: Any) -> str:
    """Return the names of an option with the placeholder of its value."""
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    return f"{names} {option.metavar or option.display_type(context)}"


def default(parameter: Any) -> str:
    """Return a sentence with the default; nothing where it is off, derived, or said by the description."""
    value = parameter.default
    if value is None or value is False or value == () or callable(value):
        return ""
    return f"Default: `{getattr(value, 'value', value)}`."


def code_in(text: str) -> str:
    """Return help text in Markdown: options such as --resume become code, unless they stand in code already.

    >>> code_in("Longer if --epochs, or `md --skip 2`.")
    'Longer if `--epochs`, or `md --skip 2`.'
    """
    return re.sub(r"`[^`]*`|--[a-z][a-z-]*", lambda match: f"`{match[0].strip('`')}`", text)


def escaped(cell: str) -> str:
    """Return the text of a cell of a table."""
    return " ".join(cell.split()).replace("|", "\\|")


def setup(app: Sphinx) -> dict[str, Any]:
    """Insert when the page is read."""
    app.connect("source-read", insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

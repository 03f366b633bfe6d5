"""Prose that users and developers read has short sentences and none of the habits of our first version."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from typer.main import get_command

from lrc_ase.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "AGENTS.md")),
    *(
        page
        for page in sorted((ROOT / "docs").rglob("*.md"))
        if page.name != "accuracy.md" and "paper" not in page.parts
    ),
]
LONG = 30
"""Words of a long sentence."""
MOST_LONG = 0.05
"""Largest share of long sentences in all pages together."""
LONGEST_AVERAGE = 20.0
DIALECT = {
    r"\bone's own\b": "your own; an own ... of the user",
    r"\bas they come\b": "unchanged; the default",
    r"\btold once\b": "warned about once",
    r"\bgo(?:es)? by (?:pairs|autograd|way)\b": "uses",
    r"\bat will\b|\bof late\b": "plain words",
    r"\bnone is there\b|\bis there for\b|\bthere for\b": "exists for; available for",
    r"\bWhat [^.?:;]* (?:has|have|do|does) not\b": "a sentence with a noun as its subject",
    r"\bpays\b|\bto be of use\b": "is worth it; helps",
    r"\bin short also\b|\bbesides\b|\bnothing else\b$": "also",
    r"\banew\b": "again",
    r"\bbeforehand\b": "in advance",
    r"\ba few percent of the forces' accuracy\b": "forces become a few percent less accurate",
    r"\blearned? by heart\b": "memorized; overfitted",
}
"""Words and turns of our first version, each with what to write instead."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose_of(text: str) -> str:
    """Return a page without code, tables, headings, formulas, comments and targets of links."""
    text = re.sub(r"^(`{3,}|:{3,}).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->|\$\$.*?\$\$", "", text, flags=re.DOTALL)
    text = re.sub(r"^(?:\||#|    |!\[).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    return re.sub(r"`[^`]*`|\$[^$\n]*\$", "code", text)


def sentences_of(text: str) -> Iterator[str]:
    """Yield the sentences of prose; items of a list and paragraphs end one too."""
    for paragraph in re.split(r"\n\s*\n|\n\s*(?:[-*:]|\d+\.) ", prose_of(text)):
        for sentence in re.split(r"(?<=[.!?:;])[\s)]+(?=[A-Z`*\[(\"']|code)", " ".join(paragraph.split())):
            if len(sentence.split()) > 2:
                yield sentence


def n_words(sentence: str) -> int:
    return len(re.findall(r"[\w'^/.-]*\w", sentence))


def test_sentences_are_short():
    lengths = [n_words(sentence) for page in PAGES for sentence in sentences_of(page.read_text(encoding="utf-8"))]
    assert sum(lengths) / len(lengths) < LONGEST_AVERAGE
    assert sum(length > LONG for length in lengths) < MOST_LONG * len(lengths)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_avoid_the_dialect(page):
    assert not dialect_in(prose_of(page.read_text(encoding="utf-8")))


def dialect_in(text: str) -> dict[str, str]:
    """Return the turns of our first version in a text, with what to write instead."""
    matches = {pattern: re.search(pattern, text, re.MULTILINE) for pattern in DIALECT}
    return {match[0]: DIALECT[pattern] for pattern, match in matches.items() if match}


def help_texts() -> dict[str, str]:
    """Return the description of every command, argument and option."""
    group = get_command(app)
    texts = {}
    for name in group.commands:
        _, command, _ = group.resolve_command(group.make_context("lrc-ase", [name], resilient_parsing=True), [name])
        texts[name] = command.help
        texts |= {f"{name} {each.name}": each.help for each in command.params if getattr(each, "help", None)}
    return texts


def test_help_texts_avoid_the_dialect():
    assert not {name: dialect_in(text) for name, text in help_texts().items() if dialect_in(text)}


def public_docstrings() -> dict[str, str]:
    """Return the docstrings that the Python reference shows, by the name of the object."""
    modules = [
        import_module(name) for name in ("lrc_ase", "lrc_ase.training", "lrc_ase.evaluation", "lrc_ase.simulation")
    ]
    objects = {name: getattr(module, name) for module in modules for name in module.__all__}
    return {name: inspect.getdoc(each) or "" for name, each in objects.items() if callable(each)}


def test_public_docstrings_avoid_the_dialect_and_have_short_sentences():
    texts = public_docstrings()
    assert len(texts) > 60
    assert not {name: dialect_in(text) for name, text in texts.items() if dialect_in(text)}
    lengths = [n_words(sentence) for text in texts.values() for sentence in sentences_of(text)]
    assert sum(length > LONG for length in lengths) < MOST_LONG * len(lengths)


def test_the_rules_see_what_they_forbid():
    assert dialect_in("Settings as they come.") == {"as they come": "unchanged; the default"}
    assert not dialect_in("Use the default settings.")
    assert [
        n_words(each) for each in sentences_of("One two three. Four five six seven.\n\n| a table | of words |")
    ] == [3, 4]

"""A one-page report as a single HTML file, with pictures inside and nothing loaded from the network."""

from __future__ import annotations

import base64
import os
import platform
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Literal

import jinja2
import torch

from lrc_ase.files.atomic import write_atomically
from lrc_ase.files.counted import counted
from lrc_ase.files.hardware import processor_name
from lrc_ase.files.printable import printable

__all__ = ["Picture", "Report", "Section", "Table", "environment", "write_report"]

_SCALE = 0.62
"""CSS pixels per pixel of a picture."""
_HALF_PAGE = 560
"""Width of half a page, CSS pixels."""
PACKAGES = ("lrc-ase", "torch", "numpy", "scipy", "ase", "matscipy")
"""Packages whose versions a report names."""


@dataclass(frozen=True)
class Table:
    """Table of text with a title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    ends_in_text: bool = False
    """True if the last column holds sentences instead of numbers."""
    marks: Mapping[str, Literal["good", "bad"]] = field(default_factory=dict)
    """Color of cells by their text."""


@dataclass(frozen=True)
class Picture:
    """PNG file with a title and a caption that says what to look for."""

    path: Path
    title: str
    caption: str = ""

    @property
    def width(self) -> int:
        """Return the width on the page in CSS pixels, at which letters are as large as those of the text."""
        with self.path.open("rb") as file:
            (pixels,) = struct.unpack(">I", file.read(20)[16:])  # in the header of a PNG file
        return round(_SCALE * pixels)

    @property
    def is_wide(self) -> bool:
        """Return True if the picture needs more than half the width of the page."""
        return self.width > _HALF_PAGE


@dataclass(frozen=True)
class Section:
    """Part of a report: sentences, then tables, then pictures."""

    title: str
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()

    @property
    def is_empty(self) -> bool:
        """Return True if the section has neither sentences nor tables nor pictures."""
        return not (self.sentences or self.tables or self.pictures)


@dataclass(frozen=True)
class Report:
    """Content of a page, from top to bottom."""

    title: str
    sections: Sequence[Section]
    configuration: str = ""
    """Configuration as YAML text."""
    environment: Mapping[str, str] | None = None
    """Versions and hardware; None describes this machine."""


def environment() -> dict[str, str]:
    """Return versions and hardware of this machine."""
    described = {}
    for package in PACKAGES:
        try:
            described[package] = version(package)
        except PackageNotFoundError:
            continue
    described["Python"] = platform.python_version()
    described["system"] = f"{platform.system()} {platform.machine()}"
    threads = counted(torch.get_num_threads(), "thread of torch")
    described["processor"] = f"{processor_name()}, {counted(os.cpu_count() or 1, 'core')}, {threads}"
    if torch.cuda.is_available():
        described["GPU"] = torch.cuda.get_device_name()
    return described


def write_report(report: Report, path: str | Path) -> None:
    """Render `report` to the HTML file `path`."""
    source = (files("lrc_ase.report") / "page.html.j2").read_text(encoding="utf-8")
    # names of files and stages are text, never markup: everything is escaped, and control characters are made visible
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page.filters |= {"image": _encoded, "lines": _printable_lines}
    template = page.from_string(source)
    text = template.render(
        report=report,
        sections=[section for section in report.sections if not section.is_empty],
        environment=environment() if report.environment is None else report.environment,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_atomically(path, text.encode())


def _encoded(path: Path) -> str:
    """Return the content of a picture in base64, as a page can hold it."""
    return base64.b64encode(path.read_bytes()).decode()


def _printable_lines(text: object) -> str:
    r"""Return text with its line breaks, other control characters made visible.

    >>> _printable_lines("Force RMSE\nmeV/A\x1b[2J")
    'Force RMSE\nmeV/A\\x1b[2J'
    """
    return "\n".join(printable(line) for line in str(text).split("\n"))

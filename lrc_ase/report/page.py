"""A one-page report as a single HTML file: tables, plots, configuration, versions and hardware, nothing loaded."""

from __future__ import annotations

import base64
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

import jinja2
import torch

from lrc_ase.files.atomic import write_atomically

__all__ = ["Report", "Table", "environment", "write_report"]

PACKAGES = ("lrc-ase", "torch", "numpy", "scipy", "ase", "matscipy")


@dataclass(frozen=True)
class Table:
    """A table of text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Report:
    """What a report shows, in this order."""

    title: str
    summary: Sequence[str] = ()
    """Sentences at the top."""
    tables: Sequence[Table] = ()
    figures: Mapping[str, str | Path] = field(default_factory=dict)
    """PNG files by caption."""
    configuration: str = ""
    """Text of the configuration, as it would be read back."""
    environment: Mapping[str, str] | None = None
    """Versions and hardware; None looks at this machine."""


def environment() -> dict[str, str]:
    """Versions and hardware of this machine."""
    described = {}
    for package in PACKAGES:
        try:
            described[package] = version(package)
        except PackageNotFoundError:
            continue
    described["Python"] = platform.python_version()
    described["system"] = f"{platform.system()} {platform.machine()}"
    described["processor"] = f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"
    if torch.cuda.is_available():
        described["GPU"] = torch.cuda.get_device_name()
    return described


def write_report(report: Report, path: str | Path) -> None:
    """Render `report` to the HTML file `path`."""
    source = (files("lrc_ase.report") / "page.html.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    images = {
        caption: base64.b64encode(Path(figure).read_bytes()).decode() for caption, figure in report.figures.items()
    }
    text = template.render(
        report=report,
        images=images,
        environment=environment() if report.environment is None else report.environment,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_atomically(path, text.encode())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"

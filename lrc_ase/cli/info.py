"""``lrc-ase info``: what a potential file holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from lrc_ase.cli.console import DebugOption, PotentialArgument, console, one_line_errors
from lrc_ase.files.potential_file import load_potential
from lrc_ase.files.pretrained import find_potential

__all__ = ["info"]


@one_line_errors
def info(potential: PotentialArgument, debug: DebugOption = False) -> None:
    """Show what a potential file holds."""
    file = find_potential(potential)
    loaded = load_potential(file)
    settings = loaded.settings
    parameters = list(loaded.model.parameters())
    table = Table(title=str(potential), show_header=False)
    table.add_row("model", "short-range" if settings.long_range is None else "full-range")
    if loaded.n_members > 1:
        table.add_row("members of the ensemble", str(loaded.n_members))
    table.add_row("parameters", f"{sum(parameter.numel() for parameter in parameters)} ({parameters[0].dtype})")
    table.add_row("file size", f"{file.stat().st_size / 1024:.0f} KiB")
    energies = zip(settings.elements, loaded.references.tolist(), strict=True)
    table.add_row("element references", ", ".join(f"{element} {energy:.4f} eV" for element, energy in energies))
    for name, value in flat(settings.model_dump(mode="json")):
        table.add_row(name, value)
    for name, value in flat(loaded.description):
        table.add_row(name, value)
    console.print(table)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and values of nested mappings.

    >>> list(flat({"cutoff": 5.0, "descriptor": {"name": "sphere"}}))
    [('cutoff', '5.0'), ('descriptor.name', 'sphere')]
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(str(item) for item in value)
        elif isinstance(value, float):
            yield f"{prefix}{name}", f"{value:.6g}" if value != round(value, 1) else str(value)
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value)

"""``lrc-ase info``: content of a potential file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lrc_ase.cli.console import DebugOption, JsonOption, PotentialArgument, one_line_errors
from lrc_ase.cli.printed_tables import show_rows

__all__ = ["info"]

_UNITS = {
    "cutoff": "Angstrom",
    "baseline.zbl.ranges": "Angstrom",
    "energy_scale": "eV",
    "long_range.smearing": "Angstrom",
    "descriptor.inverse_mean": "1/Angstrom",
    "descriptor.inverse_deviation": "1/Angstrom",
    "descriptor.distance_mean": "Angstrom",
    "descriptor.distance_deviation": "Angstrom",
    "training_domain.shortest_distances": "Angstrom",
    "training_domain.total_charges": "e",
    "training_domain.largest_force": "eV/Angstrom",
    "calibration.forces_floor": "eV/Angstrom",
    "rotation_error.energy": "eV/atom",
    "rotation_error.forces": "eV/Angstrom",
}
"""Units of settings and description, by dotted name or the beginning of one; the others have none."""


@one_line_errors
def info(potential: PotentialArgument, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Show the content of a potential file: model, size, settings and training.

    Example: lrc-ase info run
    """
    from lrc_ase.files.potential_file import load_potential
    from lrc_ase.files.pretrained import find_potential
    from lrc_ase.files.strict_json import json_text

    file = find_potential(potential)
    loaded = load_potential(file)
    settings = loaded.settings
    parameters = list(loaded.model.parameters())
    precision = str(parameters[0].dtype).removeprefix("torch.")
    energies = list(zip(settings.elements, loaded.references.tolist(), strict=True))
    if as_json:
        content = {
            "file": str(file),
            "digest": loaded.digest(),
            "n_parameters": sum(parameter.numel() for parameter in parameters),
            "n_members": loaded.n_members,
            "dtype": precision,
            "element_references": dict(energies),
            "settings": settings.model_dump(mode="json"),
            "description": loaded.description,
        }
        print(json_text(content), end="")
        return
    rows = [
        ("model", "short-range" if settings.long_range is None else "full-range"),
        *([("members of the ensemble", str(loaded.n_members))] if loaded.n_members > 1 else []),
        ("parameters", f"{sum(parameter.numel() for parameter in parameters)} ({precision})"),
        ("file size", f"{file.stat().st_size / 1024:.0f} KiB"),
        ("element references", ", ".join(f"{element} {energy:.4f} eV" for element, energy in energies)),
        *flat(settings.model_dump(mode="json")),
        *flat(loaded.description),
    ]
    show_rows(str(file), rows)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted names and the values of nested mappings, with units; leave out what is not a number.

    >>> list(flat({"cutoff": 5.0, "descriptor": {"name": "sphere"}, "validation": {"energy_mae": 0.25}}))
    [('cutoff', '5.0 Angstrom'), ('descriptor.name', 'sphere'), ('validation.energy_mae', '0.25 meV/atom')]
    >>> list(flat({"errors": {"training": {"forces_rmse": 9.5, "stress_rmse": float("nan")}}}))
    [('errors.training.forces_rmse', '9.5 meV/Angstrom')]
    >>> list(flat({"baseline": [{"name": "zbl", "ranges": {"H-O": 0.8466867}}], "n_frames": 90.0}))
    [('baseline', 'zbl'), ('baseline.zbl.ranges.H-O', '0.846687 Angstrom'), ('n_frames', '90')]
    """
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
            continue
        items = value if isinstance(value, (list, tuple)) else [value]
        if items and all(isinstance(item, Mapping) and "name" in item for item in items):
            for item in items:
                yield name, str(item["name"])
                yield from flat({k: v for k, v in item.items() if k != "name"}, f"{name}.{item['name']}.")
            continue
        if key.startswith("n_"):
            items = [round(item) if isinstance(item, float) and item.is_integer() else item for item in items]
        if any(isinstance(item, float) and math.isnan(item) for item in items):  # errors of labels that no frame had
            continue
        unit = _unit(name) if items and all(_is_number(item) for item in items) else ""
        yield name, (", ".join(_text(item) for item in items) or "none") + unit


def _unit(name: str) -> str:
    """Return the unit of a setting after a space, nothing for a number without unit."""
    from lrc_ase.evaluation.error_tables import ERROR_UNITS

    group, _, key = name.partition(".")
    quantity, _, kind = key.rpartition(".")[2].rpartition("_")
    if group in ("validation", "errors") and kind in ("mae", "rmse") and quantity in ERROR_UNITS:
        return f" {ERROR_UNITS[quantity].ascii}"
    return next((f" {unit}" for start, unit in _UNITS.items() if f"{name}.".startswith(f"{start}.")), "")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    """Return a value as text, numbers with six digits."""
    if isinstance(value, float):
        return f"{value:.6g}" if value != round(value, 1) else str(value)
    return "none" if value is None else str(value)

"""Options that name the labels of frames, the same for all commands that read frames."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from lrc_ase.dataset import LabelKeys

__all__ = ["with_label_options"]

_PANEL = "Names of labels"
_OPTIONS = {
    "energy": ("energy_key", "Name of the total energy, eV; common names if not given."),
    "forces": ("forces_key", "Name of the forces, eV/Angstrom."),
    "stress": ("stress_key", "Name of the stress, eV/Angstrom^3, positive in tension."),
    "virial": ("virial_key", "Name of the virial, eV; stress = -virial / volume."),
    "charge": ("charge_key", "Name of the total charge, e."),
    "dipole": ("dipole_key", "Name of the dipole about the origin of the coordinates, e Angstrom."),
    "born_effective_charges": (
        "born_key",
        "Name of the Born effective charges, e, polarization first, displacement second.",
    ),
    "polarizability": ("polarizability_key", "Name of the polarizability, e^2 Angstrom^2/eV."),
}
"""Keyword of the option and help text for each field of `LabelKeys`; the command line turns `_` into `-`."""


def with_label_options(*labels: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that replaces the parameter `keys` of a command by one option for each label.

    The command receives what the options name as `LabelKeys`. Without arguments there is an option for every label.
    ValueError is raised at the call if stress and virial are both named.
    """
    chosen = labels or tuple(_OPTIONS)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapped(**arguments: Any) -> None:
            keys = {label: arguments.pop(_OPTIONS[label][0]) for label in chosen}
            if keys.get("stress") is not None and keys.get("virial") is not None:
                raise ValueError(
                    "give --stress-key or --virial-key, not both: a virial is read as stress = -virial / volume"
                )
            command(**arguments, keys=LabelKeys(**keys))

        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            parameters += [_parameter(label) for label in chosen] if parameter.name == "keys" else [parameter]
        # Typer passes all arguments by name
        by_name = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        wrapped.__signature__ = signature.replace(parameters=by_name)  # type: ignore[attr-defined]
        return wrapped

    return decorate


def _parameter(label: str) -> inspect.Parameter:
    """Return the parameter that Typer shows as the option of a label."""
    keyword, text = _OPTIONS[label]
    option = typer.Option(f"--{keyword.replace('_', '-')}", help=text, rich_help_panel=_PANEL)
    return inspect.Parameter(
        keyword, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )

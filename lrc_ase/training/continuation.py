"""Training that starts from a potential: model settings taken from the potential."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lrc_ase.files.potential_file import Potential
from lrc_ase.models.settings import BaselineSettings, ZBLSettings
from lrc_ase.training.configuration import ConfigurationError, ModelConfiguration, TrainingConfiguration

__all__ = ["continued", "differences", "with_cutoff_of"]

_LEARNING_RATE = 1e-3
"""Default step size: a quarter of that of untrained models, see the section on pretraining in the accuracy notebook."""


def with_cutoff_of(configuration: TrainingConfiguration, start: Potential) -> TrainingConfiguration:
    """Return the configuration with the cutoff of the potential, unless the configuration sets a cutoff."""
    if "cutoff" in configuration.model.model_fields_set:
        return configuration
    return configuration.model_copy(
        update={"model": configuration.model.model_copy(update={"cutoff": start.settings.cutoff})}
    )


def continued(configuration: TrainingConfiguration, start: Potential, elements: Sequence[str]) -> TrainingConfiguration:
    """Return the configuration with the model of the potential `start`, extended by new `elements` at the end.

    Stages whose step size is not set take smaller steps than from untrained weights.

    Raises
    ------
    ConfigurationError
        The configuration sets a key of the model to another value than that of the potential, or asks for a short-range
        model where the potential is full-range.
    """
    settings = start.settings
    every = settings.elements + tuple(element for element in elements if element not in settings.elements)
    long_range = settings.long_range or configuration.model.long_range or None
    model = ModelConfiguration.model_validate(
        settings.model_dump()
        | {
            "elements": every,
            "long_range": long_range,
            "baseline": _with_ranges(settings.baseline, configuration.model.baseline),
        }
    )
    # only keys that were set: defaults yield to the potential
    requested = configuration.model.model_dump(exclude_unset=True)
    if changed := sorted(differences(requested, model.model_dump(), "model")):
        raise ConfigurationError(
            f"with `start` the model is that of the potential, which differs in {', '.join(changed[:5])}: "
            "leave these keys and `--model` out, or train from the beginning"
        )
    if settings.long_range is not None and any(stage.model == "short-range" for stage in configuration.stages):
        raise ConfigurationError("a stage is short-range but the potential in `start` is full-range")
    n_members = start.n_members if configuration.ensemble == 1 else configuration.ensemble
    stages = tuple(
        stage
        if "learning_rate" in stage.model_fields_set
        else stage.model_copy(update={"learning_rate": _LEARNING_RATE})
        for stage in configuration.stages
    )
    return configuration.model_copy(update={"model": model, "ensemble": n_members, "stages": stages})


def differences(requested: Any, stored: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted keys in which a dumped configuration differs from the resolved `stored`; null agrees."""
    if requested is None or requested == stored:
        return
    if isinstance(requested, Mapping) and isinstance(stored, Mapping):
        for key in requested.keys() | stored.keys():
            yield from differences(requested.get(key), stored.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(requested, tuple) and isinstance(stored, tuple) and len(requested) == len(stored):
        for index, (one, other) in enumerate(zip(requested, stored, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
    else:
        yield path


def _with_ranges(
    baselines: Sequence[BaselineSettings], requested: Sequence[BaselineSettings]
) -> list[BaselineSettings]:
    """Return the baselines of a potential with ranges that a configuration sets, as one does that is resumed.

    Ranges are limits, which training shortens. They do not change what the model has learned.
    """
    ranges = {
        pair: value
        for each in requested
        if isinstance(each, ZBLSettings)
        for pair, value in (each.ranges or {}).items()
    }
    return [
        each.model_copy(update={"ranges": (each.ranges or {}) | ranges}) if isinstance(each, ZBLSettings) else each
        for each in baselines
    ]

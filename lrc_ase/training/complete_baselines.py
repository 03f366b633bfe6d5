"""Numbers of the baselines that a configuration leaves open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lrc_ase.models.baselines import damping_parameters, ranges_from_data
from lrc_ase.models.settings import BaselineSettings, ZBLSettings
from lrc_ase.training.configuration import ModelConfiguration

__all__ = ["complete_baselines"]


def complete_baselines(
    model: ModelConfiguration, elements: Sequence[str], shortest: Mapping[str, float]
) -> tuple[BaselineSettings, ...]:
    """Return the baselines of a model with ranges of all pairs and parameters of the functional.

    `shortest` holds the shortest distances in the training frames, Angstrom, by pairs as ``"Na-Cl"``.
    """
    complete: list[BaselineSettings] = []
    for each in model.baseline:
        if isinstance(each, ZBLSettings):
            ranges = ranges_from_data(each.ranges, elements, shortest, model.cutoff)
            complete.append(each.model_copy(update={"ranges": ranges}))
        else:
            parameters = each.parameters
            if parameters is None:
                parameters = damping_parameters(each.functional, each.damping, three_body=each.three_body)
            complete.append(each.model_copy(update={"parameters": parameters}))
    return tuple(complete)
